"""Rendered frames and scored plan steps per second.

This is what a planner or an imagined environment does at every decision: the scene was observed and
worlds were sampled before, and are queried again and again. ``speed`` times all of the way from a
context to a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

import worldmodel
from agents.actions import draw_actions
from evaluation.metrics import statistics
from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults
from worldmodel import ActionSpec, Context, Queries, Spec, WorldModel
from worldmodel.common import results
from worldmodel.common.timing import interleaved

Job = Callable[[], object]

FRAMES, PLAN_STEPS = "frames", "plan_steps"


@dataclass(frozen=True)
class Imagination(Measurement):
    """Frames and scored plan steps per second."""

    name = "imagination"
    columns = ("model", "preset", "size", "horizon", "plans", "worlds")
    models: tyro.conf.Positional[tuple[str, ...]] = (
        "jump:small", "jump:narrative", "sssm:small", "svg-lp:small",
    )  # fmt: skip
    """model:preset with fresh weights, or checkpoints: folders, shipped names or hub ids."""
    horizons: tuple[int, ...] = (5, 10, 20, 40)
    """Steps of a plan."""
    plans: tuple[int, ...] = (1, 64)
    """Random plans at once, in each of the worlds."""
    worlds: int = 1
    size: int = 64
    """Of frames, where weights are fresh."""
    repeats: int = 7
    """Timed rounds; medians count, and from 6 rounds on their intervals are of 95%."""
    seed: int = 0
    device: str = "cpu"

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Those of ``compare``, with ``model`` and ``preset`` apart."""
        rows = self.compare({name: self.load_model(name) for name in self.models})
        for row in rows:
            row["model"], _, preset = row["model"].partition(":")
            row["preset"] = preset or None  # a checkpoint
        return rows

    def load_model(self, name: str) -> WorldModel:
        """``[module:]model:preset`` with fresh weights, for frames of ``size`` pixels and four
        actions; or a checkpoint, which knows its own frames, actions and window. In eval mode.

        Raises:
            ValueError: no such model or preset.
            FileNotFoundError: no such checkpoint.
        """
        if ":" not in name or Path(name.partition(":")[2]).is_dir():
            return worldmodel.load(name, self.device)
        model, preset = results.name_and_preset(name)
        action = ActionSpec("discrete", (), (4,))
        spec = Spec((3, self.size, self.size), action, max(self.horizons))
        return worldmodel.make(model, spec, preset).to(self.device).eval()

    def compare(self, models: Mapping[str, WorldModel]) -> list[Row]:
        """Rows ``model, horizon, plans, worlds, batch, size, device`` and, by ``kind``:

        - ``frames``: ``per_second``; the last frame of each plan of ``horizon`` steps in each
          world.
        - ``plan_steps``: ``per_second``; all steps of the same plans are scored in the same worlds,
          and nothing is rendered. A stride of k steps counts k.
        - ``ratio``: ``ratio``; how many times as long rendering these last frames takes as scoring
          all these steps.

        ``size`` is the height of frames in pixels, or the length of vectors. ``batch`` = plans x
        worlds are queried together, in worlds of one scene that were sampled beforehand. Models of
        passive scenes have nothing to score; their frames are of ``batch`` worlds. Each number is
        the median over ``n`` timed rounds in which all jobs take turns, with ``low`` and ``high``
        by ``statistics.median``. Horizons that a model's stride does not reach are left out.

        Args:
            models: by name, in eval mode, each on its device.

        Raises:
            ValueError: a number is below 1, a horizon exceeds a model's window, or a model's keys
                are camera poses.
        """
        if min(*self.horizons, *self.plans, self.worlds, self.repeats) < 1:
            raise ValueError("horizons, plans, worlds, repeats: expected at least 1")
        for name, model in models.items():
            if model.spec.pose:
                raise ValueError(
                    f"models: {name} looks from camera poses; expected one whose keys are times"
                )
            if max(self.horizons) > model.spec.window:
                raise ValueError(
                    f"horizons: {max(self.horizons)} steps leave the window of {name}; expected at "
                    f"most {model.spec.window}"
                )
        jobs: dict[tuple[str, int, int, str], Job] = {}
        for name, model in models.items():
            for horizon in self.horizons:
                for plans in self.plans if horizon % model.stride == 0 else ():
                    for kind, job in self._jobs(model, horizon, plans).items():
                        jobs[name, horizon, plans, kind] = job
        rounds, rows = interleaved(jobs, self.repeats), []
        for (name, horizon, plans, kind), seconds in rounds.items():
            batch, spec = plans * self.worlds, models[name].spec
            row = {"model": name, "horizon": horizon, "plans": plans, "worlds": self.worlds}
            row |= {"batch": batch, "size": spec.observation[int(spec.is_image)]}
            row |= {"device": models[name].device.type}
            amount = batch * (1 if kind == FRAMES else horizon)
            rate = statistics.median(amount / seconds).columns("per_second")
            rows.append({**row, "kind": kind, **rate})
            if kind == PLAN_STEPS:
                times = statistics.median(rounds[name, horizon, plans, FRAMES] / seconds)
                rows.append({**row, "kind": "ratio", **times.columns("ratio")})
        return rows

    def _jobs(self, model: WorldModel, horizon: int, plans: int) -> dict[str, Job]:
        """Rendering the end of each plan in each world, and scoring all steps of all."""
        device, passive = model.device, model.spec.passive
        generator = torch.Generator(device).manual_seed(self.seed)
        frame = torch.rand(1, 1, *model.spec.observation, generator=generator, device=device)
        now = torch.zeros(1, 1, dtype=torch.int64, device=device)
        with torch.inference_mode():
            belief = model.observe(Context(frame, now))
            count = plans * self.worlds if passive else self.worlds
            worlds = model.sample(belief, count, generator)
        steps = torch.arange(model.stride, horizon + 1, model.stride, device=device).unsqueeze(0)
        actions = draw_actions(model.spec.action, (1, plans, horizon), generator)

        def predicting(times: Tensor, frames: bool) -> Job:
            queries = Queries(times, None if passive else actions)

            def job() -> object:
                with torch.inference_mode():
                    return model.predict(worlds, queries, frames)

            return job

        rendered = {FRAMES: predicting(steps[:, -1:], True)}
        return rendered if passive else {**rendered, PLAN_STEPS: predicting(steps, False)}

    def text(self, rows: list[Row]) -> str:
        """A table of each kind."""
        titles = {
            FRAMES: ("frames per second", "per_second"),
            PLAN_STEPS: ("scored plan steps per second", "per_second"),
            "ratio": ("rendering each plan's last frame takes .. times as long as scoring all its "
                      "steps", "ratio"),
        }  # fmt: skip
        parts = []
        for kind, (title, column) in titles.items():
            of_kind = [row for row in rows if row["kind"] == kind]
            columns = [*self.columns, column, "low", "high", "n"]
            parts.append(f"{title} ({self.device})\n{results.table(of_kind, columns)}")
        return "\n\n".join(parts)
