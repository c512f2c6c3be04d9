"""Claims: where each number of the README comes from, computed from the JSON, block by block.

``{}`` in a prose claim is a number; what stands in the README there must be the value beside it,
rounded to as many digits. Tables are claimed row by row. Numbers in code and links do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.metrics.story_consistency import LEG_ENDS
from evaluation.report.load_results import Result, read_one
from evaluation.runner.manifest import find

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "evaluation" / "results" / "cpu-2-cores"
CONFIDENCE = 95
ENDS = [time + 1 for time in LEG_ENDS[1:]]  # the paper counts frames from 1


class Prose:
    """A piece of text with ``{}`` for each of ``values``."""

    def __init__(self, text: str, *values: float) -> None:
        self.text, self.values = text, values


@dataclass
class Table:
    """The rows of a table, by label, with all numbers of the row from left to right."""

    rows: list[tuple[str, list[float]]]
    head: list[float]


Claims = Iterator[Prose | Table]
Data = dict[str, Result]


@dataclass(frozen=True)
class Block:
    """A bold title with all that follows it, the results it cites, and what it claims of them."""

    title: str
    sources: tuple[str, ...]
    claims: Callable[[Data], Claims]

    def read(self, folder: Path = FOLDER) -> Data:
        return {name: read_one(folder / f"{name}.json") for name in self.sources}


BLOCKS: list[Block] = []
Made = Callable[[Data], Claims]


def block(title: str, *sources: str) -> Callable[[Made], Made]:
    def add(claims: Made) -> Made:
        BLOCKS.append(Block(title, sources, claims))
        return claims

    return add


def made_by(source: str) -> str:
    """The command beside which the README gives the result."""
    return "make stress" if source == "stress" else find(source).command


def settings(result: Result) -> Any:
    return result.envelope["settings"]


DEFINED = (  # what environments are, not what was measured
    "Frames are uint8, 64 px (balls 32) or any multiple of 8.",
    "Frames per second: 64 px,",
)


def scale_of_returns(result: Result, env: str, hold: int) -> list[float]:
    """Random play and the best."""
    return [result.one(env=env, hold=hold, metric=end)["value"] for end in ("random", "best")]


def frames_per_second(result: Result) -> dict[str, list[float]]:
    """Single and in a vector of 256, by environment."""
    return {
        env: [result.one(env=env, mode=mode, batch=n)["frames_per_second"]
              for mode, n in (("single", 1), ("vector", 256))]
        for env in dict.fromkeys(row["env"] for row in result.rows)
    }  # fmt: skip


def percent(row: dict[str, Any]) -> list[float]:
    return [100 * row[name] for name in ("value", "low", "high")]


def interval(row: dict[str, Any], value: str = "value") -> list[float]:
    return [row[name] for name in (value, "low", "high")]
