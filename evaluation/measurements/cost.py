"""How imagining and planning grow with each of their sizes, and what memory very many plans take.

``speed`` compares models at the papers' sizes; here each model is compared with itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import worldmodel
from agents.actions import draw_actions
from agents.imagination import Imagination
from evaluation.metrics import statistics
from evaluation.runner.measurement import Measurement, Precisions, Row, at_precisions
from evaluation.runner.partial_results import PartialResults
from worldmodel import ActionSpec, Context, Queries, Spec, WorldModel
from worldmodel.common import results
from worldmodel.common.config_checks import above_zero, at_least
from worldmodel.common.timing import interleaved
from worldmodel.registry import entry

Job = Callable[[], object]

FRAME, SCORE = "frame", "score"
NUMBERS = 8
"""Of an observation of models that take vectors."""
CALM = 0.1
"""What their fresh weights are multiplied by: else 1,000 steps lead to infinity."""
ACTION = ActionSpec("discrete", (), (4,))


@dataclass(frozen=True)
class Sizes:
    """What a decision is made of.

    Attributes:
        horizon: steps of a plan, or to a frame.
        plans: that are scored, in each world of each scene.
        worlds: sampled for each scene.
        context: frames that are observed, one after the other.
        size: of frames, pixels.
        batch: scenes at once.
    """

    horizon: int = 10
    plans: int = 16
    worlds: int = 2
    context: int = 2
    size: int = 64
    batch: int = 1

    def __post_init__(self) -> None:
        at_least(1, self, *(field.name for field in fields(self)))

    @property
    def window(self) -> int:
        """Steps that a model needs for it."""
        return self.context - 1 + self.horizon


AXES = tuple(field.name for field in fields(Sizes))
Rounds = Mapping[tuple[str, str, int], NDArray[np.float64]]
"""Seconds (repeats,) of each model, kind of job and size."""


@dataclass(frozen=True)
class Cost(Measurement):
    """Seconds against horizon, plans, worlds, context, frame size and batch; memory of scoring."""

    name = "cost"
    models: tyro.conf.Positional[tuple[str, ...]] = (
        "jump:small", "jump:narrative", "sssm:small", "svg-lp:small", "ensemble:vector",
    )  # fmt: skip
    """model:preset, with fresh weights."""
    horizons: tuple[int, ...] = (10, 30, 100, 300, 1000)
    """Steps; an axis without values is not measured."""
    plans: tuple[int, ...] = (10, 100, 1000, 10_000)
    """For scores alone."""
    worlds: tuple[int, ...] = (1, 4, 16, 64)
    contexts: tuple[int, ...] = (1, 2, 4, 6, 12, 24)
    """Frames; those beyond a model's ``max_context`` are left out."""
    sizes: tuple[int, ...] = (32, 64, 128)
    """Pixels; left out for models of vectors, and where a model takes no such frames."""
    batches: tuple[int, ...] = (1, 4, 16, 64)
    base: Sizes = Sizes()
    """The other sizes, while one varies; of its context, models take at most ``max_context``."""
    longest: float = 5.0
    """Seconds: what would take longer, if cost grew in proportion to a size, is left out."""
    repeats: int = 7
    """Timed rounds; medians count, and from 6 rounds on their intervals are of 95%."""
    memory_models: tuple[str, ...] = ("jump:small", "jump:narrative", "ensemble:vector")
    """Those whose memory is measured, each in a process of its own, once."""
    many: Sizes = Sizes(horizon=100, plans=10_000, worlds=16, context=1)
    """What is scored there."""
    ceiling: int = 1024
    """MiB that this may take, with all libraries."""
    precision: Precisions = ("none",)
    """none times models as they are; the others what optimise_for_inference makes of them."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        at_least(1, self, "repeats", "ceiling")
        above_zero(self, "longest")

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``kind, of, model, preset, device`` and, by ``kind``:

        - ``seconds``: ``axis, value, seconds, low, high, n``. ``of`` says of what, from the context
          on: it is observed, worlds are sampled, and in each of them the last frame of one plan is
          predicted (``frame``), or all ``plans`` are scored and nothing is rendered (``score``), in
          chunks as planners do it.
        - ``exponent``: ``axis, over, exponent, low, high, n``, the slope of log seconds against log
          value: 0 costs the same at any size, 1 grows in proportion. ``over`` is "all" values, or
          "last two": where much else costs as much as what grows, the first is below the second.
        - ``memory``: ``mib``, the most that a process held which scored ``many`` plans, ``before``,
          the most until then, ``ceiling``, ``within`` (whether it stayed below that) and
          ``seconds``.

        All jobs of an axis take turns in each of the ``n`` rounds, and a slope is made within a
        round; ``low`` and ``high`` are by ``statistics.median``. A model's window is as long as
        each point needs. Horizons that a model's stride does not reach are left out.

        Raises:
            ValueError: an unknown model or preset, or a number below 1.
        """
        values = (
            self.horizons, self.plans, self.worlds, self.contexts, self.sizes, self.batches,
        )  # fmt: skip
        rows = []
        for axis, along in zip(AXES, values, strict=True):
            rounds = interleaved(self._jobs(axis, sorted(along)), self.repeats, warmup=0)
            rows += [{**row, "axis": axis} for row in (*seconds(rounds), *exponents(rounds))]
        for name in self.memory_models:  # a new process for each: a peak does not go down
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                rows.append(process.submit(memory, self, name).result())
        return [{**row, "device": self.device} for row in rows]

    def _jobs(self, axis: str, along: list[int]) -> dict[tuple[str, str, int], Job]:
        """What is timed along an axis, by model, kind and value; each was run once."""
        jobs: dict[tuple[str, str, int], Job] = {}
        made: dict[tuple[str, int, int], WorldModel] = {}
        for name, kind, precision in product(self.models, (FRAME, SCORE), self.precision):
            last: tuple[int, float] | None = None
            for value in () if kind == FRAME and axis == "plans" else along:
                if last is not None and last[1] * value / last[0] > self.longest:
                    break
                sizes = replace(self.base, **{axis: value})
                title = name if precision == "none" else f"{name} in {precision}"
                key = title, sizes.size, sizes.window
                if key not in made:
                    fresh = self._sized(name, axis, sizes)
                    if fresh is None:
                        continue
                    (made[key],) = at_precisions({name: fresh}, (precision,)).values()
                reached = _within_reach(made[key], axis, sizes)
                if reached is None:
                    continue
                job = decision(made[key], kind, reached, self.seed)
                began = time.perf_counter()
                job()
                last = value, time.perf_counter() - began
                jobs[title, kind, value] = job
        return jobs

    def _sized(self, name: str, axis: str, sizes: Sizes) -> WorldModel | None:
        """A fresh model; None if it takes no frames of the axis' size."""
        try:
            return self.fresh(name, sizes)
        except ValueError:
            if axis != "size":
                raise
            self.fresh(name, self.base)  # what is wrong with more than the size raises here
            return None

    def fresh(self, name: str, sizes: Sizes) -> WorldModel:
        """``model:preset`` in eval mode, for images, or for vectors where it takes no images."""
        kind, preset = results.name_and_preset(name)
        images = entry(kind).model.takes_images
        if images:
            spec = Spec((3, sizes.size, sizes.size), ACTION, sizes.window)
        else:
            low, high = (-1.0,) * NUMBERS, (1.0,) * NUMBERS
            spec = Spec((NUMBERS,), ACTION, sizes.window, low=low, high=high)
        model = worldmodel.make(kind, spec, preset).to(self.device).eval()
        if not images:
            with torch.no_grad():
                for weights in model.parameters():
                    weights.mul_(CALM)
        return model

    def text(self, rows: list[Row]) -> str:
        """A table of each kind."""
        columns = {
            "seconds": ("of", "axis", "value", "seconds", "low", "high", "n"),
            "exponent": ("of", "axis", "over", "exponent", "low", "high", "n"),
            "memory": ("mib", "before", "ceiling", "within", "seconds"),
        }
        titles = {
            "seconds": f"seconds, with one size different from {self.base}",
            "exponent": "cost ~ size^exponent",
            "memory": f"MiB of scoring {self.many}",
        }
        parts = []
        for kind, title in titles.items():
            of_kind = [row for row in rows if row["kind"] == kind]
            if of_kind:
                table = results.table(of_kind, ("model", "preset", *columns[kind]))
                parts.append(f"{title} ({self.device})\n{table}")
        return "\n\n".join(parts)


def _within_reach(model: WorldModel, axis: str, sizes: Sizes) -> Sizes | None:
    """The sizes with a context that the model takes; None if there is no such job."""
    if sizes.horizon % model.stride or (axis == "size" and not model.spec.is_image):
        return None
    if model.max_context is None or sizes.context <= model.max_context:
        return sizes
    return None if axis == "context" else replace(sizes, context=model.max_context)


def decision(model: WorldModel, kind: str, sizes: Sizes, seed: int = 0) -> Job:
    """The job that is timed, from a context of noise to frames or scores.

    Args:
        model: in eval mode.
        kind: "frame" (of one plan) or "score".
        sizes: of the job.
        seed: of frames, actions and worlds.
    """
    spec, device, present = model.spec, model.device, sizes.context - 1
    generator = torch.Generator(device).manual_seed(seed)
    shape = (sizes.batch, sizes.context, *spec.observation)
    frames = torch.rand(shape, generator=generator, device=device)
    times = torch.arange(sizes.context, device=device).expand(sizes.batch, -1)
    taken = draw_actions(spec.action, (sizes.batch, present), generator)
    count = sizes.plans if kind == SCORE else 1
    plans = draw_actions(spec.action, (sizes.batch, count, sizes.horizon), generator)
    context, imagination = Context(frames, times, taken), Imagination(model, seed)
    ends = Queries(torch.full((sizes.batch, 1), sizes.window, device=device), plans)

    def job() -> object:
        with torch.inference_mode():
            worlds = model.sample(model.observe(context), sizes.worlds, generator)
            if kind == SCORE:
                return imagination.score(worlds, plans)
            return model.predict(worlds, ends).observations

    return job


def seconds(rounds: Rounds) -> list[Row]:
    """The time of each job."""
    return [
        {**_named("seconds", name, of), "value": value}
        | statistics.median(times).columns("seconds")
        for (name, of, value), times in rounds.items()
    ]


def exponents(rounds: Rounds) -> list[Row]:
    """Slopes of log seconds against log value, of jobs with two values or more."""
    rows = []
    for name, of in dict.fromkeys((name, of) for name, of, _ in rounds):
        times = {value: each for (*job, value), each in rounds.items() if job == [name, of]}
        values = sorted(times)
        for over, some in (("all", values), ("last two", values[-2:])):
            if len(some) > 1:
                slope = statistics.exponent({value: times[value] for value in some})
                row = {**_named("exponent", name, of), "over": over}
                rows.append({**row, **slope.columns("exponent")})
    return rows


def memory(cost: Cost, name: str) -> Row:
    """The row of the memory that scoring takes; call it in a process that did nothing yet.

    Args:
        cost: the measurement.
        name: model:preset.
    """
    torch.set_num_threads(cost.num_threads)
    model = cost.fresh(name, cost.many)
    decision(model, SCORE, replace(cost.many, plans=1))()
    before, job = peak(), decision(model, SCORE, cost.many, cost.seed)
    began = time.perf_counter()
    job()
    took, mib = time.perf_counter() - began, peak()
    row = {**_named("memory", name, SCORE), "mib": mib, "before": before, "seconds": took}
    return {**row, "ceiling": cost.ceiling, "within": mib <= cost.ceiling}


def peak() -> float:
    """MiB of this process in memory, at most so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands ru_maxrss on from the process that began this one
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _named(kind: str, name: str, of: str) -> Row:
    model, preset = results.name_and_preset(name)
    return {"kind": kind, "of": of, "model": model, "preset": preset}
