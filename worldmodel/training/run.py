"""What a run keeps on disk: the checkpoint, and beside it all that resuming needs."""

from __future__ import annotations

import io
import math
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.files import atomic, locked, sweep
from worldmodel.training.average import Average

STATE = "training.pt"
BEST = "best"
"""Folder of the checkpoint with the lowest validation loss, inside the run's."""


def _same(before: Any, now: Any) -> bool:
    """Equal; lists of numbers, nearly."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = zip(before, now, strict=True)
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
    ) -> None:
        self.model, self.training = model, training
        self.optimizer = torch.optim.Adam(model.parameters(), lr=model.config.learning_rate)
        self.folder = None if folder is None else Path(folder)
        self.average = Average(model, settings["ema"])
        self.best = math.inf
        self.identity = {
            "model": model.name,
            "config": asdict(model.config),
            "spec": model.spec.to_dict(),
            **settings,
        }
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
            sweep(self.folder / BEST)
            yield

    def _check_folder(self, resume: bool) -> None:
        """Refuse to lose an older checkpoint, or to resume from nothing."""
        if resume and self.folder is None:
            raise ValueError("resume: needs the folder of the run to go on with")
        if self.folder is None:
            return
        if resume and not (self.folder / STATE).is_file():
            raise FileNotFoundError(
                f"resume: {self.folder / STATE} is missing; nothing was trained there"
            )
        if not resume and any((self.folder / name).exists() for name in ("config.json", STATE)):
            raise FileExistsError(
                f"folder: {self.folder} already holds a checkpoint; pass resume=True (--resume) to "
                "go on, or another folder (--out)"
            )

    def set_rate(self, optimizer: Any, share: float) -> float:
        """The learning rate after that share of the steps."""
        first, last = self.model.config.learning_rate, self.model.config.learning_rate_end
        rate = float(first + share * (last - first))
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def resume(self) -> int:
        """Restore weights and optimizer; returns the steps done.

        Raises:
            ValueError: the file is corrupt or belongs to another run.
        """
        assert self.folder is not None
        path = self.folder / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"resume: {path} is corrupt or truncated ({error})") from error
        for name, value in self.identity.items():
            before = state["run"].get(name)
            if not _same(before, value):
                raise ValueError(
                    f"resume: {path} was trained with {name} = {before!r}, now it is {value!r}"
                )
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.best = float(state["best"])
        self.seconds, self.training = float(state["seconds"]), state["training"]
        return int(state["step"])

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
        state = {
            "run": self.identity,
            "step": step,
            "seconds": self._seconds(),
            "training": self.training,
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
        }
        content = io.BytesIO()  # torch's own writing raises no OSError where the disk is full
        torch.save(state, content)
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(self.folder / STATE) as path:
            path.write_bytes(content.getbuffer())
        with self.average.swapped():
            checkpoint.save(self.model, self.folder, self._facts(step))

    def keep_best(self, step: int, loss: float) -> None:
        """Keep the model as it is in ``BEST`` if its validation loss is the lowest so far."""
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
