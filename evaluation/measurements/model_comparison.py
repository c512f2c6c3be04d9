"""Every model on the paper's task, each trained for the same time on the same scenes.

Nature's Traveling Salesman, the first six of 21 frames shown (seed 001, section 4.1). The time is
CPU time of the training process, measured over some steps first, so that each schedule runs to its
end within it. A checkpoint that is there already is not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import worldmodel
from envs import SceneStream, sample_scenes
from evaluation.measurements.fidelity import SEEN, fidelity
from evaluation.measurements.speed import speed
from evaluation.measurements.story_consistency import LEG_ENDS, NATURE, consistency
from evaluation.report.pictures import labelled, save
from evaluation.runner.partial_results import Ledger
from worldmodel import Progress, Spec, WorldModel
from worldmodel.checkpoint import read_config
from worldmodel.imagine import imagine, sheet
from worldmodel.training.validation import Validation

SIZE, BATCH, WINDOW = 32, 16, 20
WARM_UP, TIMED = 4, 12
"""Steps before and while a training step is timed."""

Row = dict[str, Any]


def peers(
    models: Sequence[tuple[str, str]],
    seconds: float,
    folder: Path,
    *,
    scenes: int = 200,
    worlds: int = 30,
    seed: int = 0,
    ledger: Ledger | None = None,
) -> list[Row]:
    """Rows ``model, preset, parameters, steps, seconds, mse, free_mse, kl``; ``min-of-n`` with
    ``low`` and ``high``, and ``copy-last``, of frames 7 to 21; ``ends`` and ``ends-copied``, the
    same of frames 11, 16 and 21, which models that stride reach, too; ``coherent``, ``new`` and
    ``orders`` of ``consistency``; ``T=40``, seconds to a frame 40 steps ahead, one scene.

    ``mse`` is of frames for which a model is told the truth as in its training, and ``free_mse`` of
    one freely imagined world: compare them within a row. JUMP's posterior has seen the frame
    itself, SVG's decoder the frame before, and one sample of an honest model is seldom the truth.

    Args:
        models: (name, preset) of the registry.
        seconds: of CPU time, to train each.
        folder: where checkpoints go, one folder for each model and preset.
        scenes: of the test split.
        worlds: sampled of each scene.
        seed: of weights, training draws and scenes.
        ledger: keeps what is done, model by model.

    Raises:
        ValueError: an unknown model or preset; ``seconds`` is not above 0.
        FileExistsError: a checkpoint in ``folder`` was trained otherwise: time, seed or settings.
    """
    if seconds <= 0:
        raise ValueError(f"seconds: expected above 0, got {seconds}")
    timed = {
        (row["model"], row["preset"]): row["seconds"]
        for row in speed(models, [40], [1], size=SIZE)
        if row["kind"] == "seconds"
    }

    def measured(of: tuple[str, str]) -> Row:
        name, preset = of
        home = folder / f"{name}-{preset}"
        model = trained(name, preset, seconds, home, seed)
        facts = read_config(home)["training"] if model.trainable else {"steps": 0, "spent": 0.0}
        row: Row = {"model": name, "preset": preset}
        row["parameters"] = sum(weights.numel() for weights in model.parameters())
        row |= {"steps": facts["steps"], "seconds": facts["spent"]}
        row |= _losses(model, seed) | _told(model, scenes, worlds, seed)
        return row

    parts = {f"{name} {preset}": (name, preset) for name, preset in dict.fromkeys(models)}
    rows = (ledger or Ledger()).each(measured, parts, "peers", "model")
    # Times are compared, so they are those of this run for all.
    return [{**row, "T=40": timed.get(of)} for row, of in zip(rows, parts.values(), strict=True)]


def trained(name: str, preset: str, seconds: float | None, home: Path, seed: int) -> WorldModel:
    """The model from ``home``, trained first if it is not there; see ``peers``.

    Raises:
        FileNotFoundError: it is not there, and ``seconds`` is None.
    """
    env = gym.make(f"envs:{NATURE}", size=SIZE)
    spec = Spec.from_spaces(env.observation_space, env.action_space, WINDOW)
    model = worldmodel.make(name, spec, preset, seed)
    if not model.trainable:
        return model.eval()
    if seconds is None:
        return worldmodel.load(home)
    wanted = {"budget": seconds, "seed": seed}
    if (home / "config.json").is_file():
        facts, there = read_config(home)["training"], worldmodel.load(home)
        same = (there.config, there.spec) == (model.config, model.spec)
        if not same or {key: facts.get(key) for key in wanted} != wanted:
            raise FileExistsError(
                f"{home}: was trained with {facts}, {there.config}, not with {wanted}, "
                f"{model.config}; choose another folder"
            )
        return there
    source = SceneStream(NATURE, BATCH, size=SIZE, seed=seed)
    steps = max(1, round(seconds / _seconds_per_step(worldmodel.make(name, spec, preset), source)))
    began = time.process_time()
    worldmodel.fit(model, source, steps, seed=seed)
    spent = time.process_time() - began
    worldmodel.save(model, home, training={**wanted, "steps": steps, "spent": spent})
    return model


def _seconds_per_step(model: WorldModel, source: SceneStream) -> float:
    """CPU seconds of one training step, of a model that is thrown away."""
    marks: list[float] = []

    def mark(progress: Progress) -> None:
        marks.append(time.process_time())

    steps = WARM_UP + TIMED
    worldmodel.fit(model, source, steps, log_every=1, callbacks=[mark], progress=False)
    return (marks[-1] - marks[WARM_UP - 1]) / TIMED


def _losses(model: WorldModel, seed: int) -> Row:
    """Of test scenes: error with the truth told, and of what is freely imagined."""
    if not model.trainable:
        return {}
    unseen = SceneStream(NATURE, BATCH, size=SIZE, seed=seed, split="test")
    found = Validation(unseen, 1, seed).measure(model)
    forced = found.get("forced_mse", found["mse"])
    return {"mse": forced, "free_mse": found["free_mse"], "kl": found["kl"]}


def _told(model: WorldModel, scenes: int, worlds: int, seed: int) -> Row:
    error = {row["metric"]: row for row in fidelity(model, scenes, worlds, seed)}
    row: Row = {}
    if model.stride == 1:
        best = error["mse, min-of-n"]
        row = {"min-of-n": best["value"], "low": best["low"], "high": best["high"]}
        row["copy-last"] = error["mse, copy-last"]["value"]
    row["ends"] = error["mse, leg ends, min-of-n"]["value"]
    row["ends-copied"] = error["mse, leg ends, copy-last"]["value"]
    story = {row["metric"]: row["value"] for row in consistency(model, scenes, 8, seed)}
    row |= {"coherent": story["coherent stories"], "new": story["new visits"]}
    return {**row, "orders": story["distinct stories"]}


def draw(
    models: Sequence[tuple[str, str]], folder: Path, out: Path, scene: int = 0, seed: int = 0
) -> None:
    """Write a picture like the paper's figure 4: truth, and two futures by each model.

    Shown is frame 6, in yellow; imagined are frames 11, 16 and 21, where legs end.

    Args:
        models: (name, preset), that ``peers`` has trained into ``folder``.
        folder: with the checkpoints.
        out: a PNG file.
        scene: number of the scene in the test split.
        seed: of the scenes and worlds.
    """
    shown = sample_scenes(NATURE, 1, split="test", size=SIZE, seed=seed, index=scene)
    bands: list[NDArray[np.uint8]] = []
    for name, preset in models:
        model = trained(name, preset, None, folder / f"{name}-{preset}", seed)
        band = sheet(imagine(model, shown, range(SEEN), LEG_ENDS, worlds=2, seed=seed))
        truth, futures = band[: len(band) // 3], band[len(band) // 3 :]
        if not bands:
            bands.append(labelled(truth, "truth"))
        bands.append(labelled(futures, f"{name}\n{preset}"))
    save(bands, out)
