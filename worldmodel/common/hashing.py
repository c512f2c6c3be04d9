"""Hashes of int64 tensors, for counter-based random numbers.

Bit for bit the same on CPU and GPU, and in whatever order or batch they are computed.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

GAMMA: Final = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1: Final = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2: Final = 0x94D049BB133111EB - (1 << 64)


def splitmix64(x: Tensor) -> Tensor:
    """One output of SplitMix64 (Steele, Lea and Flood 2014) for each int64 state in ``x``."""
    x = x + GAMMA
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def high_bits(hashes: Tensor) -> Tensor:
    """The 24 high bits of int64 ``hashes`` as float32, all of whose integers are exact."""
    return _shift_right(hashes, 40).float()


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64: torch's own shift copies the sign, so mask it away."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
