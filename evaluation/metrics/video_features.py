"""How far apart two sets of videos are: Frechet distances of features."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

_CHANNELS = (32, 64, 64)


class RandomFeatures(nn.Module):
    """Features by three convolutions over space and time whose weights are random and pinned.

    FVD's network cannot be downloaded everywhere. Random ones rank generators much as trained ones
    do (Naeem et al. 2020, for images); the numbers are no FVD, and only comparable with those of
    the same ``channels``.

    Args:
        channels: of the videos.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        pinned = torch.Generator().manual_seed(0)
        widths = (channels, *_CHANNELS)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layer = nn.Conv3d(inputs, outputs, 3, (1, 2, 2), 1, bias=False)
            spread = (2 / (inputs * 27)) ** 0.5
            layer.weight.data = torch.randn(layer.weight.shape, generator=pinned) * spread
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers).requires_grad_(False)

    def forward(self, videos: Tensor) -> Tensor:
        """Videos float32 (n, T, C, H, W) in [0, 1], of 8 pixels or more on a side, to (n, 128): the
        means and the maxima of the last layer.
        """
        last = self.layers((videos * 2 - 1).movedim(2, 1)).flatten(2)
        return torch.cat([last.mean(2), last.amax(2)], 1)


def frechet(one: Tensor, other: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to features (n, D) and (m, D).

    |mean - mean'|^2 + trace(C + C' - 2 (C C')^(1/2)), in double precision, with covariances of
    n - 1. The root's trace is that of (C^(1/2) C' C^(1/2))^(1/2), which is symmetric.

    Raises:
        ValueError: fewer than two rows, or features of different widths.
    """
    if one.dim() != 2 or other.dim() != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(
            f"one, other: expected (n, D) and (m, D), got {tuple(one.shape)}, {tuple(other.shape)}"
        )
    if min(len(one), len(other)) < 2:
        raise ValueError(
            f"one, other: a covariance needs 2 rows or more, got {len(one)}, {len(other)}"
        )
    one, other = one.double(), other.double()
    first, second = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (one, other))
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    apart = (one.mean(0) - other.mean(0)).square().sum()
    return float(apart + first.trace() + second.trace() - 2 * shared)
