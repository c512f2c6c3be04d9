"""What to do about an observation space that models do not take."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np

MOST_CODES = 32
"""Whole numbers of an image that are all smaller than that are taken for codes of things."""


def observation_advice(space: gym.Space[object]) -> str:
    """The wrapper that makes such observations fit, as the end of a message."""
    leaves = list(leaf_spaces(space))
    if len(leaves) != 1 or leaves[0] is not space:
        if not all(map(is_flattenable, leaves)):
            return (
                "gymnasium.wrappers.TransformObservation can pick a part of images or numbers, "
                "agents.adapt(env, pixels=True) shows rendered frames instead"
            )
        if any(map(is_large, leaves)):
            return (
                "gymnasium.wrappers.TransformObservation can pick one image, "
                "agents.adapt(env, pixels=True) shows rendered frames instead"
            )
        return "agents.adapt(env) makes it a float vector"
    if not is_flattenable(space) or 0 in (space.shape or ()):
        return "agents.adapt(env, pixels=True) shows rendered frames instead"
    if is_picture(space):
        shape = space.shape or ()
        if len(shape) == 2 or shape[-1] in (1, 3):
            return "agents.adapt(env) resizes images, and agents.adapt(env, codes=N) is for codes"
        if shape[0] in (1, 3):
            return "its channels come first, and agents.adapt(env) moves them to the end"
        return (
            f"of {shape[-1]} channels gymnasium.wrappers.TransformObservation can pick 1 or 3 (RGB "
            "of RGBA, or one frame of a stack)"
        )
    if is_large(space):
        if np.issubdtype(space.dtype, np.integer):
            return (
                "agents.adapt(env, codes=N) makes one-hot vectors of codes, gymnasium.wrappers."
                "TransformObservation can convert images to uint8 from 0 to 255"
            )
        return (
            "gymnasium.wrappers.TransformObservation can convert images to uint8 from 0 to 255, "
            "agents.adapt(env, pixels=True) shows rendered frames instead"
        )
    return "agents.adapt(env) makes it a float vector"


def leaf_spaces(space: gym.Space[object]) -> Iterator[gym.Space[object]]:
    """The spaces inside of Dicts and Tuples; or the space itself."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        for part in space.values() if isinstance(space, gym.spaces.Dict) else space.spaces:
            yield from leaf_spaces(part)
    else:
        yield space


def is_picture(space: gym.Space[object]) -> bool:
    """Whether a space is a box of all uint8, of two or three axes: nothing else is an image."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8:
        return False
    every = bool((space.low == 0).all() and (space.high == 255).all())
    return every and len(space.shape) in (2, 3)


def is_codes(least: float, most: float) -> bool:
    """Whether images whose numbers lie there, of 0 to 255, show nothing: codes, it seems."""
    return least < most < MOST_CODES


def is_large(space: gym.Space[object]) -> bool:
    """Whether it can only be an image: flattened, it would be a vector of thousands of numbers."""
    shape = space.shape or ()
    return isinstance(space, gym.spaces.Box) and len(shape) == 3 and sorted(shape)[1] >= 16


def is_vector_to_be(space: gym.Space[object]) -> bool:
    """Whether ``agents.adapt`` flattens it, as a part of a Dict."""
    return all(is_flattenable(leaf) and not is_large(leaf) for leaf in leaf_spaces(space))


def is_flattenable(space: gym.Space[object]) -> bool:
    """Whether it can be flattened; spaces of others, such as MiniGrid's missions, may not say."""
    try:
        return bool(space.is_np_flattenable)
    except NotImplementedError:
        return False
