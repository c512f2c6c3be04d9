"""Narratives: short stories of coloured shapes (Consistent Jumpy Predictions, sec. 4.1)."""

from __future__ import annotations

from typing import Any, Final

from envs.narratives.story import Story
from envs.narratives.traveling_salesman import TravelingSalesman

STORIES: Final[dict[str, type[Story[Any]]]] = {"TravelingSalesman": TravelingSalesman}
"""Stories by name; each takes ``controlled`` and ``max_steps``."""

__all__ = ["STORIES", "make_story"]


def make_story(name: str, **kwargs: Any) -> Story[Any]:
    """Build a story by name; ``kwargs`` go to its class.

    Raises:
        ValueError: no story has that name.
    """
    if name not in STORIES:
        raise ValueError(f"story must be one of {sorted(STORIES)}, got {name!r}")
    return STORIES[name](**kwargs)
