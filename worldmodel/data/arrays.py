"""Episodes from logged arrays: steps one after the other, cut where episodes end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.data.env_checks import (
    check_reward_rounding,
    check_rounding,
    checked_masks,
    checked_observation,
)
from worldmodel.data.episode import Episode
from worldmodel.spec import Spec

Flags = NDArray[np.bool_]


def cut_arrays(
    spec: Spec,
    observations: Any,
    actions: Any,
    rewards: Any,
    terminated: Any,
    truncated: Any = None,
    next_observations: Any = None,
    masks: Any = None,
) -> list[Episode]:
    """The episodes of N logged steps; see ``Episodes.from_arrays``, also for the errors."""
    actions, rewards = as_array(actions, "actions"), as_array(rewards, "rewards")
    steps = len(actions) if actions.ndim else 0
    if not steps or rewards.shape != (steps,):
        raise ValueError(
            f"actions, rewards: expected (N, *action) and (N,) of at least 1 step, got "
            f"{actions.shape} and {rewards.shape}"
        )
    ended = _flags(terminated, "terminated", steps)
    cut = ended if truncated is None else ended | _flags(truncated, "truncated", steps)
    last = np.union1d(np.flatnonzero(cut), [steps - 1])
    first = np.concatenate([[0], last[:-1] + 1])
    frames = _by_part(spec, observations, next_observations, first, last)
    legal = None
    if masks is not None:
        legal = checked_masks(as_array(masks, "masks"), spec.action, "masks", steps)
        legal = np.insert(legal, last + 1, False, axis=0)
    episodes = []
    for number, (begin, end) in enumerate(zip(first, last + 1, strict=True)):
        owner = f"episode {number} (steps {begin} to {end - 1})"
        own = slice(begin + number, end + number + 1)
        exact = {name: part[own] for name, part in frames.items()}
        count = int(end - begin + 1)
        by_name = exact if spec.parts else exact[""]
        rounded = checked_observation(by_name, spec, f"observations: {owner}", (count,))
        try:
            if not spec.is_image:
                check_rounding(_vectors(spec, exact), spec)
            check_reward_rounding(rewards[begin:end])
            with np.errstate(over="ignore"):  # Episode refuses what float32 cannot hold
                paid = rewards[begin:end].astype(np.float32)
            taken, over = actions[begin:end].copy(), bool(ended[end - 1])
            own_masks = None if legal is None else legal[own].copy()
            episodes.append(Episode(rounded, taken, paid, over, own_masks))
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from error
    return episodes


def _vectors(spec: Spec, frames: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The numbers of all vectors (T + 1, V), as they were given."""
    if not spec.parts:
        return frames[""]
    given = [frames[part.name] for part in spec.parts if not part.is_image]
    return np.concatenate([np.zeros((len(next(iter(frames.values()))), 0), np.float32), *given], 1)


def as_array(values: Any, argument: str) -> NDArray[Any]:
    """Numbers as one array, or ValueError that names ``argument``."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise ValueError(
            f"{argument}: expected one array of all steps, got {error}; np.concatenate joins those "
            "of several episodes"
        ) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{argument}: expected numbers, got {array.dtype} {array.shape}")
    return array


def _flags(values: Any, argument: str, steps: int) -> Flags:
    flags = as_array(values, argument)
    if flags.shape != (steps,):
        raise ValueError(
            f"{argument}: expected one bool for each of the {steps} steps, got {flags.dtype} "
            f"{flags.shape}"
        )
    if not ((flags == 0) | (flags == 1)).all():
        raise ValueError(f"{argument}: expected bools, or 0 and 1, got {np.unique(flags)[:5]}")
    return flags.astype(bool)


def _by_part(
    spec: Spec,
    observations: Any,
    following: Any,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """The frames of each part of a Dict; of other observations all, under no name."""
    if not spec.parts:
        return {"": _frames(spec.border[0], observations, following, first, last)}
    names = {part.name for part in spec.parts}
    for argument, given in (("observations", observations), ("next_observations", following)):
        if given is not None and (not isinstance(given, Mapping) or set(given) != names):
            got = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(f"{argument}: expected a dict of {sorted(names)}, got {got}")
    return {
        part.name: _frames(
            part.shape,
            observations[part.name],
            None if following is None else following[part.name],
            first,
            last,
            f"[{part.name!r}]",
        )
        for part in spec.parts
    }


def _frames(
    shape: tuple[int, ...],
    given: Any,
    following: Any,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    entry: str = "",
) -> NDArray[Any]:
    """All frames, (N + episodes, \\*observation): before each step, and after the last ones.

    ``entry`` of a Dict is named by messages.
    """
    steps, episodes = int(last[-1]) + 1, len(last)
    observations = as_array(given, f"observations{entry}")
    count = len(observations) if observations.ndim else 0
    if following is None:
        if observations.shape != (steps + episodes, *shape):
            raise ValueError(
                f"observations{entry}: {steps} steps in {episodes} episodes have "
                f"{(steps + episodes, *shape)} observations, each episode's last one included, got "
                f"{observations.shape}; give next_observations, too, if there is one for each step"
            )
        return observations
    following = as_array(following, f"next_observations{entry}")
    if count != steps or observations.shape != following.shape:
        raise ValueError(
            f"observations, next_observations{entry}: expected {(steps, *shape)} each, got "
            f"{observations.shape} and {following.shape}"
        )
    between = np.ones(steps, bool)
    between[last] = False
    before = np.flatnonzero(between)
    same = (following[before] == observations[before + 1]).reshape(len(before), -1).all(1)
    if not same.all():
        step = int(before[~same][0])
        raise ValueError(
            f"next_observations{entry}: step {step} leads elsewhere than to where step {step + 1} "
            "begins; if an episode was cut between them, set truncated there"
        )
    return np.insert(observations, last + 1, following[last], axis=0)
