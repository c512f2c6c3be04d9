"""Every kind of scene by name."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym

from envs.balls import RandomWalk
from envs.dice import FindDigit, Views
from envs.digits import StochasticMovingDigits
from envs.narratives import ColorReaction, DAGChase, Intercept, TravelingSalesman
from envs.simulator import Simulator

SCENES: Final[dict[str, type[Simulator[Any]]]] = {
    simulator.__name__: simulator
    for simulator in (
        TravelingSalesman,
        ColorReaction,
        DAGChase,
        Intercept,
        Views,
        FindDigit,
        StochasticMovingDigits,
        RandomWalk,
    )
}
"""Simulators by name; each takes ``max_steps`` (None: its own) and settings of its own."""


def make_simulator(name: str, **settings: Any) -> Simulator[Any]:
    """Build a simulator by name; ``settings`` go to its class.

    Raises:
        TypeError: it has no such setting, or one of another type.
        ValueError: there is no such name, or a setting has an impossible value.
    """
    if name not in SCENES:
        raise ValueError(f"simulator must be one of {sorted(SCENES)}, got {name!r}")
    return SCENES[name](**settings)


def simulator_of(env_id: str) -> Simulator[Any]:
    """The simulator behind a registered ``env_id`` (``envs:`` in front is fine).

    Raises:
        ValueError: the id is not one of ours.
    """
    settings = dict(gym.spec(env_id.removeprefix("envs:")).kwargs)
    if "simulator" not in settings:
        raise ValueError(f"source must be the id of an environment of envs, got {env_id!r}")
    name = settings.pop("simulator")
    settings.pop("size", None)  # the frames' size is no setting of the simulator
    return make_simulator(name, **settings)
