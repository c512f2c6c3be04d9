"""Seconds from a context to the frame at distance T, for every model in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import worldmodel
from evaluation.metrics import statistics
from evaluation.runner.measurement import Measurement, Precisions, Row, at_precisions
from evaluation.runner.partial_results import PartialResults
from worldmodel import MODELS, ActionSpec, Context, Queries, Spec, WorldModel
from worldmodel.common import results
from worldmodel.common.timing import interleaved

FIRST = {
    name: next(iter(entry.presets))
    for name, entry in MODELS.items()
    if entry.presets and entry.model.takes_images
}
"""Every model of frames but replay, which needs an environment, and its preset after the paper."""
TOO_LARGE = ("hierarchical-vrnn", "cvg")
"""The papers' have 164 and hundreds of millions of weights: hours, on a CPU."""
STILL = ("inferno",)
"""Knows the frame that it observed, and none at a distance."""
PAPERS = (
    *(f"{name}:{preset}" for name, preset in FIRST.items() if name not in TOO_LARGE + STILL),
    "sssm:paper-jumpy",
    "hierarchical-vrnn:small",
)
Model = tuple[str, str]
"""Name and preset."""
Rounds = Mapping[tuple[Model, int], NDArray[np.float64]]
"""Seconds (repeats,) of each model and distance, paired within the rounds."""


def look_ahead(model: WorldModel, frames: int, distance: int, batch: int) -> Callable[[], object]:
    """The job that is timed: observe ``frames`` frames, sample one world, predict one far frame.

    A model that draws from nothing observes none.
    """
    device = model.device
    generator = torch.Generator(device).manual_seed(0)
    times = torch.arange(frames, device=device).expand(batch, frames)
    shape = (batch, frames, *model.spec.observation)
    context = Context(torch.rand(shape, generator=generator, device=device), times)
    if model.max_context == 0:
        context = Context.empty(batch, model.spec.observation)
    query = Queries(torch.full((batch, 1), frames - 1 + distance, device=device))

    def job() -> object:
        with torch.inference_mode():
            worlds = model.sample(model.observe(context), 1, generator)
            return model.predict(worlds, query).observations

    return job


@dataclass(frozen=True)
class Speed(Measurement):
    """Seconds to the frame at distance T: jumpy or frame by frame."""

    name = "speed"
    models: tuple[str, ...] = PAPERS
    """model:preset, with fresh weights; the others are compared with the first."""
    distances: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
    """Steps between the last context frame and the predicted one."""
    batches: tuple[int, ...] = (1,)
    """Scenes at once."""
    size: int = 64
    """Of frames, pixels."""
    frames: int = 6
    """Context frames."""
    repeats: int = 5
    """Timed rounds; medians count, and from 6 rounds on their intervals are of 95%."""
    device: str = "cpu"
    precision: Precisions = ("none",)
    """none times models as they are, in float32; the others what optimise_for_inference makes of
    them. With several each model has a row for each."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Of passive scenes; ``kind`` is one of three.

        - ``seconds``: ``model, preset, distance, batch, device, seconds, low, high, n``.
        - ``ratio``: ``ratio``, how many times as long as the first model, named in ``to``, it
          takes.
        - ``exponent``, without a distance: ``exponent``, the slope of log seconds against log
          distance: 0 is jumpy, 1 is frame by frame.

        Each is the median over the ``n`` timed rounds, of numbers that were made within a round;
        ``low`` and ``high`` are the interval of ``statistics.median``: 95% from 6 rounds on, the
        range of fewer. Distances that a model's stride does not reach are left out. The window is
        as long as the farthest frame needs. An optimised model's preset is "PRESET in bf16" or
        "PRESET in float32".

        Raises:
            ValueError: an unknown model or preset, or a number below 1.
        """
        if min(*self.distances, *self.batches, self.frames, self.repeats) < 1:
            raise ValueError("distances, batches, frames, repeats: expected at least 1")
        shape, window = (3, self.size, self.size), self.frames - 1 + max(self.distances)
        spec = Spec(shape, ActionSpec("none"), window)
        made = {}
        for name in self.models:
            kind, preset = results.name_and_preset(name)
            made[name] = worldmodel.make(kind, spec, preset).to(self.device).eval()
        timed = at_precisions(made, self.precision)
        models = {results.name_and_preset(name): model for name, model in timed.items()}
        rows = []
        for batch in self.batches:  # one group of interleaved jobs for each batch size
            jobs = {
                (key, distance): look_ahead(model, self.frames, distance, batch)
                for key, model in models.items()
                for distance in self.distances
                if distance % model.stride == 0
            }
            rounds = interleaved(jobs, self.repeats)
            of_batch = [*seconds(rounds), *ratios(rounds, next(iter(models))), *exponents(rounds)]
            rows += [{**row, "batch": batch, "device": self.device} for row in of_batch]
        return rows

    def text(self, rows: list[Row]) -> str:
        """Seconds, ratios to the first model, and exponents."""
        columns = ["model", "preset", "batch", *(f"T={t}" for t in self.distances)]
        parts = [
            f"seconds to the frame at distance T ({self.size} px, {self.device})",
            results.table(wide(rows), columns),
        ]
        slower = [row for row in rows if row["kind"] == "ratio"]
        if slower:
            table = results.table(wide(slower, "ratio", interval=True), columns)
            parts += [f"\ntimes slower than {slower[0]['to']}", table]
        slopes = [row for row in rows if row["kind"] == "exponent"]
        power = results.table(slopes, ["model", "preset", "batch", "exponent", "low", "high"])
        return "\n".join([*parts, "\ncost ~ T^exponent (0: jumpy, 1: frame by frame)", power])


def seconds(rounds: Rounds) -> list[Row]:
    """The time of each model to each distance."""
    return [
        _row("seconds", model, statistics.median(values), distance=distance)
        for (model, distance), values in rounds.items()
    ]


def ratios(rounds: Rounds, to: Model) -> list[Row]:
    """At each distance: how many times as long as ``to`` each other model takes, round by round."""
    return [
        _row(
            "ratio",
            model,
            statistics.median(values / rounds[to, distance]),
            distance=distance,
            to=":".join(to),
        )
        for (model, distance), values in rounds.items()
        if model != to and (to, distance) in rounds
    ]


def exponents(rounds: Rounds) -> list[Row]:
    """Slope of log seconds against log distance, of models with two distances or more."""
    rows = []
    for model in dict.fromkeys(model for model, _ in rounds):
        times = {distance: values for (key, distance), values in rounds.items() if key == model}
        if len(times) > 1:
            rows.append(_row("exponent", model, statistics.exponent(times)))
    return rows


def _row(kind: str, model: Model, value: statistics.Interval, **more: Any) -> Row:
    named = {"kind": kind, "model": model[0], "preset": model[1], **more}
    return named | value.columns(kind)


def wide(rows: Sequence[Row], kind: str = "seconds", interval: bool = False) -> list[Row]:
    """One line per model and batch, one column per distance, for printing.

    Args:
        rows: of ``Speed``.
        kind: "seconds" or "ratio".
        interval: add low and high to each median, as text.
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
