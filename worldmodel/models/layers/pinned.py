"""Noise with an address: the same world and the same key give the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodel.common.hashing import GAMMA, high_bits, splitmix64


def hashed(x: Tensor, salt: Tensor | int) -> Tensor:
    """int64 to int64, elementwise: SplitMix64 of both."""
    return splitmix64(x + salt * GAMMA)


def address(key: Tensor) -> Tensor:
    """One int64 for each key (..., P): times as integers, poses by their float32 bits."""
    bits = key.float().contiguous().view(torch.int32).long()
    value = torch.zeros_like(bits[..., 0])
    for entry in bits.unbind(-1):
        value = hashed(value, entry)
    return value


def standard_normal(names: Tensor, shape: Sequence[int]) -> Tensor:
    """Noise (\\*names.shape, \\*shape), float32, a function of the int64 ``names`` alone."""
    count = math.prod(shape)
    counters = torch.arange(2 * count, device=names.device)
    bits = hashed(names.unsqueeze(-1), counters)
    u, v = ((high_bits(bits) + 0.5) * 2.0**-24).chunk(2, -1)
    noise = (-2 * u.log()).sqrt() * (2 * math.pi * v).cos()  # Box and Muller
    return noise.view(*names.shape, *shape)
