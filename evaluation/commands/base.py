"""What the verbs of ``python -m evaluation`` share; most measure, print and write a JSON file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
import tyro

import worldmodel
from evaluation.runner.partial_results import Ledger, changed, parts_of
from worldmodel import WorldModel, checkpoint
from worldmodel.common import results
from worldmodel.common.files import check_writable
from worldmodel.common.safe_files import read_json
from worldmodel.models.jumpy.jump import set_refinements

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
    """File for the result. Parts that are done are kept beside it until it is written."""
    resume: bool = False
    """Go on with the parts that a stopped run has kept. Times that are compared are taken anew."""

    def run(self) -> Iterator[str]:
        """Measure, print, write."""
        torch.set_num_threads(self.num_threads)
        if self.json is None:
            if self.resume:
                raise ValueError("resume: needs --json, the file beside which parts were kept")
            yield self.text(self.rows(Ledger()))
            return
        check_writable(self.json)
        facts = results.envelope(self.benchmark, asdict(self) | {"resume": False})
        facts["command"] = facts["command"].replace(" --resume", "")  # what makes the same anew
        if weights := {name: checkpoint.digest(name) for name in self.trained()}:
            facts["weights"] = weights
        if self.resume and self._done(self.json, facts):
            yield f"result: {self.json} (done already)"
            return
        with Ledger.opened(self.json, facts, self.resume) as ledger:
            rows = self.rows(ledger)
            yield self.text(rows)
            results.write(self.json, {**ledger.facts, "rows": rows})
        yield f"\nresult: {self.json}"

    @staticmethod
    def _done(path: Path, facts: Mapping[str, Any]) -> bool:
        """Whether the file is the result, and nothing is left to go on with.

        Raises:
            ValueError: it is another one, which would be lost.
        """
        if not path.exists() or parts_of(path).exists():
            return False
        if other := changed(read_json(path, finite=False), facts):
            raise ValueError(
                f"resume: {path} is the result of a measurement with {other}; without --resume it "
                "is replaced"
            )
        return True

    def trained(self) -> tuple[str, ...]:
        """Checkpoints that are measured; the result tells their digests."""
        return ()

    @abstractmethod
    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure; what takes long, part by part."""

    def text(self, rows: list[Row]) -> str:
        """What is printed: a table."""
        return results.table(rows, self.columns)


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

    def trained(self) -> tuple[str, ...]:
        """All of them."""
        return self.checkpoints

    def each(self, measure: Callable[[WorldModel], list[Row]], ledger: Ledger) -> list[Row]:
        """What ``measure`` says of each, with its name."""

        def told(name: str) -> list[Row]:
            found = measure(worldmodel.load(name, self.device))
            return [{"checkpoint": name, **row} for row in found]

        names = {name: name for name in self.checkpoints}
        return list(chain(*ledger.each(told, names, self.benchmark, "model")))


@dataclass(frozen=True)
class OfWorlds(OfCheckpoints, ABC):
    """The same measurement of worlds that several trained models sample."""

    refinements: tuple[int, ...] = ()
    """How often JUMP draws a world of passive scenes again from what it shows; one measurement for
    each number. By default as the checkpoint says."""

    def each(self, measure: Callable[[WorldModel], list[Row]], ledger: Ledger) -> list[Row]:
        """For each number of refinements, which the rows tell if they were asked for."""
        if not self.refinements:
            return super().each(measure, ledger)

        def told(part: tuple[str, int]) -> list[Row]:
            name, count = part
            model = worldmodel.load(name, self.device)
            set_refinements(model, count)
            before = {"checkpoint": name, "refinements": count}
            return [{**before, **row} for row in measure(model)]

        parts = {
            f"{name}, refined {count}": (name, count)
            for name in self.checkpoints
            for count in self.refinements
        }
        return list(chain(*ledger.each(told, parts, self.benchmark)))

    def text(self, rows: list[Row]) -> str:
        """A table, with a column of refinements if they were asked for."""
        more = ("refinements",) if self.refinements else ()
        return results.table(rows, (*more, *self.columns))
