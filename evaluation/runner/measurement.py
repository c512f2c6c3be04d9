"""What the verbs of ``python -m evaluation`` share: each is a frozen dataclass.

Its fields are the options of the command, and its docstrings are the help.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import tyro

import worldmodel
from evaluation.runner.partial_results import PartialResults, folder_of, what_differs
from worldmodel import WorldModel, checkpoint, optimise_for_inference
from worldmodel.common import results
from worldmodel.common.files import check_writable
from worldmodel.common.safe_files import read_json
from worldmodel.models.jumpy.rectified_flow import set_flow_steps
from worldmodel.resolve import find

Row = dict[str, Any]
Precisions = tuple[Literal["none", "auto", "float32", "bf16"], ...]
"""Of timed models; see ``at_precisions``."""


@dataclass(frozen=True, kw_only=True)
class Measurement(ABC):
    """A command that measures, prints a table and writes a JSON file."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ()
    """Those of the rows that are printed; () for all."""
    selecting: ClassVar[frozenset[str]] = frozenset()
    """Settings that say which parts are made, but not what is in one: a run may be resumed with
    others."""

    num_threads: int = 1
    """CPU threads; more than the free cores can be many times slower."""
    json: Path | None = None
    """File for the result. Partial results stay in a folder next to it until it is written."""
    resume: bool = False
    """Go on from the partial results of a stopped run. Timings that are compared are measured
    again."""

    @abstractmethod
    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Measure; ``partial_results`` holds the parts of a long measurement that are done."""

    def measure(self) -> list[Row]:
        """The rows, without writing or printing anything."""
        return self.rows(PartialResults())

    def text(self, rows: list[Row]) -> str:
        """What is printed: a table."""
        return results.table(rows, self.columns or list(dict.fromkeys(chain(*rows))))

    def measured_checkpoints(self) -> tuple[str, ...]:
        """Names of the checkpoints in use; the result records their digests."""
        return ()

    def run(self) -> Iterator[str]:
        """Measure, write; what to print, as it comes."""
        torch.set_num_threads(self.num_threads)
        if self.json is None:
            if self.resume:
                raise ValueError("resume: needs --json, the file next to which the parts are")
            yield self.text(self.measure())
            return
        check_writable(self.json)
        facts = results.envelope(self.name, asdict(self) | {"resume": False})
        facts["command"] = facts["command"].replace(
            " --resume", ""
        )  # the one that makes the same result
        weights = {name: checkpoint.digest(name) for name in self.measured_checkpoints()}
        if weights:
            facts["weights"] = weights
        if self.resume and self._is_done(self.json, facts):
            yield f"result: {self.json} (done already)"
            return
        with PartialResults.opened(
            self.json, facts, self.resume, self.selecting
        ) as partial_results:
            rows = self.rows(partial_results)
            yield self.text(rows)
            results.write(self.json, {**partial_results.facts, "rows": rows})
        yield f"\nresult: {self.json}"

    @staticmethod
    def _is_done(path: Path, facts: Mapping[str, Any]) -> bool:
        """Whether the file is the result, and there are no partial results to go on from.

        Raises:
            ValueError: it is the result of another measurement, which would be lost.
        """
        if not path.exists() or folder_of(path).exists():
            return False
        if other := what_differs(read_json(path, finite=False), facts):
            raise ValueError(
                f"resume: {path} is the result of a measurement with {other}; without --resume it "
                "is replaced"
            )
        return True


@dataclass(frozen=True, kw_only=True)
class Scattered:
    """Options of a measurement whose parts other processes may do."""

    workers: int = 0
    """Processes that do the work, through Ray; 0 does it in this one. The rows are the same."""
    ray: str | None = None
    """Address of a Ray cluster that does the work, as HOST:6379 or auto; None: this machine."""

    def cluster(self, device: str = "cpu") -> dict[str, Any]:
        """``workers`` and ``address`` as ``PartialResults.each`` takes them.

        Raises:
            ValueError: models are on another device than the CPU.
        """
        if self.workers and device != "cpu":
            raise ValueError(f"device: workers play on the CPU; expected cpu, got {device}")
        return {"workers": self.workers, "address": self.ray}


def at_precisions(
    models: Mapping[str, WorldModel], precisions: Precisions
) -> dict[str, WorldModel]:
    """Each model as it is, for "none", and its copies of ``optimise_for_inference``.

    A copy is named "NAME in bf16" or "NAME in float32", so that all can be timed in one run.

    Raises:
        ValueError: there are no precisions.
    """
    if not precisions:
        raise ValueError("precision: expected none, auto, float32 or bf16, got nothing")
    timed = {}
    for name, model in models.items():
        for precision in precisions:
            if precision == "none":
                timed[name] = model
                continue
            copy = optimise_for_inference(model, precision)
            timed[f"{name} in {copy.precision}"] = copy
    return timed


def environment(env: str | None, recorded: str | None) -> str:
    """Id, without ``envs:``, of the environment whose scenes are used.

    Args:
        env: what the user named; None takes the recorded one.
        recorded: a model's ``env_id``.

    Raises:
        ValueError: both are None.
    """
    env = recorded if env is None else env
    if env is None:
        raise ValueError(
            "env: the checkpoint does not record which environment it was trained on; name the env "
            "with --env"
        )
    return env.removeprefix("envs:")


@dataclass(frozen=True)
class OfCheckpoint(Measurement, ABC):
    """A measurement of one trained model, in the environment that it was trained on."""

    checkpoint: str = "traveling-salesman"
    """World model of the planners: folder, shipped name or hub id."""
    env: str | None = None
    """One of our environments with an agent; by default the one that the checkpoint records."""

    def measured_checkpoints(self) -> tuple[str, ...]:
        """The model."""
        return (self.checkpoint,)

    def environment(self) -> str:
        """See ``environment``; the model is not loaded."""
        recorded = None
        if self.env is None:
            recorded = checkpoint.read_config(find(self.checkpoint))["env"]
        return environment(self.env, recorded)


@dataclass(frozen=True)
class OfCheckpoints(Measurement, ABC):
    """A measurement of several trained models."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ("traveling-salesman-nature",)
    """Folders, shipped names or hub ids."""
    env: str | None = None
    """Id of one of our environments, whose test scenes are used; by default the one that each
    checkpoint records."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ValueError("checkpoints: expected at least one, got none")

    def measured_checkpoints(self) -> tuple[str, ...]:
        """All of them."""
        return self.checkpoints


@dataclass(frozen=True)
class OfEachModel(OfCheckpoints, ABC):
    """A measurement that takes one trained model after the other."""

    @abstractmethod
    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows of one model."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Of all models, with the names of their checkpoints."""
        names = {name: name for name in self.checkpoints}
        return list(chain(*partial_results.each(self._of_checkpoint, names, self.name, "model")))

    def _of_checkpoint(self, name: str, flow_steps: int | None = None) -> list[Row]:
        model = worldmodel.load(name, self.device)
        columns: Row = {"checkpoint": name}
        if flow_steps is not None:
            set_flow_steps(model, flow_steps)
            columns["flow_steps"] = flow_steps
        return [{**columns, **row} for row in self.of_model(model)]


@dataclass(frozen=True)
class OfWorlds(OfEachModel, ABC):
    """A measurement of the worlds that trained models sample."""

    flow_steps: tuple[int, ...] = ()
    """Steps in which a flow prior is integrated; one measurement for each number. By default as the
    checkpoint says."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Of all models, for each number of flow steps, which is a column if it was given."""
        if not self.flow_steps:
            return super().rows(partial_results)
        parts = {
            f"{name}, {count} flow steps": partial(self._of_checkpoint, name, count)
            for name in self.checkpoints
            for count in self.flow_steps
        }
        return list(chain(*partial_results.each(lambda part: part(), parts, self.name)))

    def text(self, rows: list[Row]) -> str:
        """A table, with a column of flow steps if they were given."""
        more = ("flow_steps",) if self.flow_steps else ()
        return results.table(rows, (*more, *self.columns))
