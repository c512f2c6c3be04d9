"""Narratives: short stories of coloured shapes (Consistent Jumpy Predictions, sec. 4.1)."""

from envs.narratives.color_reaction import ColorReaction
from envs.narratives.dag_chase import DAGChase
from envs.narratives.intercept import Intercept
from envs.narratives.story import Story, StoryState
from envs.narratives.traveling_salesman import TravelingSalesman

__all__ = [
    "ColorReaction",
    "DAGChase",
    "Intercept",
    "Story",
    "StoryState",
    "TravelingSalesman",
]
