"""Bands of frames, each with a name on its left, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from worldmodel.common.files import atomic

LABEL = 110
"""Pixels, for a name."""


def labelled(band: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """A band uint8 (H, W, 3) behind a white field with its name: (H, LABEL + W, 3)."""
    label = Image.new("RGB", (LABEL, len(band)), "white")
    ImageDraw.Draw(label).text((4, len(band) // 2 - 10), text, fill="black")
    return np.concatenate([np.asarray(label), band], 1)


def save(bands: Sequence[NDArray[np.uint8]], out: Path) -> None:
    """Write bands of one width below each other, as a PNG file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as path:
        Image.fromarray(np.concatenate(bands)).save(path, optimize=True)
