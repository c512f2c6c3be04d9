"""Scenes as Gymnasium environments. Importing this package registers them.

>>> import gymnasium as gym
>>> env = gym.make("envs:narratives/TravelingSalesman-v0")
"""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym

from envs.registry import SCENES, make_simulator, simulator_of
from envs.simulator import Simulator, State
from envs.stream import SceneBatch, SceneStream, play, sample_scenes

__all__ = [
    "ENV_IDS",
    "SCENES",
    "SceneBatch",
    "SceneStream",
    "Simulator",
    "State",
    "make_simulator",
    "play",
    "sample_scenes",
    "simulator_of",
]


def _narrative(name: str, controlled: bool) -> dict[str, Any]:
    return {"simulator": name, "controlled": controlled}


_ENVS: Final[dict[str, dict[str, Any]]] = {
    "narratives/TravelingSalesman-v0": _narrative("TravelingSalesman", True),
    "narratives/TravelingSalesmanNature-v0": _narrative("TravelingSalesman", False),
    "narratives/ColorReaction-v0": _narrative("ColorReaction", True),
    "narratives/ColorReactionNature-v0": _narrative("ColorReaction", False),
    "narratives/DAGChase-v0": _narrative("DAGChase", True),
    "narratives/DAGChaseNature-v0": _narrative("DAGChase", False),
    "narratives/Intercept-v0": {"simulator": "Intercept"},
    "dice/Views-v0": {"simulator": "Views"},
    "dice/FindDigit-v0": {"simulator": "FindDigit"},
    "digits/StochasticMovingDigits-v0": {"simulator": "StochasticMovingDigits"},
    "balls/RandomWalk-v0": {"simulator": "RandomWalk", "size": 32},
    "balls/CompositionalRandomWalk-v0": {"simulator": "RandomWalk", "moves": 4, "size": 32},
}
ENV_IDS: Final = tuple(_ENVS)
"""Every id that this package registers."""

for _id, _kwargs in _ENVS.items():
    if _id not in gym.registry:
        gym.register(
            id=_id,
            entry_point="envs.env:SceneEnv",
            vector_entry_point="envs.vector:SceneVectorEnv",
            kwargs=_kwargs,
        )
