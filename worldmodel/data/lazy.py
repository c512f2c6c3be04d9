"""Sequences that stay on disk: uncompressed ``.npz`` shards, mapped into memory when needed."""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

Shard = TypeVar("Shard")
Item = TypeVar("Item")
Arrays = dict[str, NDArray[Any]]
Header = tuple[tuple[int, ...], bool, np.dtype[Any], int]
"""Shape, whether in Fortran order, dtype, and bytes of the header itself."""


class ShardCache(Generic[Shard]):
    """Shards that are mapped into memory when they are accessed; at most ``memory`` bytes of them.

    The least recently used give way. What the system caches beyond that it takes back on its own.

    Args:
        counts: items of each file.
        memory: bytes.
        read: what to make of a file of so many items.

    Raises:
        ValueError: one file alone is larger than ``memory``.
    """

    def __init__(
        self, counts: Mapping[Path, int], memory: int, read: Callable[[Path, int], Shard]
    ) -> None:
        self.counts, self._paths = list(counts.values()), list(counts)
        self._sizes = [path.stat().st_size if path.exists() else 0 for path in counts]
        if memory < max(self._sizes):
            raise ValueError(
                f"memory: expected at least the {max(self._sizes):,} bytes of the largest shard, "
                f"got {memory:,}"
            )
        self._memory, self._read = memory, read
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._used = 0

    def __getitem__(self, number: int) -> Shard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        while self._used + self._sizes[number] > self._memory:
            oldest, _ = self._open.popitem(last=False)
            self._used -= self._sizes[oldest]
        self._open[number] = self._read(self._paths[number], self.counts[number])
        self._used += self._sizes[number]
        return self._open[number]


class LazySequence(Sequence[Item]):
    """Items of mapped shards, each made whenever it is accessed.

    An item keeps its shard in memory: copy what is to stay.

    Args:
        shards: that hold the items.
        make: an item from its shard and its number in it.
        numbers: which of all items these are; None takes all.
    """

    def __init__(
        self,
        shards: ShardCache[Shard],
        make: Callable[[Shard, int], Item],
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._ends = np.cumsum(shards.counts)
        self._numbers: Sequence[int] = range(int(self._ends[-1])) if numbers is None else numbers
        self._shards, self._make = shards, make

    def __len__(self) -> int:
        return len(self._numbers)

    def pick(self, numbers: Sequence[int]) -> LazySequence[Item]:
        """Those of these numbers, in this order."""
        return LazySequence(self._shards, self._make, [self._numbers[number] for number in numbers])

    @overload
    def __getitem__(self, number: int) -> Item: ...

    @overload
    def __getitem__(self, number: slice) -> LazySequence[Item]: ...

    def __getitem__(self, number: int | slice) -> Item | LazySequence[Item]:
        if isinstance(number, slice):
            return LazySequence(self._shards, self._make, self._numbers[number])
        index = self._numbers[number]
        shard = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[shard]) - self._shards.counts[shard]
        return self._make(self._shards[shard], index - begin)


def read_header(packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    """The header of an array in an ``.npz`` file; ValueError if ``np.savez`` writes no such one."""
    with packed.open(member) as stream:
        if npy.read_magic(stream) != (1, 0):
            name = member.filename.removesuffix(".npy")
            raise ValueError(f"{name}: no NumPy array of format 1.0")
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
        return shape, fortran, dtype, stream.tell()


def map_arrays(path: Path) -> Arrays:
    """The arrays of an uncompressed ``.npz`` file, read-only, read from it when they are needed.

    Checksums are not compared: that would take reading all of it.

    Raises:
        zipfile.BadZipFile, ValueError: it is no such file.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as packed:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays: Arrays = {}
        for member in packed.infolist():
            shape, fortran, dtype, header = read_header(packed, member)
            size = header + math.prod(shape) * dtype.itemsize
            if not size == member.file_size == member.compress_size:
                raise ValueError(f"{member.filename}: {dtype} {shape} is not what is there")
            # A local file header has 30 bytes, of which the last four tell how much follows them.
            name, extra = struct.unpack_from("<HH", pages, member.header_offset + 26)
            begin = member.header_offset + 30 + name + extra + header
            flat: NDArray[Any] = np.frombuffer(pages, dtype, math.prod(shape), begin)
            order: Literal["F", "C"] = "F" if fortran else "C"
            arrays[member.filename.removesuffix(".npy")] = flat.reshape(shape, order=order)
    return arrays
