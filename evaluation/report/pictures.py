"""Contact sheets of several models' samples, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from worldmodel.common.files import atomic
from worldmodel.imagine import Imagined, sheet

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


def save_sheets(imagined: Mapping[str, Imagined], out: Path, scale: int = 2) -> None:
    """Write a PNG file: the truth of one scene, and below it the worlds of each model.

    Args:
        imagined: of the same scene, by the names of the models.
        out: the file.
        scale: times by which each pixel is repeated.
    """
    bands: list[NDArray[np.uint8]] = []
    for name, one in imagined.items():
        band = sheet(one, scale)
        height = len(band) // (one.worlds.shape[1] + 1)
        if not bands:
            bands.append(labelled(band[:height], "truth"))
        bands.append(labelled(band[height:], name))
    save(bands, out)
