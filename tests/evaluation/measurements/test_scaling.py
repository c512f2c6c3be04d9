"""Throughput of workers: what is divided by what, and that all three kinds run."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.measurements.scaling import Scaling, _rows


def test_speedups_are_medians_of_the_rounds_ratios() -> None:
    seconds = {
        ("collection", 1): np.array([4.0, 8.0, 2.0]),  # other jobs come and go
        ("collection", 2): np.array([2.0, 5.0, 2.0]),
    }
    one, two = _rows(seconds, {"collection": 40}, (1, 2))
    assert (one["per_second"], one["speedup"], one["workers"]) == (10.0, 1.0, 1)
    assert (two["per_second"], two["speedup"], two["workers"]) == (20.0, 1.6, 2)
    assert (two["low"], two["high"], two["n"], two["unit"]) == (1.0, 2.0, 3, "episodes")


@pytest.mark.parametrize("wrong", [{"steps": 50}, {"steps": 120}, {"batch": 3}])
def test_what_cannot_be_divided(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="steps, batch: expected a multiple of 50 above it"):
        Scaling(**wrong).measure()  # type: ignore[arg-type]


@pytest.mark.slow
def test_all_kinds_are_measured() -> None:
    pytest.importorskip("ray")
    scaling = Scaling(episodes=4, players=2, played=2, steps=100, batch=2, repeats=1)
    rows = scaling.measure()
    assert [(row["kind"], row["workers"]) for row in rows] == [
        (kind, count) for kind in ("collection", "evaluation", "training") for count in (1, 2)
    ]
    for row in rows:
        assert row["per_second"] > 0 and row["low"] <= row["speedup"] <= row["high"]
        assert row["workers"] != 1 or row["speedup"] == 1
