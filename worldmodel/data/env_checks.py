"""What an environment returns, checked against its spaces before it is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodel.spec import Spec


def env_name(env: gym.Env[Any, Any]) -> str:
    """The name of an environment in recordings and messages: its id, or else its class."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def checked_observation(observation: Any, spec: Spec, owner: str) -> NDArray[Any]:
    """A copy in the recording's dtype; environments may reuse their buffer. Dicts are packed.

    Args:
        observation: what an environment returned. Vectors are rounded to float32; images may have
            another dtype if uint8 can hold all of their numbers.
        spec: of the environment's spaces.
        owner: the environment or step that an error message names.

    Raises:
        ValueError: it has another shape, is no array of numbers, or would not be the same in uint8;
            or a Dict lacks a part.
    """
    if not spec.parts:
        return _checked(observation, spec.border, spec.observation_space(), owner)
    names = [part.name for part in spec.parts]
    if not isinstance(observation, Mapping) or set(observation) != set(names):
        got = list(observation) if isinstance(observation, Mapping) else type(observation).__name__
        raise ValueError(f"{owner}: returned {got}, its space has the parts {names}")
    checked = {}
    for part in spec.parts:
        border = part.shape, np.dtype(np.uint8 if part.is_image else np.float32)
        name = f"{owner}: {part.name!r}"
        checked[part.name] = _checked(observation[part.name], border, part.space(), name)
    return spec.pack(checked, owner)


def _checked(
    observation: Any,
    border: tuple[tuple[int, ...], np.dtype[Any]],
    space: gym.Space[Any],
    owner: str,
) -> NDArray[Any]:
    """An image or vector of that space as an array of that shape and dtype."""
    shape, dtype = border
    try:
        given = np.asarray(observation)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: returned no array ({error}), its space is {space}") from error
    if given.shape != shape or given.dtype.kind not in "biuf":
        raise ValueError(
            f"{owner}: returned an observation of {given.dtype} {given.shape}, its space is {space}"
        )
    with np.errstate(all="ignore"):  # what does not fit is refused, below or by the episode
        copy = np.array(given, dtype, order="C")
    if dtype == np.uint8 and given.dtype != dtype and not np.array_equal(copy, given):
        other = given[copy != given][0]
        raise ValueError(
            f"{owner}: returned an observation of {given.dtype} that holds {other}, its "
            f"space is {space}: whole numbers from 0 to 255; "
            "gymnasium.wrappers.TransformObservation converts them"
        )
    return copy


def checked_reward(reward: Any, owner: str) -> float:
    """A reward as a number; an array of no dimensions is one.

    Args:
        reward: what an environment returned.
        owner: the environment or step that an error message names.

    Raises:
        ValueError: it is no number, or too large for one.
    """
    try:
        if np.ndim(reward) == 0 and not isinstance(reward, str | bytes):
            return float(reward)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f"{owner}: returned a reward of type {type(reward).__name__}, expected one number, that a "
        "float can hold"
    )
