"""Dyna: agents that learn from few real steps, and a world model of what these showed."""

from agents.training.dyna.callback import DynaCallback, DynaConfig
from agents.training.dyna.recorder import RecordEpisodes, merge_episodes
from agents.training.dyna.rounds import DynaResult, DynaRound, RoundsConfig, train_dyna

__all__ = [
    "DynaCallback",
    "DynaConfig",
    "DynaResult",
    "DynaRound",
    "RecordEpisodes",
    "RoundsConfig",
    "merge_episodes",
    "train_dyna",
]
