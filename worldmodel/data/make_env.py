"""The environment argument that functions share: an id, a function, or an environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym

from worldmodel.common.packages import advice

Env = gym.Env[Any, Any]
EnvLike = str | Callable[[], Env] | Env
"""A Gymnasium id (``"module:namespace/Name-v0"`` imports the module first), a function without
arguments that makes an environment, or an environment.
"""


def make_env(env: EnvLike, **make_kwargs: Any) -> Env:
    """Make the environment that ``env`` names; one that is made already is returned as it is.

    Args:
        env: see ``EnvLike``.
        make_kwargs: of ``gymnasium.make``, for an id.

    Raises:
        TypeError: ``env`` is none of these, or the function returns no environment.
        ValueError: ``make_kwargs`` were given without an id.
        gymnasium.error.UnregisteredEnv: there is no such id.
    """
    if isinstance(env, str):
        with registered(env):
            return gym.make(env, **make_kwargs)
    if make_kwargs:
        raise ValueError(
            f"make_kwargs: {sorted(make_kwargs)} are for gymnasium.make; give the id, or make the "
            "environment with them"
        )
    made = env if isinstance(env, gym.Env) or not callable(env) else env()
    if not isinstance(made, gym.Env):
        hint = (
            "; of vector environments collect alone takes any" if hasattr(made, "num_envs") else ""
        )
        raise TypeError(
            "env: expected a Gymnasium id, a function that makes an environment, or an "
            f"environment, got {type(made).__name__}{hint}"
        )
    return made


@contextmanager
def registered(env_id: str) -> Iterator[None]:
    """Add to an error of Gymnasium, that there is no such id, what to do if its module ``envs`` is
    somebody else's.
    """
    try:
        yield
    except gym.error.UnregisteredEnv as error:
        if more := advice([env_id.partition(":")[0]]):
            raise type(error)(f"{error}{more}") from error
        raise


@contextmanager
def open_env(env: EnvLike) -> Iterator[Env]:
    """The environment that ``env`` names; it is closed afterwards if it was made here."""
    made = make_env(env)
    try:
        yield made
    finally:
        if made is not env:
            made.close()
