"""Rendered frames, scored plan steps and decisions of ``ImaginedVecEnv`` per second.

The first two are what a planner or an imagined environment does at every decision: the scene was
observed and worlds were sampled before, and are queried again and again. ``speed`` times all of the
way from a context to a frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

import worldmodel
from agents.actions import draw_actions, to_numpy
from agents.vec_env import ImaginedVecEnv
from evaluation.metrics import statistics
from evaluation.runner import torchrl_rssm
from evaluation.runner.measurement import Measurement, Precisions, Row, at_precisions
from evaluation.runner.partial_results import PartialResults
from worldmodel import ActionSpec, Context, Queries, Spec, WorldModel
from worldmodel.common import results
from worldmodel.common.timing import interleaved

Job = Callable[[], object]

FRAMES, PLAN_STEPS, DECISIONS, OUTSIDE = "frames", "plan_steps", "decisions", "outside"
DECIDED = 4
"""Decisions of a timed round."""
VERBS = ("observe", "sample", "advance", "predict", "step", "disagreement")


@dataclass(frozen=True)
class Imagination(Measurement):
    """Frames, scored plan steps and decisions per second."""

    name = "imagination"
    columns = ("model", "preset", "size", "horizon", "plans", "worlds")
    models: tyro.conf.Positional[tuple[str, ...]] = (
        "jump:small", "jump:narrative", "sssm:small", "svg-lp:small",
    )  # fmt: skip
    """model:preset with fresh weights, or checkpoints: folders, shipped names or hub ids.
    torchrl:rssm is the RSSM of TorchRL's Dreamer, for frames of 64 pixels."""
    horizons: tuple[int, ...] = (5, 10, 20, 40)
    """Steps of a plan."""
    plans: tuple[int, ...] = (1, 64)
    """Random plans at once, in each of the worlds."""
    worlds: int = 1
    size: int = 64
    """Of frames, where weights are fresh."""
    repeats: int = 7
    """Timed rounds; medians count, and from 6 rounds on their intervals are of 95%."""
    num_envs: tuple[int, ...] = ()
    """Imagined environments side by side whose steps are timed, too."""
    precision: Precisions = ("none",)
    """none times models as they are; the others what optimise_for_inference makes of them."""
    seed: int = 0
    device: str = "cpu"

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Those of ``compare``, with ``model`` and ``preset`` apart."""
        models = {name: self.load_model(name) for name in self.models}
        rows = self.compare(at_precisions(models, self.precision))
        for row in rows:
            row["model"], _, preset = row["model"].partition(":")
            row["preset"] = preset or None  # a checkpoint
        return rows

    def load_model(self, name: str) -> WorldModel:
        """``[module:]model:preset`` with fresh weights, for frames of ``size`` pixels and four
        actions; or a checkpoint, which knows its own frames, actions and window. In eval mode.

        Raises:
            ValueError: no such model or preset; or torchrl:rssm is not installed, or does not take
                frames of that size.
            FileNotFoundError: no such checkpoint.
        """
        if ":" not in name or Path(name.partition(":")[2]).is_dir():
            return worldmodel.load(name, self.device)
        model, preset = results.name_and_preset(name)
        action = ActionSpec("discrete", (), (4,))
        spec = Spec((3, self.size, self.size), action, max(self.horizons))
        if name == torchrl_rssm.NAME:
            return torchrl_rssm.make(spec).to(self.device).eval()
        return worldmodel.make(model, spec, preset).to(self.device).eval()

    def compare(self, models: Mapping[str, WorldModel]) -> list[Row]:
        """Rows ``model, horizon, plans, worlds, batch, size, device`` and, by ``kind``:

        - ``frames``: ``per_second``; the last frame of each plan of ``horizon`` steps in each
          world.
        - ``plan_steps``: ``per_second``; all steps of the same plans are scored in the same worlds,
          and nothing is rendered. A stride of k steps counts k.
        - ``ratio``: ``ratio``; how many times as long rendering these last frames takes as scoring
          all these steps.
        - ``decisions``: ``per_second``; one step of ``batch`` = ``num_envs`` imagined environments
          counts ``batch``. Actions are random, starts are noise, and episodes that end are followed
          by new ones.
        - ``outside``: ``outside``; the share of that time that is not spent in the model.

        ``size`` is the height of frames in pixels, or the length of vectors. ``batch`` = plans x
        worlds are queried together, in worlds of one scene that were sampled beforehand. Models of
        passive scenes have nothing to score or to decide; their frames are of ``batch`` worlds.
        Each number is the median over ``n`` timed rounds in which all jobs take turns, with ``low``
        and ``high`` by ``statistics.median``. Horizons that a model's stride does not reach are
        left out.

        Args:
            models: by name, in eval mode, each on its device.

        Raises:
            ValueError: a number is below 1, a horizon exceeds a model's window, or a model's keys
                are camera poses.
        """
        self._check(models)
        jobs: dict[tuple[str, int, int, str], Job] = {}
        for name, model in models.items():
            for horizon in self.horizons:
                for plans in self.plans if horizon % model.stride == 0 else ():
                    for kind, job in self._jobs(model, horizon, plans).items():
                        jobs[name, horizon, plans, kind] = job
            for count in () if model.spec.passive else self.num_envs:
                jobs[name, model.stride, count, DECISIONS] = _Deciding(model, count, self.seed)
        rounds, rows = interleaved(jobs, self.repeats), []
        for (name, horizon, plans, kind), seconds in rounds.items():
            job, spec = jobs[name, horizon, plans, kind], models[name].spec
            worlds = 1 if kind == DECISIONS else self.worlds
            row = {"model": name, "horizon": horizon, "plans": plans, "worlds": worlds}
            row |= {"batch": plans * worlds, "size": spec.observation[int(spec.is_image)]}
            row |= {"device": models[name].device.type}
            amount = plans * worlds
            amount *= {FRAMES: 1, PLAN_STEPS: horizon, DECISIONS: DECIDED}[kind]
            rate = statistics.median(amount / seconds).columns("per_second")
            rows.append({**row, "kind": kind, **rate})
            if kind == PLAN_STEPS:
                times = statistics.median(rounds[name, horizon, plans, FRAMES] / seconds)
                rows.append({**row, "kind": "ratio", **times.columns("ratio")})
            if isinstance(job, _Deciding):
                outside = 1 - np.array(job.inside[-self.repeats :]) / seconds
                share = statistics.median(outside).columns(OUTSIDE)
                rows.append({**row, "kind": OUTSIDE, **share})
        return rows

    def _check(self, models: Mapping[str, WorldModel]) -> None:
        if min(*self.horizons, *self.plans, self.worlds, self.repeats, *self.num_envs) < 1:
            raise ValueError("horizons, plans, worlds, repeats, num_envs: expected at least 1")
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
            DECISIONS: ("decisions of imagined environments per second", "per_second"),
            OUTSIDE: ("share of a decision's time that is not spent in the model", OUTSIDE),
        }  # fmt: skip
        parts = []
        for kind, (title, column) in titles.items():
            of_kind = [row for row in rows if row["kind"] == kind]
            if not of_kind:
                continue
            columns = [*self.columns, column, "low", "high", "n"]
            parts.append(f"{title} ({self.device})\n{results.table(of_kind, columns)}")
        return "\n\n".join(parts)


class _Deciding:
    """Steps of ``ImaginedVecEnv``, and the seconds of each round that the model takes of them.

    Attributes:
        inside: seconds within the model's verbs, of each call.
    """

    def __init__(self, model: WorldModel, num_envs: int, seed: int) -> None:
        self.inside: list[float] = [0.0]
        self.device = model.device
        spec, watched = model.spec, copy(model)
        for verb in VERBS:
            setattr(watched, verb, self._timed(getattr(model, verb)))
        shape, dtype = spec.border
        noise = np.random.default_rng(seed)
        starts: NDArray[Any] = (
            noise.integers(256, size=(64, *shape), dtype=np.uint8)
            if dtype == np.uint8
            else noise.random((64, *shape), np.float32)
        )
        hold = model.stride
        self.venv = ImaginedVecEnv(watched, starts, num_envs, hold, seed=seed, stagger=True)
        generator = torch.Generator().manual_seed(seed)
        self.actions = to_numpy(
            spec.action, draw_actions(spec.action, (DECIDED, num_envs), generator)
        )
        self.venv.reset()

    def __call__(self) -> None:
        self.inside.append(0.0)
        for actions in self.actions:
            self.venv.step(actions)

    def _timed(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            begin = time.perf_counter()
            answer = verb(*args, **more)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.inside[-1] += time.perf_counter() - begin
            return answer

        return call
