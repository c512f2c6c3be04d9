"""The stream of scenes: endless, deterministic, and the same as the environment."""

from __future__ import annotations

from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
import torch

import envs
from envs import SceneStream, sample_scenes
from envs.narratives.stream import play

AGENT, NATURE = envs.ENV_IDS


def same(a, b):
    names = [f.name for f in fields(a) if f.name not in ("story", "size")]
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in names)


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_frames_rewards_and_ends_are_those_of_the_environment(env_id):
    batch = sample_scenes(env_id, 3, size=16, seed=1)
    steps = batch.actions.shape[1]
    frames = batch.observations(torch.arange(steps + 1).expand(3, -1)).numpy()
    env = gym.make(env_id, size=16)
    for i in range(3):
        frame, _ = env.reset(options={"scene": int(batch.scene_ids[i])})
        assert np.array_equal(frames[i, 0], frame)
        length = int(batch.lengths[i])
        for t in range(length):
            frame, reward, terminated, truncated, _ = env.step(int(batch.actions[i, t]))
            assert np.array_equal(frames[i, t + 1], frame)
            assert reward == batch.rewards[i, t].item()
            assert terminated == batch.terminated[i, t].item()
            assert (terminated or truncated) == (t == length - 1)
        assert (batch.rewards[i, length:] == 0).all()
        assert not batch.terminated[i, length:].any()
        assert (frames[i, length:] == frames[i, length]).all()


def test_shapes_and_types():
    batch = sample_scenes(AGENT, 4)
    kinds = {"actions": torch.int64, "rewards": torch.float32, "terminated": torch.bool}
    for name, dtype in kinds.items():
        assert getattr(batch, name).shape == (4, 40) and getattr(batch, name).dtype == dtype
    assert batch.lengths.shape == (4,) and batch.lengths.dtype == torch.int64
    frames = batch.observations(torch.zeros(4, 2, dtype=torch.int64))
    assert frames.shape == (4, 2, 32, 32, 3) and frames.dtype == torch.uint8
    assert sample_scenes(NATURE, 4).actions.shape == (4, 20)


def test_a_batch_is_named_by_its_index():
    stream = SceneStream(AGENT, 3, seed=5)
    batches = [stream.batch(i) for i in (0, 1, 300, 1)]
    assert same(batches[1], batches[3])
    assert same(batches[2], SceneStream(AGENT, 3, seed=5).batch(300))
    assert same(batches[2], sample_scenes(AGENT, 3, seed=5, index=300))
    ids = torch.cat([b.scene_ids for b in batches[:3]])
    assert len(ids.unique()) == 9
    for other in (SceneStream(AGENT, 3, seed=6), SceneStream(AGENT, 3, seed=5, split="test")):
        assert not np.intersect1d(other.batch(0).scene_ids, ids).size


def test_scenes_do_not_depend_on_the_batch():
    batch = sample_scenes(AGENT, 256)
    alone = play(batch.story, batch.scene_ids[9:10], batch.actions[9:10], 32)
    assert same(alone, batch.rows(slice(9, 10)))


@pytest.mark.parametrize("hold", [1, 3, 5])
def test_actions_are_held_and_varied(hold):
    actions = sample_scenes(AGENT, 600, hold=hold).actions
    for start in range(0, 40, hold):
        assert (actions[:, start : start + hold] == actions[:, start : start + 1]).all()
    decisions = actions[:, ::hold]
    counts = torch.bincount(decisions.flatten(), minlength=4) / decisions.numel()
    assert (counts - 0.25).abs().max() < 0.02
    repeats = (decisions[:, 1:] == decisions[:, :-1]).float().mean()
    assert repeats == pytest.approx(0.25, abs=0.03)


def test_an_environment_offers_its_own_stream():
    env = gym.make(AGENT, size=16, split="test", max_steps=12)
    batch = env.unwrapped.scenes(2, seed=3).batch(0)
    assert batch.actions.shape == (2, 12) and batch.size == 16
    assert (batch.scene_ids >= 2**40).all()
    assert same(batch, SceneStream(env.unwrapped.story, 2, split="test", seed=3).batch(0))


def test_start_knows_the_story():
    batch = sample_scenes(NATURE, 5)
    start = batch.start()
    assert torch.equal(start.positions, batch.positions[:, 0])
    assert start.order.shape == (5, 4)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"batch_size": 0}, ValueError),
        ({"batch_size": 1.5}, TypeError),
        ({"size": 33}, ValueError),
        ({"split": "all"}, ValueError),
        ({"seed": -1}, ValueError),
        ({"hold": 0}, ValueError),
    ],
)
def test_bad_arguments(kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))):
        SceneStream(AGENT, **kwargs)


def test_bad_use():
    stream = SceneStream(AGENT, 2)
    with pytest.raises(ValueError, match="index"):
        stream.batch(-1)
    with pytest.raises(TypeError, match="index"):
        stream.batch(1.0)
    batch = stream.batch(0)
    for times, error in (
        (torch.zeros(2, 1), TypeError),
        (torch.zeros(3, 1, dtype=torch.int64), ValueError),
        (torch.full((2, 1), 41), ValueError),
        (torch.full((2, 1), -1), ValueError),
    ):
        with pytest.raises(error, match="times"):
            batch.observations(times)
    with pytest.raises(ValueError, match="narrative"):
        SceneStream("CartPole-v1")


@pytest.mark.gpu
def test_a_gpu_tells_the_same():
    cpu, gpu = (sample_scenes(AGENT, 64, device=d) for d in ("cpu", "cuda"))
    assert torch.equal(cpu.scene_ids, gpu.scene_ids.cpu())
    assert torch.equal(cpu.actions, gpu.actions.cpu())
    torch.testing.assert_close(cpu.positions, gpu.positions.cpu(), atol=1e-6, rtol=0)
    times = torch.arange(41).expand(64, -1)
    a, b = cpu.observations(times).int(), gpu.observations(times.cuda()).cpu().int()
    assert (a - b).abs().max() <= 1
