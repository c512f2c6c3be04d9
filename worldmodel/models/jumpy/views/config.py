"""Settings and presets of the JUMP for views of a known camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from worldmodel.common.config_checks import above_zero, at_least, below_one, layer_counts


@dataclass(frozen=True)
class ViewsConfig:
    """Sizes, losses, schedules and training draws of ``ViewsJump``.

    Attributes:
        features: of a view, at half its resolution.
        cells: of the grid along the region's longest side (and around it), an even number.
        memory: numbers that a view writes into each cell of the grid.
        content: numbers of a cell that rays meet.
        samples: depths along a ray.
        anchors: views of a scene that z describes.
        latent: numbers of z for each square of 8 x 8 pixels of an anchor.
        flow_width, flow_blocks, heads: of the prior, a transformer over all anchors.
        flow_steps, flow_solver: how the prior is integrated: "heun" (two evaluations for each step)
            or "euler" (one). Training uses neither.
        flow_draws: pairs of noise and time for each latent in the prior's loss.
        prior_share: last share of the training, in which the prior alone goes on learning, of
            latents that no longer change; 1 trains nothing else, to go on with a checkpoint.
        prior_batch: latents that each step of it learns from, out of those of the latest
            ``prior_memory`` scenes.
        context_min, context_max: views of a context, uniform in between.
        targets: views that the loss compares.
        hidden_share: share of scenes of which a side is hidden from the context: the context are
            views far from one of them, half of the targets views near to it.
        context_only: share of scenes that are trained without z, so that the context alone shows
            what it knows.
        crop: side of the square of each target that the loss compares, in pixels, an even number.
        detail: weight of the mean squared error of the targets' pixels in [0, 1].
        anchor_detail: as ``detail``, of the anchors' pixels, read from their decoded features.
        kl_weight: of the posterior's divergence from a standard normal, in nats.
        learning_rate, learning_rate_end, warmup: AdamW; a cosine between both until the prior
            trains alone, another one for that; risen linearly in the first ``warmup`` steps.
        ema: decay of the running average of the weights that ``fit`` keeps if not given another.
    """

    features: int = 32
    cells: int = 24
    memory: int = 16
    content: int = 32
    samples: int = 22
    anchors: int = 4
    latent: int = 8
    flow_width: int = 128
    flow_blocks: int = 6
    heads: int = 4
    flow_steps: int = 8
    flow_solver: Literal["heun", "euler"] = "heun"
    flow_draws: int = 1
    prior_share: float = 0.4
    prior_batch: int = 32
    prior_memory: int = 2048
    context_min: int = 1
    context_max: int = 5
    targets: int = 3
    hidden_share: float = 0.6
    context_only: float = 0.3
    crop: int = 40
    detail: float = 20_000.0
    anchor_detail: float = 15_000.0
    kl_weight: float = 3e-3
    learning_rate: float = 1e-3
    learning_rate_end: float = 2e-5
    warmup: int = 200
    ema: float = 0.999

    def __post_init__(self) -> None:
        sizes = "features memory content anchors latent flow_width heads flow_steps"
        layer_counts(self, "flow_blocks")
        at_least(1, self, *sizes.split(), "flow_draws", "prior_batch", "prior_memory")
        at_least(1, self, "targets")
        at_least(2, self, "cells", "samples", "crop")
        at_least(0, self, "kl_weight", "anchor_detail", "warmup")
        above_zero(self, "detail", "learning_rate", "learning_rate_end")
        if not 1 <= self.context_min <= self.context_max:
            raise ValueError(
                f"context_min, context_max: expected 1 <= min <= max, got {self.context_min}, "
                f"{self.context_max}"
            )
        if self.flow_width % self.heads:
            raise ValueError(
                f"flow_width: expected a multiple of heads = {self.heads}, got {self.flow_width}"
            )
        for name in ("cells", "crop"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name}: expected an even number, got {getattr(self, name)}")
        if self.flow_solver not in ("heun", "euler"):
            raise ValueError(f"flow_solver: expected 'heun' or 'euler', got {self.flow_solver!r}")
        for name in ("prior_share", "hidden_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected from 0 to 1, got {getattr(self, name)}")
        below_one(self, "context_only", "ema")


RAYS = ViewsConfig()
PRESETS: dict[str, ViewsConfig] = {
    "rays": RAYS,
    "rays-small": replace(
        RAYS,
        features=16,
        cells=16,
        memory=8,
        content=16,
        samples=14,
        latent=4,
        flow_width=64,
        flow_blocks=3,
        crop=24,
        context_max=6,
        learning_rate=2e-3,
        warmup=50,
    ),
}
