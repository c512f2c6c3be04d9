"""Where the scenes of a command come from: an environment's own stream, or recorded episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

from worldmodel.types import SceneSource


def check_source_options(env: str | None, episodes: Path | None) -> None:
    """Raise ValueError unless exactly one of the two options is given."""
    if (env is None) == (episodes is None):
        raise ValueError("env, episodes: give exactly one of them")


def sized_env(env_id: str, size: int | None, **settings: Any) -> gym.Env[Any, Any]:
    """The environment, its frame ``size`` set unless None.

    Raises:
        ValueError: there is no such id, or the environment does not take the settings.
    """
    if size is not None:
        settings["size"] = size
    try:
        return gym.make(env_id, **settings)
    except gym.error.UnregisteredEnv as error:
        raise ValueError(
            f"env: {error} An id may name the module that registers it, as in "
            "envs:narratives/TravelingSalesman-v0"
        ) from error
    except TypeError as error:
        raise ValueError(
            f"env: {env_id} does not take {list(settings)} ({error}). To record it: `python -m "
            f"worldmodel collect --env {env_id}`; then pass --episodes, for only ours "
            "generate scenes by themselves"
        ) from error


def scene_stream(env: gym.Env[Any, Any], env_id: str) -> Callable[..., SceneSource]:
    """The method ``scenes`` of an environment, which makes its scene stream.

    Raises:
        ValueError: it has none.
    """
    scenes: Callable[..., SceneSource] | None = getattr(env.unwrapped, "scenes", None)
    if scenes is None:
        raise ValueError(
            f"env: {env_id} has no scene stream of its own; record it with "
            "`python -m worldmodel collect` and pass --episodes"
        )
    return scenes
