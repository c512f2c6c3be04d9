"""Shards of episodes: ``.npz`` files whose claims are checked before memory is taken for them."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from worldmodel.common.safe_files import regular
from worldmodel.data.lazy import Arrays, map_arrays

KINDS = {"observations": "uf", "actions": "biuf", "rewards": "f", "terminated": "b", "steps": "iu"}
"""Arrays of a shard, and of which of NumPy's kinds of dtype each is."""
MOST_PACKED = 1100
"""How many times smaller deflate makes its input at best (1032), and some."""
MAGIC = b"PK\x03\x04"
"""How an ``.npz`` file begins, for NumPy; zipfile looks for its end."""
BROKEN = (zipfile.BadZipFile, zlib.error, LookupError, ValueError, EOFError, OSError, RuntimeError)
"""What zipfile and NumPy raise for files that are not whole (or locked: RuntimeError)."""


def size(path: Path) -> int:
    """Bytes of memory that ``read`` takes; nothing is unpacked but the headers.

    Raises:
        FileNotFoundError: the shard is missing.
        ValueError: it is corrupt, or claims more than such a file can hold.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: the shard is missing")
    regular(path)
    try:
        with path.open("rb") as packed:
            if packed.read(len(MAGIC)) != MAGIC:
                raise ValueError("no .npz file")
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            names = [f"{name}.npy" for name in KINDS]
            if sorted(member.filename for member in members) != sorted(names):
                raise ValueError(f"expected {names}, got {[m.filename for m in members][:8]}")
            for member in members:
                _check_member(file, member, path.stat().st_size)
            return sum(member.file_size for member in members)
    except BROKEN as error:
        raise corrupt(path, error) from error


def read(path: Path) -> Arrays:
    """The arrays of a shard whose ``size`` was asked, checked against each other."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return _agreeing({name: data[name] for name in KINDS})
    except BROKEN as error:
        raise corrupt(path, error) from error


def mapped(path: Path) -> Arrays:
    """The arrays of an uncompressed shard as pages of the file, read when they are needed.

    Headers are checked as for ``size``; checksums are not, for that would take reading all of it.

    Raises:
        FileNotFoundError: the shard is missing.
        ValueError: it is compressed, or corrupt.
    """
    size(path)
    with zipfile.ZipFile(path) as packed:
        if any(member.compress_type for member in packed.infolist()):
            raise ValueError(
                f"{path}: it is compressed, and cannot be read in part; `python -m worldmodel "
                f"unpack {path.parent} --out OUT` copies the episodes so that they can"
            )
    try:
        return _agreeing(map_arrays(path))
    except BROKEN as error:
        raise corrupt(path, error) from error


def _agreeing(arrays: Arrays) -> Arrays:
    """The same, checked against each other."""
    steps = arrays["steps"]
    if steps.ndim != 1 or not len(steps) or int(steps.min()) < 1:
        raise ValueError("steps: expected a number above 0 for each of 1 or more episodes")
    total, count = sum(map(int, steps)), len(steps)
    lengths = [len(arrays[name]) for name in ("actions", "rewards", "observations")]
    if lengths != [total, total, total + count] or arrays["terminated"].shape != (count,):
        raise ValueError(f"its arrays do not hold {count} episodes of {total} steps in all")
    return arrays


def corrupt(path: Path, error: Exception) -> ValueError:
    """What to raise for a shard in which ``error`` came up."""
    return ValueError(f"{path}: corrupt shard ({error}); record it again")


def _check_member(file: zipfile.ZipFile, member: zipfile.ZipInfo, packed: int) -> None:
    """Compare what a member's headers say with each other, and with the size of the file."""
    name = member.filename.removesuffix(".npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name}: packed in a way that NumPy does not")
    if member.compress_size > packed or member.file_size > MOST_PACKED * member.compress_size:
        raise ValueError(
            f"{name}: says that it unpacks {member.compress_size:,} bytes to "
            f"{member.file_size:,}, in a file of {packed:,}"
        )
    with file.open(member) as stream:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError(f"{name}: no NumPy array of format 1.0")
        shape, _, dtype = npy.read_array_header_1_0(stream)
        begin = stream.tell()
    if dtype.kind not in KINDS[name] or not shape or min(shape) < 0:
        raise ValueError(f"{name}: expected an array of numbers, got {dtype} {shape}")
    if not dtype.isnative or dtype.itemsize > 8:  # torch has no such numbers
        raise ValueError(
            f"{name}: expected this machine's byte order and at most 8 bytes a number, got "
            f"{dtype.str}"
        )
    if begin + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{name}: {dtype} {shape} are not the {member.file_size:,} bytes there")
