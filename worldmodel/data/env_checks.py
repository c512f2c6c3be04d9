"""What an environment returns, checked against its spaces before it is recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodel.common.space_advice import is_codes
from worldmodel.data.episode import Episode
from worldmodel.spec import ActionSpec, Spec
from worldmodel.spec.parts import number_name

SMALLEST_CHANGE = 1e-6
"""Of a number from step to step, in the environment's units."""


def env_name(env: gym.Env[Any, Any]) -> str:
    """The name of an environment in recordings and messages: its id, or else its class."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def checked_observation(
    observation: Any, spec: Spec, owner: str, lead: tuple[int, ...] = ()
) -> NDArray[Any]:
    """A copy in the recording's dtype; environments may reuse their buffer. Dicts are packed.

    Args:
        observation: what an environment returned. Vectors are rounded to float32; images may have
            another dtype if uint8 can hold all of their numbers.
        spec: of the environment's spaces.
        owner: the environment or step that an error message names.
        lead: axes before those of an observation, where there are several.

    Raises:
        ValueError: it has another shape, is no array of numbers, or would not be the same in uint8;
            or a Dict lacks a part.
    """
    if not spec.parts:
        return _checked(observation, spec.border, spec.observation_space(), owner, lead)
    names = [part.name for part in spec.parts]
    if not isinstance(observation, Mapping) or set(observation) != set(names):
        got = list(observation) if isinstance(observation, Mapping) else type(observation).__name__
        raise ValueError(f"{owner}: returned {got}, its space has the parts {names}")
    checked = {}
    for part in spec.parts:
        border = part.shape, np.dtype(np.uint8 if part.is_image else np.float32)
        name = f"{owner}: {part.name!r}"
        checked[part.name] = _checked(observation[part.name], border, part.space(), name, lead)
    return spec.pack(checked, owner)


def _checked(
    observation: Any,
    border: tuple[tuple[int, ...], np.dtype[Any]],
    space: gym.Space[Any],
    owner: str,
    lead: tuple[int, ...],
) -> NDArray[Any]:
    """An image or vector of that space as an array of that shape and dtype."""
    shape, dtype = border
    try:
        given = np.asarray(observation)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: returned no array ({error}), its space is {space}") from error
    if given.shape != (*lead, *shape) or given.dtype.kind not in "biuf":
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


def warn_of_codes(episodes: Sequence[Episode], spec: Spec) -> None:
    """Warn if images, or those of Dicts, hold small whole numbers only: codes, no brightness."""
    if not (spec.is_image or spec.image_part):
        return
    size = None if spec.image_part is None else spec.image_part.size  # its bytes come first
    images = [one.observations[:, :size] for one in episodes]
    least, most = min(int(one.min()) for one in images), max(int(one.max()) for one in images)
    if is_codes(least, most):
        warnings.warn(
            f"observations: images hold whole numbers from {least} to {most} only, of 255; to a "
            "model they all look black. If they are codes of things, agents.adapt(env, codes=N), N "
            "their number, makes one-hot vectors",
            stacklevel=4,
        )


def unrounded(observation: Any, spec: Spec) -> list[NDArray[Any]]:
    """The numbers of an observation's vectors as the environment returned them: one array (D,), or
    none where there are only images.
    """
    if spec.parts:
        vectors = [np.ravel(observation[part.name]) for part in spec.parts if not part.is_image]
        return [np.concatenate(vectors)] if vectors else []
    return [] if spec.is_image else [np.array(observation)]


def check_rounding(observations: NDArray[Any] | list[NDArray[Any]], spec: Spec) -> None:
    """Refuse an episode of vectors whose changes from step to step float32 cannot hold.

    Args:
        observations: (T + 1, D), as the environment returned them (``unrounded``); may be empty.
        spec: of the environment's spaces.

    Raises:
        ValueError: rounding is more than a tenth of a number's mean change. Changes below
            ``SMALLEST_CHANGE`` are taken for noise of the arithmetic.
    """
    if spec.is_image or not len(observations):
        return
    observations = np.stack(list(observations))
    wrong, change = _lost(observations)
    if len(wrong):
        number = int(wrong[0])
        value = float(observations[0, number])
        raise ValueError(
            f"observations: {number_name(spec.parts, number)} changes by {change[number]:.3g} a "
            f"step around {value:.6g}, and float32, in which models compute, loses that; subtract "
            f"a constant, such as {value:.6g}, in gymnasium.wrappers.TransformObservation"
        )


def check_reward_rounding(rewards: NDArray[Any]) -> None:
    """Refuse an episode's rewards (T,) whose changes from step to step float32 cannot hold.

    Raises:
        ValueError: as for ``check_rounding``.
    """
    wrong, change = _lost(rewards[:, None])
    if len(wrong):
        value = float(rewards[0])
        raise ValueError(
            f"rewards: change by {change[0]:.3g} a step around {value:.6g}, and float32, in which "
            f"models compute, loses that; subtract a constant, such as {value:.6g}, in "
            "gymnasium.wrappers.TransformReward"
        )


def _lost(numbers: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which of D numbers (T, D) lose their changes in float32, and the mean changes (D,)."""
    size = numbers.shape[1]
    if numbers.dtype.kind == "b" or numbers.dtype in (np.float16, np.float32) or len(numbers) < 2:
        return np.zeros(0, np.int64), np.zeros(size)
    with np.errstate(all="ignore"):  # what is not finite is refused elsewhere
        exact = np.diff(numbers.astype(np.float64), axis=0)
        rounded = np.diff(numbers.astype(np.float32).astype(np.float64), axis=0)
        change, error = np.abs(exact).mean(0), np.abs(exact - rounded).mean(0)
        return np.flatnonzero((change > SMALLEST_CHANGE) & (error > 0.1 * change)), change


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


def mask_function(env: gym.Env[Any, Any], action: ActionSpec) -> Callable[[], Any] | None:
    """The environment's ``action_masks``, as sb3-contrib calls it; None if it has none, or actions
    are no choices.
    """
    if not action.choices or not env.has_wrapper_attr("action_masks"):
        return None
    function: Callable[[], Any] = env.get_wrapper_attr("action_masks")
    return function


def checked_masks(
    masks: Any, action: ActionSpec, owner: str, count: int | None = None
) -> NDArray[np.bool_]:
    """A copy of action masks as bool (n,), or (count, n): which of all choices are legal.

    Args:
        masks: of numbers 0 and 1, or bool.
        action: the actions.
        owner: the environment, step or argument that an error message names.
        count: rows; None if it is one mask.

    Raises:
        ValueError: they are something else, or for actions that are no choices.
    """
    size = sum(action.choices)
    if not size:
        raise ValueError(
            f"{owner}: masks are for Discrete, MultiDiscrete and MultiBinary actions; these are "
            f"{action.to_space()}: leave them away"
        )
    given, shape = mask_array(masks, owner), (size,) if count is None else (count, size)
    if given.shape != shape or given.dtype.kind not in "biuf":
        raise ValueError(
            f"{owner}: expected action masks bool {shape}, one for each choice of "
            f"{action.to_space()}, got {given.dtype} {given.shape}"
        )
    if not ((given == 0) | (given == 1)).all():
        raise ValueError(f"{owner}: expected action masks of True and False, got other numbers")
    return given.astype(np.bool_)


def mask_array(masks: Any, owner: str) -> NDArray[Any]:
    """Action masks as an array; raises ValueError, naming ``owner``, if they are ragged."""
    try:
        return np.asarray(masks)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: expected action masks, got no array ({error})") from error


def some_legal(mask: NDArray[np.bool_], action: ActionSpec) -> bool:
    """Whether a mask (n,) leaves every entry of an action a choice."""
    return all(entry.any() for entry in np.split(mask, np.cumsum(action.choices)[:-1]))


def sample_legal(space: gym.Space[Any], mask: NDArray[np.bool_], owner: str) -> Any:
    """A uniformly random action among the legal ones of ``mask`` (n,).

    Args:
        space: Discrete, MultiDiscrete or MultiBinary; seeded by the caller.
        mask: which choices are legal.
        owner: the step that an error message names.

    Raises:
        ValueError: none is legal.
    """
    action = ActionSpec.from_space(space)
    entries = np.split(mask, np.cumsum(action.choices)[:-1])
    if not some_legal(mask, action):
        raise ValueError(
            f"{owner}: action_masks leave no legal action; such a step should have ended the "
            "episode (terminated)"
        )
    flags = tuple(entry.astype(np.int8) for entry in entries)
    if isinstance(space, gym.spaces.Discrete):
        return space.sample(mask=flags[0])
    if isinstance(space, gym.spaces.MultiBinary):  # 2 leaves the bit free
        bits = [2 if entry.all() else int(entry[1]) for entry in entries]
        return space.sample(mask=np.array(bits, np.int8).reshape(space.shape))
    nested: tuple[Any, ...] = flags
    for length in reversed((space.shape or ())[1:]):  # a tuple for each axis
        nested = tuple(nested[i : i + length] for i in range(0, len(nested), length))
    return space.sample(mask=nested)
