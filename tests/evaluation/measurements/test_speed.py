"""The speed protocol: what is timed, in which order, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldmodel
from evaluation.measurements import speed as measurement
from evaluation.measurements.speed import Speed, exponents, look_ahead, ratios, seconds, wide
from worldmodel import ActionSpec, Spec
from worldmodel.common import results, timing
from worldmodel.common.timing import interleaved


class Clock:
    """Time passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def spend(self, seconds: float) -> None:
        self.now += seconds


def test_jobs_are_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = Clock(monkeypatch)

    def job(name: str) -> None:
        calls.append(name)
        clock.spend(len(calls))

    rounds = interleaved({name: lambda n=name: job(n) for name in "ab"}, 2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert {name: values.tolist() for name, values in rounds.items()} == {"a": [3, 5], "b": [4, 6]}
    with pytest.raises(ValueError, match="repeats"):
        interleaved({}, 0)


def test_queued_work_of_used_devices_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job queues 5 s of work on device 1; device 0 is not ours."""
    clock, queue, waited = Clock(monkeypatch), [0.0], []

    def synchronise(device: int) -> None:
        waited.append(device)
        clock.spend(queue[0])
        queue[0] = 0.0

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 64 * device)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronise)
    rounds = interleaved({"a": lambda: queue.__setitem__(0, 5.0)}, 3, warmup=0)
    assert rounds["a"].tolist() == [5.0] * 3 and waited == [1] * 6


@pytest.mark.parametrize("name", ["jump", "svg-lp"])
def test_the_job_shows_the_far_frame(name: str) -> None:
    model = worldmodel.make(name, Spec((3, 32, 32), ActionSpec("none"), 9), "small").eval()
    shown = look_ahead(model, frames=3, distance=7, batch=2)()
    assert isinstance(shown, torch.Tensor) and shown.shape == (2, 1, 1, 1, 3, 32, 32)


A, B, C = ("jump", "small"), ("svg-lp", "small"), ("sssm", "jumpy")


def speed(*models: tuple[str, str], **settings: Any) -> Speed:
    return Speed(tuple(":".join(model) for model in models), frames=2, repeats=1, **settings)


def test_ratios_are_paired_within_rounds() -> None:
    """The machine is twice as slow in every other round: B always takes 3 times as long as A."""
    drift = np.array([1.0, 2.0] * 4)
    rounds = {(A, 2): drift, (B, 2): 3 * drift, (B, 3): 4 * drift}
    assert [row["low"] for row in seconds(rounds)] == [1.0, 3.0, 4.0]
    assert [row["high"] for row in seconds(rounds)] == [2.0, 6.0, 8.0]
    assert ratios(rounds, A) == [
        {"kind": "ratio", "model": "svg-lp", "preset": "small", "distance": 2,
         "to": "jump:small", "ratio": 3.0, "low": 3.0, "high": 3.0, "n": 8}
    ]  # fmt: skip
    found = ratios({(A, 2): np.ones(9), (B, 2): np.arange(1.0, 10.0)}, A)[0]
    assert (found["ratio"], found["low"], found["high"], found["n"]) == (5.0, 2.0, 8.0, 9)


def test_exponents_of_known_costs() -> None:
    """A constant cost, one that grows linearly, one by its square root; each round by itself."""
    drift = np.array([1.0, 5.0, 2.0])
    costs = {A: lambda d: 7.0, B: lambda d: 0.1 * d, C: lambda d: d**0.5}
    rounds = {(m, d): cost(d) * drift for m, cost in costs.items() for d in (5, 20, 160)}
    found = exponents({**rounds, (("x", "y"), 5): drift})  # of one distance there is none
    assert [(row["model"], row["n"]) for row in found] == [("jump", 3), ("svg-lp", 3), ("sssm", 3)]
    for row, expected in zip(found, (0.0, 1.0, 0.5), strict=True):
        assert row["kind"] == "exponent" and "distance" not in row
        assert [row[name] for name in ("exponent", "low", "high")] == pytest.approx([expected] * 3)


def test_rows() -> None:
    rows = speed(A, B, distances=(1, 4), batches=(1, 2), size=32).measure()
    assert [row["kind"] for row in rows] == [
        *["seconds"] * 4,
        *["ratio"] * 2,
        *["exponent"] * 2,
    ] * 2
    common = {"kind", "model", "preset", "batch", "device", "low", "high", "n"}
    assert set(rows[0]) == {*common, "distance", "seconds"}
    assert set(rows[4]) == {*common, "distance", "ratio", "to"}
    assert set(rows[6]) == {*common, "exponent"}
    assert rows[4]["ratio"] == rows[2]["seconds"] / rows[0]["seconds"]
    lines = wide(rows)
    assert [(r["model"], r["batch"]) for r in lines] == [
        ("jump", 1), ("svg-lp", 1), ("jump", 2), ("svg-lp", 2),
    ]  # fmt: skip
    assert lines[0]["T=1"] == rows[0]["seconds"]
    ratio = f"{rows[4]['ratio']:.3g}"
    assert wide(rows, "ratio", interval=True)[0]["T=1"] == f"{ratio} [{ratio}, {ratio}]"
    with pytest.raises(ValueError, match="at least 1"):
        speed(A, B, distances=(0,)).measure()
    with pytest.raises(ValueError, match="no model"):
        speed(("dreamer", "small"), distances=(1,)).measure()


def test_optimised_models_are_timed_beside_the_others() -> None:
    rows = speed(A, B, distances=(2,), size=16, precision=("none", "float32", "bf16")).measure()
    timed = [(row["model"], row["preset"]) for row in rows if row["kind"] == "seconds"]
    presets = ["small", "small in float32", "small in bf16"]
    assert timed == [(model, preset) for model in ("jump", "svg-lp") for preset in presets]
    compared = [row for row in rows if row["kind"] == "ratio"]
    assert len(compared) == 5 and {row["to"] for row in compared} == {"jump:small"}
    with pytest.raises(ValueError, match="precision: expected none, auto"):
        speed(A, distances=(2,), precision=()).measure()


def test_every_default_model_has_frames_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command takes minutes without options: here no job runs."""
    monkeypatch.setattr(
        measurement, "interleaved", lambda jobs, repeats: {job: np.ones(repeats) for job in jobs}
    )
    rows = Speed(distances=(5,), repeats=1).measure()
    timed = {row["model"] for row in rows if row["kind"] == "seconds"}
    assert timed == set(worldmodel.MODELS) - {"replay", "cvg", "inferno", "ensemble"}


def test_the_window_is_as_long_as_the_farthest_frame_needs() -> None:
    rows = speed(A, C, distances=(3, 160), size=16).measure()
    timed = [(row["model"], row["distance"]) for row in rows if row["kind"] == "seconds"]
    assert timed == [("jump", 3), ("jump", 160), ("sssm", 160)]  # a stride of 5 does not reach 3


def test_results_are_tidy(tmp_path: Path) -> None:
    rows = [{"model": "jump", "seconds": 0.00123456}]
    path = results.write(tmp_path / "a" / "r.json", results.envelope("speed", {"x": 1}, rows))
    data = json.loads(path.read_text())
    keys = {"benchmark", "command", "commit", "machine", "versions", "settings", "rows"}
    assert set(data) == keys and data["rows"] == rows
    assert data["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert results.table(rows, ["model", "seconds"]).splitlines()[-1].split() == [
        "jump",
        "0.001235",
    ]
