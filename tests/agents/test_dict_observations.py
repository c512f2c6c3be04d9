"""Environments with Dict observations, from recording to agents that learn in imagination."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from dict_envs import Camera, Reach
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import PPO, SAC, HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

import worldmodel
from agents import (
    Imagination,
    ImaginedVecEnv,
    InversePolicy,
    InversePolicyConfig,
    KnownFunctions,
    LookaheadVecWrapper,
    RandomAgent,
    critic,
    evaluate,
    from_replay_buffer,
    goal_reward,
)
from agents.planners.random_shooting import RandomShooting, RandomShootingConfig
from agents.training.dyna.callback import DynaCallback, DynaConfig
from agents.training.dyna.recorder import RecordEpisodes
from agents.training.imagined_ppo import train_in_imagination
from worldmodel import Episodes, Spec, collect, fit, make

NAMES = ["achieved_goal", "desired_goal", "observation"]


@pytest.fixture(scope="module")
def recorded() -> Episodes:
    return collect(Reach(), 20, progress=False)


@pytest.fixture(scope="module")
def model(recorded: Episodes) -> worldmodel.WorldModel:
    model = make("jump", recorded.spec(8), "vector")
    fit(model, recorded.windows(8, 16), 60)
    return model


def equal(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def test_the_space_is_the_environments(recorded: Episodes) -> None:
    env = Reach()
    check_env(env, warn=False)
    spec = recorded.spec(8)
    assert spec.observation == (8,) and [part.name for part in spec.parts] == NAMES
    assert spec.observation_space() == env.observation_space
    assert Spec.from_dict(spec.to_dict()) == spec


def test_recordings_hold_what_the_environment_returned(recorded: Episodes, tmp_path: Path) -> None:
    env, spec = Reach(), recorded.spec(1)
    first = env.reset(seed=0)[0]
    shown = [first] + [env.step(action)[0] for action in recorded[0].actions]
    parts = spec.unpack(recorded[0].observations)
    for name in NAMES:
        expected = np.stack([each[name] for each in shown])
        assert parts[name].dtype == np.float64
        np.testing.assert_allclose(parts[name], expected, rtol=1e-6)
    assert all(env.observation_space.contains(spec.unpack(frame)) for frame in recorded.starts())

    recorded.save(tmp_path / "packed")
    worldmodel.unpack(tmp_path / "packed", tmp_path / "flat")
    for again in (
        Episodes.load(tmp_path / "packed"),
        Episodes.load(tmp_path / "flat", memory=10**7),
    ):
        assert again.spec(1) == spec
        for left, right in zip(again, recorded, strict=True):
            np.testing.assert_array_equal(left.observations, right.observations)
    both = recorded + Episodes.load(tmp_path / "packed")
    assert len(both) == 40


def test_policies_of_recordings_see_dicts() -> None:
    def to_goal(observation: dict) -> np.ndarray:
        gap = observation["desired_goal"] - observation["achieved_goal"]
        return np.clip(gap / 0.3, -1, 1).astype(np.float32)

    episodes = collect(Reach(), 5, policy=to_goal, progress=False)
    assert all(episode.rewards[-1] == 0 for episode in episodes)


@pytest.mark.parametrize("name", ["jump", "copy-last"])
def test_parts_agree_in_imagination(recorded: Episodes, name: str, model) -> None:
    made = model if name == "jump" else make(name, recorded.spec(8))
    venv = ImaginedVecEnv(made, recorded, 4, horizon=3)
    assert venv.observation_space == Reach().observation_space
    venv.reset()
    venv.action_space.seed(0)
    for _ in range(4):
        actions = np.stack([venv.action_space.sample() for _ in range(4)])
        shown, _, dones, infos = venv.step(actions)
        assert list(shown) == NAMES
        for row in range(4):
            one = {key: part[row] for key, part in shown.items()}
            assert venv.observation_space.contains(one)
            if dones[row]:
                assert venv.observation_space.contains(infos[row]["terminal_observation"])
        gap = shown["achieved_goal"] - shown["observation"][:, :2]
        assert np.abs(gap).mean() < 0.2


def test_starts_of_every_kind(recorded: Episodes, model) -> None:
    packed = recorded.starts()
    parts = recorded.spec(1).unpack(packed)
    for starts in (
        packed,
        parts,
        Reach(),
        Reach,
        lambda num, rng: recorded.spec(1).unpack(packed[rng.integers(20, size=num)]),
    ):
        shown = ImaginedVecEnv(model, starts, 3, seed=1).reset()
        assert {key: part.shape for key, part in shown.items()} == {
            "achieved_goal": (3, 2),
            "desired_goal": (3, 2),
            "observation": (3, 4),
        }
        assert shown["observation"].dtype == np.float64


def test_ppo_learns_in_imagination_and_plays(recorded: Episodes, model) -> None:
    settings = {"n_steps": 8, "batch_size": 32, "n_epochs": 1}
    agent = train_in_imagination(model, recorded, 64, 4, horizon=4, **settings)
    assert type(agent.policy).__name__ == "MultiInputActorCriticPolicy"
    returns = evaluate(agent, Reach, 4)
    assert ((returns >= -8) & (returns <= 0)).all()
    again = train_in_imagination(model, recorded, 64, 4, horizon=4, frame_stack=2, **settings)
    assert len(evaluate(again, Reach, 2, frame_stack=2)) == 2
    assert len(evaluate(RandomAgent(Reach().action_space), Reach, 2)) == 2


def test_planners_predict_from_dicts(model) -> None:
    env = Reach()
    agent = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8)
    planner = RandomShooting(
        model, RandomShootingConfig(plans=16, worlds=2, horizon=2), critic(agent)
    )
    observation, _ = env.reset(seed=3)
    action, state = planner.predict(observation)
    assert env.action_space.contains(action)
    batch = {key: np.stack([part, part]) for key, part in observation.items()}
    actions, state = planner.predict(batch)
    assert actions.shape == (2, 2)
    actions, _ = planner.predict(batch, state, np.array([False, True]))
    assert actions.shape == (2, 2)
    mean, _ = evaluate_policy(planner, env, 1, warn=False)
    assert -8 <= mean <= 0
    imagination = Imagination(model)
    imagination.reset(batch)
    shown = imagination.render(imagination.worlds(3), [0, 1], np.zeros((2, 5, 1, 2), np.float32))
    assert shown["achieved_goal"].shape == (2, 3, 5, 2, 2)
    assert all(shown[key].dtype == np.float64 for key in NAMES)


def test_dyna_fills_a_dict_buffer() -> None:
    recorder = RecordEpisodes(Reach())
    spec = Spec.from_spaces(recorder.observation_space, recorder.action_space, window=8)
    config = DynaConfig(
        start=24,
        every=100,
        imagine_every=8,
        branches=1,
        num_envs=4,
        first_fit_steps=4,
        fit_steps=4,
        horizon=2,
    )
    agent = SAC("MultiInputPolicy", recorder, buffer_size=200, learning_starts=30)
    dyna = DynaCallback(make("jump", spec, "vector"), recorder, config)
    agent.learn(48, callback=dyna)
    assert dyna.imagined > 0
    assert agent.replay_buffer.pos == 48
    her = SAC("MultiInputPolicy", recorder, buffer_size=200, replay_buffer_class=HerReplayBuffer)
    with pytest.raises(ValueError, match="HerReplayBuffer draws goals"):
        her.learn(8, callback=DynaCallback(make("jump", spec, "vector"), recorder, config))


@pytest.mark.parametrize("kind", [DictReplayBuffer, HerReplayBuffer])
def test_replay_buffers_of_dicts(kind) -> None:
    recorder = RecordEpisodes(Reach())
    agent = SAC(
        "MultiInputPolicy",
        recorder,
        buffer_size=200,
        replay_buffer_class=kind,
        learning_starts=100,
        seed=0,
    ).learn(24)
    episodes = from_replay_buffer(agent.replay_buffer)
    assert episodes.observation_space == recorder.observation_space
    for left, right in zip(episodes, recorder.episodes(), strict=True):
        np.testing.assert_array_equal(left.observations, right.observations)
        np.testing.assert_array_equal(left.rewards, right.rewards)


def test_checkpoints_hold_the_parts(model, recorded: Episodes, tmp_path: Path) -> None:
    worldmodel.save(model, tmp_path / "model")
    again = worldmodel.load(tmp_path / "model")
    assert again.spec == model.spec and again.spec.parts
    frames = recorded.starts()[:2]
    shown = []
    for each in (model, again):
        imagination = Imagination(each)
        imagination.reset(frames)
        actions = np.zeros((2, 1, 3, 2), np.float32)
        shown.append(imagination.render(imagination.worlds(1), [3], actions))
    assert equal(*shown)


def test_wrong_dicts_are_refused_by_name(model) -> None:
    imagination, observation = Imagination(model), Reach().reset(seed=0)[0]
    good = {key: part[None] for key, part in observation.items()}
    for bad, error, message in (
        ({**good, "more": good["observation"]}, ValueError, "observations: expected the parts"),
        ({**good, "observation": np.zeros((1, 3))}, ValueError, "'observation' of shape"),
        ({**good, "desired_goal": np.full((1, 2), np.nan)}, ValueError, "'desired_goal' holds NaN"),
        ({**good, "desired_goal": np.zeros((2, 2))}, ValueError, "'desired_goal' of shape"),
        ({**good, "observation": np.zeros((1, 4), int)}, TypeError, "float 'observation', got int"),
        ([1, 2], TypeError, "expected a dict with the parts"),
    ):
        with pytest.raises(error, match=message):
            imagination.reset(bad)
    imagination.reset(good)


class Broken(Reach):
    def parts(self) -> dict:
        return {**super().parts(), "desired_goal": np.zeros(3)}


def test_environments_that_break_their_space_are_refused() -> None:
    with pytest.raises(ValueError, match=r"env: Broken, episode of seed 0, reset: 'desired_goal'"):
        collect(Broken(), 1, progress=False)


def test_the_environments_reward_of_goals(recorded: Episodes) -> None:
    reward, spec = goal_reward(Reach()), recorded.spec(1)
    for episode in recorded:
        frames = spec.split(spec.to_model(torch.from_numpy(episode.observations)))
        before = {name: part[:-1] for name, part in frames.items()}
        after = {name: part[1:] for name, part in frames.items()}
        earned = reward(before, torch.from_numpy(episode.actions), after)
        np.testing.assert_array_equal(earned.numpy(), episode.rewards)
    model = make("copy-last", recorded.spec(8))
    known = KnownFunctions(
        reward=reward,
        terminated=lambda before, action, after: (
            (after["achieved_goal"] - after["desired_goal"]).abs().amax(1) < 0.1
        ),
    )
    venv = ImaginedVecEnv(model, recorded, 64, known=known)
    venv.reset()
    shown, rewards, dones, _ = venv.step(np.zeros((64, 2), np.float32))
    assert 0 < (rewards == -1).sum() < 64
    going = {name: part[~dones] for name, part in shown.items()}
    expected = Reach().compute_reward(going["achieved_goal"], going["desired_goal"], {})
    np.testing.assert_array_equal(rewards[~dones], expected)
    planner = RandomShooting(model, RandomShootingConfig(plans=4, horizon=2), known=known)
    assert len(evaluate(planner, Reach, 1)) == 1
    with pytest.raises(TypeError, match="compute_reward"):
        goal_reward(Camera())


def logged(recorded: Episodes) -> dict[str, np.ndarray]:
    """All observations by part, one episode after the other."""
    frames = np.concatenate([episode.observations for episode in recorded])
    return recorded.spec(1).unpack(frames)


def test_episodes_of_logged_dicts(recorded: Episodes) -> None:
    actions, rewards = (
        np.concatenate([getattr(episode, name) for episode in recorded])
        for name in ("actions", "rewards")
    )
    ends = np.arange(len(actions)) % 8 == 7
    spaces = {"action_space": Reach().action_space, "observation_space": Reach().observation_space}
    parts = logged(recorded)
    again = Episodes.from_arrays(parts, actions, rewards, ends & False, ends, **spaces)
    for left, right in zip(again, recorded, strict=True):
        np.testing.assert_array_equal(left.observations, right.observations)
    for bad, message in (
        ({"observation": parts["observation"]}, r"observations: expected a dict of \['achieved"),
        ({**parts, "observation": np.zeros(3)}, r"observations\['observation'\]: 160 steps"),
        (
            {**parts, "achieved_goal": 1e9 + parts["achieved_goal"]},
            "float32",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Episodes.from_arrays(bad, actions, rewards, ends & False, ends, **spaces)
    with pytest.raises(ValueError, match="observation_space: give that of the Dicts"):
        Episodes.from_arrays(parts, actions, rewards, ends, action_space=Reach().action_space)


def test_what_takes_no_dicts_says_so(recorded: Episodes, model) -> None:
    """And what the message advises works."""
    with pytest.raises(ValueError, match="spec: expected images or vectors.*FlattenObservation"):
        InversePolicy.fit(recorded)
    with pytest.raises(ValueError, match="venv: expected images or vectors.*FlattenObservation"):
        LookaheadVecWrapper(DummyVecEnv([Reach]), model)
    flat = collect(gym.wrappers.FlattenObservation(Reach()), 2, progress=False)
    assert flat.spec(1).observation == (8,) and not flat.spec(1).parts
    InversePolicy(flat.spec(1), InversePolicyConfig())


@pytest.mark.parametrize("kind", [SyncVectorEnv, DummyVecEnv])
def test_vector_environments_record_the_same_dicts(kind: type, recorded: Episodes) -> None:
    others = collect(kind([Reach] * 2), 4, progress=False)
    for one, other in zip(recorded, others, strict=False):
        assert np.array_equal(one.observations, other.observations)
        assert np.array_equal(one.actions, other.actions)


def test_files_of_strangers_are_checked(recorded: Episodes) -> None:
    known = recorded.spec(8).to_dict()
    first, *others = known["parts"]
    for parts, message in (
        ([first, first], "different names"),
        ([1], "Part"),
        ([{**first, "low": [0.0]}, *others], "low and high bounds"),
        ([{**first, "dtype": "complex64"}, *others], "dtype"),
        ([{**first, "shape": [16, 16, 3], "low": [], "high": []}], "uint8"),
        (others, "observation, low, high: parts of 6 numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            Spec.from_dict({**known, "parts": parts})


class Far(Reach):
    """Its points lie beyond the space that it declares."""

    def parts(self) -> dict[str, np.ndarray]:
        parts = super().parts()
        return {**parts, "achieved_goal": 3 + parts["achieved_goal"]}


def test_numbers_beyond_their_bounds_are_imagined() -> None:
    with pytest.warns(UserWarning, match="observations: number 0 of 'achieved_goal' goes from"):
        recorded = collect(Far(), 4, progress=False)
    spec = recorded.spec(8)
    assert Spec.from_dict(spec.to_dict()) == spec and len(spec.least) == 8
    venv = ImaginedVecEnv(make("copy-last", spec), recorded, 8)
    before = venv.reset()["achieved_goal"]
    assert before.min() > 1.2
    np.testing.assert_array_equal(
        venv.step(np.zeros((8, 2), np.float32))[0]["achieved_goal"], before
    )
