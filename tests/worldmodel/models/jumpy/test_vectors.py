"""Vector observations: from any classic-control environment to a model, and back to its space."""

from __future__ import annotations

import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import (
    ImaginationVideo,
    ImaginedVecEnv,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    compare,
)
from worldmodel import ActionSpec, Context, Episodes, Queries, Spec, collect, fit, load, make

QUIET = {"progress": False}


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_from_environment_to_checkpoint(env_id: str, tmp_path: Path) -> None:
    """Bounds and standardisation survive the disk; predictions are in the environment's units."""
    env = gym.make(env_id)
    recorded = collect(env, 6, max_steps=30, **QUIET)
    episodes = Episodes.load(recorded.save(tmp_path / "episodes"))
    spec = episodes.spec(window=10)
    assert spec == Spec.from_spaces(env.observation_space, env.action_space, 10)
    spec.check_spaces(env.observation_space, env.action_space, "env")
    assert np.array_equal(episodes[3].observations, recorded[3].observations)

    model = make("jump", spec)
    fit(model, episodes.windows(10, 16), 5, folder=tmp_path / "model", **QUIET)
    seen = np.concatenate([episode.observations for episode in episodes])
    scale = torch.as_tensor(model.scale)
    assert torch.allclose(scale, torch.from_numpy(seen.std(0)), rtol=0.3)
    again = load(tmp_path / "model")
    assert again.spec == spec and torch.equal(torch.as_tensor(again.scale), scale)
    text = (tmp_path / "model" / "config.json").read_text()
    assert "Infinity" not in text and ('"-inf"' in text) == (not all(map(math.isfinite, spec.low)))

    context = Context(torch.from_numpy(episodes.starts()).unsqueeze(1), torch.zeros(6, 1).long())
    plans = torch.from_numpy(np.stack([e.actions[:7] for e in episodes.episodes])).unsqueeze(1)
    with torch.inference_mode():
        worlds = again.sample(again.observe(context), 3)
        answer = again.predict(worlds, Queries(torch.full((6, 1), 7), plans)).observations
    assert answer is not None and answer.shape == (6, 3, 1, 1, *spec.observation)


def test_standardisation_is_undone() -> None:
    """Whatever the units, the same model sees and says the same."""
    spec = Spec.from_spaces(gym.spaces.Box(-9, 9, (4,)), gym.spaces.Discrete(2), 8)
    one, other = (make("jump", spec).eval() for _ in range(2))
    other.shift, other.scale = torch.full((4,), 3.0), torch.full((4,), 2.0)
    numbers, times = torch.rand(2, 1, 4), torch.zeros(2, 1).long()
    query = Queries(torch.full((2, 1), 2), torch.ones(2, 1, 2).long())
    answers = []
    for model, seen in ((one, numbers), (other, 2 * numbers + 3)):
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            worlds = model.sample(model.observe(Context(seen, times)), 2, generator)
            answers.append(model.predict(worlds, query).observations)
    assert answers[0] is not None and answers[1] is not None
    torch.testing.assert_close(2 * answers[0] + 3, answers[1], rtol=1e-4, atol=1e-4)


def test_imagined_env_has_the_real_spaces() -> None:
    env = gym.make("CartPole-v1")
    episodes = collect(env, 4, **QUIET)
    venv = ImaginedVecEnv(make("jump", episodes.spec(12)), episodes.starts(), num_envs=3, hold=2)
    assert venv.observation_space == env.observation_space
    first = venv.reset()
    observations, rewards, dones, _ = venv.step(np.array([0, 1, 1]))
    assert first.dtype == observations.dtype == np.float32 and observations.shape == (3, 4)
    assert all(venv.observation_space.contains(row) for row in observations)
    assert rewards.shape == dones.shape == (3,)
    assert venv.get_images() == [None] * 3


def test_scales_are_learnt_once() -> None:
    """Weights that were trained with a scale keep it, on whatever they are trained next."""
    episodes = collect("CartPole-v1", 4, **QUIET)
    model = make("jump", episodes.spec(8))
    fit(model, episodes.windows(8, 4), 1, **QUIET)
    before = torch.as_tensor(model.scale).clone()
    fit(model, Episodes(episodes.episodes[:1], episodes.action).windows(8, 4), 1, **QUIET)
    assert torch.equal(torch.as_tensor(model.scale), before)


def test_planners_take_one_vector_or_many() -> None:
    episodes = collect("CartPole-v1", 2, **QUIET)
    model = make("jump", episodes.spec(12))
    planner = RandomShooting(model, RandomShootingConfig(plans=4, worlds=1, horizon=2, hold=2))
    random = RandomAgent(gym.make("CartPole-v1").action_space)
    for agent in (planner, random):
        assert agent.predict(episodes.starts()[0])[0].shape == ()
        assert agent.predict(episodes.starts())[0].shape == (2,)


def test_wide_floats_stay_in_their_space() -> None:
    """MuJoCo's spaces are float64: a float32 at the bound would lie outside of them."""
    space = gym.spaces.Box(-0.1, 0.1, (3,), np.float64)
    spec = Spec.from_spaces(space, gym.spaces.Discrete(2), 8)
    assert spec.observation_space() == space and Spec.from_dict(spec.to_dict()) == spec
    assert space.contains(spec.to_numpy(torch.full((3,), 9.0)))
    venv = ImaginedVecEnv(make("jump", spec), np.zeros((2, 3)), num_envs=2)
    assert venv.reset().dtype == venv.step(np.array([0, 1]))[0].dtype == np.float64


def test_what_vectors_cannot_have() -> None:
    env = gym.make("CartPole-v1")
    spec = Spec.from_spaces(env.observation_space, env.action_space, 8)
    for name in ("gqn", "badj", "svg-lp"):
        with pytest.raises(ValueError, match=f"spec: {name} takes images, got vectors of 4"):
            make(name, spec)
    with pytest.raises(ValueError, match="renderer: expected 'mlp' for vectors"):
        make("jump", spec, "narrative")
    with pytest.raises(ValueError, match="a float Box of shape"):
        Spec.from_spaces(gym.spaces.Box(0, 9, (4,), np.int64), env.action_space, 8)
    with pytest.raises(ValueError, match="with D low and high bounds"):
        Spec((4,), spec.action, 8)
    with pytest.raises(ValueError, match="pose: cameras take images"):
        Spec((4,), ActionSpec("none"), 8, pose=2, low=spec.low, high=spec.high)
    for clip in (compare, ImaginationVideo):
        order = [make("jump", spec), env]
        with pytest.raises(ValueError, match="model: it sees vectors"):
            clip(*(order if clip is compare else order[::-1]))  # type: ignore[operator]
    model, venv_starts = make("jump", spec), np.full((2, 4), np.nan, np.float32)
    with pytest.raises(ValueError, match="starts: holds NaN"):
        ImaginedVecEnv(model, venv_starts)
    with pytest.raises(TypeError, match="starts: expected float32 vectors"):
        ImaginedVecEnv(model, np.zeros((2, 4), np.uint8))
    with pytest.raises(ValueError, match="expected \\(B, M, D,\\)"):
        model.observe(Context(torch.zeros(1, 1, 3), torch.zeros(1, 1).long()))
