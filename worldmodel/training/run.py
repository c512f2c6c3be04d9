"""Files of a run: the checkpoint, and the training state for resuming."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least, difference, from_json
from worldmodel.common.files import atomic, locked
from worldmodel.common.safe_files import Layout, Tensors, layout, parse_json
from worldmodel.training.average import Average
from worldmodel.training.early_stopping import EarlyStopping
from worldmodel.training.precision import FABRIC, Choice

STATE = "training.safetensors"
"""Weights, average, moments and the model's own state; in the metadata, as JSON, the settings of
the run and its step.
"""
BEST = "best"
"""Folder of the checkpoint with the lowest validation loss, inside the run's."""

HOLDOUT = ("holdout.errors.", "holdout.levels.")
"""How the names begin of what ``EarlyStopping`` has measured, of each part of the model."""
MODEL_STATE = "model."
"""How the names begin of the model's own ``training_state``."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""Adam's state of each weight."""


@dataclass(frozen=True)
class State:
    """The training state without its tensors.

    Attributes:
        run: settings that a resumed run must share.
        step: steps done.
        seconds: that they took.
        training: facts for the checkpoint.
        updates: of the average of the weights.
        best: the lowest validation loss so far; infinite before the first.
        waited: measurements on what is held out since the last improvement.
    """

    run: dict[str, Any]
    step: int
    seconds: float
    training: dict[str, Any]
    updates: int
    best: float
    waited: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "step", "seconds", "updates", "waited")
        if not (isinstance(self.run, dict) and isinstance(self.training, dict)):
            raise ValueError(f"run, training: expected facts, got {self.run} and {self.training}")


def read_state(path: Path) -> tuple[Tensors, State]:
    """The tensors of a training state, unread, and its other facts.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no whole training state.
    """
    try:
        file = Tensors(path)
        facts = parse_json(file.metadata.get("state", ""), path, finite=False)  # best is infinite
        return file, from_json(State, facts)
    except ValueError as error:
        raise ValueError(f"resume: {path} is corrupt or truncated ({error})") from error


def _same(before: Any, now: Any) -> bool:
    """Whether they are equal; lists of numbers within a tolerance."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = list(zip(before, now, strict=True))
        if all(isinstance(number, int | float) for pair in pairs for number in pair):
            return all(math.isclose(a, b, rel_tol=1e-2, abs_tol=1e-2) for a, b in pairs)
    return bool(before == now)


class Run:
    """Optimizer, checkpoint and training state of one run."""

    def __init__(
        self,
        model: WorldModel,
        folder: str | Path | None,
        settings: dict[str, Any],
        training: dict[str, Any],
        stopping: EarlyStopping | None = None,
    ) -> None:
        self.model, self.training, self.stopping = model, training, stopping
        self.optimizer = model.make_optimizer()
        self.folder = None if folder is None else Path(folder)
        self.average = Average(model, settings["ema"])
        self.best = math.inf
        if folder is not None:
            checkpoint.describe(model, training)  # raises before hours of training, not after them
        known = {"model": model.name, "config": asdict(model.config), "spec": model.spec.to_dict()}
        self.identity: dict[str, Any] = json.loads(json.dumps(known | settings))  # as read back
        self.began, self.seconds = time.monotonic(), 0.0

    @contextmanager
    def claimed(self, resume: bool) -> Iterator[None]:
        """Within it, no other run writes to the folder; for what is refused, see ``fit``."""
        self._check_folder(resume)
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
        if self.folder is None or rank != "0":  # of several processes, only the first one writes
            yield
            return
        with locked(self.folder):
            self._check_folder(resume)  # another run may have been at work until now
            yield

    def _check_folder(self, resume: bool) -> None:
        """Refuse to lose an older checkpoint, or to resume from nothing."""
        if resume and self.folder is None:
            raise ValueError("resume: needs the folder of the run to go on with")
        if self.folder is None:
            return
        if resume and not (self.folder / STATE).is_file():
            raise FileNotFoundError(
                f"resume: {self.folder / STATE} is missing; nothing was kept there yet, begin "
                "without resume (--resume)"
            )
        if not resume and any((self.folder / name).exists() for name in ("config.json", STATE)):
            raise FileExistsError(
                f"folder: {self.folder} already holds a checkpoint; pass resume=True (--resume) to "
                "go on, or another folder (--out)"
            )

    def set_rate(self, optimizer: Any, done: int, steps: int) -> float:
        """The learning rate after ``done`` of ``steps`` steps; a group has it times its factor."""
        rate = self.model.learning_rate(done, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        return rate

    def begun_precision(self) -> str:
        """Of a run to go on with: Fabric's name of its precision.

        Raises:
            ValueError: the file is corrupt.
        """
        assert self.folder is not None
        return str(read_state(self.folder / STATE)[1].run.get("precision"))

    def set_precision(self, choice: Choice) -> None:
        """Make it part of what identifies the run, and of the checkpoint's facts."""
        self.identity["precision"] = FABRIC[choice.name]
        self.training = {**self.training, "precision": choice.line}

    def resume(self) -> int:
        """Restore weights and optimizer; returns the steps done.

        Raises:
            ValueError: the file is corrupt or belongs to another run.
        """
        assert self.folder is not None
        path = self.folder / STATE
        file, state = read_state(path)
        for name, value in self.identity.items():
            before = state.run.get(name)
            if not _same(before, value):
                raise ValueError(
                    f"resume: {path} was trained with {difference(before, value, name)}; give the "
                    "same, or begin another run with its weights (--start)"
                )
        self._restore(file, state)
        return state.step

    def _restore(self, file: Tensors, state: State) -> None:
        """Restore everything; nothing is changed if something does not fit."""
        parameters = list(self.model.parameters())
        measured = [name for name in file.layout if name.startswith(HOLDOUT) and self.stopping]
        expected: Layout = {f"weights.{k}": v for k, v in layout(self.model.state_dict()).items()}
        for index, parameter in enumerate(parameters):
            shape = (tuple(parameter.shape), parameter.dtype)
            if state.updates:
                expected[f"average.{index}"] = shape
            if measured:
                expected[f"best.{index}"] = shape
            for name in MOMENTS:
                key = f"optimizer.{index}.{name}"
                if key in file.layout:  # a parameter that no loss reached has none
                    expected[key] = ((), torch.float32) if name == "step" else shape
        own = [name for name in file.layout if name.startswith(MODEL_STATE)]
        expected |= {name: file.layout[name] for name in (*measured, *own)}
        tensors = file.read(expected)
        moments: dict[int, dict[str, Tensor]] = {}
        for key in tensors:
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                number, _, name = rest.partition(".")
                moments.setdefault(int(number), {})[name] = tensors[key]
        if any(len(moment) != len(MOMENTS) for moment in moments.values()):
            raise ValueError(f"{file.path}: expected {MOMENTS} of each weight that has any")
        try:
            if self.stopping is not None and measured:
                best = [tensors[f"best.{index}"] for index in range(len(parameters))]
                errors, levels = (
                    {name[len(head) :]: tensors[name] for name in measured if name.startswith(head)}
                    for head in HOLDOUT
                )
                self.stopping.restore(best, errors, levels, state.waited)
            self.model.restore_training_state({n[len(MODEL_STATE) :]: tensors[n] for n in own})
        except ValueError as error:
            raise ValueError(f"resume: {file.path}: {error}") from error
        self.model.load_state_dict(
            {key[len("weights.") :]: t for key, t in tensors.items() if key.startswith("weights.")}
        )
        groups = self.optimizer.state_dict()["param_groups"]  # made by the settings, not the file
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        averages = len(parameters) if state.updates else 0
        average = [tensors[f"average.{index}"] for index in range(averages)]
        self.average.restore(average, state.updates)
        self.best, self.seconds, self.training = state.best, state.seconds, state.training

    def save(self, step: int) -> None:
        """Write the training state and, after it, the checkpoint.

        In this order, so that whatever a kill leaves behind can be resumed: the checkpoint follows
        from the state.
        """
        if self.folder is None:
            return
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise FloatingPointError(
                f"the weights are not finite at step {step}; the last good checkpoint is kept"
            )
        stopping = self.stopping
        facts = State(
            self.identity, step, self._seconds(), self.training, self.average.updates, self.best,
            stopping.waited if stopping else 0,
        )  # fmt: skip
        tensors = {f"weights.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {MODEL_STATE + name: t for name, t in self.model.training_state().items()}
        tensors |= {f"average.{index}": t for index, t in enumerate(self.average.weights)}
        if stopping is not None and stopping.weights:
            tensors |= {f"best.{index}": t for index, t in enumerate(stopping.weights)}
            for head, errors in zip(HOLDOUT, (stopping.errors, stopping.levels), strict=True):
                tensors |= {f"{head}{part}": each for part, each in errors.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(self.folder / STATE) as path:
            path.write_bytes(to_bytes(whole, {"state": json.dumps(asdict(facts))}))
        with self.average.swapped():
            checkpoint.save(self.model, self.folder, self._facts(step))

    def save_best(self, step: int, loss: float) -> None:
        """Save the model to ``BEST`` if its validation loss is the lowest so far."""
        if self.folder is None or not loss < self.best:
            return
        self.best = loss
        facts = {**self._facts(step), "validation_loss": loss}
        checkpoint.save(self.model, self.folder / BEST, facts)

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def _facts(self, step: int) -> dict[str, Any]:
        """What the checkpoint says of its training."""
        facts = {"step": step, "minutes": round(self._seconds() / 60, 1), **self.training}
        return facts | {name: self.identity[name] for name in ("steps", "seed")}
