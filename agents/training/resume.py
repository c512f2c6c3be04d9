"""Agents in training that outlive a kill: written every few minutes, gone on with later."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr

from agents.training.dyna import DynaCallback
from worldmodel.common.files import atomic, discard
from worldmodel.common.signals import stop_signals

KEEP_MINUTES = 5.0


@contextmanager
def kept(
    folder: Path, callbacks: list[BaseCallback], dyna: DynaCallback | None = None
) -> Iterator[list[BaseCallback]]:
    """The callbacks, and before them one that keeps the agent; to learn within.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the agent has been kept.
    """
    with stop_signals() as stop:
        keeper = KeepAgent(folder, stop, dyna)
        try:
            yield [keeper, *callbacks]
        except KeyboardInterrupt:  # in a fit of the world model, which has its own ways
            stop.set()
    if stop.is_set():
        raise KeyboardInterrupt(f"stopped; the same command goes on from decision {keeper.done}")


class KeepAgent(BaseCallback):
    """Keeps an agent as it learns, and begins where the last one in the folder stopped.

    The weights, optimizers, replay buffer and with Dyna the world model, its recorded episodes and
    counts go on; environments and random numbers begin anew. What is kept can run code when it is
    read, as SB3's files can: go on only with what you trust.

    It comes first among the callbacks: others may look at what it restores.

    Args:
        folder: for ``kept-000000012000`` and so on, of which only the last one stays.
        stop: once set, learning ends and the agent is written.
        dyna: the callback that fits the world model, if one does.
        minutes: time between two writes.

    Attributes:
        done: decisions that the agent has learned from, as far as it was kept.
    """

    def __init__(
        self,
        folder: Path,
        stop: threading.Event,
        dyna: DynaCallback | None = None,
        minutes: float = KEEP_MINUTES,
    ) -> None:
        super().__init__()
        self.folder, self.stop, self.dyna, self.minutes = folder, stop, dyna, minutes
        self.done, self._began, self._written = 0, 0, time.monotonic()

    def _on_training_start(self) -> None:
        if found := self._all():
            self._restore(found[-1])
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
        return sorted(self.folder.glob("kept-*"))

    def _write(self) -> None:
        buffered = isinstance(self.model, OffPolicyAlgorithm)
        # PPO has not learned from a rollout that was broken off; a replay buffer holds it.
        self.done = self.model.num_timesteps if buffered else self._began
        path = self.folder / f"kept-{self.done:012d}"
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
