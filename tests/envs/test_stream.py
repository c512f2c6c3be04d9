"""The stream of scenes: endless, deterministic, and the same as the environment."""

from __future__ import annotations

from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
import torch

import envs
from envs import SceneStream, play, sample_scenes
from envs.stream import random_actions

AGENT, NATURE = "narratives/TravelingSalesman-v0", "narratives/TravelingSalesmanNature-v0"
VIEWS = "dice/Views-v0"


def same(a, b):
    """Equality of batches or states, field by field."""
    for field in fields(a):
        mine, theirs = getattr(a, field.name), getattr(b, field.name)
        if isinstance(mine, torch.Tensor) and not torch.equal(mine, theirs):
            return False
        if isinstance(mine, envs.State) and not same(mine, theirs):
            return False
    return True


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_frames_rewards_and_ends_are_those_of_the_environment(env_id):
    batch = sample_scenes(env_id, 3, size=16, seed=1)
    steps = batch.actions.shape[1]
    times = torch.arange(steps + 1).expand(3, -1)
    frames, poses = batch.observations(times).numpy(), batch.poses(times)
    env = gym.make(env_id, size=16)
    for i in range(3):
        frame, info = env.reset(options={"scene": int(batch.scene_ids[i])})
        assert np.array_equal(frames[i, 0], frame)
        assert ("key" in info) == (poses is not None)
        length = int(batch.lengths[i])
        for t in range(length):
            frame, reward, terminated, truncated, info = env.step(batch.actions[i, t].numpy()[()])
            assert np.array_equal(frames[i, t + 1], frame)
            assert poses is None or np.array_equal(poses[i, t + 1], info["key"])
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


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_scenes_and_frames_do_not_depend_on_the_batch(env_id):
    batch = sample_scenes(env_id, 256, size=64)
    rows = range(0, 256, 16)
    last = torch.full((256, 1), batch.actions.shape[1])
    frames = batch.observations(last)
    for i in rows:
        row = slice(i, i + 1)
        alone = play(batch.simulator, batch.scene_ids[row], batch.actions[row], 64)
        assert same(alone, batch.rows(row))
        assert torch.equal(alone.observations(last[:1]), frames[row])


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_train_and_test_scenes_differ(env_id):
    train, test = (sample_scenes(env_id, 64, split=split) for split in ("train", "test"))
    assert not set(train.scene_ids.tolist()) & set(test.scene_ids.tolist())
    assert {s >> 40 for s in test.scene_ids.tolist()} == {1}
    assert {s >> 40 for s in train.scene_ids.tolist()} == {0}


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
    assert same(batch, SceneStream(env.unwrapped.simulator, 2, split="test", seed=3).batch(0))


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_start_is_the_beginning(env_id):
    batch = sample_scenes(env_id, 5)
    assert same(batch.start(), batch.simulator.begin(batch.scene_ids))


def test_box_actions_are_uniform():
    batch = sample_scenes(VIEWS, 400)
    assert batch.actions.dtype == torch.float32 and batch.actions.shape == (400, 9, 1)
    shares = torch.histc(batch.actions, 8, -1, 1) / batch.actions.numel()
    assert (shares - 1 / 8).abs().max() < 0.02
    assert batch.poses(torch.zeros(400, 2, dtype=torch.int64)).shape == (400, 2, 7)
    with pytest.raises(TypeError, match="space"):
        random_actions(gym.spaces.MultiBinary(2), torch.arange(3), 4)


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
    with pytest.raises(ValueError, match="source"):
        SceneStream("CartPole-v1")


@pytest.mark.gpu
@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_a_gpu_tells_the_same(env_id):
    cpu, gpu = (sample_scenes(env_id, 64, device=device) for device in ("cpu", "cuda"))
    assert torch.equal(cpu.scene_ids, gpu.scene_ids.cpu())
    torch.testing.assert_close(cpu.actions, gpu.actions.cpu())
    torch.testing.assert_close(cpu.rewards, gpu.rewards.cpu(), atol=1e-5, rtol=0)
    assert torch.equal(cpu.terminated, gpu.terminated.cpu())
    times = torch.arange(cpu.actions.shape[1] + 1).expand(64, -1)
    a, b = cpu.observations(times).int(), gpu.observations(times.cuda()).cpu().int()
    # Sines may differ in the last bit: rounding, and here and there another pixel of a pattern.
    assert ((a - b).abs() > 1).float().mean() < 1e-3
