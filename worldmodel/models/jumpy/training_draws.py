"""Which frames of a scene a training step of a jumpy model looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.common.config_checks import at_least
from worldmodel.models.layers.presents import draw_present, subset_weights


class TrainingTimes(NamedTuple):
    """Which frames of B scenes a training step looks at.

    Attributes:
        context: int64 (B, context_max), which differ from each other.
        mask: bool (B, context_max), True where a frame is there.
        targets: int64 (B, targets), anywhere in 0 .. length.
        weights: float32 (B,), what each scene counts in the loss; see ``draw_present``.
    """

    context: Tensor
    mask: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class TrainingDraws:
    """How the frames of a training step are drawn.

    (Seed 001, appendix B. Names in brackets are the paper's.)

    Attributes:
        context_min, context_max: context size, uniform in between (m1, m2).
        context_frames: contexts come from the first that many frames (m); 0: from the frames up to
            a random present, half of the time the origin (where plans begin).
        targets: frames to predict, anywhere in the window (k).
    """

    context_min: int = 1
    context_max: int = 6
    context_frames: int = 6
    targets: int = 3

    def __post_init__(self) -> None:
        at_least(1, self, "targets")
        at_least(0, self, "context_frames")
        if not 1 <= self.context_min <= self.context_max:
            raise ValueError(
                f"context_min, context_max: expected 1 <= min <= max, got {self.context_min}, "
                f"{self.context_max}"
            )

    def draw(
        self, lengths: Tensor, window: int, generator: torch.Generator | None
    ) -> TrainingTimes:
        """Draw the frames of the context and those to predict.

        Args:
            lengths: int64 (B,), the last valid time of each scene.
            window: the longest that a scene may be.
            generator: on the device of ``lengths``.
        """
        batch, device = lengths.shape[0], lengths.device
        low, high = self.context_min, self.context_max
        chance = torch.rand(batch, generator=generator, device=device)
        sizes = (low + chance * (high - low + 1)).long()
        if self.context_frames:
            first = min(self.context_frames, window + 1)
            latest = lengths.clamp_max(first - 1)
            sizes = torch.minimum(sizes, latest + 1)
            weights = subset_weights(latest + 1, sizes, first)
        else:
            latest, weights = draw_present(lengths, window, generator)
        times, mask = draw_distinct(latest, window, high, generator)
        mask = mask & (torch.arange(mask.shape[1], device=device) < sizes[:, None])
        chance = torch.rand(batch, self.targets, generator=generator, device=device)
        return TrainingTimes(times, mask, (chance * (lengths[:, None] + 1)).long(), weights)


def draw_distinct(
    latest: Tensor, window: int, count: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw ``count`` different times of each scene, or all where there are fewer.

    Args:
        latest: int64 (B,), the last time to choose from, in 0 .. window.
        window: W.
        count: how many.
        generator: on the device of ``latest``.

    Returns:
        times int64 (B, min(count, W + 1)) in random order, and which of them are there, bool.
    """
    span = torch.arange(window + 1, device=latest.device)
    score = torch.rand(len(latest), window + 1, generator=generator, device=latest.device)
    value, times = score.masked_fill(span > latest[:, None], -1.0).topk(min(count, window + 1), 1)
    return times, value >= 0
