"""Reading of files from untrusted sources.

Nothing in them is run or imported, sizes that they claim are checked before memory is taken, and
what does not fit is a ``ValueError`` that names the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

LARGEST_JSON = 64 * 2**20
Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of tensors by name."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By their names in safetensors; no model has others."""


def regular(path: Path) -> Path:
    """``path``, if it is a file (or a link to one).

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a folder, a pipe or a device.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: expected a regular file, got a folder, a pipe or a device")
    return path


def read_json(path: Path, finite: bool = True) -> dict[str, Any]:
    """A JSON object; ``path`` holds at most 64 MiB of it. See ``parse_json``."""
    size = regular(path).stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path}: expected at most {LARGEST_JSON:,} bytes of JSON, got {size:,}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not JSON (not UTF-8: {error})") from error
    return parse_json(text, path, finite)


def parse_json(text: str, path: Path, finite: bool = True) -> dict[str, Any]:
    """A JSON object in which no name stands twice.

    Args:
        text: of the object.
        path: for the messages.
        finite: refuse NaN and infinities, also numbers that are too large for a float.

    Raises:
        ValueError: it is something else.
    """
    numbers: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _finite}
    try:
        parsed = json.loads(text, object_pairs_hook=_unique, **(numbers if finite else {}))
    except RecursionError as error:
        raise ValueError(f"{path}: not JSON that can be read (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(parsed).__name__}")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"names stand twice: {sorted({n for n in names if names.count(n) > 1})}")
    return unique


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def check_memory(path: Path, size: int) -> None:
    """Raise ValueError if ``size`` bytes are more than the machine's memory (where it says)."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise ValueError(
            f"{path}: says that it holds {size:,} bytes; this machine has {memory:,} bytes of "
            "memory. Split it, or load it where there is more"
        )


def layout(tensors: Mapping[str, Tensor]) -> Layout:
    """Shapes and dtypes of tensors, also of ones without memory (torch's device meta)."""
    return {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}


class Tensors:
    """An open safetensors file: its header is read, its tensors not yet.

    The header is checked against the file's size; shapes that overflow are refused.

    Args:
        path: of the file.
        renamed: prefixes of tensor names in the file, and what replaces them.

    Attributes:
        layout: shape and dtype of each tensor.
        metadata: texts by name.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no whole safetensors file.
    """

    def __init__(self, path: Path, renamed: Mapping[str, str] | None = None) -> None:
        self.path = regular(path)
        try:
            file: Any = safe_open  # which has no types
            self._file = file(path, "pt")
            names = list(self._file.keys())
            self._names = {_rename(name, renamed or {}): name for name in names}
            parts = {name: self._file.get_slice(own) for name, own in self._names.items()}
            self.layout: Layout = {
                name: (tuple(part.get_shape()), DTYPES[part.get_dtype()])
                for name, part in parts.items()
            }
        except KeyError as error:
            raise ValueError(f"{path}: no model has tensors of dtype {error}") from error
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: corrupt or truncated ({error})") from error
        self.metadata: dict[str, str] = self._file.metadata() or {}

    def read(self, expected: Layout) -> dict[str, Tensor]:
        """All tensors, on the CPU.

        Raises:
            ValueError: they are not the expected ones.
        """
        self.check(expected)
        return {name: self._file.get_tensor(own) for name, own in self._names.items()}

    def check(self, expected: Layout) -> None:
        """Raise ValueError unless names and shapes are the expected ones.

        Dtypes may be narrower than expected, of the same kind: half precision fits single.
        """
        file = self.layout
        missing, extra = sorted(expected.keys() - file), sorted(file.keys() - expected.keys())
        if missing or extra:
            raise ValueError(
                f"{self.path}: missing tensors {_some(missing)}, unexpected tensors {_some(extra)}"
            )
        wrong = [
            f"{name} is {file[name][0]}, expected {shape}"
            for name, (shape, _) in expected.items()
            if file[name][0] != shape
        ] or [
            f"{name} is {file[name][1]}, expected {dtype}"
            for name, (_, dtype) in expected.items()
            if not _fits(file[name][1], dtype)
        ]
        if wrong:
            raise ValueError(f"{self.path}: {'; '.join(wrong[:8])}")


def _rename(name: str, renamed: Mapping[str, str]) -> str:
    for old, new in renamed.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _some(names: list[str]) -> str:
    return str(names) if len(names) <= 8 else f"{names[:8]} and {len(names) - 8} more"


def _fits(dtype: torch.dtype, expected: torch.dtype) -> bool:
    same_kind = dtype.is_floating_point == expected.is_floating_point
    return same_kind and torch.promote_types(dtype, expected) == expected
