"""Handwritten digits: scikit-learn's bundled ones, or MNIST where its files are at hand.

scikit-learn ships 1,797 digits of 8 x 8 pixels (Alpaydin and Kaynak 1998); they are enlarged
smoothly to MNIST's format, 28 x 28 with a margin. With the environment variable ``JUMPY_MNIST_DIR``
set, MNIST's IDX files in that directory are used instead; nothing is ever downloaded.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from envs.randomness import Split, check_split
from worldmodel.common.config_checks import whole_number
from worldmodel.common.safe_files import regular

DIRECTORY_VARIABLE: Final = "JUMPY_MNIST_DIR"
SIDE: Final = 28
"""Height and width of a digit in pixels."""

_INNER: Final = 22  # the enlarged ink, margin left away
_TRAIN_SHARE: Final = 2 / 3  # of scikit-learn's digits of each class
_MNIST_TRAIN: Final = 5_000  # of the test file, where the training file is missing
_PARTS: Final = (("images", 3), ("labels", 1))  # of an MNIST set, and their dimensions
_UBYTE: Final = 0x08
_MOST: Final = 1_000_000  # digits in a file; MNIST has 60,000


@dataclass(frozen=True)
class Digits:
    """Digits and their classes. All callers share the tensors: do not write to them.

    Attributes:
        images: ``(N, 28, 28)`` float32 in [0, 1], ink = 1.
        labels: ``(N,)`` int64, 0-9.
    """

    images: Tensor
    labels: Tensor


def load_digits(split: Split) -> Digits:
    """All digits of a split; the splits share none.

    MNIST's own files are its splits. Where neither of the ``train`` files is there, the first 5,000
    digits of the ``t10k`` files are for training and the rest for tests. Of scikit-learn's, two
    thirds of each class are for training.

    Raises:
        ValueError: ``split`` is none, or a file is corrupt or holds too few digits.
        FileNotFoundError: ``JUMPY_MNIST_DIR`` is set, but the files are not there.
    """
    return _load(check_split(split), directory())


def directory() -> str | None:
    """What ``JUMPY_MNIST_DIR`` names now; None for scikit-learn's digits."""
    return os.environ.get(DIRECTORY_VARIABLE) or None


def digit_pool(split: Split, count: int = 100) -> Digits:
    """The first digits of a split, equally many of each class, sorted by class.

    Args:
        split: ``train`` or ``test``.
        count: how many, a multiple of 10.

    Raises:
        TypeError: ``count`` is not an int.
        ValueError: ``count`` is not a positive multiple of 10, or more than there are.
    """
    if whole_number("count", count) < 10 or count % 10:
        raise ValueError(f"count must be a positive multiple of 10, got {count}")
    digits = load_digits(split)
    rows = [torch.nonzero(digits.labels == label)[:, 0] for label in range(10)]
    most = 10 * min(map(len, rows))
    if count > most:
        raise ValueError(f"count must be at most {most} for split {split!r}, got {count}")
    chosen = torch.cat([of_class[: count // 10] for of_class in rows])
    return Digits(digits.images[chosen], digits.labels[chosen])


@lru_cache(maxsize=8)
def _load(split: Split, source: str | None) -> Digits:
    return _bundled(split) if source is None else _mnist(split, Path(source))


def _bundled(split: Split) -> Digits:
    """scikit-learn's digits, enlarged to even pen strokes."""
    from sklearn.datasets import load_digits as sklearn_digits  # takes a second

    data = sklearn_digits()
    labels = torch.from_numpy(data.target.astype(np.int64))
    small = torch.from_numpy(data.images.astype(np.float32)) / 16
    chosen = []
    for label in range(10):
        rows = torch.nonzero(labels == label)[:, 0]
        border = math.floor(_TRAIN_SHARE * len(rows))
        chosen.append(rows[:border] if split == "train" else rows[border:])
    rows = torch.cat(chosen).sort().values
    smooth = interpolate(small[rows][:, None], (_INNER, _INNER), mode="bicubic")[:, 0]
    # Strokes of even blackness with a soft edge: a smooth step around half of the ink.
    x = ((smooth - 0.33) / 0.5).clamp(0, 1)
    margin = (SIDE - _INNER) // 2
    return Digits(pad(x * x * (3 - 2 * x), (margin,) * 4), labels[rows])


def _mnist(split: Split, directory: Path) -> Digits:
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{DIRECTORY_VARIABLE} must name a directory with MNIST's IDX files, got {directory}"
        )
    # Where one file of the pair is there, the other must be too: test digits do not replace it.
    if any(_find(directory, f"train-{part}", dimensions) for part, dimensions in _PARTS):
        return _read_pair(directory, "train" if split == "train" else "t10k")
    digits = _read_pair(directory, "t10k")
    if len(digits.labels) <= _MNIST_TRAIN:
        raise ValueError(
            f"{directory} ({DIRECTORY_VARIABLE}): without train files, t10k-images must hold more "
            f"than {_MNIST_TRAIN} digits, got {len(digits.labels)}"
        )
    rows = slice(_MNIST_TRAIN) if split == "train" else slice(_MNIST_TRAIN, None)
    return Digits(digits.images[rows], digits.labels[rows])


def _read_pair(directory: Path, stem: str) -> Digits:
    """Images and labels of one of MNIST's two sets."""
    paths = []
    for part, dimensions in _PARTS:
        name = f"{stem}-{part}"
        path = _find(directory, name, dimensions)
        if path is None:
            raise FileNotFoundError(
                f"{directory} ({DIRECTORY_VARIABLE}) must hold {name}-idx{dimensions}-ubyte, plain "
                "or .gz"
            )
        paths.append(path)
    images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"{paths[0]}: images must be {SIDE} x {SIDE}, got {images.shape[1:]}")
    if not len(images):
        raise ValueError(f"{paths[0]}: must hold at least one image, got none")
    if len(images) != len(labels):
        raise ValueError(
            f"{paths[1]}: must hold a label for each of {len(images)} images, got {len(labels)}"
        )
    if labels.max() > 9:
        raise ValueError(f"{paths[1]}: labels must be 0-9, got {labels.max()}")
    return Digits(
        torch.from_numpy(images.astype(np.float32) / 255),
        torch.from_numpy(labels.astype(np.int64)),
    )


def _find(directory: Path, name: str, dimensions: int) -> Path | None:
    """The file under either of its two spellings, packed or not."""
    for spelling in (f"{name}-idx{dimensions}-ubyte", f"{name}.idx{dimensions}-ubyte"):
        for path in (directory / spelling, directory / f"{spelling}.gz"):
            if path.is_file():
                return path
    return None


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or .gz (LeCun's format of MNIST).

    Sizes in its header are checked before memory is taken, and no more bytes are unpacked than a
    file of that shape has.

    Args:
        path: of the file.
        dimensions: how many it must have.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is corrupt, truncated, too long, no regular file, or of another type
            or shape.
    """
    opener = gzip.open if regular(path).suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:2] != b"\0\0":
                raise ValueError(f"{path}: not an IDX file: it must begin with two zero bytes")
            if head[2] != _UBYTE or head[3] != dimensions:
                raise ValueError(
                    f"{path}: must hold unsigned bytes (type 8) in {dimensions} dimensions, got "
                    f"type {head[2]} in {head[3]}"
                )
            shape = [int(n) for n in np.frombuffer(head[4:], ">u4")]
            if shape[0] > _MOST or math.prod(shape[1:]) > SIDE * SIDE:
                raise ValueError(
                    f"{path}: its header says {shape}; at most {_MOST} entries of at most "
                    f"{SIDE} x {SIDE} are read"
                )
            size = math.prod(shape)
            body = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: corrupt or truncated gzip file ({error})") from error
    if len(body) != size:
        more = "more" if len(body) > size else str(len(body))
        raise ValueError(f"{path}: its header says {shape}, {size} bytes, but it holds {more}")
    return np.frombuffer(body, np.uint8).reshape(shape)
