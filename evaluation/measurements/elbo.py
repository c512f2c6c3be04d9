"""How well does a model explain frames that it was not trained on? Its negative ELBO.

Jumpy models are trained on KL(q || p) + SSE / pixel_variance, each with a variance, contexts and
targets of its own: training losses cannot be compared. Here all of these are given, the same for
every model, as where the paper compares JUMP with its ablation (seed 001, figure 4). The likelihood
is the joint one of all targets: JUMP pays its KL once for all of them, GQN and BADJ once for each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.metrics import statistics
from evaluation.runner.held_out_scenes import held_out
from evaluation.runner.measurement import OfEachModel, Row, environment
from worldmodel import WorldModel
from worldmodel.common.progress import progress
from worldmodel.models.jumpy.base import JumpyModel
from worldmodel.models.jumpy.copying import CopyingJump

_SCENES = 16
"""Explained at once."""


@dataclass(frozen=True)
class Elbo(OfEachModel):
    """Negative ELBO, KL, reconstruction at one pixel variance."""

    name = "elbo"
    columns = ("checkpoint", "model", "env", "metric", "value", "low", "high", "n")
    pixel_variance: float = 0.1
    """For all models alike, and as in their configs: squared errors are divided by it, so the
    likelihood is a Gaussian of half of it."""
    context: int = 3
    """Frames of the context: the first ones."""
    targets: int = 3
    """Frames to explain, all at once: random later ones, the same for every model."""
    scenes: int = 200
    """Of the test split."""

    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows ``model, env, metric, pixel_variance, context, targets, value, low, high, n``.

        Of ``of_scenes``, in nats for each scene, with 95% intervals over scenes.
        """
        values = {f"{name}, nats": each for name, each in self.of_scenes(model).items()}
        return statistics.rows(
            model.name, environment(self.env, model.env_id), values, self.seed,
            pixel_variance=self.pixel_variance, context=self.context, targets=self.targets,
        )  # fmt: skip

    def of_scenes(self, model: WorldModel) -> dict[str, Tensor]:
        """``negative ELBO`` = ``kl`` + ``reconstruction``, each float32 (scenes,), in nats.

        The first ``context`` frames (or views) of test scenes are observed; ``targets`` of the
        later ones, sampled without replacement, are explained together, from one sample of the
        posterior. ``reconstruction`` is the negative log density of their numbers in [0, 1],
        constant included.

        Args:
            model: any ``JumpyModel`` (jump with a DRAW prior, gqn, badj).

        Raises:
            TypeError: the model is no ``JumpyModel``, and has no ELBO.
            ValueError: the model is not of these scenes, takes no such context, or a number is out
                of range.
        """
        if not isinstance(model, JumpyModel):
            flow = isinstance(model, CopyingJump)
            but = " with a flow prior, which has no density; its other presets have one" * flow
            raise TypeError(f"model: expected one of jump, gqn and badj, got {model.name}{but}")
        if not self.pixel_variance > 0:
            raise ValueError(f"pixel_variance: expected above 0, got {self.pixel_variance}")
        if not 1 <= self.context <= model.config.context_max:
            raise ValueError(
                f"context: expected 1 .. {model.config.context_max} frames, as many as "
                f"{model.name} was trained with, got {self.context}"
            )
        device, context = model.device, self.context
        env = environment(self.env, model.env_id)
        batch = held_out(model, env, self.scenes, self.seed, device)
        later = min(model.spec.window, int(batch.lengths.min())) + 1 - context
        if not 1 <= self.targets <= later:
            raise ValueError(
                f"targets: expected 1 .. {later} of the frames after the first {context}, got "
                f"{self.targets}"
            )
        # on the CPU, so that the draw is the same on every device
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.rand(self.scenes, later, generator=generator).argsort(1)
        targets = (context + order[:, : self.targets]).to(device)
        times = torch.arange(context, device=device).expand(self.scenes, -1)
        generator = torch.Generator(device).manual_seed(self.seed)
        kl, reconstruction = [], []
        with torch.inference_mode():
            for first in progress(range(0, self.scenes, _SCENES), self.name, "batch"):
                rows = slice(first, first + _SCENES)
                mask = torch.ones_like(times[rows], dtype=torch.bool)
                explained = model.explain(
                    batch.rows(rows), times[rows], mask, targets[rows], generator
                )
                kl.append(explained.kl)
                constant = explained.constant(self.pixel_variance)
                errors = explained.squared.sum(1) / self.pixel_variance
                reconstruction.append(errors + constant)
        parts = {"kl": torch.cat(kl).cpu(), "reconstruction": torch.cat(reconstruction).cpu()}
        return {"negative ELBO": parts["kl"] + parts["reconstruction"], **parts}
