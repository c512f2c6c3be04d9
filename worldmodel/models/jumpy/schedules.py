"""The learning rate of models whose prior trains alone in the end."""

from __future__ import annotations

import math
from typing import Protocol


class Rates(Protocol):
    """Settings of a learning rate."""

    @property
    def learning_rate(self) -> float:
        """After the rise."""

    @property
    def learning_rate_end(self) -> float:
        """At the end of each cosine."""

    @property
    def warmup(self) -> int:
        """Steps of the linear rise; 0 for none."""


def cosine_rate(config: Rates, done: int, steps: int, turn: float) -> float:
    """The learning rate after ``done`` of ``steps`` steps.

    A cosine from ``learning_rate`` to ``learning_rate_end`` until the share ``turn`` of the steps
    is done, after a linear rise in the first ``warmup`` steps; then another, from there to there.
    """
    share, first, last = done / steps, config.learning_rate, config.learning_rate_end
    phase = share / turn if share < turn else (share - turn) / max(1 - turn, 1e-9)
    rate = last + (first - last) * (1 + math.cos(math.pi * phase)) / 2
    return rate * min(1.0, (done + 1) / max(config.warmup, 1))
