"""Episodes: recorded, stored, cut into windows."""

from __future__ import annotations

import io
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from scenes import moving_square

from worldmodel import ActionSpec, Episode, Episodes, Spec, collect, unpack


class Counter(gym.Env[Any, Any]):
    """Shows how many steps were taken as a grey level; ends after five."""

    observation_space = gym.spaces.Box(0, 255, (16, 16, 1), np.uint8)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.full((16, 16, 1), 0, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        frame = np.full((16, 16, 1), self.count, np.uint8)
        return frame, float(action), self.count == 5, False, {}


def test_collect_records_what_happens() -> None:
    episodes = collect(Counter(), 3, hold=2, seed=4, progress=False)
    assert len(episodes) == 3 and episodes.steps == 15
    for episode in episodes.episodes:
        assert episode.observations[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert episode.rewards.tolist() == episode.actions.astype(float).tolist()
        assert episode.actions[0] == episode.actions[1] and episode.actions[2] == episode.actions[3]
        assert episode.terminated
    again = collect(Counter(), 3, hold=2, seed=4, progress=False)
    assert np.array_equal(again[2].actions, episodes[2].actions)
    cut = collect(Counter(), 1, max_steps=3, policy=lambda frame: 1, progress=False)
    assert not cut[0].terminated and cut[0].actions.tolist() == [1, 1, 1]


def test_collect_copies_what_an_environment_reuses() -> None:
    class Reusing(Counter):
        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            self.buffer, info = super().reset(**kwargs)
            return self.buffer, info

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.buffer[:], *rest = super().step(action)
            return (self.buffer, *rest)  # type: ignore[return-value]

    episode = collect(Reusing(), 1, progress=False)[0]
    assert episode.observations[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_collect_refuses_other_spaces() -> None:
    with pytest.raises(ValueError, match="observation_space: expected a uint8 Box"):
        collect("FrozenLake-v1", 1, progress=False)
    with pytest.raises(ValueError, match="at least 1"):
        collect(Counter(), 0, progress=False)
    for counts in ({}, {"episodes": 1, "steps": 1}):
        with pytest.raises(ValueError, match="episodes, steps: give exactly one"):
            collect(Counter(), progress=False, **counts)


class Changing(Counter):
    """From the episode of seed 2 on another one, if it is told so."""

    def __init__(self, what: str) -> None:
        self.what = what

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        shown, info = super().reset(seed=seed)
        self.changed = seed is not None and seed >= 2
        if self.changed and self.what == "action space":
            self.action_space = gym.spaces.Discrete(50)
        return self._shown(shown), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        shown, *rest = super().step(action)
        return (self._shown(shown), *rest)  # type: ignore[return-value]

    def _shown(self, shown: Any) -> Any:
        return np.pad(shown, ((0, 8), (0, 0), (0, 0))) if self._grows() else shown

    def _grows(self) -> bool:
        return self.what == "shape" and self.changed and self.count >= 3


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "shape",
            r"env: Changing, episode of seed 2, step 3: .* uint8 \(24, 16, 1\), its space is",
        ),
        ("action space", r"env: Changing, episode of seed 2: actions are not all of Discrete\(2\)"),
    ],
)
def test_what_was_recorded_before_a_space_changed_stays(
    tmp_path: Path, what: str, message: str
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(ValueError, match=message):
        collect(Changing(what), 4, folder=folder, save_minutes=0, progress=False)
    assert len(Episodes.load(folder)) == 2
    whole = collect(Changing("nothing"), 4, folder=folder, resume=True, progress=False)
    assert len(whole) == len(Episodes.load(folder)) == 4


def test_an_environment_made_anew_has_the_same_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers make their own; its episodes are held against the spaces of the first one."""
    here = import_module("worldmodel.data.collect")  # as a name of the package it is the function
    monkeypatch.setattr(here, "scatter", lambda function, items, *_: map(function, items))
    kinds = iter(["CartPole-v1", "Acrobot-v1"])
    with pytest.raises(ValueError, match=r"env: CartPole-v1, episode of seed 5: observations are"):
        collect(lambda: gym.make(next(kinds)), 1, seed=5, folder=tmp_path, save_minutes=0,
                max_steps=9, progress=False, workers=1)  # fmt: skip
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("when", ["in an episode", "before meta.json", "after meta.json"])
def test_stopping_keeps_finished_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    folder, here = tmp_path / "a", import_module("worldmodel.data.collect")

    class Stopped(Counter):
        at: int | None = 3 if when == "in an episode" else None

        def reset(self, *, seed: int | None = None, **more: Any) -> tuple[Any, dict[str, Any]]:
            if seed == self.at:
                raise KeyboardInterrupt
            return super().reset(seed=seed, **more)

    def write_meta(*args: Any, **kwargs: Any) -> None:
        monkeypatch.undo()
        if when == "after meta.json":
            here.write_meta(*args, **kwargs)
        raise KeyboardInterrupt

    if when != "in an episode":
        monkeypatch.setattr(here, "write_meta", write_meta)
        monkeypatch.setattr(here, "EPISODES_PER_SHARD", 3)
    with pytest.raises(KeyboardInterrupt, match=r"after 3 episodes; resume=True \(--resume\) goes"):
        collect(Stopped(), 5, folder=folder, progress=False)
    assert len(Episodes.load(folder)) == 3
    assert len(list(folder.glob("*.npz"))) == 1
    Stopped.at = None
    resumed = collect(Stopped(), 5, folder=folder, resume=True, progress=False)
    for found in (resumed, Episodes.load(folder)):
        for one, other in zip(found, collect(Stopped(), 5, progress=False), strict=True):
            assert np.array_equal(one.actions, other.actions)


def test_stopping_where_nothing_can_be_kept(tmp_path: Path) -> None:
    class Stopped(Counter):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            raise KeyboardInterrupt

    for folder in (None, tmp_path / "a"):
        with pytest.raises(KeyboardInterrupt) as stopped:
            collect(Stopped(), 5, folder=folder, progress=False)
        assert str(stopped.value) == ""
    assert not list(tmp_path.glob("a/*.npz")) and not list(tmp_path.glob("a/*.json"))


def test_collect_until_there_are_steps_enough() -> None:
    assert len(collect(Counter(), steps=11, progress=False)) == 3  # of five steps each
    assert len(collect(Counter(), steps=10, progress=False)) == 2


def test_save_and_load(tmp_path: Path) -> None:
    episodes = moving_square(5)
    folder = episodes.save(tmp_path / "a")
    loaded = Episodes.load(folder)
    assert len(loaded) == 5 and loaded.action == episodes.action
    for one, other in zip(episodes.episodes, loaded.episodes, strict=True):
        assert np.array_equal(one.observations, other.observations)
        assert np.array_equal(one.actions, other.actions)
        assert np.array_equal(one.rewards, other.rewards)
        assert one.terminated == other.terminated
    with pytest.raises(FileExistsError, match="already holds episodes"):
        episodes.save(folder)


def test_broken_folders(tmp_path: Path) -> None:
    folder = moving_square(3).save(tmp_path / "a")
    shard = folder / "episodes-00000.npz"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="episodes-00000.npz: corrupt shard"):
        Episodes.load(folder)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    shard.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match="corrupt shard"):
        Episodes.load(folder)
    with np.load(io.BytesIO(whole)) as arrays:
        longer = {**arrays, "steps": arrays["steps"] + 1}
    np.savez_compressed(shard, **longer)
    with pytest.raises(ValueError, match="corrupt shard .*do not hold 3 episodes of 27 steps"):
        Episodes.load(folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="the shard is missing"):
        Episodes.load(folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(ValueError, match="format 99, this version reads 1"):
        Episodes.load(folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"meta.json: not JSON"):
        Episodes.load(folder)
    with pytest.raises(FileNotFoundError, match="no meta.json"):
        Episodes.load(tmp_path / "nowhere")


@pytest.mark.parametrize("whole", [False, True])
def test_episodes_on_disk_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr("worldmodel.data.episodes.EPISODES_PER_SHARD", 4)
    images, vectors = moving_square(10, steps=9), collect("CartPole-v1", 10, progress=False)
    for name, episodes in (("images", images), ("vectors", vectors)):
        folder = unpack(episodes.save(tmp_path / name), tmp_path / f"{name} unpacked")
        largest = max(path.stat().st_size for path in folder.glob("*.npz"))
        kept = Episodes.load(folder)
        stored = Episodes.load(folder, largest)  # one shard at a time
        assert len(stored) == 10 and stored.steps == kept.steps == episodes.steps
        assert stored.observation_space == kept.observation_space
        assert np.array_equal(stored.starts(), kept.starts())
        for one, other in zip([kept, *kept.split(0.3)], [stored, *stored.split(0.3)], strict=True):
            for index in range(3):
                pair = [e.windows(6, 16, 7, whole=whole).batch(index) for e in (one, other)]
                times = torch.arange(7).expand(16, -1)
                for part in ("actions", "rewards", "terminated", "lengths"):
                    assert torch.equal(*(getattr(batch, part) for batch in pair))
                assert torch.equal(*(batch.observations(times) for batch in pair))
        again = Episodes.load(stored.save(tmp_path / f"{name} again"))
        assert np.array_equal(again[-1].observations, kept[-1].observations)
        with pytest.raises(ValueError, match=f"memory: expected at least the {largest:,} bytes"):
            Episodes.load(folder, largest - 1)
        with pytest.raises(ValueError, match="compressed.* `python -m worldmodel unpack"):
            Episodes.load(tmp_path / name, 2**30)
        with pytest.raises(FileExistsError, match="already holds episodes"):
            unpack(folder, tmp_path / name)


def test_the_layout_in_memory_changes_no_episode(tmp_path: Path) -> None:
    """NumPy also keeps, and writes, arrays in Fortran's order."""

    def same(found: Episodes) -> bool:
        pairs = zip(found, vectors, strict=True)
        return all(np.array_equal(a.observations, b.observations) for a, b in pairs)

    vectors = collect("CartPole-v1", 3, progress=False)
    turned = [
        Episode(np.asfortranarray(e.observations), e.actions, e.rewards, e.terminated)
        for e in vectors
    ]
    episodes = Episodes(turned, vectors.action, vectors.observation_space)
    folder = unpack(episodes.save(tmp_path / "a"), tmp_path / "b")
    assert same(Episodes.load(tmp_path / "a")) and same(Episodes.load(folder, 2**20))
    shard = folder / "episodes-00000.npz"
    for path in (shard, tmp_path / "a" / shard.name):
        with np.load(path) as arrays:
            assert arrays["observations"].flags.c_contiguous
            written = dict(arrays)
    # As an earlier version wrote it, or a stranger does.
    np.savez(shard, **{**written, "observations": np.asfortranarray(written["observations"])})
    assert same(Episodes.load(folder)) and same(Episodes.load(folder, 2**20))
    again = unpack(folder, tmp_path / "c")
    with np.load(again / shard.name) as arrays:
        assert arrays["observations"].flags.c_contiguous
    assert same(Episodes.load(again, 2**20))


def test_a_shard_larger_than_the_memory_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = moving_square(3).save(tmp_path / "a")
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    message = r"episodes-00000.npz: says that it holds [0-9,]+ bytes; this machine has 100 bytes"
    with pytest.raises(ValueError, match=message):
        unpack(folder, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_broken_folders_on_disk(tmp_path: Path) -> None:
    folder = unpack(moving_square(3).save(tmp_path / "a"), tmp_path / "b")
    shard = folder / "episodes-00000.npz"
    whole = shard.read_bytes()
    with np.load(io.BytesIO(whole)) as arrays:
        good = dict(arrays)
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="episodes-00000.npz: corrupt shard"):
        Episodes.load(folder, 2**20)
    for change, message in (
        ({"steps": good["steps"] + 1}, "do not hold 3 episodes of 27 steps"),
        ({"rewards": np.full_like(good["rewards"], np.nan)}, "rewards: hold NaN"),
        ({"actions": np.array([{}] * 24, object)}, "expected an array of numbers"),
        ({"actions": good["actions"].astype(">i8")}, "actions: expected this machine's byte order"),
        ({"rewards": good["rewards"].astype(np.longdouble)}, "at most 8 bytes a number, got <f16"),
    ):
        np.savez(shard, **{**good, **change})
        with pytest.raises(ValueError, match=f"corrupt shard .*({message})"):
            Episodes.load(folder, 2**20)
    for place in (whole.rindex(b"PK\x01\x02") + 20, whole.index(b"NUMPY") + 5):
        flipped = bytearray(whole)  # a size in the directory, a version in an array's header
        flipped[place] ^= 0xFF
        shard.write_bytes(bytes(flipped))
        with pytest.raises(ValueError, match="corrupt shard"):
            Episodes.load(folder, 2**20)
    meta = json.loads((folder / "meta.json").read_text())
    meta["shards"][0]["episodes"] = 4
    shard.write_bytes(whole)
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="corrupt shard .*3 episodes, meta.json says 4"):
        Episodes.load(folder, 2**20)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="the shard is missing"):
        Episodes.load(folder, 2**20)


@pytest.mark.parametrize(
    "counts", [(0,), (-3,), (3, 0), (0, 3), (3, -1), (-1, 3), (True,), (2**31,)]
)
def test_a_shard_has_episodes(tmp_path: Path, counts: tuple[int, ...]) -> None:
    folder = unpack(moving_square(3).save(tmp_path / "a"), tmp_path / "b")
    meta = json.loads((folder / "meta.json").read_text())
    names = [f"episodes-{number:05d}.npz" for number in range(len(counts))]
    for name in names:
        (folder / name).write_bytes((folder / names[0]).read_bytes())
    told = [{"file": name, "episodes": n} for name, n in zip(names, counts, strict=True)]
    (folder / "meta.json").write_text(json.dumps({**meta, "shards": told}))
    for memory in (None, 2**20):
        with pytest.raises(
            ValueError, match=r"meta.json: shards: .* of 1 to 2\*\*31 - 1 episodes, got"
        ):
            Episodes.load(folder, memory)


def test_bad_episodes() -> None:
    frames, actions = np.zeros((3, 16, 16, 3), np.uint8), np.zeros(2, np.int64)
    rewards = np.zeros(2, np.float32)
    for change, message in [
        ((frames.astype(np.float32), actions, rewards), "expected uint8"),
        ((frames[:2], actions, rewards), "2 actions need 3 observations"),
        ((frames, actions, np.array([0, np.nan], np.float32)), "rewards: hold NaN"),
        ((frames, actions.astype(">i8"), rewards), "actions: expected this machine's byte order"),
        ((frames, actions.astype(np.longdouble), rewards), "at most 8 bytes a number, got <f16"),
    ]:
        with pytest.raises(ValueError, match=message):
            Episode(*change, terminated=False)
    action = ActionSpec("discrete", (), (2,))
    with pytest.raises(ValueError, match="record at least one"):
        Episodes([], action)
    small = Episode(frames[:, :8, :8], actions, rewards, False)
    with pytest.raises(ValueError, match=r"episodes\[1\]: observations"):
        Episodes([Episode(frames, actions, rewards, False), small], action)


def test_specs() -> None:
    image = gym.spaces.Box(0, 255, (32, 48, 3), np.uint8)
    spaces: list[tuple[gym.Space[Any], int]] = [
        (gym.spaces.Discrete(4), 4),
        (gym.spaces.MultiDiscrete([2, 3]), 5),
        (gym.spaces.MultiBinary(3), 3),
        (gym.spaces.Box(-2.0, 2.0, (2,)), 2),
        (gym.spaces.Box(-2.0, 2.0, (2,), np.float64), 2),
        (gym.spaces.Discrete(1), 0),
    ]
    for space, features in spaces:
        spec = Spec.from_spaces(image, space, 7)
        assert spec == Spec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert spec.observation == (3, 32, 48) and spec.action.features == features
        spec.check_spaces(image, space, "env")
        if features:
            actions = torch.as_tensor(np.stack([space.sample() for _ in range(6)]))
            encoded = spec.action.encode(actions)
            assert encoded.shape == (6, features) and encoded.abs().max() <= 1
    with pytest.raises(ValueError, match="env: action space is Discrete"):
        Spec.from_spaces(image, gym.spaces.MultiBinary(3), 7).check_spaces(
            image, gym.spaces.Discrete(3), "env"
        )
    with pytest.raises(ValueError, match="finite low and high"):
        ActionSpec.from_space(gym.spaces.Box(-np.inf, np.inf, (1,)))
    with pytest.raises(ValueError, match="low must be below"):
        ActionSpec.from_space(gym.spaces.Box(1.0, 1.0, (1,)))
    with pytest.raises(ValueError, match="start: expected a number below"):
        ActionSpec("discrete", (), (2,), start=(1, 2))
    with pytest.raises(ValueError, match="multiples of 8"):
        Spec((3, 30, 32), ActionSpec("none"), 5)
    with pytest.raises(ValueError, match="window"):
        Spec((3, 32, 32), ActionSpec("none"), 0)


def test_episodes_are_added() -> None:
    first, second = moving_square(2), moving_square(3, seed=1)
    both = first + second
    assert len(both) == 5 and both.steps == first.steps + second.steps
    assert both[0] is first[0] and both[4] is second[2] and len(first) == 2
    with pytest.raises(ValueError, match="episodes: observation space"):
        first + collect(Counter(), 1, progress=False)
    with pytest.raises(TypeError):
        _ = first + second[0]
