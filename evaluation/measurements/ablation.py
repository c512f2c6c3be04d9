"""Are JUMP's additions to the paper worth it? Equal steps, and equal time.

All variants have the same widths, data, seeds and constant schedules, so that a run can be compared
at any point of it. Time is the CPU time of the training process alone, which other jobs on the
machine hardly change. Attention is tried in the renderer (``attention_heads``), product keys only
with the FiLM renderer: the paper's does not read a memory.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import gymnasium as gym

import worldmodel
from envs import SceneStream
from evaluation.measurements.fidelity import errors
from evaluation.metrics.story_consistency import NATURE
from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults
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
ATTENTION = {"renderer": "film", "attention_heads": 4}

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "+ Fourier time": FOURIER,
    "+ Fourier, film": FOURIER | FILM,
    "+ Fourier, product keys, film": FOURIER | PRODUCT | FILM,
    "+ Fourier, product keys, film, glances": FOURIER | PRODUCT | ATTENTION,
    "all but Fourier time": PRODUCT | ATTENTION,
    "all but product keys": FOURIER | ATTENTION,
}


@dataclass(frozen=True)
class Ablation(Measurement):
    """JUMP's additions to the paper, at equal steps and at equal time."""

    name = "ablation"
    variants: tuple[str, ...] = tuple(VARIANTS)
    steps: int = 2000
    """After which variants are compared at equal steps."""
    seconds: float = 300.0
    """Of CPU time, after which they are compared at equal time."""
    scenes: int = 128
    """To test on; 10 worlds are sampled of each."""
    seed: int = 0

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``variant, parameters, equal, step, seconds, kl, negative_elbo``, and the errors of
        ``fidelity.errors``.

        Raises:
            ValueError: no such variant, or a number is not above 0.
        """
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown or min(self.steps, self.seconds) <= 0:
            raise ValueError(
                f"variants, steps, seconds: expected some of {list(VARIANTS)} and numbers above 0, "
                f"got {list(self.variants)}, {self.steps}, {self.seconds}"
            )
        parts = {name: name for name in self.variants}
        rows = chain(*partial_results.each(self._of_variant, parts, self.name, "variant"))
        return sorted(rows, key=lambda row: str(row["equal"]))

    def _of_variant(self, name: str) -> list[Row]:
        env = gym.make(f"envs:{NATURE}", size=SIZE)
        spec = Spec.from_spaces(env.observation_space, env.action_space, 20)
        model = worldmodel.make("jump", spec, replace(PAPER, **VARIANTS[name]), self.seed)
        source = SceneStream(NATURE, BATCH, size=SIZE, seed=self.seed)
        evaluations = _Evaluations(self)
        with suppress(_Done):
            worldmodel.fit(
                model, source, 10**9, seed=self.seed, log_every=20, callbacks=[evaluations],
                progress=False,
            )  # fmt: skip
        parameters = sum(p.numel() for p in model.parameters())
        return [{"variant": name, "parameters": parameters, **row} for row in evaluations.rows]


class _Done(Exception):
    """Ends a training that needs no more steps."""


class _Evaluations:
    """Evaluates a model when it reaches the number of steps, and when it has used the time."""

    def __init__(self, settings: Ablation) -> None:
        self.settings = settings
        self.left = {"steps": float(settings.steps), "time": settings.seconds}
        test = SceneStream(NATURE, BATCH, size=SIZE, seed=settings.seed, split="test")
        self.validation = Validation(test, 1, settings.seed)
        self.began: float | None = None
        self.evaluating = 0.0
        self.rows: list[Row] = []

    def __call__(self, progress: Progress) -> None:
        if self.began is None:  # the clock starts here: the first steps also import and warm up
            self.began = time.process_time()
        spent = time.process_time() - self.began - self.evaluating
        now = {"steps": progress.step, "time": spent}
        for equal in [name for name, limit in self.left.items() if now[name] >= limit]:
            del self.left[equal]
            row = {"equal": equal, "step": progress.step, "seconds": spent}
            self.rows.append({**row, **self._metrics(progress)})
        self.evaluating = time.process_time() - self.began - spent
        if not self.left:
            raise _Done

    def _metrics(self, progress: Progress) -> dict[str, float]:
        by_scene = errors(progress.model, self.settings.scenes, 10, self.settings.seed)
        means = {name: float(values.mean()) for name, values in by_scene.items()}
        losses = self.validation.measure(progress.model)
        return means | {name: losses[name] for name in ("kl", "negative_elbo")}
