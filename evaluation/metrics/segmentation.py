"""Do masks of slots agree with the objects that are there?"""

from __future__ import annotations

import torch
from torch import Tensor


def adjusted_rand_index(truth: Tensor, predicted: Tensor, *, ignore: int | None = None) -> Tensor:
    """The adjusted Rand index of two segmentations of each picture (Hubert and Arabie 1985).

    It is the share of pairs of pixels on which both agree, scaled so that chance is 0 on average
    and agreement up to the segments' names is 1.

    Args:
        truth, predicted: int64 (B, n), the segment of each of n pixels, from 0 on.
        ignore: a segment of ``truth`` whose pixels do not count, such as the background (the
            "foreground ARI" of the literature); None counts all.

    Returns:
        float64 (B,); 1 where both have a single segment, NaN where no pixel counts.

    Raises:
        ValueError: the shapes differ, or a segment is below 0.
    """
    if truth.shape != predicted.shape or truth.dim() != 2:
        raise ValueError(
            f"truth, predicted: expected the same (B, n), got {tuple(truth.shape)} and "
            f"{tuple(predicted.shape)}"
        )
    if truth.numel() and min(int(truth.min()), int(predicted.min())) < 0:
        raise ValueError("truth, predicted: segments count from 0")
    counts = torch.ones_like(truth) if ignore is None else (truth != ignore).long()
    rows, columns = int(truth.max()) + 1, int(predicted.max()) + 1
    table = torch.zeros(len(truth), rows * columns, dtype=torch.float64, device=truth.device)
    table.scatter_add_(1, truth * columns + predicted, counts.double())
    table = table.view(-1, rows, columns)
    pixels = table.sum((1, 2))
    both = _pairs(table).sum((1, 2))
    true_pairs, predicted_pairs = _pairs(table.sum(2)).sum(1), _pairs(table.sum(1)).sum(1)
    by_chance = true_pairs * predicted_pairs / _pairs(pixels).clamp_min(1)
    best = (true_pairs + predicted_pairs) / 2
    index = (both - by_chance) / (best - by_chance)
    index = torch.where(best == by_chance, 1.0, index)  # one segment each, or all of one pixel
    return torch.where(pixels == 0, torch.nan, index)


def _pairs(counts: Tensor) -> Tensor:
    """Pairs among so many."""
    return counts * (counts - 1) / 2


def centres(masks: Tensor) -> Tensor:
    """Where a mask lies: the mean position, weighted by it (seed 002, section 8.5.1).

    Args:
        masks: (..., H, W), not negative.

    Returns:
        (..., 2), x and y in [0, 1].
    """
    height, width = masks.shape[-2:]
    y = (torch.arange(height, device=masks.device) + 0.5) / height
    x = (torch.arange(width, device=masks.device) + 0.5) / width
    total = masks.sum((-2, -1)).clamp_min(torch.finfo(masks.dtype).tiny)
    return torch.stack([masks.sum(-2) @ x, masks.sum(-1) @ y], -1) / total.unsqueeze(-1)
