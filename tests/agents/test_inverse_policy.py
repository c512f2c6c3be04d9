"""The inverse policy: it clones the best episodes, whatever is seen and done there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import FakeEnv, frame
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from tiny_envs import Aim, Treasure

from agents import HoldAction, InversePolicy, InversePolicyConfig, evaluate
from agents.inverse_policy import _decisions, _stack
from worldmodel import Episode, Episodes, collect
from worldmodel.spec import ActionSpec

SHORT = {"steps": 150, "batch_size": 32, "width": 32, "learning_rate": 5e-3}
KINDS = {
    "discrete": ActionSpec("discrete", (), (4,)),
    "multi_discrete": ActionSpec("multi_discrete", (2,), (2, 3)),
    "multi_binary": ActionSpec("multi_binary", (3,)),
    "box": ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 5.0)),
}


def recorded(spec: ActionSpec, images: bool = False, count: int = 40) -> Episodes:
    """Good episodes answer what they see with one of two actions; bad ones do anything."""
    space, random = spec.to_space(), np.random.default_rng(0)
    space.seed(0)
    answers = [space.sample() for _ in range(2)]
    episodes = []
    for number in range(count):
        good = number % 2 == 0
        sees = random.integers(0, 2, 5)
        if images:
            seen = np.stack([frame(0, 20 * x) for x in sees])
        else:
            seen = np.stack([sees * 1000.0, np.full(5, 3.0)], 1).astype(np.float32)
        actions = [answers[x] if good else space.sample() for x in sees[:-1]]
        rewards = np.full(4, float(good), np.float32)
        episodes.append(Episode(seen, np.stack(actions), rewards, False))
    return Episodes(episodes, spec)


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("images", [False, True])
def test_does_what_the_best_did(kind: str, images: bool) -> None:
    episodes = recorded(KINDS[kind], images)
    policy = InversePolicy.fit(episodes, InversePolicyConfig(best=0.5, **SHORT))
    seen, wanted = episodes[0].observations[:-1], episodes[0].actions
    actions, state = policy.predict(seen, deterministic=True)
    assert state is None and actions.dtype == policy.action_space.dtype
    np.testing.assert_allclose(actions, wanted, atol=0.1)
    drawn, _ = policy.predict(np.repeat(seen[:1], 50, 0))
    assert all(policy.action_space.contains(action) for action in drawn)
    distance = np.abs(drawn.astype(np.float64) - wanted[0]).reshape(50, -1).max(1)
    assert (distance < 0.3).mean() > 0.8  # it is nearly sure


def test_draws_as_often_as_it_was_done() -> None:
    """Without a good reason for one of two actions, both are done."""
    seen = np.zeros((3, 1), np.float32)
    episodes = Episodes(
        [
            Episode(seen, np.array([a, a]), np.ones(2, np.float32), False)
            for a in (0, 0, 0, 2, 2, 2, 2, 2, 2, 2)
        ],
        ActionSpec("discrete", (), (3,)),
    )
    policy = InversePolicy.fit(episodes, InversePolicyConfig(best=1.0, **SHORT))
    likeliest, _ = policy.predict(np.zeros((9, 1), np.float32), deterministic=True)
    assert set(likeliest.tolist()) == {2}
    drawn, _ = policy.predict(np.zeros((600, 1), np.float32))
    assert np.bincount(drawn, minlength=3) / 600 == pytest.approx([0.3, 0.0, 0.7], abs=0.12)


def test_a_box_is_drawn_with_the_spread_of_what_was_done() -> None:
    random = np.random.default_rng(0)
    done = random.normal(1.0, 0.4, (20, 30, 1)).clip(-2, 4).astype(np.float32)
    seen, rewards = np.zeros((31, 1), np.float32), np.ones(30, np.float32)
    episodes = Episodes(
        [Episode(seen, actions, rewards, False) for actions in done],
        ActionSpec("box", (1,), (), (-2.0,), (4.0,)),
    )
    policy = InversePolicy.fit(episodes, InversePolicyConfig(best=1.0, **SHORT))
    drawn, _ = policy.predict(np.zeros((2000, 1), np.float32))
    assert drawn.mean() == pytest.approx(1.0, abs=0.15)
    assert drawn.std() == pytest.approx(0.4, abs=0.05)


def test_which_decisions_are_cloned() -> None:
    """Those of the best episodes, every ``hold`` steps, with what was seen at the ones before."""

    def episode(first: int, steps: int, reward: float) -> Episode:
        seen = np.arange(first, first + steps + 1, dtype=np.float32)[:, None]
        actions = np.arange(first, first + steps) % 7
        return Episode(seen, actions, np.full(steps, reward, np.float32), False)

    episodes = Episodes(
        [episode(10, 5, 1.0), episode(20, 6, 0.0), episode(30, 4, 3.0)],
        ActionSpec("discrete", (), (7,)),
    )
    config = InversePolicyConfig(best=0.6, hold=2, frame_stack=3)
    seen, stacks, actions = _decisions(episodes, config)
    assert _stack(seen[stacks]).tolist() == [
        [0, 0, 10], [0, 10, 12], [10, 12, 14], [0, 0, 30], [0, 30, 32],
    ]  # fmt: skip
    assert actions.tolist() == [10 % 7, 12 % 7, 14 % 7, 30 % 7, 32 % 7]


def test_stacks_as_stable_baselines_does() -> None:
    venv = VecFrameStack(DummyVecEnv([lambda: FakeEnv()]), 3)
    episodes = collect(FakeEnv(), 1, policy=lambda seen: 1, progress=False)
    seen, stacks, _ = _decisions(episodes, InversePolicyConfig(frame_stack=3))
    ours = _stack(seen[stacks])
    venv.seed(0)
    theirs = [venv.reset()[0]] + [venv.step([1])[0][0] for _ in range(3)]
    np.testing.assert_array_equal(ours[:4], np.stack(theirs))


@pytest.mark.parametrize("frame_stack", [1, 2])
@pytest.mark.parametrize("kind", [Treasure, Aim])
def test_plays_better_than_what_it_saw(kind: type[Any], frame_stack: int) -> None:
    episodes = collect(kind(), 300, progress=False)
    earned = np.array([episode.rewards.sum() for episode in episodes])
    config = InversePolicyConfig(best=0.03, frame_stack=frame_stack, **SHORT)
    policy = InversePolicy.fit(episodes, config)
    returns = evaluate(policy, kind, 2, frame_stack=frame_stack)
    assert returns.mean() > np.quantile(earned, 0.9)


def test_images_holds_and_stacks_in_evaluate_policy() -> None:
    """It learns to do always 1, which pays where 1 is wanted."""
    episodes = collect(FakeEnv(), 20, policy=lambda seen: 1, hold=3, progress=False)
    config = InversePolicyConfig(best=1.0, hold=3, frame_stack=2, **{**SHORT, "steps": 40})
    policy = InversePolicy.fit(episodes, config)
    assert policy.observation_space.shape == (32, 32, 6)
    pays = [12.0 * (FakeEnv().reset(seed=seed)[0][0, 0, 0] == 1) for seed in range(6)]
    assert evaluate(policy, FakeEnv, 6, hold=3, frame_stack=2).tolist() == pays
    make = [lambda: Monitor(HoldAction(FakeEnv(), 3))]
    venv = VecFrameStack(DummyVecEnv(make), 2)
    venv.seed(pays.index(12.0))
    mean, _ = evaluate_policy(policy, venv, n_eval_episodes=1)
    assert mean == 12
    with pytest.raises(ValueError, match="frame_stack"):
        evaluate(policy, FakeEnv, 1, hold=3)
    with pytest.raises(ValueError, match="hold"):
        evaluate(policy, FakeEnv, 1, hold=2, frame_stack=2)


@pytest.mark.parametrize("images", [False, True])
def test_same_seed_same_policy_and_files_keep_it(images: bool, tmp_path: Path) -> None:
    episodes = recorded(KINDS["box"], images)
    before = torch.random.get_rng_state()
    config = InversePolicyConfig(**{**SHORT, "steps": 5}, frame_stack=2)
    one, two = (InversePolicy.fit(episodes, config) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    three = InversePolicy.load(one.save(tmp_path / "policy"))
    assert three.config == config and three.observation_space == one.observation_space
    seen = np.stack([one.observation_space.sample() for _ in range(4)])
    seen = seen if images else np.ones_like(seen)
    for policy in (two, three):
        for deterministic in (True, False):
            one.set_random_seed(3)
            policy.set_random_seed(3)
            wanted, _ = one.predict(seen, deterministic=deterministic)
            np.testing.assert_array_equal(
                policy.predict(seen, deterministic=deterministic)[0], wanted
            )


def test_one_observation() -> None:
    policy = InversePolicy(recorded(KINDS["discrete"]).spec(1), InversePolicyConfig())
    action, _ = policy.predict(np.zeros(2, np.float32))
    assert action.shape == () and policy.action_space.contains(np.int64(action))


def test_errors_teach(tmp_path: Path) -> None:
    for bad in ({"best": 0.0}, {"hold": 0}, {"frame_stack": 0}, {"steps": 0}, {"learning_rate": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            InversePolicyConfig(**bad)
    passive = Episode(np.zeros((2, 1), np.float32), np.zeros(1, np.int64), np.ones(1), False)
    with pytest.raises(ValueError, match="without actions"):
        InversePolicy.fit(Episodes([passive], ActionSpec("none")))
    policy = InversePolicy(recorded(KINDS["discrete"], True).spec(1), InversePolicyConfig())
    with pytest.raises(ValueError, match="expected shape"):
        policy.predict(np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        policy.predict(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(FileNotFoundError, match="InversePolicy.save"):
        InversePolicy.load(tmp_path)
    folder = policy.save(tmp_path)
    settings = folder / "inverse_policy.json"
    settings.write_text(settings.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ValueError, match="format 9"):
        InversePolicy.load(folder)


def test_spaces() -> None:
    spec = recorded(KINDS["discrete"]).spec(1)
    policy = InversePolicy(spec, InversePolicyConfig(frame_stack=3))
    assert policy.observation_space == gym.spaces.Box(-np.inf, np.inf, (6,), np.float32)
    assert policy.action_space == gym.spaces.Discrete(4)
