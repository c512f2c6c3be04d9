"""Seconds from a context to the frame at distance T, for every model in one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import worldmodel
from worldmodel import ActionSpec, Context, Queries, Spec, WorldModel
from worldmodel.timing import interleaved


def look_ahead(model: WorldModel, frames: int, distance: int, batch: int) -> Callable[[], object]:
    """The job that is timed: observe ``frames`` frames, sample one world, show one far frame."""
    device = model.device
    generator = torch.Generator(device).manual_seed(0)
    times = torch.arange(frames, device=device).expand(batch, frames)
    shape = (batch, frames, *model.spec.observation)
    context = Context(torch.rand(shape, generator=generator, device=device), times)
    query = Queries(torch.full((batch, 1), frames - 1 + distance, device=device))

    def job() -> object:
        with torch.inference_mode():
            worlds = model.sample(model.observe(context), 1, generator)
            return model.predict(worlds, query).observations

    return job


def speed(
    models: Sequence[tuple[str, str]],
    distances: Sequence[int],
    batches: Sequence[int],
    *,
    size: int = 64,
    frames: int = 6,
    repeats: int = 7,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Rows ``model, preset, distance, batch, device, seconds``; passive scenes, fresh weights.

    Distances that a model's stride does not reach are left out of its rows.

    Args:
        models: (name, preset) of the registry; speed does not depend on what was learned.
        distances: steps between the last context frame and the frame asked for.
        batches: scenes at once.
        size: frame height and width in pixels.
        frames: context frames.
        repeats: timed rounds; the median is reported.
        device: torch device.

    Raises:
        ValueError: an unknown model or preset, or a number below 1.
    """
    if min(*distances, *batches, frames, repeats) < 1:
        raise ValueError("distances, batches, frames, repeats: expected at least 1")
    spec = Spec((3, size, size), ActionSpec("none"), frames - 1 + max(distances))
    made = {key: worldmodel.make(key[0], spec, key[1]).to(device).eval() for key in models}
    rows = []
    for batch in batches:  # one group of interleaved jobs for each batch size
        jobs = {
            (key, distance): look_ahead(model, frames, distance, batch)
            for key, model in made.items()
            for distance in distances
            if distance % model.stride == 0
        }
        for ((name, preset), distance), seconds in interleaved(jobs, repeats).items():
            row = {"model": name, "preset": preset, "distance": distance, "batch": batch}
            rows.append({**row, "device": device, "seconds": seconds})
    return rows


def ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each batch and distance: how many times longer each other model takes than the first."""
    first = (rows[0]["model"], rows[0]["preset"])
    base = {
        (r["batch"], r["distance"]): r["seconds"]
        for r in rows
        if (r["model"], r["preset"]) == first
    }
    return [
        {**r, "ratio": r["seconds"] / base[r["batch"], r["distance"]], "to": "/".join(first)}
        for r in rows
        if (r["model"], r["preset"]) != first and (r["batch"], r["distance"]) in base
    ]


def exponents(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slope of log seconds against log distance: 0 is jumpy, 1 is frame by frame."""
    groups: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for r in rows:
        point = (math.log(r["distance"]), math.log(r["seconds"]))
        groups.setdefault((r["model"], r["preset"], r["batch"]), []).append(point)
    found = []
    for (model, preset, batch), points in groups.items():
        if len(points) > 1:
            x, y = np.array(points).T
            slope = float(np.polyfit(x, y, 1)[0])
            found.append({"model": model, "preset": preset, "batch": batch, "exponent": slope})
    return found


def wide(rows: Sequence[dict[str, Any]], value: str = "seconds") -> list[dict[str, Any]]:
    """One line per model and batch, one column per distance, for printing."""
    lines: dict[tuple[str, str, int], dict[str, Any]] = {}
    for r in rows:
        key = (r["model"], r["preset"], r["batch"])
        line = lines.setdefault(key, {"model": r["model"], "preset": r["preset"], "batch": key[2]})
        line[f"T={r['distance']}"] = r[value]
    return list(lines.values())
