"""Seconds from a context to the frame at distance T, for every model in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import worldmodel
from evaluation.metrics import statistics
from worldmodel import ActionSpec, Context, Queries, Spec, WorldModel
from worldmodel.common.timing import interleaved

Model = tuple[str, str]
"""Name and preset."""
Rounds = Mapping[tuple[Model, int], NDArray[np.float64]]
"""Seconds (repeats,) of each model and distance, paired within the rounds."""
Row = dict[str, Any]


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
    models: Sequence[Model],
    distances: Sequence[int],
    batches: Sequence[int],
    *,
    size: int = 64,
    frames: int = 6,
    repeats: int = 7,
    device: str = "cpu",
) -> list[Row]:
    """Rows of three kinds, told apart by ``kind``; passive scenes, fresh weights.

    - ``seconds``: ``model, preset, distance, batch, device, seconds, low, high, n``.
    - ``ratio``: ``ratio``, how many times as long as the first model, named in ``to``, it takes.
    - ``exponent``, without a distance: ``exponent``, the slope of log seconds against log distance:
      0 is jumpy, 1 is frame by frame.

    Each is the median over the ``n`` timed rounds, of numbers that were made within a round;
    ``low`` and ``high`` are the interval of ``statistics.median``: 95% from 6 rounds on, the range
    of fewer. Distances that a model's stride does not reach are left out of its rows. The window is
    as long as the farthest frame needs.

    Args:
        models: (name, preset) of the registry; speed does not depend on what was learned.
        distances: steps between the last context frame and the frame asked for.
        batches: scenes at once.
        size: frame height and width in pixels.
        frames: context frames.
        repeats: timed rounds, after one that is not.
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
        rounds = interleaved(jobs, repeats)
        found = [*seconds(rounds), *ratios(rounds, models[0]), *exponents(rounds)]
        rows += [{**row, "batch": batch, "device": device} for row in found]
    return rows


def seconds(rounds: Rounds) -> list[Row]:
    """What each model takes to each distance."""
    return [
        _row("seconds", model, values, distance=distance)
        for (model, distance), values in rounds.items()
    ]


def ratios(rounds: Rounds, to: Model) -> list[Row]:
    """At each distance: how many times as long as ``to`` each other model takes, round by round."""
    return [
        _row("ratio", model, values / rounds[to, distance], distance=distance, to=":".join(to))
        for (model, distance), values in rounds.items()
        if model != to and (to, distance) in rounds
    ]


def exponents(rounds: Rounds) -> list[Row]:
    """Slope of log seconds against log distance, of models with two distances or more."""
    rows = []
    for model in dict.fromkeys(model for model, _ in rounds):
        times = {distance: values for (key, distance), values in rounds.items() if key == model}
        if len(times) > 1:
            slopes = np.polyfit(np.log([*times]), np.log(np.stack([*times.values()])), 1)[0]
            rows.append(_row("exponent", model, slopes))
    return rows


def _row(kind: str, model: Model, values: NDArray[np.float64], **more: Any) -> Row:
    value, low, high, n = statistics.median(values)
    named = {"kind": kind, "model": model[0], "preset": model[1], **more}
    return {**named, kind: value, "low": low, "high": high, "n": n}


def wide(rows: Sequence[Row], kind: str = "seconds", interval: bool = False) -> list[Row]:
    """One line per model and batch, one column per distance, for printing.

    Args:
        rows: of ``speed``.
        kind: "seconds" or "ratio".
        interval: show low and high beside each median, as text.
    """
    lines: dict[tuple[str, str, int], Row] = {}
    for r in rows:
        if r["kind"] != kind:
            continue
        key = (r["model"], r["preset"], r["batch"])
        line = lines.setdefault(key, {"model": r["model"], "preset": r["preset"], "batch": key[2]})
        text = f"{r[kind]:.3g} [{r['low']:.3g}, {r['high']:.3g}]"
        line[f"T={r['distance']}"] = text if interval else r[kind]
    return list(lines.values())
