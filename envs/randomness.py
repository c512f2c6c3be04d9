"""Counter-based randomness.

Every draw is a hash of (scene id, stream, counter), computed in 64-bit integers, so a scene is the
same in a batch of 1 or 256, on CPU or GPU, and in whatever order scenes are requested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from worldmodel.common.hashing import high_bits, splitmix64

Split = Literal["train", "test"]

SPLIT_BIT: Final = 40
"""Scenes ``0 .. 2**40 - 1`` are for training, ``2**40 .. 2**41 - 1`` for tests."""


def hash_ids(ids: Tensor, *salts: int | Tensor) -> Tensor:
    """Hash int64 ``ids`` with one or more salts (ints or broadcastable int64 tensors) to int64."""
    for salt in salts:
        ids = splitmix64(ids) + salt
    return splitmix64(ids)


def uniform(scene_ids: Tensor, stream: int, n: int | Sequence[int]) -> Tensor:
    """Uniform draws in [0, 1) that depend on nothing but the scene id, the stream and the counter.

    Args:
        scene_ids: ``(B,)`` int64.
        stream: which independent sequence of the scene to read.
        n: how many draws for each scene, or their shape.

    Returns:
        ``(B, *n)`` float32, multiples of 2**-24.
    """
    shape = (n,) if isinstance(n, int) else tuple(n)
    counters = torch.arange(math.prod(shape), device=scene_ids.device)
    bits = hash_ids(scene_ids[:, None], stream, counters)
    return (high_bits(bits) * 2.0**-24).reshape(-1, *shape)


def integers(scene_ids: Tensor, stream: int, n: int | Sequence[int], high: int) -> Tensor:
    """Uniform integers ``0 .. high - 1``, ``(B, *n)`` int64; see :func:`uniform`."""
    return (uniform(scene_ids, stream, n) * high).to(torch.int64)


def check_split(split: str) -> Split:
    """Return ``split`` if it is one; else raise ValueError."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {get_args(Split)}, got {split!r}")
    return split  # type: ignore[return-value]


def check_scene_id(scene: object) -> int:
    """Return ``scene`` as an int if it names a scene of either split.

    Raises:
        TypeError: not an integer.
        ValueError: outside ``0 .. 2**41 - 1``.
    """
    if isinstance(scene, bool) or not isinstance(scene, int | np.integer):
        raise TypeError(f"scene must be an integer id, got {type(scene).__name__}")
    if not 0 <= int(scene) < 2 << SPLIT_BIT:
        raise ValueError(f"scene must lie in 0 .. 2**{SPLIT_BIT + 1} - 1, got {scene}")
    return int(scene)


def to_split(numbers: Tensor, split: Split) -> Tensor:
    """Turn arbitrary int64 numbers into scene ids of ``split`` by keeping their low 40 bits."""
    return (numbers & ((1 << SPLIT_BIT) - 1)) | (int(split == "test") << SPLIT_BIT)


def draw_scene_id(generator: np.random.Generator, split: Split) -> int:
    """Draw a scene id of ``split`` from a numpy generator."""
    return int(generator.integers(1 << SPLIT_BIT)) | (int(split == "test") << SPLIT_BIT)
