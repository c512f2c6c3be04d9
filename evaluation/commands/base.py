"""What the verbs of ``python -m evaluation`` share; most measure, print and write a JSON file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import tyro

import worldmodel
from evaluation.progress import shown
from worldmodel import WorldModel, results
from worldmodel.files import check_writable
from worldmodel.jump import set_refinements

Row = dict[str, Any]


@dataclass(frozen=True)
class Verb(ABC):
    """Settings of what is done; its docstring and its fields' are the help."""

    benchmark: ClassVar[str]
    """Its name."""

    @abstractmethod
    def run(self) -> Iterator[str]:
        """Do it; what to print, as it comes."""


@dataclass(frozen=True, kw_only=True)
class Command(Verb, ABC):
    """A measurement."""

    columns: ClassVar[tuple[str, ...]]
    """What is printed of the rows."""

    num_threads: int = 1
    """CPU threads; more than the free cores can be many times slower."""
    json: Path | None = None
    """File for the result."""

    def run(self) -> Iterator[str]:
        """Measure, print, write."""
        torch.set_num_threads(self.num_threads)
        if self.json is not None:
            check_writable(self.json)
        rows = self.rows()
        yield self.text(rows)
        if (path := self.write(rows)) is not None:
            yield f"\nresult: {path}"

    @abstractmethod
    def rows(self) -> list[Row]:
        """Measure."""

    def text(self, rows: list[Row]) -> str:
        """What is printed: a table."""
        return results.table(rows, self.columns)

    def write(self, rows: list[Row]) -> Path | None:
        """The JSON file, written; None if none is wanted."""
        if self.json is None:
            return None
        return results.write(self.json, results.envelope(self.benchmark, asdict(self), rows))


@dataclass(frozen=True, kw_only=True)
class Scattered:
    """Episodes that other processes may play."""

    workers: int = 0
    """Processes that play the episodes, through Ray; 0 plays in this one. The rows are the same."""
    ray: str | None = None
    """Address of a Ray cluster whose machines play, as HOST:6379 or auto; None: this one does."""

    def where(self, device: str) -> dict[str, Any]:
        """``workers`` and ``address``, for models on that device."""
        if self.workers and device != "cpu":
            raise ValueError(f"device: workers play on the CPU; expected cpu, got {device}")
        return {"workers": self.workers, "address": self.ray}


@dataclass(frozen=True)
class OfCheckpoints(Command, ABC):
    """The same measurement of several trained models."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ("traveling-salesman",)
    """Folders, shipped names or hub ids."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ValueError("checkpoints: expected at least one, got none")

    def each(self, measure: Callable[[WorldModel], list[Row]]) -> list[Row]:
        """What ``measure`` says of each, with its name."""
        rows = []
        for name in shown(self.checkpoints, self.benchmark, "model"):
            found = measure(worldmodel.load(name, self.device))
            rows += [{"checkpoint": name, **row} for row in found]
        return rows


@dataclass(frozen=True)
class OfWorlds(OfCheckpoints, ABC):
    """The same measurement of worlds that several trained models sample."""

    refinements: tuple[int, ...] = ()
    """How often JUMP draws a world of passive scenes again from what it shows; one measurement for
    each number. By default as the checkpoint says."""

    def each(self, measure: Callable[[WorldModel], list[Row]]) -> list[Row]:
        """For each number of refinements, which the rows tell if they were asked for."""

        def refined(model: WorldModel) -> list[Row]:
            rows = []
            for count in self.refinements:
                set_refinements(model, count)
                rows += [{"refinements": count, **row} for row in measure(model)]
            return rows

        return super().each(refined if self.refinements else measure)

    def text(self, rows: list[Row]) -> str:
        """A table, with a column of refinements if they were asked for."""
        more = ("refinements",) if self.refinements else ()
        return results.table(rows, (*more, *self.columns))
