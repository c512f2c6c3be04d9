"""Do JUMP's options beyond the paper earn their place? Equal steps, and equal time.

All variants have the same widths, data, seeds and constant schedules, so that a run can be judged
at any point of it. Time is the CPU time of the training process alone, which other jobs on the
machine hardly change. Attention is tried in the renderer (glances). Product keys are not tried
without the film renderer: the paper's does not read a memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import gymnasium as gym

import worldmodel
from envs import SceneStream
from evaluation.measurements.fidelity import errors
from evaluation.measurements.story_consistency import NATURE
from evaluation.runner.partial_results import Ledger
from worldmodel import Progress, Spec
from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.training.validation import Validation

SIZE, BATCH = 32, 16
VARIANCE = 0.2

PAPER = JumpConfig(
    hidden=32, tower=32, canvas=32, canvas_in=32, kernel=5, targets=6,
    variance_start=VARIANCE, variance_end=VARIANCE, learning_rate=1e-3, learning_rate_end=1e-3,
)  # fmt: skip
"""The paper's blocks, at a width for a CPU."""

FOURIER = {"time_bands": 6}
PRODUCT = {"key_features": 12}
FILM = {"renderer": "film"}
GLANCES = {"renderer": "film", "glances": 4}

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "+ Fourier time": FOURIER,
    "+ Fourier, film": FOURIER | FILM,
    "+ Fourier, product keys, film": FOURIER | PRODUCT | FILM,
    "+ Fourier, product keys, film, glances": FOURIER | PRODUCT | GLANCES,
    "all but Fourier time": PRODUCT | GLANCES,
    "all but product keys": FOURIER | GLANCES,
}


class _Done(Exception):
    """Ends a training whose last point has been judged."""


class _Judge:
    """Judges a model when it reaches a number of steps, and when it has used its time."""

    def __init__(
        self, steps: int, seconds: float, scenes: int, unseen: Validation, seed: int
    ) -> None:
        self.left = {"steps": float(steps), "time": seconds}
        self.scenes, self.unseen, self.seed = scenes, unseen, seed
        self.began: float | None = None
        self.judging = 0.0
        self.rows: list[dict[str, Any]] = []

    def __call__(self, progress: Progress) -> None:
        if self.began is None:  # the clock starts here: the first steps also import and warm up
            self.began = time.process_time()
        spent = time.process_time() - self.began - self.judging
        now = {"steps": progress.step, "time": spent}
        for equal in [name for name, limit in self.left.items() if now[name] >= limit]:
            del self.left[equal]
            self.rows.append(
                {"equal": equal, "step": progress.step, "seconds": spent, **self._metrics(progress)}
            )
        self.judging = time.process_time() - self.began - spent
        if not self.left:
            raise _Done

    def _metrics(self, progress: Progress) -> dict[str, float]:
        found = errors(progress.model, self.scenes, 10, self.seed)
        means = {name: float(values.mean()) for name, values in found.items()}
        losses = self.unseen.measure(progress.model)
        return means | {name: losses[name] for name in ("kl", "negative_elbo")}


def options(
    names: Sequence[str],
    steps: int,
    seconds: float,
    scenes: int = 128,
    seed: int = 0,
    ledger: Ledger | None = None,
) -> list[dict[str, Any]]:
    """Rows ``variant, parameters, equal, step, seconds, seen, min-of-n, ..., kl, negative_elbo``.

    Args:
        names: of ``VARIANTS``.
        steps: after which variants are compared at equal steps.
        seconds: of CPU time, after which they are compared at equal time.
        scenes: to test on; 10 worlds are sampled of each.
        seed: of weights, draws and scenes.
        ledger: keeps what is done, variant by variant.

    Raises:
        ValueError: no such variant, or a number is not above 0.
    """
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or min(steps, seconds) <= 0:
        raise ValueError(
            f"names, steps, seconds: expected some of {list(VARIANTS)} and numbers above 0, got "
            f"{list(names)}, {steps}, {seconds}"
        )
    env = gym.make(f"envs:{NATURE}", size=SIZE)
    unseen = Validation(SceneStream(NATURE, BATCH, size=SIZE, seed=seed, split="test"), 1, seed)
    source = SceneStream(NATURE, BATCH, size=SIZE, seed=seed)

    def measured(name: str) -> list[dict[str, Any]]:
        spec = Spec.from_spaces(env.observation_space, env.action_space, 20)
        model = worldmodel.make("jump", spec, replace(PAPER, **VARIANTS[name]), seed)
        judge = _Judge(steps, seconds, scenes, unseen, seed)
        with suppress(_Done):
            worldmodel.fit(
                model, source, 10**9, seed=seed, log_every=20, callbacks=[judge], progress=False
            )
        size = sum(p.numel() for p in model.parameters())
        return [{"variant": name, "parameters": size, **row} for row in judge.rows]

    parts = {name: name for name in names}
    return list(chain(*(ledger or Ledger()).each(measured, parts, "options", "variant")))
