"""What the tests of parsers share."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d

BLURS = (1, 3, 5)
"""Widths in pixels; 1 is none."""


def blurred(frames: Tensor, width: int) -> Tensor:
    """uint8 (B, n, H, W, 3), averaged over squares: float32 in [0, 1]; as they are for width 1."""
    if width == 1:
        return frames
    flat = frames.float().flatten(0, 1).permute(0, 3, 1, 2) / 255
    flat = avg_pool2d(flat, width, 1, width // 2, count_include_pad=False)
    return flat.permute(0, 2, 3, 1).reshape(frames.shape)
