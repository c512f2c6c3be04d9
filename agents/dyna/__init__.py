"""Dyna: agents that learn from few real steps, and a world model of what these showed."""

from agents.dyna.callback import DynaCallback, DynaConfig
from agents.dyna.recorder import RecordEpisodes, merge_episodes
from agents.dyna.rounds import DynaResult, DynaRound, RoundsConfig, train_dyna

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
