"""``python -m evaluation``: each verb once, small."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import worldmodel
from evaluation.__main__ import main
from evaluation.metrics.similarity import DIGITS as ENV
from evaluation.metrics.story_consistency import AGENT, NATURE
from worldmodel import checkpoint


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluation", *map(str, arguments)])
    main()


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        (
            ("speed", "--models", "jump:small", "svg-lp:small", "--distances", 1, 2, "--batches", 1,
             "--size", 32, "--repeats", 1, "--num-threads", 1),
            {"kind", "model", "preset", "distance", "batch", "device", "seconds", "ratio", "to",
             "exponent", "low", "high", "n"},
        ),
        (
            ("imagination", "jump:small", "traveling-salesman", "--horizons", 2, "--plans", 1,
             "--size", 16, "--repeats", 1),
            {"kind", "model", "preset", "horizon", "plans", "worlds", "batch", "size", "device",
             "per_second", "ratio", "low", "high", "n"},
        ),
        (
            ("consistency", "--scenes", 4, "--worlds", 2),
            {"checkpoint", "model", "env", "metric", "value", "low", "high", "n"},
        ),
        (
            ("consistency", "FLOW", "--env", NATURE, "--scenes", 2, "--worlds", 2,
             "--flow-steps", 1, 2),
            {"checkpoint", "flow_steps", "model", "env", "metric", "value", "low", "high", "n"},
        ),
        (
            ("control", "--episodes", 2, "--plans", 8, "--worlds", 1),
            {"agent", "env", "real_steps", "return", "normalised_return", "low", "high",
             "episodes"},
        ),
        (
            ("fidelity", "--scenes", 2, "--worlds", 2),
            {"checkpoint", "model", "env", "metric", "worlds", "value", "low", "high", "n"},
        ),
        (
            ("elbo", "traveling-salesman", "--scenes", 2),
            {"checkpoint", "model", "env", "metric", "pixel_variance", "context", "targets",
             "value", "low", "high", "n"},
        ),
    ],
    ids=["speed", "imagination", "consistency", "flow-steps", "control", "fidelity", "elbo"],
)  # fmt: skip
def test_verb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[Any, ...], columns: set[str]
) -> None:
    file, flow = tmp_path / "out.json", tmp_path / "flow"
    if "FLOW" in arguments:
        spec = worldmodel.Spec((3, 32, 32), worldmodel.ActionSpec("none"), 20)
        worldmodel.save(worldmodel.make("jump", spec, "small"), flow)
    words = [flow if word == "FLOW" else word for word in arguments]
    run(monkeypatch, *words, "--json", file)
    result = json.loads(file.read_text())
    assert result["benchmark"] == arguments[0] and result["rows"]
    assert set().union(*result["rows"]) == columns


def test_parts_are_of_the_weights_that_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A model that was trained on in the meantime is another one, under the same name."""
    spec = worldmodel.Spec((3, 16, 16), worldmodel.ActionSpec("discrete", (), (4,)), 20)
    file, folder = tmp_path / "out.json", tmp_path / "model"
    words = ("elbo", folder, "traveling-salesman", "--env", AGENT, "--scenes", 2, "--json", file)
    worldmodel.save(worldmodel.make("jump", spec, "views", seed=0), folder)
    with monkeypatch.context() as patch:
        real = worldmodel.load
        patch.setattr(worldmodel, "load", lambda name, *to: real(folder if name == str(folder)
                                                                else "nowhere", *to))  # fmt: skip
        with pytest.raises(SystemExit, match="nowhere"):
            run(patch, *words)
    before = checkpoint.digest(folder)
    worldmodel.save(worldmodel.make("jump", spec, "views", seed=1), folder)
    with pytest.raises(SystemExit, match="begun with weights.* = .*, now it is"):
        run(monkeypatch, *words, "--resume")
    worldmodel.save(worldmodel.make("jump", spec, "views", seed=0), folder)
    run(monkeypatch, *words, "--resume")
    assert json.loads(file.read_text())["weights"][str(folder)] == before


def test_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="expected model:preset"):
        run(monkeypatch, "speed", "--models", "jump")
    with pytest.raises(SystemExit, match="shipped ones are"):
        run(monkeypatch, "control", "--checkpoint", "nowhere")
    with pytest.raises(SystemExit, match="lpips, i3d: nothing to measure"):
        run(monkeypatch, "perceptual")
    with pytest.raises(SystemExit, match="flow_steps: only jump with preset jumpy, small or rays"):
        run(monkeypatch, "consistency", "--flow-steps", 1, "--scenes", 2)
    with pytest.raises(SystemExit, match="its actions are"):
        run(monkeypatch, "fidelity", "traveling-salesman", "--env", ENV, "--scenes", 2)
    with pytest.raises(SystemExit, match="num_threads: expected at least 1, got 0"):
        run(monkeypatch, "fidelity", "--num-threads", 0)
    for verb in ("control", "planning", "common-worlds"):
        shown = ("traveling-salesman",) if verb == "common-worlds" else ()
        with pytest.raises(SystemExit, match="hold: expected from 1 to 40"):
            run(monkeypatch, verb, *shown, "--hold", 0)
    with pytest.raises(SystemExit, match="episodes: expected at least 2, for an interval, got 1"):
        run(monkeypatch, "control", "--episodes", 1)
