"""Episodes on disk: a folder of ``meta.json`` and ``.npz`` shards.

What a file claims is checked before memory is taken for it.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.common.files import atomic
from worldmodel.common.safe_files import read_json, regular
from worldmodel.data.episode import Episode
from worldmodel.data.lazy import Arrays, map_arrays, read_header
from worldmodel.spec import Spec

FORMAT = 1
EPISODES_PER_SHARD = 256
ShardEntry = dict[str, Any]
"""What ``meta.json`` says of a shard: its file, and how many episodes it holds."""

KINDS = {"observations": "uf", "actions": "biuf", "rewards": "f", "terminated": "b", "steps": "iu"}
"""Arrays of a shard, and of which of NumPy's kinds of dtype each is."""
OPTIONAL = {"masks": "b"}
"""Arrays that a shard may have."""
MOST_PACKED = 1100
"""Deflate's best ratio of compression (1032), and a margin."""
MAGIC = b"PK\x03\x04"
"""How an ``.npz`` file begins; zipfile checks its end alone."""
BROKEN = (zipfile.BadZipFile, zlib.error, LookupError, ValueError, EOFError, OSError, RuntimeError)
"""What zipfile and NumPy raise for files that are not whole (or locked: RuntimeError)."""


def unpacked_size(path: Path) -> int:
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
            more = {f"{name}.npy" for name in OPTIONAL}
            given = [member.filename for member in members if member.filename not in more]
            if sorted(given) != sorted(names) or len({m.filename for m in members}) < len(members):
                raise ValueError(f"expected {names}, got {[m.filename for m in members][:8]}")
            for member in members:
                _check_member(file, member, path.stat().st_size)
            return sum(member.file_size for member in members)
    except BROKEN as error:
        raise corrupt(path, error) from error


@dataclass(frozen=True)
class Shard:
    """The episodes of a file at ``path``: their arrays, and where the steps of each end."""

    path: Path
    arrays: Arrays
    ends: NDArray[np.int64]

    @classmethod
    def read(cls, path: Path, count: int) -> Shard:
        """``count`` episodes, wholly in memory; see ``unpacked_size`` for the errors."""
        unpacked_size(path)
        try:
            with np.load(path, allow_pickle=False) as data:
                return cls._checked(path, {name: data[name] for name in data.files}, count)
        except BROKEN as error:
            raise corrupt(path, error) from error

    @classmethod
    def map(cls, path: Path, count: int) -> Shard:
        """``count`` episodes of an uncompressed file, as pages of it, read when they are needed.

        Headers are checked as for ``unpacked_size``; checksums are not, for that would take reading
        all of it.

        Raises:
            FileNotFoundError: the shard is missing.
            ValueError: it is compressed, or corrupt.
        """
        unpacked_size(path)
        with zipfile.ZipFile(path) as packed:
            if any(member.compress_type for member in packed.infolist()):
                raise ValueError(
                    f"{path}: it is compressed, and cannot be read in part; `python -m worldmodel "
                    f"unpack {path.parent} --out OUT` copies the episodes so that they can"
                )
        try:
            return cls._checked(path, map_arrays(path), count)
        except BROKEN as error:
            raise corrupt(path, error) from error

    @classmethod
    def _checked(cls, path: Path, arrays: Arrays, count: int) -> Shard:
        """The arrays, checked against each other and against the number of episodes."""
        steps = arrays["steps"]
        if steps.ndim != 1 or not len(steps) or int(steps.min()) < 1:
            raise ValueError("steps: expected a number above 0 for each of 1 or more episodes")
        total, episodes = sum(map(int, steps)), len(steps)
        lengths = [len(arrays[name]) for name in ("actions", "rewards", "observations")]
        ends = arrays["terminated"].shape
        if lengths != [total, total, total + episodes] or ends != (episodes,):
            raise ValueError(f"its arrays do not hold {episodes} episodes of {total} steps in all")
        masks = arrays.get("masks")
        if masks is not None and (masks.ndim != 2 or len(masks) != total + episodes):
            raise ValueError(f"masks: expected one for each of {total + episodes} observations")
        if episodes != count:
            raise ValueError(f"{episodes} episodes, meta.json says {count}")
        return cls(path, arrays, steps.cumsum())

    def episode(self, number: int) -> Episode:
        """Views of the arrays."""
        end = self.ends[number]
        begin = end - self.arrays["steps"][number]
        masks = self.arrays.get("masks")
        try:
            return Episode(
                self.arrays["observations"][begin + number : end + number + 1],
                self.arrays["actions"][begin:end],
                self.arrays["rewards"][begin:end],
                bool(self.arrays["terminated"][number]),
                None if masks is None else masks[begin + number : end + number + 1],
            )
        except ValueError as error:
            raise corrupt(self.path, error) from error


def corrupt(path: Path, error: Exception) -> ValueError:
    """The error to raise for a shard that caused ``error``."""
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
    shape, _, dtype, begin = read_header(file, member)
    if dtype.kind not in {**KINDS, **OPTIONAL}[name] or not shape or min(shape) < 0:
        raise ValueError(f"{name}: expected an array of numbers, got {dtype} {shape}")
    if not dtype.isnative or dtype.itemsize > 8:  # torch has no such numbers
        raise ValueError(
            f"{name}: expected this machine's byte order and at most 8 bytes a number, got "
            f"{dtype.str}"
        )
    if begin + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{name}: {dtype} {shape} are not the {member.file_size:,} bytes there")


def write_shard(folder: Path, number: int, episodes: Sequence[Episode]) -> ShardEntry:
    """Write episodes as the shard of that number; what ``meta.json`` says of it."""
    name = f"episodes-{number:05d}.npz"
    arrays = {
        "observations": np.concatenate([e.observations for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
        "rewards": np.concatenate([e.rewards for e in episodes]),
        "terminated": np.array([e.terminated for e in episodes]),
        "steps": np.array([len(e.actions) for e in episodes]),
    }
    masks = [e.masks for e in episodes if e.masks is not None]
    if masks:
        arrays["masks"] = np.concatenate(masks)
    with atomic(folder / name) as path, path.open("wb") as file:
        np.savez_compressed(file, **step_by_step(arrays))
    return {"file": name, "episodes": len(episodes)}


def step_by_step(arrays: Arrays) -> dict[str, Any]:
    """C-contiguous arrays: a step's numbers are neighbours in the file, which is read in part."""
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def write_meta(folder: Path, spec: Spec, shards: Sequence[ShardEntry], **more: Any) -> None:
    """Write ``meta.json``: only the shards that it names count; ``more`` facts stand in it, too."""
    known = spec.to_dict()
    bounds: dict[str, Any] = {
        name: known[name] for name in ("low", "high", "dtype", "parts") if name in known
    }
    meta: dict[str, Any] = {"format": FORMAT, "action": known["action"], **bounds}
    meta |= {"shards": shards, **more}
    with atomic(folder / "meta.json") as path:
        path.write_text(json.dumps(meta, indent=1) + "\n")


def read_meta(folder: Path) -> dict[str, Any]:
    """``meta.json`` of a folder of episodes, its format checked; see ``Episodes.load``."""
    path = folder / "meta.json"
    if not path.exists():
        raise FileNotFoundError(f"folder: {folder} holds no meta.json; Episodes.save makes one")
    meta = read_json(path)
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path}: format {meta.get('format')!r}, this version reads {FORMAT}")
    if not isinstance(meta.setdefault("env", None), str | None):
        raise ValueError(f"{path}: env: expected an id or null, got {meta['env']!r}")
    return meta


def shard_counts(folder: Path, meta: dict[str, Any]) -> dict[Path, int]:
    """Episodes of each shard of a folder, as its ``meta.json`` says."""
    entries, path = meta.get("shards"), folder / "meta.json"
    counts: dict[Path, int] = {}
    for shard in entries if isinstance(entries, list) else ():
        entry: dict[str, Any] = shard if isinstance(shard, dict) else {}
        name, count = str(entry.get("file")), entry.get("episodes")
        known = re.fullmatch(r"episodes-[0-9]{5,}\.npz", name)  # no way out of the folder
        if type(count) is not int or not 1 <= count < 2**31 or not known or folder / name in counts:
            raise ValueError(
                f'{path}: shards: expected {{"file": "episodes-00000.npz", "episodes": 256}} and '
                f"so on, each once, of 1 to 2**31 - 1 episodes, got {str(shard)[:80]}"
            )
        counts[folder / name] = count
    if not counts:
        raise ValueError(f"{path}: shards: expected a list of at least one")
    return counts
