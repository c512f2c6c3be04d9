"""What lies beyond a plan's end, coarse to fine, and later decisions held longer."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import FakeEnv, FakeModel, frames
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from agents import Cem, CemConfig, RandomShooting, RandomShootingConfig, SmallCnn, critic
from agents.imagination import Imagination
from agents.planners.coarse import coarse_to_fine

CNN = {"features_extractor_class": SmallCnn, "net_arch": [8]}


def grey(observations: np.ndarray) -> np.ndarray:
    """The level that a frame shows."""
    assert observations.dtype == np.uint8 and observations.shape[1:] == (32, 32, 3)
    return observations[:, -1, -1, 0] / 10


def rendered(model: FakeModel) -> int:
    """Frames that the model was asked for."""
    return sum(
        worlds.shape[0] * worlds.shape[1] * queries.actions.shape[1] * queries.times.shape[1]
        for worlds, queries, frames in model.asked
        if frames and queries.actions is not None
    )


# -- in the score ---------------------------------------------------------------------------------


def test_the_value_counts_where_the_plan_ends_while_alive() -> None:
    model = FakeModel(goal=7)
    imagination = Imagination(model)
    imagination.reset(frames(2))
    plans = np.array([[[2, 2, 2], [0, 3, 2], [3, 3, 3]]])
    scores = imagination.score(imagination.worlds(2), plans, discount=0.5, value=grey)
    # levels 6 and 5 three steps on; 9 ends the episode, so nothing follows
    expected = [1 + 0.5 + 0.25 + 6 / 8, 0.25 + 5 / 8, 0.0]
    torch.testing.assert_close(scores, torch.tensor([expected]))
    assert rendered(model) == 2 * 3


@pytest.mark.parametrize("stride", [1, 3])
def test_the_value_is_that_of_the_last_step_that_counts(stride: int) -> None:
    """Of each row where its window ends, in whole strides."""
    model = FakeModel()
    model.stride = stride
    imagination = Imagination(model)
    imagination.reset(frames(0, 0))
    imagination.observe(np.zeros((1, 8), np.int64), frames(0), rows=[1])
    plans = np.ones((2, 1, 8), np.int64)
    worlds = imagination.worlds(1)
    scores = imagination.score(worlds, plans, discount=0.5, value=grey)[:, 0]
    steps = (8, 4) if stride == 1 else (6, 3)
    assert scores.tolist() == [n / 2**n for n in steps]


def test_the_value_is_told_to_the_worlds_that_risk_counts() -> None:
    """Each world's share is sorted with what follows it."""
    imagination = Imagination(FakeModel(seen=False), seed=1)
    imagination.reset(frames(0))
    worlds = imagination.worlds(40)
    plans = np.arange(4).reshape(1, 4, 1)

    def corner(observations: np.ndarray) -> np.ndarray:
        return -10.0 * (observations[:, 0, 0, 0] == 3)  # worlds that want 3 end badly

    wants = (worlds.state["wanted"] == 3).sum().item()
    assert 4 < wants < 20
    scores = imagination.score(worlds, plans, risk=4 / 40, value=corner)
    torch.testing.assert_close(scores, torch.tensor([[-10.0, -10.0, -10.0, -9.0]]))


def test_the_value_does_not_depend_on_chunks() -> None:
    plans, scores = np.random.default_rng(0).integers(0, 4, (2, 9, 5)), []
    for chunk in (2**15, 100, 1):
        imagination = Imagination(FakeModel(), chunk=chunk)
        imagination.reset(frames(1, 3))
        scores.append(imagination.score(imagination.worlds(2), plans, 0.9, value=grey))
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda seen: np.zeros((len(seen), 1)), r"one number for each of 6 .*\(6, 1\)"),
        (lambda seen: 0.0, "one number"),
        (lambda seen: np.full(len(seen), np.nan), "NaN"),
    ],
)
def test_a_bad_value_is_told(value: Any, message: str) -> None:
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=3, worlds=2), value)
    with pytest.raises(ValueError, match=f"value: .*{message}"):
        planner.predict(frames(0))


def test_a_planner_prefers_what_is_worth_more_later() -> None:
    def high(observations: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(grey(observations))

    config = RandomShootingConfig(plans=32, horizon=1)
    assert RandomShooting(FakeModel(), config).predict(frames(1, 2))[0].tolist() == [1, 2]
    assert RandomShooting(FakeModel(), config, high).predict(frames(1, 2))[0].tolist() == [3, 3]


# -- coarse to fine -------------------------------------------------------------------------------


def test_what_was_not_scored_in_full_never_wins_and_keeps_its_order() -> None:
    cheap = torch.tensor([[9.0, 3.0, 8.0, 7.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    plans = torch.arange(10).view(2, 5)
    full = {0: -4.0, 2: -5.0, 5: 10.0, 6: 11.0}

    def fine(chosen: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[full[int(plan)] for plan in row] for row in chosen])

    scores = coarse_to_fine(plans, cheap, 0.4, fine)
    assert scores[0, [0, 2]].tolist() == [-4.0, -5.0]
    assert scores[1].tolist() == [10.0, 11.0, 3.0, 2.0, 1.0]  # these lie below as they are
    others = scores[0, [3, 1, 4]]
    assert (others < -5).all()
    torch.testing.assert_close(others, torch.tensor([-5.0, -9.0, -11.0]))
    alone = coarse_to_fine(plans, torch.zeros(2, 5), 0.01, lambda chosen: torch.zeros(2, 1))
    assert ((alone == 0).sum(1) == 1).all() and (alone <= 0).all()
    assert torch.equal(coarse_to_fine(plans, cheap, 1.0, lambda chosen: chosen * 0.5), plans * 0.5)


@pytest.mark.parametrize(("kind", "config"), [(RandomShooting, RandomShootingConfig), (Cem, None)])
def test_only_finalists_are_rendered_and_meet_all_worlds(kind: Any, config: Any) -> None:
    model = FakeModel(seen=False)
    config = CemConfig if config is None else config
    settings = {"plans": 40, "worlds": 6, "coarse": 2, "finalists": 0.1, "horizon": 2}
    planner = kind(model, config(**settings), grey)
    planner.predict(frames(0, 0))
    rounds = getattr(planner.config, "iterations", 1)
    assert rendered(model) == rounds * 2 * 6 * 4
    counted = [(worlds.shape[1], queries.actions.shape[1]) for worlds, queries, _ in model.asked]
    assert set(counted) == {(2, 40), (6, 4)}
    shared = {worlds.state["wanted"].untyped_storage().data_ptr() for worlds, _, _ in model.asked}
    assert len(shared) == 1  # the same worlds, or some of them


# -- later decisions ------------------------------------------------------------------------------


def test_later_decisions_are_held_longer() -> None:
    model = FakeModel()
    config = RandomShootingConfig(plans=300, worlds=1, horizon=4, hold=2, hold_later=4)
    planner = RandomShooting(model, config)
    planner.predict(frames(1))
    assert planner.last is not None and planner.last.actions.shape == (1, 300, 4)
    asked = model.asked[-1][1].actions
    assert asked is not None and asked.shape == (1, 300, 12)  # 14 steps, cut at the window
    plans = torch.as_tensor(planner.last.actions)
    assert torch.equal(asked, plans.repeat_interleave(torch.tensor([2, 4, 4, 4]), 2)[:, :, :12])
    assert planner.last.chosen.tolist() == [[1, 1, 1, 1]]
    assert planner.last.scores.max() == 12


def test_the_window_leaves_as_many_decisions_as_fit() -> None:
    settings = {"plans": 4, "horizon": 3, "hold": 2}
    for later, expected in ((4, [3, 3, 3, 2, 2, 1]), (2, [3, 3, 3, 3, 2, 1]), (1, [3] * 5 + [1])):
        config = RandomShootingConfig(hold_later=later, **settings)
        planner = RandomShooting(FakeModel(), config)
        state, lengths = None, []
        for _ in range(6):
            _, state = planner.predict(frames(1), state)
            assert planner.last is not None
            lengths.append(planner.last.actions.shape[2])
        assert lengths == expected


def test_a_window_always_leaves_a_stride() -> None:
    model = FakeModel()
    model.stride = 3
    planner = RandomShooting(model, RandomShootingConfig(plans=64, horizon=2, hold_later=5))
    state = None
    for _ in range(15):
        action, state = planner.predict(frames(2), state)
        assert int(action[0]) == 2
    with pytest.raises(ValueError, match="plans of 2 steps, but the model takes 3"):
        RandomShooting(model, RandomShootingConfig(horizon=2))


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="warm_start: expected False"):
        CemConfig(hold=2, hold_later=4)
    CemConfig(hold=2, hold_later=2)
    for bad in ({"hold_later": 0}, {"coarse": 0}, {"coarse": 5, "worlds": 4}, {"finalists": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            RandomShootingConfig(**bad)


# -- critics --------------------------------------------------------------------------------------


def small(kind: Any, env: Any, policy: str = "CnnPolicy", **settings: Any) -> Any:
    kwargs = CNN if policy == "CnnPolicy" else {"net_arch": [8]}
    return kind(policy, env, policy_kwargs=kwargs, seed=0, **settings)


def test_the_critic_of_ppo() -> None:
    agent = small(PPO, FakeEnv(), n_steps=8, batch_size=8)
    seen = frames(0, 1, 2, 3)
    values = critic(agent)(seen)
    with torch.no_grad():
        images = torch.as_tensor(seen.transpose(0, 3, 1, 2).copy())
        expected = agent.policy.predict_values(images).flatten()
    assert values.shape == (4,) and not values.requires_grad
    torch.testing.assert_close(values, expected)
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=8), critic(agent))
    planner.predict(seen)


def test_the_best_q_value_of_dqn() -> None:
    env = gym.make("CartPole-v1")
    agent = small(DQN, env, "MlpPolicy", buffer_size=10)
    seen = np.stack([env.reset(seed=i)[0] for i in range(3)])
    with torch.no_grad():
        expected = agent.q_net(torch.as_tensor(seen)).max(1).values
    torch.testing.assert_close(critic(agent)(seen), expected)
    assert critic(agent)(seen.astype(np.float64)).shape == (3,)


def test_critics_that_cannot_be_asked() -> None:
    with pytest.raises(TypeError, match="got SAC"):
        critic(small(SAC, gym.make("Pendulum-v1"), "MlpPolicy", buffer_size=10))
    with pytest.raises(TypeError, match="got NoneType"):
        critic(None)
    make = [lambda: gym.make("CartPole-v1")]
    with pytest.raises(ValueError, match="VecNormalize"):
        critic(small(PPO, VecNormalize(DummyVecEnv(make)), "MlpPolicy", n_steps=8, batch_size=8))
    stacked = small(PPO, VecFrameStack(DummyVecEnv([FakeEnv]), 4), n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="frame_stack=1"):
        critic(stacked)(frames(0))
    plain = small(PPO, DummyVecEnv(make), "MlpPolicy", n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match=r"sees observations \(4,\).*shows \(5,\)$"):
        critic(plain)(np.zeros((1, 5), np.float32))
