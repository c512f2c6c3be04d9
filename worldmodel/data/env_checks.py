"""What an environment's steps bring, checked against its spaces before it is kept."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodel.spec import Spec


def name_of(env: gym.Env[Any, Any]) -> str:
    """What recordings and messages call an environment: its id, or else its class."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def observed(observation: Any, spec: Spec, owner: str) -> NDArray[Any]:
    """A copy in the dtype of the border, for environments may reuse their buffer.

    Args:
        observation: what an environment returned. Vectors are rounded to float32; images may have
            another dtype if uint8 can hold all of their numbers.
        spec: what its spaces say.
        owner: whom the message names.

    Raises:
        ValueError: it has another shape, is no array of numbers, or would not be the same in uint8.
    """
    shape, dtype = spec.border
    try:
        seen = np.asarray(observation)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: returned no array ({error}), its space is {spec.observation_space()}"
        ) from error
    if seen.shape != shape or seen.dtype.kind not in "biuf":
        raise ValueError(
            f"{owner}: returned an observation of {seen.dtype} {seen.shape}, its space is "
            f"{spec.observation_space()}"
        )
    with np.errstate(all="ignore"):  # what does not fit is refused, below or by the episode
        kept = np.array(seen, dtype, order="C")
    if spec.is_image and seen.dtype != dtype and not np.array_equal(kept, seen):
        raise ValueError(
            f"{owner}: returned an observation of {seen.dtype} that holds {seen[kept != seen][0]}, "
            f"its space is {spec.observation_space()}: whole numbers from 0 to 255; "
            "gymnasium.wrappers.TransformObservation converts them"
        )
    return kept


def paid(reward: Any, owner: str) -> float:
    """A reward as a number; an array of no dimensions is one.

    Args:
        reward: what an environment returned.
        owner: whom the message names.

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
