"""Spoiled files of every kind: each is read as it is, or refused with an error of ours."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from agents import InversePolicy, InversePolicyConfig
from envs.handwriting import read_idx
from evaluation.report.load_results import read_one
from evaluation.runner.partial_results import PartialResults
from tests.stress.conftest import Tally
from tests.stress.mutations import HOSTILE, each, guarded, rewritten, spoiled
from worldmodel import ActionSpec, Episode, Episodes, Spec, checkpoint, load, make, preset, unpack
from worldmodel.data.windows import WindowSource
from worldmodel.models.jumpy.jump import JumpConfig
from worldmodel.training import STATE, fit
from worldmodel.training.run import Run, read_state

Size = Callable[[int, int], int]
VECTOR = Spec((2,), ActionSpec("discrete", (), (3,)), 4, low=(-1.0, -np.inf), high=(1.0, np.inf))
TINY: JumpConfig = replace(
    preset("jump", "vector"),
    hidden=4, tower=4, latent=2, key_features=2, path=4, scene=4, head=4, mlp=4,
)  # fmt: skip


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


def windows() -> WindowSource:
    return episodes().windows(4, batch_size=2)


class Judge:
    """Reads spoiled files of one kind and counts what came of them."""

    def __init__(self, tally: Tally, kind: str, path: Path, read: Callable[[], Any]) -> None:
        self.tally, self.path, self.read = tally, path, read
        self.area = f"files: {kind}"

    def case(self, data: bytes) -> Any:
        """What was read, or None if it was refused."""
        self.path.write_bytes(data)
        self.tally.add(self.area, "cases")
        try:
            with guarded():
                found = self.read()
        except (ValueError, FileNotFoundError) as error:
            assert self.path.parent.name in str(error) or self.path.name in str(error), error
            assert not isinstance(error, UnicodeError), "an escape: it names no file"
            self.tally.add(self.area, "refused")
            return None
        self.tally.add(self.area, "loaded")
        return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: checkpoint and training state."""
    folder = tmp_path_factory.mktemp("run") / "good"
    model = make("jump", VECTOR, TINY)
    fit(model, windows(), 2, folder=folder, ema=0.9, progress=False)
    return folder


def copy(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


def says(found: Any, told: Any) -> bool:
    """Whether ``found`` holds all that a file told; it may hold defaults beside."""
    if isinstance(told, dict) and isinstance(found, dict):
        return all(name in found and says(found[name], value) for name, value in told.items())
    return bool(found == told)


def is_told(model: Any, config: bytes) -> None:
    """The model is the one that ``config.json`` describes, unchanged."""
    told = json.loads(config)
    found = json.loads(json.dumps(checkpoint.describe(model, told.get("training"))))
    for name in ("low", "high"):  # a bound may be written as 1, or as "inf"
        told["spec"][name] = [float(x) for x in told["spec"].get(name, ())]
        found["spec"][name] = [float(x) for x in found["spec"][name]]
    for name in ("model", "spec", "config"):
        assert says(found[name], told[name]), (name, found[name], told[name])


# -- checkpoints and training states ---------------------------------------------------------------


def test_config(saved: Path, tmp_path: Path, size: Size, tally: Tally) -> None:
    folder = copy(saved, tmp_path / "checkpoint")
    whole = (folder / "config.json").read_bytes()
    judge = Judge(tally, "config.json", folder / "config.json", lambda: load(folder))
    before = load(folder).state_dict()

    def case(data: bytes) -> None:
        model = judge.case(data)
        if model is not None:
            is_told(model, data)
            assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())

    each(tally, judge.area, rewritten(json.loads(whole)).map(str.encode), size(60, 2500), case)
    each(tally, judge.area, spoiled(whole), size(30, 1000), case)


def test_weights(saved: Path, tmp_path: Path, size: Size, tally: Tally) -> None:
    folder = copy(saved, tmp_path / "checkpoint")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    judge = Judge(tally, "model.safetensors", path, lambda: load(folder))
    before = load(folder).state_dict()

    def case(data: bytes) -> None:
        model = judge.case(data)
        if model is not None:  # no checksum guards the numbers, but they are where they were
            found = {n: (t.shape, t.dtype) for n, t in model.state_dict().items()}
            assert found == {n: (t.shape, t.dtype) for n, t in before.items()}

    each(tally, judge.area, spoiled(whole, 4000), size(40, 1300), case)
    each(tally, judge.area, headers(whole), size(30, 900), case)


def headers(whole: bytes) -> st.SearchStrategy[bytes]:
    """safetensors whose header says something else."""
    (length,) = struct.unpack("<Q", whole[:8])
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def pack(text: str) -> bytes:
        return (
            struct.pack("<Q", len(text.encode("utf-8", "replace")))
            + text.encode("utf-8", "replace")
            + body
        )

    return rewritten(header).map(pack)


def resume(folder: Path) -> Run:
    run = Run(make("jump", VECTOR, TINY), folder, {"ema": 0.9}, {})
    run.identity = {}  # what another run may not change is not the matter here
    run.resume()
    return run


def test_training_state(saved: Path, tmp_path: Path, size: Size, tally: Tally) -> None:
    folder = copy(saved, tmp_path / "run")
    path = folder / STATE
    whole = path.read_bytes()
    judge = Judge(tally, "training state", path, lambda: resume(folder))
    shapes = [tuple(p.shape) for p in resume(folder).model.parameters()]

    def case(data: bytes) -> None:
        run = judge.case(data)
        if run is not None:
            file, told = read_state(path)
            assert (run.best, run.seconds, run.training) == (told.best, told.seconds, told.training)
            assert [tuple(w.shape) for w in run.average.weights] == (shapes if told.updates else [])
            for index, moments in run.optimizer.state_dict()["state"].items():
                assert tuple(moments["exp_avg"].shape) == shapes[index]
            assert len(file.layout) >= len(shapes)

    def with_facts(text: str) -> bytes:
        (length,) = struct.unpack("<Q", whole[:8])
        header = json.loads(whole[8 : 8 + length])
        header["__metadata__"] = {"state": text}
        packed = json.dumps(header).encode()
        return struct.pack("<Q", len(packed)) + packed + whole[8 + length :]

    (length,) = struct.unpack("<Q", whole[:8])
    facts = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"]["state"])
    facts["best"] = 1.0  # JSON of the test has no infinity
    each(tally, judge.area, spoiled(whole, 4000), size(30, 700), case)
    each(tally, judge.area, headers(whole), size(20, 400), case)
    each(tally, judge.area, rewritten(facts).map(with_facts), size(20, 400), case)


def test_inverse_policy(tmp_path: Path, size: Size, tally: Tally) -> None:
    config = InversePolicyConfig(best=1.0, steps=1, width=4)
    folder = tmp_path / "policy"
    InversePolicy.fit(episodes(), config).save(folder)
    for name, count in (("inverse_policy.json", 500), ("inverse_policy.safetensors", 300)):
        path = folder / name
        whole = path.read_bytes()
        judge = Judge(tally, name, path, lambda: InversePolicy.load(folder))

        def case(data: bytes, judge: Judge = judge) -> None:
            policy = judge.case(data)
            if policy is not None and judge.path.suffix == ".json":
                told = json.loads(data)
                assert says(vars(policy.config), told["config"])
                assert policy.spec == Spec.from_dict(told["spec"])

        if path.suffix == ".json":
            each(
                tally,
                judge.area,
                rewritten(json.loads(whole)).map(str.encode),
                size(30, count),
                case,
            )
        else:
            each(tally, judge.area, spoiled(whole), size(20, count), case)
        path.write_bytes(whole)


# -- episodes --------------------------------------------------------------------------------------


def same(found: Episodes, expected: Episodes) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(a.observations, b.observations)
        and np.array_equal(a.actions, b.actions)
        and np.array_equal(a.rewards, b.rewards)
        and a.terminated == b.terminated
        for a, b in zip(found, expected, strict=True)
    )


MAPPED = pytest.mark.parametrize("memory", [None, 2**20], ids=["in memory", "on disk"])


def stored(tmp_path: Path, memory: int | None) -> Path:
    """A folder of episodes that can be read so."""
    folder = episodes().save(tmp_path / "saved")
    return folder if memory is None else unpack(folder, tmp_path / "episodes")


def read_episodes(folder: Path, memory: int | None) -> Callable[[], Episodes]:
    return lambda: Episodes.load(folder, memory)


@MAPPED
def test_meta(tmp_path: Path, size: Size, tally: Tally, memory: int | None) -> None:
    folder = stored(tmp_path, memory)
    path = folder / "meta.json"
    whole = path.read_bytes()
    judge = Judge(tally, "meta.json", path, read_episodes(folder, memory))

    def case(data: bytes) -> None:
        found = judge.case(data)
        if found is not None:
            assert same(found, episodes())
            told = json.loads(data)
            assert found.action == ActionSpec.from_dict(told["action"])
            space = found.observation_space
            assert isinstance(space, gym.spaces.Box)
            for name in ("low", "high"):  # as the dtype that the file names holds them
                bounds = np.array([float(x) for x in told[name]], told.get("dtype", "float32"))
                assert np.array_equal(getattr(space, name), bounds)

    each(tally, judge.area, rewritten(json.loads(whole)).map(str.encode), size(40, 900), case)
    each(tally, judge.area, spoiled(whole), size(20, 400), case)


def as_without_checksums(found: Episodes, folder: Path) -> None:
    """Episodes on disk are those that reading all of it finds, but for numbers whose checksum only
    that compares.
    """
    try:
        assert same(found, Episodes.load(folder))
    except ValueError as error:
        assert "Bad CRC-32" in str(error), error
        assert [(len(e.actions), e.observations.shape) for e in found] == [(4, (5, 2))] * 3


@MAPPED
def test_shard(tmp_path: Path, size: Size, tally: Tally, memory: int | None) -> None:
    folder = stored(tmp_path, memory)
    path = folder / "episodes-00000.npz"
    whole = path.read_bytes()
    judge = Judge(tally, "shard", path, read_episodes(folder, memory))

    def case(data: bytes) -> None:
        found = judge.case(data)
        if found is not None and memory is not None:
            as_without_checksums(found, folder)
        else:
            assert found is None or same(found, episodes())

    each(tally, judge.area, spoiled(whole), size(60, 1500), case)


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 12, 15, -1, 10**12, 2**62, 10**30]), max_size=3)
DTYPES = st.sampled_from(["|u1", "<f4", "<f8", "<i8", "|b1", "|O", "<c16", "<U4", "<M8[s]", "|V8"])


@st.composite
def shard(draw: st.DrawFn) -> bytes:
    """A shard with one array of another shape and dtype, as its header says or truly so."""
    lies = draw(st.sampled_from(["observations", "actions", "rewards", "terminated", "steps"]))
    recorded = episodes()
    arrays: dict[str, Any] = {
        "observations": np.concatenate([e.observations for e in recorded]),
        "actions": np.concatenate([e.actions for e in recorded]),
        "rewards": np.concatenate([e.rewards for e in recorded]),
        "terminated": np.array([e.terminated for e in recorded]),
        "steps": np.array([4, 4, 4]),
    }
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


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["hidden", "steps", "renderer", "variance_steps", "mlp"])
def test_settings(saved: Path, tmp_path: Path, tally: Tally, name: str, value: Any) -> None:
    folder = copy(saved, tmp_path / "checkpoint")
    config = checkpoint.read_config(folder)
    config["config"][name] = value
    judge = Judge(tally, "a setting", folder / "config.json", lambda: load(folder))
    data = json.dumps(config).encode()
    model = judge.case(data)
    if model is not None:
        is_told(model, data)


ESCAPED: dict[str, Any] = {  # what the long version found, and what came before it
    "low": [-1.0, 3.4028235677973366e38],  # became infinite
    "action": {"kind": "discrete", "categories": [1]},  # became kind "none"
    "observation": [2.5],  # became (2,)
    "window": "4",
    "high": [-5.0, 1.0],
    "dtype": "object",
    "pose": True,
}


@pytest.mark.parametrize("name", ESCAPED)
def test_what_escaped_once(saved: Path, tmp_path: Path, tally: Tally, name: str) -> None:
    folder = copy(saved, tmp_path / "checkpoint")
    config = checkpoint.read_config(folder)
    config["spec"][name] = ESCAPED[name]
    judge = Judge(tally, "config.json", folder / "config.json", lambda: load(folder))
    assert judge.case(json.dumps(config).encode()) is None
