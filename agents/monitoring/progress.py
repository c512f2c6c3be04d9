"""Progress of Stable-Baselines3's algorithms, on a terminal and in a log."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from worldmodel.common.progress import progress_bar


class ProgressBar(BaseCallback):
    """Shows how many of its steps an algorithm has learned from; SB3's own needs a terminal.

    Args:
        what: is under way.
        show: False shows nothing.
        leave: whether the bar stays on the terminal when it is full.
    """

    def __init__(self, what: str = "learn", show: bool = True, leave: bool = True) -> None:
        super().__init__()
        self.what, self.show, self.leave = what, show, leave
        self._bar: Any = None

    def _on_training_start(self) -> None:
        self._bar = progress_bar(
            self.what, "step", self.locals["total_timesteps"],
            initial=self.model.num_timesteps, show=self.show, leave=self.leave,
        )  # fmt: skip

    def _on_step(self) -> bool:
        self._bar.update(self.num_timesteps - self._bar.n)
        return True

    def _on_training_end(self) -> None:
        self._bar.close()


def one_callback(callback: MaybeCallback) -> BaseCallback:
    """As SB3's algorithms do: one callback, of none, one, several or a function."""
    if isinstance(callback, list):
        return CallbackList(callback)
    return callback if isinstance(callback, BaseCallback) else ConvertCallback(callback)
