"""The speed protocol: what is timed, in which order, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import worldmodel
from evaluation.speed import exponents, look_ahead, ratios, speed, wide
from worldmodel import ActionSpec, Spec, results
from worldmodel.timing import interleaved


def test_jobs_are_interleaved() -> None:
    calls: list[str] = []
    seconds = interleaved({name: lambda n=name: calls.append(n) for name in "ab"}, 2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"} and min(seconds.values()) > 0
    with pytest.raises(ValueError, match="repeats"):
        interleaved({}, 0)


@pytest.mark.parametrize("name", ["jump", "svg-lp"])
def test_the_job_shows_the_far_frame(name: str) -> None:
    model = worldmodel.make(name, Spec((3, 32, 32), ActionSpec("none"), 9), "small").eval()
    shown = look_ahead(model, frames=3, distance=7, batch=2)()
    assert isinstance(shown, torch.Tensor) and shown.shape == (2, 1, 1, 3, 32, 32)


def test_rows_and_what_is_made_of_them() -> None:
    models = [("jump", "small"), ("svg-lp", "small")]
    rows = speed(models, [1, 4], [1, 2], size=32, frames=2, repeats=1)
    assert len(rows) == 8
    assert set(rows[0]) == {"model", "preset", "distance", "batch", "device", "seconds"}
    compared = ratios(rows)
    assert len(compared) == 4 and {r["model"] for r in compared} == {"svg-lp"}
    for row in compared:
        base = next(
            r["seconds"]
            for r in rows
            if r["model"] == "jump"
            and (r["batch"], r["distance"]) == (row["batch"], row["distance"])
        )
        assert row["ratio"] == row["seconds"] / base
    assert {(r["model"], r["batch"]) for r in wide(rows)} == {
        (m, b) for m in ("jump", "svg-lp") for b in (1, 2)
    }
    known = [{"model": "m", "preset": "p", "batch": 1, "distance": d, "seconds": 3 * d**0.5}
             for d in (1, 4, 16)]  # fmt: skip
    assert exponents(known)[0]["exponent"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="at least 1"):
        speed(models, [0], [1])
    with pytest.raises(ValueError, match="no model"):
        speed([("dreamer", "small")], [1], [1])


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
