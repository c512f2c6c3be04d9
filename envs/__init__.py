"""Scenes as Gymnasium environments. Importing this package registers them.

>>> import gymnasium as gym
>>> env = gym.make("envs:narratives/TravelingSalesman-v0")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import gymnasium as gym

from worldmodel.common.packages import lazy_names

if TYPE_CHECKING:
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

_NAMES = {
    "envs.registry": "SCENES make_simulator simulator_of",
    "envs.simulator": "Simulator State",
    "envs.stream": "SceneBatch SceneStream play sample_scenes",
}
"""Public names by module, imported on first use: to register the environments takes no torch."""
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)

_ENVS: Final[dict[str, dict[str, Any]]] = {
    **{
        f"narratives/{name}{ending}-v0": {"simulator": name, "controlled": controlled}
        for name in ("TravelingSalesman", "ColorReaction", "DAGChase")
        for ending, controlled in (("", True), ("Nature", False))
    },
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
