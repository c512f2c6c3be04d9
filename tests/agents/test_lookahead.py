import itertools
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeEnv, FakeModel
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.preprocessing import check_for_nested_spaces
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
)

from agents import RandomAgent
from agents.evaluation import evaluate
from agents.lookahead import LookaheadVecWrapper
from agents.lookahead_policy import LookaheadExtractor
from agents.vec_env import ImaginedVecEnv
from agents.wrappers import HoldAction
from worldmodel import make as make_model
from worldmodel.models.baselines import ReplayConfig
from worldmodel.spec import ActionSpec, Spec

POLICY = {
    "features_extractor_class": LookaheadExtractor,
    "features_extractor_kwargs": {"features_dim": 8, "imagined_dim": 4, "channels": 2},
    "net_arch": [8],
}
SMALL = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "policy_kwargs": POLICY}
BOX = ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 2.0))


def real(count: int = 2, hold: int = 1, **kwargs: int) -> DummyVecEnv:
    return DummyVecEnv([lambda: HoldAction(FakeEnv(**kwargs), hold)] * count)


def make(
    model: FakeModel | None = None, count: int = 2, hold: int = 1, steps: int = 12, **kwargs: object
) -> LookaheadVecWrapper:
    model = FakeModel() if model is None else model
    return LookaheadVecWrapper(real(count, hold, steps=steps), model, hold=hold, **kwargs)


def greys(parts: dict[str, np.ndarray]) -> np.ndarray:
    return parts["imagined"][..., -1, -1, 0]


def wanted(parts: dict[str, np.ndarray]) -> np.ndarray:
    return parts["observation"][:, 0, 0, 0]


def test_every_candidate_is_held_for_every_jump() -> None:
    model = FakeModel()
    venv = make(model, hold=2, jumps=3)
    venv.seed(1)
    parts = venv.reset()
    jumps = 2 * np.arange(4)[:, None] * np.arange(1, 4)  # (A, K): what the level gains
    assert parts["imagined"].shape == (2, 4, 3, 32, 32, 3)
    np.testing.assert_array_equal(greys(parts), np.stack([10 * jumps] * 2))
    pays = 2.0 * (wanted(parts)[:, None] == np.arange(4))
    np.testing.assert_array_equal(parts["reward_alive"][..., 0], np.stack([pays] * 3, -1))
    assert (parts["reward_alive"][..., 1] == 1).all()
    mortal = make(FakeModel(goal=9), hold=2, jumps=3).reset()
    np.testing.assert_array_equal(mortal["reward_alive"][..., 1], np.stack([jumps < 9] * 2))

    parts, rewards, dones, infos = venv.step(np.array([1, 0]))
    np.testing.assert_array_equal(greys(parts), 10 * (np.array([2, 0])[:, None, None] + jumps))
    np.testing.assert_array_equal(rewards, 2 * (wanted(parts) == [1, 0]))
    assert not dones.any()
    assert [info["steps"] for info in infos] == [2, 2]
    # one batch of all rows, candidates and jumps a step
    assert [queries.times.shape for _, queries, _ in model.asked] == [(2, 3)] * 2
    assert model.contexts[-1].times.tolist() == [[0, 2]] * 2
    assert model.contexts[-1].actions.tolist() == [[1, 1], [0, 0]]


def test_an_end_is_looked_beyond_and_then_forgotten() -> None:
    model = FakeModel()
    venv = make(model, hold=2, jumps=1, steps=5)
    venv.reset()
    venv.step(np.array([3, 1]))
    venv.step(np.array([3, 1]))
    parts, _, dones, infos = venv.step(np.array([3, 1]))  # cut after the first of two steps
    assert dones.all()
    first, fresh = model.contexts[-2:]
    assert first.present_times().tolist() == [5, 5]
    assert first.actions[0].tolist() == [3] * 5
    assert fresh.times.tolist() == [[0], [0]]
    np.testing.assert_array_equal(greys(parts), [[[0], [20], [40], [60]]] * 2)
    for info, level in zip(infos, (15, 5), strict=True):
        last = info["terminal_observation"]
        assert info["TimeLimit.truncated"]
        assert last.keys() == venv.observation_space.spaces.keys()
        assert greys(last).flatten().tolist() == [10 * (level + 2 * a) for a in range(4)]
        assert last["observation"][-1, -1, 0] == 10 * level
        pays = 2.0 * (last["observation"][0, 0, 0] == np.arange(4))
        np.testing.assert_array_equal(last["reward_alive"][:, 0, 0], pays)
        assert venv.observation_space.contains(last)


def test_rows_end_for_themselves() -> None:
    model = FakeModel()
    makers = [lambda: FakeEnv(steps=2), lambda: FakeEnv(steps=9)]
    venv = LookaheadVecWrapper(DummyVecEnv(makers), model, jumps=1)
    venv.reset()
    venv.step(np.array([1, 1]))
    parts, _, dones, infos = venv.step(np.array([1, 1]))
    assert dones.tolist() == [True, False]
    assert greys(parts)[:, 0, 0].tolist() == [0, 20]
    assert greys(infos[0]["terminal_observation"])[0, 0] == 20
    assert "terminal_observation" not in infos[1]
    assert venv.imagination.present.tolist() == [0, 2]
    assert [queries.times.shape[0] for _, queries, _ in model.asked[-2:]] == [2, 1]


def test_the_window_may_end() -> None:
    venv = make(jumps=4, hold=2, steps=100)  # a window of 12
    venv.reset()
    for level in range(2, 20, 2):
        parts, *_ = venv.step(np.array([1, 1]))
        assert greys(parts)[0, 0, -1] == 10 * level
    assert venv.imagination.left.min() >= 8


def test_without_frames_nothing_is_rendered() -> None:
    model = FakeModel()
    venv = make(model, jumps=2, frames=False, worlds=3)
    parts = venv.reset()
    assert list(parts) == ["observation", "reward_alive"]
    assert venv.observation_space["reward_alive"].shape == (4, 2, 2)
    assert [(worlds.shape, frames) for worlds, _, frames in model.asked] == [((2, 3), False)]
    agent = PPO("MultiInputPolicy", venv, **SMALL)
    agent.learn(16)


def test_outcomes_are_means_over_worlds_of_which_one_is_shown() -> None:
    model = FakeModel(seen=False)  # each world wants another action
    venv = make(model, jumps=1, worlds=400)
    parts = venv.reset()
    assert [(worlds.shape, frames) for worlds, _, frames in model.asked] == [
        ((2, 1), True),
        ((2, 399), False),
    ]
    np.testing.assert_allclose(parts["reward_alive"][..., 0].sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(parts["reward_alive"][..., 0], 0.25, atol=0.1)
    shown = parts["imagined"][:, :, 0, 0, 0, 0]  # the corner says what the shown world wants
    assert (shown == shown[:, :1]).all()
    one = make(FakeModel(seen=False), jumps=1, worlds=1).reset()
    said = one["reward_alive"][..., 0, 0].argmax(1)
    np.testing.assert_array_equal(said, one["imagined"][:, 0, 0, 0, 0, 0])


def test_a_search_finds_what_begins_with_each_candidate() -> None:
    model = FakeModel(goal=5)
    venv = make(model, hold=2, jumps=1, depth=3, frames=False)
    parts = venv.reset()
    assert parts["returns"].shape == (2, *venv.observation_space["returns"].shape) == (2, 4)
    # a step pays 1 for the wanted action, until the level reaches 5; then decide otherwise
    for row, want in enumerate(wanted(parts)):
        plans = itertools.product(range(4), repeat=3)
        returns = dict.fromkeys(plans, 0.0)
        for plan in returns:
            level = 0
            for action in np.repeat(plan, 2):
                returns[plan] += float(level < 5 and action == want)
                level += action
        best = [max(r for plan, r in returns.items() if plan[0] == a) for a in range(4)]
        np.testing.assert_allclose(parts["returns"][row], best)
    late = make(FakeModel(), hold=2, jumps=1, depth=3, frames=False, steps=100)  # a window of 12
    late.reset()
    for _ in range(5):
        parts, *_ = late.step(np.array([1, 1]))
    best = np.where(wanted(parts)[:, None] == np.arange(4), 2, 0)  # two steps are left of it
    np.testing.assert_array_equal(parts["returns"], best)


def test_a_search_is_learnt_from(tmp_path: Path) -> None:
    wrap = partial(LookaheadVecWrapper, model=FakeModel(), jumps=1, depth=2, frames=False)
    agent = PPO("MultiInputPolicy", wrap(real()), **SMALL).learn(16)
    assert agent.policy.features_extractor.features_dim == 8 + 4 * 2 + 2 * 4
    agent.save(tmp_path / "agent")
    assert evaluate(PPO.load(tmp_path / "agent"), FakeEnv, 2, wrap=wrap).shape == (2,)


def test_seeds_of_worlds() -> None:
    def outcomes(venv: LookaheadVecWrapper) -> np.ndarray:
        return np.stack([venv.reset()["reward_alive"] for _ in range(4)])

    def unsure(seed: int) -> LookaheadVecWrapper:
        return make(FakeModel(seen=False), count=8, seed=seed)

    np.testing.assert_array_equal(outcomes(unsure(3)), outcomes(unsure(3)))
    assert (outcomes(unsure(3)) != outcomes(unsure(4))).any()
    seeded, again = unsure(3), unsure(4)
    seeded.seed(5), again.seed(5)
    np.testing.assert_array_equal(outcomes(seeded), outcomes(again))


def test_steps_return_fresh_objects_of_the_spaces() -> None:
    venv = make(jumps=2, steps=2)
    seen = [venv.reset()]
    copies = [{key: part.copy() for key, part in seen[0].items()}]
    infos = []
    for _ in range(4):
        parts, _, _, told = venv.step(np.array([3, 2]))
        seen.append(parts)
        infos.extend(told)
        copies.append({key: part.copy() for key, part in parts.items()})
    for parts, copy in zip(seen, copies, strict=True):
        for key, space in venv.observation_space.items():
            np.testing.assert_array_equal(parts[key], copy[key])
            assert parts[key].dtype == space.dtype
            assert all(space.contains(row) for row in parts[key])
    assert len({id(info) for info in infos}) == len(infos)


class Reusing(VecEnvWrapper):
    """Careless: hands out the same array, and the same infos, every time."""

    def reset(self):
        self.array = self.venv.reset()
        return self.array

    def step_wait(self):
        self.array[:], rewards, dones, self.infos = self.venv.step_wait()
        return self.array, rewards, dones, self.infos


def test_careless_environments_do_not_reach_the_agent() -> None:
    inner = Reusing(real(steps=1))
    venv = LookaheadVecWrapper(inner, FakeModel(), jumps=1)
    first = venv.reset()
    second, *_, infos = venv.step(np.array([2, 2]))
    assert first["observation"] is not second["observation"]
    assert not np.shares_memory(first["observation"], inner.array)
    assert isinstance(inner.infos[0]["terminal_observation"], np.ndarray)
    assert isinstance(infos[0]["terminal_observation"], dict)


def test_four_actions_and_three_jumps_at_32_pixels_are_no_image(tmp_path: Path) -> None:
    venv = make(count=4, hold=2, jumps=3, steps=4)
    check_for_nested_spaces(venv.observation_space)
    turned = VecTransposeImage(venv)
    assert turned.observation_space["observation"].shape == (3, 32, 32)
    assert turned.observation_space["imagined"] == venv.observation_space["imagined"]
    agent = PPO("MultiInputPolicy", VecMonitor(venv), seed=0, **SMALL)
    agent.learn(64)
    assert isinstance(agent.policy.features_extractor, LookaheadExtractor)
    assert not agent.policy.features_extractor.transpose
    assert len(agent.ep_info_buffer) == 32

    agent.save(tmp_path / "agent")
    again = PPO.load(tmp_path / "agent", env=make(count=2, hold=2, jumps=3))
    parts = venv.reset()
    np.testing.assert_array_equal(
        agent.predict(parts, deterministic=True)[0], again.predict(parts, deterministic=True)[0]
    )
    again.learn(16)


def test_learning_is_reproducible() -> None:
    def weights() -> torch.Tensor:
        venv = make(FakeModel(seen=False), hold=2, jumps=2, steps=6)
        agent = PPO("MultiInputPolicy", venv, seed=7, **SMALL).learn(32)
        return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])

    torch.testing.assert_close(weights(), weights(), rtol=0, atol=0)


@pytest.mark.slow
def test_the_outcomes_are_learnt_from() -> None:
    """The best action differs in each episode; in the frame it is 1/255 of a corner pixel."""
    settings = {**SMALL, "n_steps": 32, "batch_size": 64, "n_epochs": 4, "learning_rate": 3e-3}
    venv = make(count=8, hold=4, jumps=1, frames=False)
    agent = PPO("MultiInputPolicy", venv, seed=0, ent_coef=0.0, gamma=0.5, **settings)
    agent.learn(12_000)
    wrap = partial(LookaheadVecWrapper, model=FakeModel(), jumps=1, hold=4, frames=False)
    assert evaluate(agent, FakeEnv, 20, seed=100, hold=4, wrap=wrap).mean() > 10


def test_dqn_learns() -> None:
    venv = make(steps=4)
    agent = DQN(
        "MultiInputPolicy",
        venv,
        buffer_size=48,
        learning_starts=8,
        batch_size=4,
        train_freq=4,
        policy_kwargs=POLICY,
        seed=0,
    )
    agent.learn(32)
    stored = agent.replay_buffer
    assert stored.observations["imagined"].dtype == np.uint8
    # what is imagined of the action that was taken is what then came, at the end too
    taken = stored.actions[: stored.pos, :, 0]
    imagined = stored.observations["imagined"][: stored.pos, ..., -1, -1, 0]
    came = stored.next_observations["observation"][: stored.pos, :, 0, -1, -1]
    rows, envs = np.indices(taken.shape)
    np.testing.assert_array_equal(imagined[rows, envs, taken, 0], came)
    assert stored.dones[: stored.pos].any()


def test_frames_stack_around_it() -> None:
    venv = VecFrameStack(make(jumps=3, steps=3), 2)
    assert venv.observation_space["observation"].shape == (32, 32, 6)
    assert venv.observation_space["imagined"].shape == (4, 3, 32, 32, 6)
    assert venv.observation_space["reward_alive"].shape == (4, 3, 4)
    agent = PPO("MultiInputPolicy", venv, **SMALL)
    agent.learn(16)
    parts = venv.reset()
    parts, *_ = venv.step(np.array([1, 1]))
    now = parts["imagined"][..., 3:], parts["imagined"][..., :3]
    assert (now[0][:, 1, 0, -1, -1, 0] == 20).all()
    assert (now[1][:, 1, 0, -1, -1, 0] == 10).all()
    assert agent.predict(parts)[0].shape == (2,)


def test_evaluate_plays_with_lookahead() -> None:
    model = FakeModel()
    wrap = partial(LookaheadVecWrapper, model=model, jumps=2, hold=3)
    agent = PPO("MultiInputPolicy", wrap(real(hold=3)), **SMALL)
    once = [evaluate(agent, FakeEnv, 5, hold=3, wrap=wrap, num_envs=n) for n in (2, 5)]
    np.testing.assert_array_equal(*once)
    stacked = PPO("MultiInputPolicy", VecFrameStack(wrap(real(hold=3)), 2), **SMALL)
    assert evaluate(stacked, FakeEnv, 2, hold=3, wrap=wrap, frame_stack=2).shape == (2,)
    with pytest.raises(ValueError, match="give the frame_stack of training"):
        evaluate(stacked, FakeEnv, 2, hold=3, wrap=wrap)
    with pytest.raises(ValueError, match="give the wrappers of training"):
        evaluate(agent, FakeEnv, 2, hold=3)
    with pytest.raises(ValueError, match="give the wrappers of training"):
        evaluate(Trained(), FakeEnv, 2, hold=3, wrap=wrap)


class Trained(RandomAgent):
    """Says that it knows plain images."""

    def __init__(self) -> None:
        super().__init__(SPEC.action.to_space())
        self.observation_space = SPEC.observation_space()


def test_imagined_environments_can_be_looked_ahead_in() -> None:
    model = FakeModel()
    starts = np.stack([FakeEnv().reset(seed=seed)[0] for seed in range(4)])
    venv = LookaheadVecWrapper(
        ImaginedVecEnv(model, starts, 2, hold=2, horizon=3), model, jumps=2, hold=2
    )
    venv.reset()
    for level in (2, 4):
        parts, *_ = venv.step(np.array([1, 1]))
        assert greys(parts)[:, 0, 0].tolist() == [10 * level] * 2
    parts, _, dones, infos = venv.step(np.array([1, 1]))
    assert dones.all()
    assert greys(infos[0]["terminal_observation"])[1].tolist() == [80, 100]


class SameEpisode(gym.Wrapper):
    def __init__(self, env: gym.Env, seed: int) -> None:
        super().__init__(env)
        self.seed = seed

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=self.seed, options=options)


def test_the_true_simulator_says_what_happens() -> None:
    """Vectors, and the one model whose lookahead must come true, up to the end of the episode."""
    env = gym.make("CartPole-v1")
    spec = Spec.from_spaces(env.observation_space, env.action_space, 40)
    model = make_model("replay", spec, ReplayConfig("CartPole-v1", episodes=3, seed=4))
    hold, jumps, action = 3, 5, 1
    makers = [
        lambda seed=seed: HoldAction(SameEpisode(gym.make("CartPole-v1"), seed), hold)
        for seed in (4, 5, 6)
    ]
    venv = LookaheadVecWrapper(DummyVecEnv(makers), model, jumps, hold)
    assert venv.observation_space["imagined"].shape == (2, 5, 4)
    venv.reset()
    start, *_ = venv.step(np.array([0, 0, 0]))
    assert venv.observation_space["imagined"].contains(start["imagined"][0])
    for jump in range(jumps):
        seen, rewards, dones, infos = venv.step(np.full(3, action))
        for i, (done, info) in enumerate(zip(dones, infos, strict=True)):
            frame = info["terminal_observation"]["observation"] if done else seen["observation"][i]
            np.testing.assert_allclose(start["imagined"][i, action, jump], frame, atol=1e-5)
            assert start["reward_alive"][i, action, jump].tolist() == [rewards[i], float(not done)]
    assert dones.all()
    assert [info["steps"] for info in infos] == [3, 2, 1]


def test_vectors_are_learnt_from() -> None:
    env = gym.make("CartPole-v1")
    spec = Spec.from_spaces(env.observation_space, env.action_space, 8)
    venv = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)
    venv = VecFrameStack(LookaheadVecWrapper(venv, make_model("jump", spec), jumps=2), 2)
    assert venv.observation_space["imagined"].shape == (2, 2, 8)
    agent = PPO("MultiInputPolicy", venv, **SMALL).learn(16)
    assert agent.predict(venv.reset())[0].shape == (2,)


def boxes(model: FakeModel) -> DummyVecEnv:
    def env() -> gym.Env:
        return gym.wrappers.TransformAction(
            FakeEnv(), lambda action: int(action.sum() > 1), model.spec.action.to_space()
        )

    return DummyVecEnv([env] * 2)


def test_other_actions_are_drawn_once_or_given() -> None:
    model = FakeModel(Spec(SPEC.observation, BOX, 12))
    drawn = [LookaheadVecWrapper(boxes(model), model, seed=s).candidates for s in (0, 0, 1)]
    assert drawn[0].shape == (8, 2)
    assert all(model.spec.action.to_space().contains(action) for action in drawn[0])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()

    given = [[-1.0, 2.0], [0.5, 1.5], [0.0, 0.0]]
    venv = LookaheadVecWrapper(boxes(model), model, jumps=3, candidates=given)
    parts = venv.reset()
    expected = 10 * np.array([[1, 2, 3], [2, 4, 6], [0, 0, 0]])
    np.testing.assert_array_equal(greys(parts)[0], expected)
    parts, *_ = venv.step(np.array([[1.0, 2.0], [0.0, 1.0]], np.float32))
    assert model.contexts[-1].actions.tolist() == [[[1.0, 2.0]], [[0.0, 1.0]]]
    PPO("MultiInputPolicy", venv, **SMALL).learn(16)


@pytest.mark.parametrize("candidates", [[1, 1], [1, 0, 2, 3]])
def test_discrete_candidates_are_different_and_all_of_them_in_order(candidates: list[int]) -> None:
    with pytest.raises(ValueError, match="candidates: expected different actions.*ascending"):
        make(candidates=candidates)


def test_some_actions_of_a_discrete_space() -> None:
    venv = make(candidates=[3, 1], jumps=1)
    assert greys(venv.reset())[0, :, 0].tolist() == [30, 10]


def test_nothing_to_decide_is_a_forecast() -> None:
    spec = Spec(SPEC.observation, ActionSpec("none"), 12)

    def env() -> gym.Env:
        return gym.wrappers.TransformAction(FakeEnv(), lambda _: 0, gym.spaces.Discrete(1))

    venv = LookaheadVecWrapper(DummyVecEnv([env]), FakeModel(spec), jumps=3)
    assert venv.reset()["imagined"].shape == (1, 1, 3, 32, 32, 3)
    venv.step(np.array([0]))


def test_errors_teach() -> None:
    model = FakeModel()
    for name in ("jumps", "hold", "worlds"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1"):
            LookaheadVecWrapper(real(), model, **{name: 0})
    for name in ("jumps", "hold", "worlds", "depth"):
        for wrong in (1.5, "2", None) if name in ("hold", "worlds") else (1.5, "2"):
            with pytest.raises(TypeError, match=f"{name}: expected a whole number, got {wrong!r}"):
                LookaheadVecWrapper(real(), model, **{name: wrong})
    with pytest.raises(ValueError, match="seed: expected from 0"):
        LookaheadVecWrapper(real(), model, seed=-1)
    with pytest.raises(ValueError, match="at most 2 fit"):
        LookaheadVecWrapper(real(), model, jumps=3, hold=5)
    with pytest.raises(ValueError, match="depth: 3 decisions of 5 steps.*at most 2 fit"):
        LookaheadVecWrapper(real(), model, depth=3, hold=5)
    with pytest.raises(ValueError, match="depth: 4 candidates make 16384 plans.*at most 4096"):
        LookaheadVecWrapper(real(), model, depth=7)
    with pytest.raises(TypeError, match="model"):
        LookaheadVecWrapper(real(), "model")
    small = FakeModel(Spec((3, 16, 16), SPEC.action, 12))
    with pytest.raises(ValueError, match="venv: observation space"):
        LookaheadVecWrapper(real(), small)
    with pytest.raises(ValueError, match="venv: action space"):
        LookaheadVecWrapper(real(), FakeModel(Spec(SPEC.observation, BOX, 12)))
    with pytest.raises(ValueError, match="venv: observation space"):
        LookaheadVecWrapper(VecFrameStack(real(), 2), model)
    model.stride = 2
    with pytest.raises(ValueError, match="hold: fake takes 2 steps at once"):
        LookaheadVecWrapper(real(hold=3), model, hold=3)


@pytest.mark.parametrize(("inside", "hold"), [(1, 3), (3, 1), (2, 3), (3, 2)])
def test_actions_must_be_held_as_in_imagination(inside: int, hold: int) -> None:
    venv = LookaheadVecWrapper(real(hold=inside), FakeModel(), hold=hold)
    venv.reset()
    with pytest.raises(ValueError, match=rf"hold: .* {inside} steps.*HoldAction\(env, {hold}\)"):
        venv.step(np.array([0, 0]))


def test_plain_environments_may_count_steps_for_themselves() -> None:
    class Counting(FakeEnv):
        def step(self, action):
            return *super().step(action)[:4], {"steps": self.taken}

    venv = LookaheadVecWrapper(DummyVecEnv([Counting]), FakeModel())
    venv.reset()
    for _ in range(3):
        venv.step(np.array([1]))
    assert venv.imagination.present.tolist() == [3]


def test_step_needs_actions() -> None:
    venv = make()
    venv.reset()
    with pytest.raises(RuntimeError, match="reset"):
        venv.step_wait()


@pytest.mark.parametrize(
    "candidates",
    [
        3,
        [],
        [[1]],
        [4],
        [-1],
        [0.5],
        np.zeros((2, 0), int),
        [np.nan],
        [2**70],
        ["a"],
        [[1], [1, 0]],
    ],
)
def test_candidates_must_be_actions(candidates: object) -> None:
    with pytest.raises(ValueError, match="candidates: expected"):
        make(candidates=candidates)


def test_a_model_that_imagines_no_numbers_is_refused() -> None:
    spec = Spec((1,), ActionSpec("discrete", (), (2,)), 8, low=(-np.inf,), high=(np.inf,))
    model = make_model("ensemble", spec)
    torch.nn.init.constant_(next(model.parameters()), np.nan)

    def env() -> gym.Env:
        made = gym.make("CartPole-v1")
        space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        return gym.wrappers.TransformObservation(made, lambda seen: seen[:1], space)

    for frames in (True, False):
        with pytest.raises(FloatingPointError, match="ensemble: imagines NaN"):
            LookaheadVecWrapper(DummyVecEnv([env]), model, frames=frames).reset()
