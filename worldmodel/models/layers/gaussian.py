"""Diagonal Gaussians by mean and log-variance.

Networks that compute in bf16 hand over bf16: everything here is done at least in float32, as a
divergence is a small difference of large numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, in float32 if its type is narrower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def draw(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """The reparameterised sample mean + std * noise."""
    return at_least_float32(mean) + (0.5 * at_least_float32(logvar)).exp() * noise


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise of the shape and device of ``like``, and of its dtype, at least float32."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=dtype)


def kl_divergence(mean_q: Tensor, logvar_q: Tensor, mean_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(q || p) in nats, summed over every axis but the first: (B,)."""
    mean_q, logvar_q, mean_p, logvar_p = map(at_least_float32, (mean_q, logvar_q, mean_p, logvar_p))
    ratio = (logvar_q - logvar_p).exp()
    kl = 0.5 * (ratio + (mean_q - mean_p).square() * (-logvar_p).exp() - 1 - logvar_q + logvar_p)
    return kl.flatten(1).sum(1)
