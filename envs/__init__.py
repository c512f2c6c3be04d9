"""Scenes as Gymnasium environments. Importing this package registers them.

>>> import gymnasium as gym
>>> env = gym.make("envs:narratives/TravelingSalesman-v0")
"""

from __future__ import annotations

from typing import Final

import gymnasium as gym

from envs.narratives.stream import SceneBatch, SceneStream, sample_scenes

__all__ = ["ENV_IDS", "SceneBatch", "SceneStream", "sample_scenes"]

_NARRATIVES: Final = {
    "narratives/TravelingSalesman-v0": {"story": "TravelingSalesman", "controlled": True},
    "narratives/TravelingSalesmanNature-v0": {"story": "TravelingSalesman", "controlled": False},
}
ENV_IDS: Final = tuple(_NARRATIVES)
"""Every id that this package registers."""

for _id, _kwargs in _NARRATIVES.items():
    if _id not in gym.registry:
        gym.register(
            id=_id,
            entry_point="envs.narratives.env:NarrativeEnv",
            vector_entry_point="envs.narratives.vector:NarrativeVectorEnv",
            kwargs=_kwargs,
        )
