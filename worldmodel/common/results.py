"""One file format for all results: tidy rows in an envelope that says how they were made."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worldmodel.common.files import atomic

Row = Mapping[str, Any]
PACKAGES = ("jumpy-worldmodel", "torch", "numpy", "gymnasium", "stable-baselines3")


def envelope(
    benchmark: str,
    settings: Mapping[str, Any],
    rows: Sequence[Row] = (),
    packages: Sequence[str] = PACKAGES,
) -> dict[str, Any]:
    """Rows with benchmark, command, commit, machine, settings, and versions of ``packages``.

    A program that has not imported torch has measured nothing with it: its threads and accelerator
    are None.
    """
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available()
    return {
        "benchmark": benchmark,
        "command": " ".join(["python", *_program(), *sys.argv[1:]]),
        "commit": commit(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch and torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch is not None and gpu else None,
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in packages},
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
    }


def write(path: Path, result: Mapping[str, Any]) -> Path:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial:
        partial.write_text(json.dumps(result, indent=1, default=str) + "\n")
    return path


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Rows as aligned text, one line each; floats in four digits."""
    text = [list(columns)] + [[_show(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in text) for i in range(len(columns))]
    lines = [
        "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in text
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def name_and_preset(text: str) -> tuple[str, str]:
    """Both parts of ``model:preset`` or ``module:model:preset``.

    Raises:
        ValueError: it has another form.
    """
    name, colon, preset = text.rpartition(":")
    if not colon:
        raise ValueError(f"models: expected model:preset such as jump:narrative, got {text!r}")
    return name, preset


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _program() -> list[str]:
    """What was run: ``-m package``, or a script."""
    path = Path(sys.argv[0])
    return ["-m", path.parent.name] if path.name == "__main__.py" else [sys.argv[0]]


def commit() -> str | None:
    """The commit of the checkout that this file lies in; None outside of one."""
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return out.stdout.strip()
