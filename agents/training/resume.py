"""Checkpoints of agents in training: written every few minutes, resumed after a kill."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr

from agents.training.dyna.callback import DynaCallback
from worldmodel.common.files import atomic, discard
from worldmodel.common.signals import stop_signals

CHECKPOINT_MINUTES = 5.0
PREFIX = "checkpoint-"


@contextmanager
def checkpointed(
    folder: Path, callbacks: list[BaseCallback], dyna: DynaCallback | None = None
) -> Iterator[list[BaseCallback]]:
    """The callbacks, and before them one that writes checkpoints; to learn within.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    with stop_signals() as stop:
        checkpoints = AgentCheckpointCallback(folder, stop, dyna)
        try:
            yield [checkpoints, *callbacks]
        except KeyboardInterrupt:  # in a fit of the world model, which handles signals by itself
            stop.set()
    if stop.is_set():
        raise KeyboardInterrupt(
            f"stopped; the same command goes on from decision {checkpoints.done}"
        )


class AgentCheckpointCallback(BaseCallback):
    """Writes checkpoints of an agent as it learns, and resumes from the last one in the folder.

    A checkpoint holds the weights, optimizers and replay buffer, and with Dyna the world model, its
    recorded episodes and counts; environments and random numbers begin anew. Reading it can run
    code, as with SB3's own files: resume only what you trust.

    It must be the first of the callbacks: others may look at what it restores.

    Args:
        folder: for ``checkpoint-000000012000`` and so on, of which only the last one is kept.
        stop: once set, learning ends and a checkpoint is written.
        dyna: the callback that fits the world model, if there is one.
        minutes: time between two checkpoints.

    Attributes:
        done: decisions that the agent had learned from at the last checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        stop: threading.Event,
        dyna: DynaCallback | None = None,
        minutes: float = CHECKPOINT_MINUTES,
    ) -> None:
        super().__init__()
        self.folder, self.stop, self.dyna, self.minutes = folder, stop, dyna, minutes
        self.done, self._began, self._written = 0, 0, time.monotonic()

    def _on_training_start(self) -> None:
        if checkpoints := self._all():
            self._restore(checkpoints[-1])
        self._written = time.monotonic()

    def _on_rollout_start(self) -> None:
        self._began = self.model.num_timesteps
        if time.monotonic() - self._written > self.minutes * 60:
            self._write()

    def _on_step(self) -> bool:
        return not self.stop.is_set()

    def _on_training_end(self) -> None:
        if self.stop.is_set():
            self._write()

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}*"))

    def _write(self) -> None:
        buffered = isinstance(self.model, OffPolicyAlgorithm)
        # PPO has not learned from a rollout that was interrupted; a replay buffer holds it.
        self.done = self.model.num_timesteps if buffered else self._began
        path = self.folder / f"{PREFIX}{self.done:012d}"
        if not path.exists():
            with atomic(path) as partial:
                partial.mkdir()
                self.model.save(partial / "agent.zip")
                if isinstance(self.model, OffPolicyAlgorithm):
                    self.model.save_replay_buffer(partial / "replay.pkl")
                if self.dyna is not None:
                    self.dyna.save(partial)
        for before in self._all()[:-1]:
            discard(before)
        self._written = time.monotonic()

    def _restore(self, path: Path) -> None:
        self.model.set_parameters(str(path / "agent.zip"), device=self.model.device)
        _, _, variables = load_from_zip_file(path / "agent.zip", device=self.model.device)
        for name, value in (variables or {}).items():  # SAC's entropy coefficient
            recursive_setattr(self.model, f"{name}.data", value.data)
        if isinstance(self.model, OffPolicyAlgorithm):
            self.model.load_replay_buffer(path / "replay.pkl")
        if self.dyna is not None:
            self.dyna.restore(path)
        self.done = self._began = self.model.num_timesteps = int(path.name.rpartition("-")[2])
        if self.model.seed is not None:  # else it would explore as it did in the beginning
            self.model.set_random_seed(self.model.seed + self.done)
