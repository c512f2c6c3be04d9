"""Diagonal Gaussians by mean and log-variance."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The reparameterised sample mean + std * noise."""
    return mean + (0.5 * logvar).exp() * noise


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise of the shape, dtype and device of ``like``."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def kl_divergence(mean_q: Tensor, logvar_q: Tensor, mean_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(q || p) in nats, summed over every axis but the first: (B,)."""
    ratio = (logvar_q - logvar_p).exp()
    kl = 0.5 * (ratio + (mean_q - mean_p).square() * (-logvar_p).exp() - 1 - logvar_q + logvar_p)
    return kl.flatten(1).sum(1)
