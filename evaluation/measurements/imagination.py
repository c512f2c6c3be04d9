"""How fast is imagining? Rendered frames and scored plan steps per second.

What a planner or an imagined environment does at every decision: the scene was observed and worlds
were sampled before, and are looked at again and again. ``speed`` times the whole way from a context
to a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import worldmodel
from agents.actions import draw_actions
from evaluation.metrics import statistics
from worldmodel import ActionSpec, Context, Queries, Spec, WorldModel
from worldmodel.common import results
from worldmodel.common.timing import interleaved

Row = dict[str, Any]
Job = Callable[[], object]

FRAMES, PLAN_STEPS = "frames", "plan_steps"


def named(name: str, size: int, window: int, device: str) -> WorldModel:
    """``[module:]model:preset`` with fresh weights, for frames of ``size`` pixels and four actions;
    or a checkpoint, which knows its own frames, actions and window. In eval mode.

    Raises:
        ValueError: no such model or preset.
        FileNotFoundError: no such checkpoint.
    """
    if ":" not in name or Path(name.partition(":")[2]).is_dir():
        return worldmodel.load(name, device)
    model, preset = results.name_and_preset(name)
    spec = Spec((3, size, size), ActionSpec("discrete", (), (4,)), window)
    return worldmodel.make(model, spec, preset).to(device).eval()


def imagination(
    models: Mapping[str, WorldModel],
    horizons: Sequence[int],
    plans: Sequence[int],
    *,
    worlds: int = 1,
    repeats: int = 7,
    seed: int = 0,
) -> list[Row]:
    """Rows of three kinds, told apart by ``kind``, all with ``model, horizon, plans, worlds, batch,
    size, device``; ``size`` is the height of frames in pixels, or the length of vectors.

    - ``frames``: ``per_second``; the last frame of each plan of ``horizon`` steps in each world.
    - ``plan_steps``: ``per_second``; all steps of the same plans are scored in the same worlds, and
      nothing is rendered. A stride of k steps counts k.
    - ``ratio``: ``ratio``; how many times as long rendering these last frames takes as scoring all
      these steps.

    ``batch`` = plans x worlds are looked at together, in worlds of one scene that were sampled
    beforehand. Models of passive scenes have nothing to score; their frames are of ``batch``
    worlds. Each number is the median over ``n`` timed rounds in which all jobs take turns, with
    ``low`` and ``high`` by ``statistics.median``: 95% from 6 rounds on, the range of fewer.
    Horizons that a model's stride does not reach are left out of its rows.

    Args:
        models: by name, in eval mode, each on its device.
        horizons: steps.
        plans: numbers of random plans.
        worlds: in which each plan is imagined.
        repeats: timed rounds, after one that is not.
        seed: of the context, the worlds and the plans.

    Raises:
        ValueError: a number is below 1, a horizon exceeds a model's window, or a model's keys are
            camera poses.
    """
    if min(*horizons, *plans, worlds, repeats) < 1:
        raise ValueError("horizons, plans, worlds, repeats: expected at least 1")
    for name, model in models.items():
        _check(name, model, max(horizons))
    jobs: dict[tuple[str, int, int, str], Job] = {}
    for name, model in models.items():
        for horizon in horizons:
            for count in plans if horizon % model.stride == 0 else ():
                for kind, job in _jobs(model, horizon, count, worlds, seed).items():
                    jobs[name, horizon, count, kind] = job
    rounds, rows = interleaved(jobs, repeats), []
    for (name, horizon, count, kind), seconds in rounds.items():
        batch = count * worlds
        shape = {"horizon": horizon, "plans": count, "worlds": worlds, "batch": batch}
        row = {"model": name, **shape, **_made(models[name])}
        looked = batch * (1 if kind == FRAMES else horizon)
        rows.append({**row, "kind": kind, **_told("per_second", looked / seconds)})
        if kind == PLAN_STEPS:
            times = rounds[name, horizon, count, FRAMES] / seconds
            rows.append({**row, "kind": "ratio", **_told("ratio", times)})
    return rows


def _check(name: str, model: WorldModel, horizon: int) -> None:
    if model.spec.pose:
        raise ValueError(
            f"models: {name} looks from camera poses; expected one whose keys are times"
        )
    if horizon > model.spec.window:
        raise ValueError(
            f"horizons: {horizon} steps leave the window of {name}; expected at most "
            f"{model.spec.window}"
        )


def _made(model: WorldModel) -> Row:
    spec = model.spec
    return {"size": spec.observation[int(spec.is_image)], "device": model.device.type}


def _told(column: str, values: NDArray[np.float64]) -> Row:
    value, low, high, n = statistics.median(values)
    return {column: value, "low": low, "high": high, "n": n}


def _jobs(model: WorldModel, horizon: int, plans: int, worlds: int, seed: int) -> dict[str, Job]:
    """Rendering the end of each plan in each world, and scoring all steps of all."""
    device, passive = model.device, model.spec.passive
    generator = torch.Generator(device).manual_seed(seed)
    frame = torch.rand(1, 1, *model.spec.observation, generator=generator, device=device)
    now = torch.zeros(1, 1, dtype=torch.int64, device=device)
    with torch.inference_mode():
        belief = model.observe(Context(frame, now))
        drawn = model.sample(belief, plans * worlds if passive else worlds, generator)
    steps = torch.arange(model.stride, horizon + 1, model.stride, device=device).unsqueeze(0)
    drafts = draw_actions(model.spec.action, (1, plans, horizon), generator)

    def look(times: Tensor, frames: bool) -> Job:
        queries = Queries(times, None if passive else drafts)

        def job() -> object:
            with torch.inference_mode():
                return model.predict(drawn, queries, frames)

        return job

    rendered = {FRAMES: look(steps[:, -1:], True)}
    return rendered if passive else {**rendered, PLAN_STEPS: look(steps, False)}
