"""Spoiled files of models and small networks: read as they are, or refused by an error of ours."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from agents import InversePolicy, InversePolicyConfig, LegalActions, LegalActionsConfig
from tests.agents.masked_envs import Cards
from tests.stress.conftest import Tally
from tests.stress.mutations import HOSTILE, Judge, each, rewritten, spoiled
from tests.stress.parts import MODELS
from worldmodel import Spec, checkpoint, collect, load, testing
from worldmodel.models.jumpy.rectified_flow import FlowSampler
from worldmodel.training import STATE
from worldmodel.training.early_stopping import EarlyStopping
from worldmodel.training.run import Run, read_state

Size = Callable[[int, int], int]
JUMP = "jump of vectors"
"""Of which most files are spoiled."""
EACH = pytest.mark.parametrize("part", MODELS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, size: Size) -> Callable[[str], Path]:
    """A run's folder by the part's name: checkpoint and training state."""

    @cache
    def run(part: str) -> Path:
        if part not in (JUMP, *list(MODELS)[:2]) and not size(0, 1):
            pytest.skip("of the long version")
        folder = tmp_path_factory.mktemp("run") / "good"
        MODELS[part].fit(MODELS[part].make(), 4, folder=folder)
        return folder

    return run


Runs = Callable[[str], Path]


def share(part: str, count: int) -> int:
    return count if part == JUMP else -(-count // 10)


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
    if isinstance(told, list) and isinstance(found, list) and len(told) == len(found):
        return all(map(says, found, told))
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


@EACH
def test_config(part: str, runs: Runs, tmp_path: Path, size: Size, tally: Tally) -> None:
    folder = copy(runs(part), tmp_path / "checkpoint")
    whole = (folder / "config.json").read_bytes()
    judge = Judge(tally, "config.json", folder / "config.json", lambda: load(folder))
    before = load(folder).state_dict()

    def case(data: bytes) -> None:
        model = judge.case(data)
        if model is not None:
            is_told(model, data)
            assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())

    each(
        tally,
        judge.area,
        rewritten(json.loads(whole)).map(str.encode),
        size(share(part, 60), share(part, 2500)),
        case,
    )
    each(tally, judge.area, spoiled(whole), size(share(part, 30), share(part, 1000)), case)


@EACH
def test_weights(part: str, runs: Runs, tmp_path: Path, size: Size, tally: Tally) -> None:
    folder = copy(runs(part), tmp_path / "checkpoint")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    judge = Judge(tally, "model.safetensors", path, lambda: load(folder))
    before = load(folder).state_dict()

    def case(data: bytes) -> None:
        model = judge.case(data)
        if model is not None:  # no checksum guards the numbers, but they are where they were
            found = {n: (t.shape, t.dtype) for n, t in model.state_dict().items()}
            assert found == {n: (t.shape, t.dtype) for n, t in before.items()}

    each(tally, judge.area, spoiled(whole, 4000), size(share(part, 40), share(part, 1300)), case)
    each(tally, judge.area, headers(whole), size(share(part, 30), share(part, 900)), case)


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


def resume(part: str, folder: Path) -> Run:
    trained = MODELS[part]
    model, stopping, ema = trained.make(), None, 0.9
    if trained.holds_out:
        stopping, ema = EarlyStopping(model, testing.random_source(trained.spec), 3, 5, 0), 0.0
    run = Run(model, folder, {"ema": ema}, {}, stopping)
    run.identity = {}  # what another run may not change is not the matter here
    run.resume()
    return run


def goes_on(run: Run, good: Run) -> None:
    """What the model and the held-out errors add to the state fits, or the next step says so."""
    if isinstance(run.model, FlowSampler) and isinstance(good.model, FlowSampler):
        try:
            run.model.replay.add(*good.model.replay.draw(2, None))
            run.model.replay.draw(2, None)
        except ValueError as error:
            assert "the training state" in str(error)
    if run.stopping is not None:
        try:
            run.stopping.measure()
        except ValueError as error:
            assert "the training state" in str(error)


@EACH
def test_training_state(part: str, runs: Runs, tmp_path: Path, size: Size, tally: Tally) -> None:
    folder = copy(runs(part), tmp_path / "run")
    path = folder / STATE
    whole = path.read_bytes()
    judge = Judge(tally, "training state", path, lambda: resume(part, folder))
    good = resume(part, folder)
    shapes = [tuple(p.shape) for p in good.model.parameters()]

    def case(data: bytes) -> None:
        run = judge.case(data)
        if run is not None:
            file, told = read_state(path)
            assert (run.best, run.seconds, run.training) == (told.best, told.seconds, told.training)
            assert [tuple(w.shape) for w in run.average.weights] == (shapes if told.updates else [])
            for index, moments in run.optimizer.state_dict()["state"].items():
                assert tuple(moments["exp_avg"].shape) == shapes[index]
            assert len(file.layout) >= len(shapes)
            goes_on(run, good)

    def with_facts(text: str) -> bytes:
        (length,) = struct.unpack("<Q", whole[:8])
        header = json.loads(whole[8 : 8 + length])
        header["__metadata__"] = {"state": text}
        packed = json.dumps(header).encode()
        return struct.pack("<Q", len(packed)) + packed + whole[8 + length :]

    (length,) = struct.unpack("<Q", whole[:8])
    facts = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"]["state"])
    facts["best"] = 1.0  # JSON of the test has no infinity
    each(tally, judge.area, spoiled(whole, 4000), size(share(part, 30), share(part, 700)), case)
    each(tally, judge.area, headers(whole), size(share(part, 20), share(part, 400)), case)
    each(
        tally,
        judge.area,
        rewritten(facts).map(with_facts),
        size(share(part, 20), share(part, 400)),
        case,
    )


def networks(folder: Path) -> dict[str, Any]:
    """By the name of its files, the class of a small network that is saved there."""
    episodes = testing.random_episodes(MODELS["ensemble"].spec)
    config = InversePolicyConfig(best=1.0, steps=1, width=4)
    InversePolicy.fit(episodes, config).save(folder)
    masked = collect(Cards, 3, progress=False)
    LegalActions.fit(masked, LegalActionsConfig(steps=1, width=4, warn_below=1e-9)).save(folder)
    return {"inverse_policy": InversePolicy, "legal_actions": LegalActions}


@pytest.mark.parametrize("name", ["inverse_policy", "legal_actions"])
def test_networks(name: str, tmp_path: Path, size: Size, tally: Tally) -> None:
    folder = tmp_path / "policy"
    kind = networks(folder)[name]
    for suffix, count in ((".json", 500), (".safetensors", 300)):
        path = folder / f"{name}{suffix}"
        whole = path.read_bytes()
        judge = Judge(tally, path.name, path, lambda: kind.load(folder))

        def case(data: bytes, judge: Judge = judge) -> None:
            network = judge.case(data)
            if network is not None and judge.path.suffix == ".json":
                told = json.loads(data)
                assert says(vars(network.config), told["config"])
                assert network.spec == Spec.from_dict(told["spec"])

        if suffix == ".json":
            cases = rewritten(json.loads(whole)).map(str.encode)
        else:
            cases = spoiled(whole)
        each(tally, judge.area, cases, size(20, count), case)
        path.write_bytes(whole)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["hidden", "steps", "renderer", "variance_steps", "mlp"])
def test_settings(runs: Runs, tmp_path: Path, tally: Tally, name: str, value: Any) -> None:
    folder = copy(runs(JUMP), tmp_path / "checkpoint")
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
def test_what_escaped_once(runs: Runs, tmp_path: Path, tally: Tally, name: str) -> None:
    folder = copy(runs(JUMP), tmp_path / "checkpoint")
    config = checkpoint.read_config(folder)
    config["spec"][name] = ESCAPED[name]
    judge = Judge(tally, "config.json", folder / "config.json", lambda: load(folder))
    assert judge.case(json.dumps(config).encode()) is None
