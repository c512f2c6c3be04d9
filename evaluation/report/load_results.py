"""The JSON of a results folder, checked, and the curves in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel.common.safe_files import read_json

Row = dict[str, Any]

Curve = list[tuple[float, float]]
"""Real steps, return."""

COLUMNS: dict[str, tuple[str, ...]] = {  # that the report reads of every row, by kind of file
    "speed": ("kind", "model", "preset", "batch", "low", "high"),
    "model-comparison": ("model", "preset", "seconds", "ends", "T=40"),
    "consistency": ("model", "env", "metric", "value", "low", "high"),
    "fidelity": ("model", "metric", "value", "low", "high"),
    "efficiency": ("agent",),
    "sample-efficiency": ("kind", "env", "method"),
    "control": ("agent", "env", "real_steps", "normalised_return", "low", "high", "episodes"),
}
ENVELOPE = ("benchmark", "command", "commit", "machine", "versions", "settings", "rows")


@dataclass(frozen=True)
class Result:
    """One file of results.

    Attributes:
        name: of the file, without its ending.
        rows: flat and tidy.
        envelope: how they were made (``worldmodel.common.results.envelope``).
    """

    name: str
    rows: list[Row]
    envelope: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The verb that made it: all ``consistency-*.json`` are of one kind."""
        return str(self.envelope["benchmark"])

    def one(self, **wanted: Any) -> Row:
        """The one row with these values.

        Raises:
            ValueError: there is none, or more than one.
        """
        rows = [r for r in self.rows if all(r.get(k) == v for k, v in wanted.items())]
        if len(rows) != 1:
            raise ValueError(f"{self.name}.json: expected one row of {wanted}, found {len(rows)}")
        return rows[0]


def read(folder: Path) -> dict[str, Result]:
    """All results of a folder by name, in the order of names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is no JSON, no result, or lacks a column; the message names it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: expected a folder of results, got {folder}")
    return {path.stem: read_one(path) for path in sorted(folder.glob("*.json"))}


def read_one(path: Path) -> Result:
    """One result; raises ValueError as ``read`` does."""
    content = read_json(path, finite=False)  # a measurement may be NaN
    if lacking := [k for k in ENVELOPE if k not in content]:
        raise ValueError(
            f"{path}: expected a result with {', '.join(ENVELOPE)}; got no {', '.join(lacking)}"
        )
    rows = content["rows"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        raise ValueError(f"{path}: rows: expected at least one, each with names and values")
    result = Result(path.stem, rows, {k: v for k, v in content.items() if k != "rows"})
    for number, row in enumerate(rows):
        for column in COLUMNS.get(result.kind, ()):
            if column not in row:
                raise ValueError(f"{path}: rows[{number}]: expected a {column!r}, got {list(row)}")
    return result


def of(results: Mapping[str, Result], kind: str) -> list[Result]:
    """Those of one kind, such as ``consistency.json`` and ``consistency-dice.json``."""
    return [each for each in results.values() if each.kind == kind]


def by_seed(rows: Sequence[Row]) -> dict[str, list[Curve]]:
    """Each agent's curves, one for each seed; points before the first real step are left out,
    because the axis of steps is logarithmic.
    """
    curves: dict[str, dict[int, Curve]] = {}
    for row in rows:
        if row.get("real_steps"):
            curve = curves.setdefault(row["agent"], {}).setdefault(row["seed"], [])
            curve.append((row["real_steps"], row["return"]))
    return {agent: list(of_seeds.values()) for agent, of_seeds in curves.items()}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds, point by point."""
    return [
        (sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points))
        for points in zip(*curves, strict=True)
    ]
