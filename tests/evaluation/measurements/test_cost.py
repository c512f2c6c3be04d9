"""Cost against sizes: which jobs are timed, what is made of their seconds, and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.measurements import cost as module
from evaluation.measurements.cost import Cost, Sizes, decision, exponents, peak, seconds

SMALL = Sizes(horizon=2, plans=2, worlds=1, context=2, size=16)


def cost(*models: str, **axes: Any) -> Cost:
    """Along the axes that are given, and no other."""
    none: dict[str, Any] = dict.fromkeys(
        ("horizons", "plans", "worlds", "contexts", "sizes", "batches", "memory_models"), ()
    )
    return Cost(models, **{**none, "base": SMALL, "repeats": 1, "many": SMALL, **axes})


def test_exponents_of_known_costs() -> None:
    """10 s, and 1 s for each; slopes are made within rounds, so that slow ones cancel."""
    drift = np.array([1.0, 5.0, 2.0])
    rounds = {("m:small", "score", n): (10 + n) * drift for n in (1, 1000, 2000)}
    rounds |= {("m:small", "frame", n): 3.0 * n**2 * drift for n in (2, 4)}
    rounds["svg-lp:small", "score", 5] = drift  # of one value there is no slope
    first = seconds(rounds)[0]
    expected = {"kind": "seconds", "of": "score", "model": "m", "preset": "small", "value": 1}
    assert first == {**expected, "seconds": 22.0, "low": 11.0, "high": 55.0, "n": 3}
    rows = exponents(rounds)
    assert [(row["of"], row["over"]) for row in rows] == [
        ("score", "all"), ("score", "last two"), ("frame", "all"), ("frame", "last two"),
    ]  # fmt: skip
    assert all(row["low"] == pytest.approx(row["high"]) for row in rows)
    assert 0.5 < rows[0]["exponent"] < 0.8
    assert [row["exponent"] for row in rows[1:]] == pytest.approx([0.9928, 2, 2], abs=1e-3)


@pytest.mark.parametrize(("kind", "shape"), [("frame", (3, 2, 1, 1, 3, 16, 16)), ("score", (3, 4))])
@pytest.mark.parametrize("name", ["jump:small", "svg-lp:small"])
def test_the_job_is_of_these_sizes(name: str, kind: str, shape: tuple[int, ...]) -> None:
    sizes = Sizes(horizon=3, plans=4, worlds=2, context=2, size=16, batch=3)
    answer = decision(cost().fresh(name, sizes), kind, sizes)()
    assert isinstance(answer, torch.Tensor) and answer.shape == shape


def test_fresh_vectors_stay_finite() -> None:
    """Over the longest default horizon; the ensemble raises an error where they do not."""
    sizes = Sizes(horizon=1000, plans=2, worlds=1, context=1)
    scores = decision(cost().fresh("ensemble:vector", sizes), "score", sizes)()
    assert isinstance(scores, torch.Tensor) and bool(scores.isfinite().all())


def test_rows_of_each_axis() -> None:
    """Scores alone grow with plans; vectors have no size; an ensemble observes one frame."""
    every = {"horizons": (4, 2), "plans": (1, 3), "worlds": (1, 2), "contexts": (1, 3)}
    timed = cost("svg-lp:small", "ensemble:vector", **every, sizes=(16, 32), batches=(1, 2))
    rows = timed.measure()
    assert {row["kind"] for row in rows} == {"seconds", "exponent"}
    assert all(row["low"] <= row[row["kind"]] <= row["high"] and row["n"] == 1 for row in rows)
    values: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        if row["kind"] == "seconds":
            of = values.setdefault((row["model"], row["of"]), {})
            of.setdefault(row["axis"], []).append(row["value"])
    svg = {"horizon": [2, 4], "plans": [1, 3], "worlds": [1, 2], "context": [1, 3]}
    svg |= {"size": [16, 32], "batch": [1, 2]}
    vectors = {**svg, "context": [1]}
    del vectors["size"]
    assert values["svg-lp", "score"] == svg and values["ensemble", "score"] == vectors
    del svg["plans"], vectors["plans"]
    assert values["svg-lp", "frame"] == svg and values["ensemble", "frame"] == vectors
    text = timed.text(rows)
    assert "cost ~ size^exponent" in text and "MiB" not in text


def test_a_stride_reaches_some_horizons() -> None:
    rows = cost("sssm:jumpy", horizons=(4, 5), precision=("none", "float32")).measure()
    timed = [(row["preset"], row["of"], row["value"]) for row in rows if row["kind"] == "seconds"]
    assert timed == [
        (preset, kind, 5) for kind in ("frame", "score") for preset in ("jumpy", "jumpy in float32")
    ]


def test_sizes_that_a_model_does_not_take_are_left_out() -> None:
    """SVG has no 128 pixels; that there is no such preset is an error."""
    rows = cost("svg-lp:small", sizes=(16, 24)).measure()
    assert {row["value"] for row in rows if row["kind"] == "seconds"} == {16}
    with pytest.raises(ValueError, match="preset"):
        cost("svg-lp:smaller", sizes=(16,)).measure()


def test_what_would_take_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each step: of 4 s and 16 s the second would take over 10."""
    clock = [0.0]

    def job(model: object, kind: str, sizes: Sizes, seed: int) -> Callable[[], None]:
        def run() -> None:
            clock[0] += sizes.horizon if kind == "score" else 1.0

        return run

    monkeypatch.setattr(module, "decision", job)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    rows = cost("copy-last:small", horizons=(4, 8, 16), longest=10.0).measure()
    timed = [(row["of"], row["value"]) for row in rows if row["kind"] == "seconds"]
    assert timed == [("frame", 4), ("frame", 8), ("frame", 16), ("score", 4), ("score", 8)]


def test_memory_of_another_process() -> None:
    settings = cost(memory_models=("copy-last:small",), ceiling=1)
    (row,) = settings.measure()
    assert (row["kind"], row["of"], row["model"]) == ("memory", "score", "copy-last")
    assert 50 < row["before"] <= row["mib"] and row["seconds"] > 0  # torch alone is above 50 MiB
    assert (row["ceiling"], row["within"]) == (1, False)
    assert "MiB of scoring" in settings.text([row])
    assert peak() > 50


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="horizon: expected at least 1, got 0"):
        cost("jump:small", horizons=(0,)).measure()
    with pytest.raises(ValueError, match="repeats: expected at least 1"):
        cost("jump:small", repeats=0)
    with pytest.raises(ValueError, match="longest: expected above 0"):
        cost("jump:small", longest=0.0)
