"""The table of models: equal time for all, trained once, and a picture of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.measurements.model_comparison import ModelComparison
from evaluation.report.pictures import LABEL
from worldmodel import MODELS as registered
from worldmodel.checkpoint import read_config
from worldmodel.common import results

MODELS = [("jump", "small"), ("svg-det", "small"), ("copy-last", "small")]


def comparison(
    folder: Path, seconds: float, models: list[tuple[str, str]] = MODELS
) -> ModelComparison:
    names = tuple(":".join(model) for model in models)
    return ModelComparison(names, seconds, folder, scenes=3, worlds=2)


def test_every_default_model_predicts_frames_from_a_context() -> None:
    chosen = [results.name_and_preset(name) for name in ModelComparison().models]
    assert all(preset in registered[kind].presets for kind, preset in chosen)
    assert {kind for kind, _ in chosen} == set(registered) - {
        "gqn", "cvg", "inferno", "ensemble", "replay",
    }  # fmt: skip


def test_models_are_trained_once_and_compared_alike(tmp_path: Path) -> None:
    rows = comparison(tmp_path, 0.5).measure()
    assert [(row["model"], row["preset"]) for row in rows] == MODELS
    jump, svg, copied = rows
    for row in rows:
        assert row["low"] <= row["min-of-n"] <= row["high"] and row["T=40"] > 0
        assert row["copy-last"] == jump["copy-last"] > 0
        assert row["ends-copied"] == pytest.approx(copied["ends"])
    assert copied["new"] == copied["coherent"] == 0  # the actor stays where it was
    assert copied["min-of-n"] == pytest.approx(copied["copy-last"])  # it copies the last frame
    assert copied["parameters"] == copied["steps"] == 0 and "free_mse" not in copied
    assert svg["kl"] == 0 and svg["free_mse"] > 0
    facts = read_config(tmp_path / "jump-small")["training"]
    assert facts["steps"] == jump["steps"] >= 1 and facts["budget"] == 0.5

    weights = (tmp_path / "svg-det-small" / "model.safetensors").stat().st_mtime_ns
    again = comparison(tmp_path, 0.5, MODELS[1:2]).measure()
    assert again[0]["min-of-n"] == svg["min-of-n"]
    assert (tmp_path / "svg-det-small" / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(FileExistsError, match="choose another folder"):
        comparison(tmp_path, 0.7, MODELS[:1]).measure()

    config = json.loads((tmp_path / "jump-small" / "config.json").read_text())
    config["config"]["targets"] += 1
    (tmp_path / "jump-small" / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileExistsError, match="choose another folder"):  # a preset was changed
        comparison(tmp_path, 0.5, MODELS[:1]).measure()

    out = tmp_path / "out" / "models.png"
    comparison(tmp_path, 0.5).draw(out)
    picture = np.asarray(Image.open(out))
    one = 2 * 32 + 2 * 2  # a picture of 32 px, doubled, in its border
    assert picture.shape == ((1 + 2 * len(MODELS)) * one, LABEL + 4 * one, 3)


def test_models_need_time(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seconds: expected above 0, got 0"):
        comparison(tmp_path, 0.0).measure()
    with pytest.raises(FileNotFoundError):
        comparison(tmp_path, 0.5).draw(tmp_path / "models.png")
