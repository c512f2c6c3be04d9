"""Spoiled files of every kind: each is read as it is, or refused with an error of ours."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import strategies as st

from envs.handwriting import read_idx
from evaluation.report.load_results import read_one
from evaluation.runner.partial_results import PartialResults
from tests.agents.masked_envs import Cards
from tests.stress.conftest import Tally
from tests.stress.mutations import Judge, each, rewritten, spoiled
from tests.stress.parts import IMAGE_OF_DICT
from worldmodel import ActionSpec, Episode, Episodes, Spec, collect, testing, unpack
from worldmodel.spec.parts import Part

Size = Callable[[int, int], int]
VECTOR = Spec((2,), ActionSpec("discrete", (), (3,)), 4, low=(-1.0, -np.inf), high=(1.0, np.inf))


def episodes(steps: int = 4) -> Episodes:
    random = np.random.default_rng(0)
    return Episodes(
        [
            Episode(
                random.uniform(-1, 1, (steps + 1, 2)).astype(np.float32),
                random.integers(3, size=steps),
                np.ones(steps, np.float32),
                terminated=number % 2 == 0,
            )
            for number in range(3)
        ],
        VECTOR.action,
        VECTOR.observation_space(),
    )


# -- episodes --------------------------------------------------------------------------------------


ARRAYS = ("observations", "actions", "rewards", "masks", "terminated")


def same(found: Episodes, expected: Episodes) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(found, expected, strict=True)
        for name in ARRAYS
    )


MAPPED = pytest.mark.parametrize("memory", [None, 2**20], ids=["in memory", "on disk"])
RECORDED: dict[str, Callable[[], Episodes]] = {
    "vectors": episodes,
    "masks": lambda: collect(Cards, 3, progress=False),
    "Dicts": lambda: testing.random_episodes(IMAGE_OF_DICT, 3),
}
KINDS = pytest.mark.parametrize("kind", RECORDED)


def stored(tmp_path: Path, memory: int | None, kind: str = "vectors") -> Path:
    """A folder of episodes that can be read so."""
    folder = RECORDED[kind]().save(tmp_path / "saved")
    return folder if memory is None else unpack(folder, tmp_path / "episodes")


def read_episodes(folder: Path, memory: int | None) -> Callable[[], Episodes]:
    return lambda: Episodes.load(folder, memory)


@MAPPED
@KINDS
def test_meta(tmp_path: Path, size: Size, tally: Tally, kind: str, memory: int | None) -> None:
    folder, recorded = stored(tmp_path, memory, kind), RECORDED[kind]()
    path = folder / "meta.json"
    whole = path.read_bytes()
    judge = Judge(tally, "meta.json", path, read_episodes(folder, memory))

    def case(data: bytes) -> None:
        found = judge.case(data)
        if found is not None:
            assert same(found, recorded)
            told = json.loads(data)
            assert found.action == ActionSpec.from_dict(told["action"])
            space = found.observation_space
            if isinstance(space, gym.spaces.Dict):
                assert space == gym.spaces.Dict(
                    {part["name"]: Part.from_dict(part).space() for part in told["parts"]}
                )
                return
            assert isinstance(space, gym.spaces.Box)
            for name in ("low", "high"):  # as the dtype that the file names holds them
                bounds = np.array([float(x) for x in told[name]], told.get("dtype", "float32"))
                assert np.array_equal(getattr(space, name), bounds)

    few = 1 if kind == "vectors" else 3
    cases = rewritten(json.loads(whole)).map(str.encode)
    each(tally, judge.area, cases, size(40 // few, 900 // few), case)
    each(tally, judge.area, spoiled(whole), size(20 // few, 400 // few), case)


def as_without_checksums(found: Episodes, folder: Path, recorded: Episodes) -> None:
    """Episodes on disk are those that reading all of it finds, but for numbers whose checksum only
    that compares.
    """
    try:
        assert same(found, Episodes.load(folder))
    except ValueError as error:
        assert "Bad CRC-32" in str(error), error
        for one, other in zip(found, recorded, strict=True):
            assert len(one.actions) == len(other.actions)
            assert one.observations.shape == other.observations.shape


@MAPPED
@KINDS
def test_shard(tmp_path: Path, size: Size, tally: Tally, kind: str, memory: int | None) -> None:
    folder, recorded = stored(tmp_path, memory, kind), RECORDED[kind]()
    path = folder / "episodes-00000.npz"
    whole = path.read_bytes()
    judge = Judge(tally, "shard", path, read_episodes(folder, memory))

    def case(data: bytes) -> None:
        found = judge.case(data)
        if found is not None and memory is not None:
            as_without_checksums(found, folder, recorded)
        else:
            assert found is None or same(found, recorded)

    few = 1 if kind == "vectors" else 3
    each(tally, judge.area, spoiled(whole), size(60 // few, 1500 // few), case)


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 12, 15, -1, 10**12, 2**62, 10**30]), max_size=3)
DTYPES = st.sampled_from(["|u1", "<f4", "<f8", "<i8", "|b1", "|O", "<c16", "<U4", "<M8[s]", "|V8"])


@st.composite
def shard(draw: st.DrawFn) -> bytes:
    """A shard with one array of another shape and dtype, as its header says or truly so."""
    names = ["observations", "actions", "rewards", "terminated", "steps", "masks"]
    lies = draw(st.sampled_from(names))
    recorded = episodes()
    arrays: dict[str, Any] = {
        "observations": np.concatenate([e.observations for e in recorded]),
        "actions": np.concatenate([e.actions for e in recorded]),
        "rewards": np.concatenate([e.rewards for e in recorded]),
        "terminated": np.array([e.terminated for e in recorded]),
        "steps": np.array([4, 4, 4]),
    }
    if lies == "masks" or draw(st.booleans()):
        arrays["masks"] = np.ones((15, 3), bool)
    if lies == "steps" and draw(st.booleans()):
        arrays["steps"] = np.array(draw(st.lists(st.sampled_from([4, 0, -4, 8, 2**62]))), np.int64)
        lies = ""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", draw(st.sampled_from([0, 8, 12, 14]))) as out:
        for name, array in arrays.items():
            held = io.BytesIO()
            np.save(held, array)
            data = held.getvalue()
            if name == lies:
                shape = draw(SHAPES.map(tuple) | st.just(array.shape))
                near = st.sampled_from([array.dtype.str, array.dtype.newbyteorder().str])
                dtype, turned = draw(DTYPES | near), draw(st.booleans())
                text = f"{{'descr': '{dtype}', 'fortran_order': {turned}, 'shape': {shape}, }}"
                text = text.ljust(117) + "\n"
                data = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + data[128:]
            prefix = draw(st.sampled_from([*[""] * 30, "../", "/"]))
            out.writestr(f"{prefix}{name}.npy", data)
    return file.getvalue()


@MAPPED
def test_made_up_shard(tmp_path: Path, size: Size, tally: Tally, memory: int | None) -> None:
    folder = stored(tmp_path, memory)
    path = folder / "episodes-00000.npz"
    judge = Judge(tally, "made-up shard", path, read_episodes(folder, memory))

    def case(data: bytes) -> None:
        found = judge.case(data)
        if found is not None:
            assert len(found) == 3 and {len(e.actions) for e in found} == {4}
            assert all(e.observations.shape == (5, 2) for e in found)
            assert same(found, Episodes.load(folder))
            assert found.windows(4, 2).batch(0).actions.shape == (2, 4)

    each(tally, judge.area, shard(), size(40, 900), case)


# -- digits and results ----------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, size: Size, tally: Tally, packed: bool) -> None:
    images = np.random.default_rng(0).integers(256, size=(5, 28, 28), dtype=np.uint8)
    plain = struct.pack(">BBBBIII", 0, 0, 8, 3, 5, 28, 28) + images.tobytes()
    path = tmp_path / ("images.gz" if packed else "images")
    judge = Judge(tally, "IDX, gzip" if packed else "IDX", path, lambda: read_idx(path, 3))

    def case(data: bytes) -> None:
        found = judge.case(data)
        if found is None:
            return
        if packed:  # its checksum knows
            assert np.array_equal(found, images)
        else:
            assert found.shape == struct.unpack(">III", data[4:16])
            assert found.tobytes() == data[16:]

    numbers = st.sampled_from([0, 1, 5, 28, 28 * 28, 2**31, 2**32 - 1, 140])
    heads = st.tuples(numbers, numbers, numbers).map(
        lambda shape: struct.pack(">BBBBIII", 0, 0, 8, 3, *shape) + images.tobytes()
    )
    pack = gzip.compress if packed else bytes
    each(tally, judge.area, spoiled(pack(plain), 20), size(30, 600), case)
    if not packed:
        each(tally, judge.area, heads, size(20, 300), case)


def test_result(tmp_path: Path, size: Size, tally: Tally) -> None:
    names = ("benchmark", "command", "commit", "machine", "versions", "settings")
    whole = {**dict.fromkeys(names, "text"), "rows": [{"agent": "a", "value": 1.5}]}
    path = tmp_path / "efficiency.json"
    judge = Judge(tally, "result", path, lambda: read_one(path))

    def case(data: bytes) -> None:
        found = judge.case(data)
        if found is not None:
            assert repr(found.rows) == repr(json.loads(data)["rows"])

    each(tally, judge.area, rewritten(whole).map(str.encode), size(30, 500), case)
    each(tally, judge.area, spoiled(json.dumps(whole).encode()), size(20, 300), case)


class _Stopped(Exception):
    """Ends a measurement whose parts shall stay."""


def test_parts_of_a_measurement(tmp_path: Path, size: Size, tally: Tally) -> None:
    facts = {"benchmark": "any", "settings": {"seed": 1}, "commit": "abc"}
    whole = {"a": [1.5, None], "b, seed 0": {"c": 2}}

    def opened(resume: bool, items: dict[str, Any]) -> dict[str, Any]:
        result = tmp_path / "any.json"
        with suppress(_Stopped), PartialResults.opened(result, facts, resume) as partial:
            partial.each(lambda item: item, items, "any")
            raise _Stopped
        return partial.parts

    assert opened(False, whole) == whole
    for path in sorted((tmp_path / "any.json.parts").glob("*.json")):
        data = path.read_bytes()
        judge = Judge(tally, "part of a measurement", path, lambda: opened(True, {}))

        def case(data: bytes, judge: Judge = judge) -> None:
            found = judge.case(data)
            if found is not None:
                told = json.loads(data)
                assert found.keys() == whole.keys()
                assert "part" not in told or repr(found[told["part"]]) == repr(told["value"])

        each(tally, judge.area, rewritten(json.loads(data)).map(str.encode), size(15, 250), case)
        each(tally, judge.area, spoiled(data), size(10, 150), case)
        path.write_bytes(data)
