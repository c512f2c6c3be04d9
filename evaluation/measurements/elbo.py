"""How well does a model explain frames that it was not trained on? Its bound, at one variance.

Jumpy models are trained on KL(q || p) + SSE / pixel_variance, each with a variance, contexts and
targets of its own: training losses cannot be compared. Here all of these are given, the same for
every model, as where the paper compares JUMP with its ablation (seed 001, figure 4). The likelihood
is the joint one of all targets: JUMP pays its KL once for all of them, GQN and BADJ once for each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evaluation.measurements import fidelity
from evaluation.measurements import story_consistency as consistency
from evaluation.metrics import statistics
from evaluation.runner.progress import shown
from evaluation.runner.test_scenes import VIEWS, unseen
from worldmodel import WorldModel
from worldmodel.models.jumpy.base import SetModel

_SCENES = 16
"""Explained at once."""


def env_of(model: WorldModel) -> str:
    """The dice room for models of camera poses, else the scenes that fit the model's actions.

    Raises:
        ValueError: there are none; see ``fidelity.env_of`` and ``consistency.env_of``.
    """
    if model.spec.pose:
        return VIEWS
    return fidelity.env_of(model) if model.spec.passive else consistency.env_of(model)


def bounds(
    model: WorldModel,
    env: str,
    *,
    pixel_variance: float = 0.1,
    context: int = 3,
    targets: int = 3,
    scenes: int = 200,
    seed: int = 0,
) -> dict[str, Tensor]:
    """``negative ELBO`` = ``kl`` + ``reconstruction``, each float32 (scenes,), in nats.

    The first ``context`` frames (or views) of test scenes are shown; ``targets`` of the later ones,
    drawn without replacement, are explained together, from one draw of the posterior.
    ``reconstruction`` is the negative log density of their numbers in [0, 1], constant included.

    Args:
        model: any ``SetModel`` (jump, gqn, badj).
        env: whose scenes.
        pixel_variance: as in the models' configs: squared errors are divided by it, so that the
            Gaussian's variance is half of it. Above 0.
        context: frames shown, 1 or more.
        targets: frames explained, 1 or more.
        scenes: of the test split.
        seed: of scenes, targets and the posterior.

    Raises:
        TypeError: the model is no ``SetModel``, and has no such bound.
        ValueError: the model is not of these scenes, takes no such context, or a number is out of
            range.
    """
    if not isinstance(model, SetModel):
        raise TypeError(f"model: expected one of jump, gqn and badj, got {model.name}")
    if not pixel_variance > 0:
        raise ValueError(f"pixel_variance: expected above 0, got {pixel_variance}")
    if not 1 <= context <= model.config.context_max:
        raise ValueError(
            f"context: expected 1 .. {model.config.context_max} frames, as many as {model.name} "
            f"was trained with, got {context}"
        )
    device = model.device
    batch = unseen(model, env, scenes, seed, device)
    later = min(model.spec.window, int(batch.lengths.min())) + 1 - context
    if not 1 <= targets <= later:
        raise ValueError(
            f"targets: expected 1 .. {later} of the frames after the first {context}, got {targets}"
        )
    # on the CPU, so that the draw is the same on every device
    order = torch.rand(scenes, later, generator=torch.Generator().manual_seed(seed)).argsort(1)
    asked = (context + order[:, :targets]).to(device)
    seen = torch.arange(context, device=device).expand(scenes, -1)
    generator = torch.Generator(device).manual_seed(seed)
    kl, reconstruction = [], []
    with torch.inference_mode():
        for first in shown(range(0, scenes, _SCENES), "bound", "batch"):
            rows = slice(first, first + _SCENES)
            mask = torch.ones_like(seen[rows], dtype=torch.bool)
            told = model.explain(batch.rows(rows), seen[rows], mask, asked[rows], generator)
            kl.append(told.kl)
            constant = told.constant(pixel_variance)
            reconstruction.append(told.squared.sum(1) / pixel_variance + constant)
    found = {"kl": torch.cat(kl).cpu(), "reconstruction": torch.cat(reconstruction).cpu()}
    return {"negative ELBO": found["kl"] + found["reconstruction"], **found}


def bound(
    model: WorldModel,
    env: str | None = None,
    *,
    pixel_variance: float = 0.1,
    context: int = 3,
    targets: int = 3,
    scenes: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows ``model, env, metric, pixel_variance, context, targets, value, low, high, n``.

    Of ``bounds``, whose arguments and errors these are (``env`` None: ``env_of``), in nats for each
    scene, with 95% intervals over scenes.
    """
    env = env_of(model) if env is None else env.removeprefix("envs:")
    found = bounds(
        model, env, pixel_variance=pixel_variance, context=context, targets=targets,
        scenes=scenes, seed=seed,
    )  # fmt: skip
    named = {f"{name}, nats": values for name, values in found.items()}
    told = {"pixel_variance": pixel_variance, "context": context, "targets": targets}
    return statistics.rows(model.name, env, named, seed, **told)
