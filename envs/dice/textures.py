"""Patterns of floors and walls: periodic bitmaps, soft enough to be looked up pixel by pixel."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

PATTERNS: Final = ("plain", "checks", "stripes", "planks", "bricks", "dots", "waves", "marble")
SIDE: Final = 128
"""Pixels of a bitmap; it repeats every two cube edges."""
PER_EDGE: Final = SIDE // 2

_SOFT: Final = 9
"""Width of the blur in pixels: about what one pixel of a 64-pixel frame covers on a wall."""


@lru_cache(maxsize=4)
def patterns(device: torch.device) -> Tensor:
    """All bitmaps, ``(8, 128, 128)`` float32 in [0, 1]: how much of the second colour."""
    place = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = place[:, None].expand(SIDE, SIDE), place[None].expand(SIDE, SIDE)
    wave = ((x + 0.08 * (4 * math.pi * y).sin()) * 4 % 1 < 0.5).float()
    row = (y * 4).floor()
    shifted = (x + 0.25 * (row % 2)) % 0.5
    bricks = ((y * 4 % 1 < 0.16) | (shifted < 0.05)).float()
    planks = ((x * 4 % 1 < 0.1) | ((y + 0.37 * (x * 4).floor()) % 1 < 0.03)).float()
    grain = 0.35 * (0.5 + 0.5 * (2 * math.pi * (x * 4 + 0.3 * (2 * math.pi * y).sin())).sin())
    dots = ((x * 4 % 1 - 0.5).square() + (y * 4 % 1 - 0.5).square() < 0.08).float()
    vein = (2 * math.pi * (x + 0.3 * (2 * math.pi * y).sin() + 0.1 * (6 * math.pi * x).cos())).sin()
    marble = 1 - vein.abs().clamp(0, 0.35) / 0.35
    sharp = torch.stack(
        [
            torch.zeros(SIDE, SIDE),
            ((x * 4).floor() + (y * 4).floor()) % 2,
            (y * 4 % 1 < 0.5).float(),
            torch.maximum(planks, grain),
            bricks,
            dots,
            wave,
            marble,
        ]
    )
    soft = avg_pool2d(pad(sharp[:, None], (_SOFT // 2,) * 4, mode="circular"), _SOFT, 1)[:, 0]
    return soft.to(device)
