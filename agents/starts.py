"""Where imagined episodes begin: given frames, recorded episodes, or an environment's resets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.history import Frames, History, check_frames
from worldmodel.base import WorldModel
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes

Parts = Mapping[str, NDArray[Any]]
"""A Dict observation's parts, (n, ...) each."""

Starts = (
    Callable[[int, np.random.Generator], Frames | Parts]
    | Frames
    | Sequence[Frames]
    | Parts
    | Episodes
    | gym.Env[Any, Any]
)
"""What ``ImaginedVecEnv`` takes; see there."""


@dataclass(frozen=True)
class Drawn:
    """The beginnings of n episodes.

    Attributes:
        histories: n, what has been seen and done before.
        constants: the parts of a Dict observation that the model does not imagine, (n, ...) each.
    """

    histories: list[History]
    constants: dict[str, NDArray[Any]]


Draw = Callable[[int, np.random.Generator], Drawn]


@dataclass(frozen=True)
class Parted:
    """A Dict observation: one part that the model imagines, and others that stay as they are."""

    space: gym.spaces.Dict
    imagined: str

    @classmethod
    def of(cls, space: gym.spaces.Dict, model: WorldModel) -> Parted:
        """Find the part.

        Raises:
            TypeError: no Dict space.
            ValueError: not exactly one part is what the model was made for.
        """
        if not isinstance(space, gym.spaces.Dict):
            raise TypeError(
                "observation_space: expected a gymnasium Dict with the imagined and the constant "
                f"parts, got {type(space).__name__}"
            )
        wanted = model.spec.observation_space()
        found = [name for name, part in space.spaces.items() if part == wanted]
        if len(found) != 1:
            raise ValueError(
                f"observation_space: exactly one part must be {wanted}, which the model was made "
                f"for; these are: {found}, of {list(space.spaces)}"
            )
        return cls(space, found[0])

    def constants(self, parts: Any, argument: str) -> dict[str, NDArray[Any]]:
        """All but the imagined part, checked: (n, ...) each.

        Raises:
            TypeError: no mapping.
            ValueError: parts are missing or too many, or have another shape.
        """
        if not isinstance(parts, Mapping):
            raise TypeError(
                f"{argument}: expected a dict with the parts {list(self.space.spaces)}, got "
                f"{type(parts).__name__}"
            )
        if set(parts) != set(self.space.spaces):
            raise ValueError(
                f"{argument}: expected the parts {list(self.space.spaces)}, got {list(parts)}"
            )
        count, constants = len(parts[self.imagined]), {}
        for name, space in self.space.spaces.items():
            if name == self.imagined:
                continue
            values = np.array(parts[name], space.dtype)
            if values.shape != (count, *(space.shape or ())):
                raise ValueError(
                    f"{argument}: expected {name!r} of shape {(count, *(space.shape or ()))}, got "
                    f"{values.shape}"
                )
            constants[name] = values
        return constants


def draws(starts: Starts, model: WorldModel, ahead: int, hold: int, parted: Parted | None) -> Draw:
    """A function ``(num, numpy generator)`` to the beginnings of ``num`` episodes.

    Args:
        starts: see ``ImaginedVecEnv``.
        model: whose window, contexts and spaces count.
        ahead: steps that the window must have left.
        hold: steps between the frames of a context.
        parted: of Dict observations.

    Raises:
        TypeError, ValueError: the starts are not what the model was made for.
    """
    if isinstance(starts, Episodes):
        if parted is not None:
            raise ValueError(
                "starts: recorded episodes hold no constant parts of a Dict observation; give a "
                "dict of arrays, or a function that returns one"
            )
        return _recorded(starts, model, ahead, hold)
    if isinstance(starts, gym.Env):
        return _live(starts, model, parted)
    if callable(starts):
        function = starts

        def called(num: int, rng: np.random.Generator) -> Drawn:
            return _drawn(function(num, rng), model, parted, "starts(num, rng)", num)

        return called
    given = _drawn(starts, model, parted, "starts")

    def chosen(num: int, rng: np.random.Generator) -> Drawn:
        rows = rng.integers(len(given.histories), size=num)
        constants = {name: values[rows] for name, values in given.constants.items()}
        return Drawn([given.histories[row] for row in rows], constants)

    return chosen


def _drawn(
    given: Any, model: WorldModel, parted: Parted | None, argument: str, count: int | None = None
) -> Drawn:
    """Episodes that begin at given frames (n, \\*observation), or Dict observations."""
    constants = {} if parted is None else parted.constants(given, argument)
    images = given if parted is None else given[parted.imagined]
    frames = check_frames(model.spec, images, argument, count)
    return Drawn([History.start(frame) for frame in frames], constants)


def _live(env: gym.Env[Any, Any], model: WorldModel, parted: Parted | None) -> Draw:
    """Resets of a real environment, with seeds of its own; a reset is no step."""
    space = model.spec.observation_space() if parted is None else parted.space
    if env.observation_space != space or env.action_space != model.spec.action.to_space():
        raise ValueError(
            f"starts: the environment's spaces are {env.observation_space} and {env.action_space}, "
            f"expected {space} and {model.spec.action.to_space()}"
        )

    def reset(num: int, rng: np.random.Generator) -> Drawn:
        shown = [env.reset(seed=int(rng.integers(2**31)))[0] for _ in range(num)]
        if parted is None:
            return _drawn(np.stack(shown), model, None, "starts")
        parts = {name: np.stack([one[name] for one in shown]) for name in parted.space.spaces}
        return _drawn(parts, model, parted, "starts")

    return reset


def _recorded(episodes: Episodes, model: WorldModel, ahead: int, hold: int) -> Draw:
    """Any step of any episode, all alike, with the frames before it as context."""
    spec = episodes.spec(model.spec.window)
    model.spec.check_spaces(spec.observation_space(), spec.action.to_space(), "starts")
    ends = np.cumsum([len(episode.actions) for episode in episodes])

    def branch(num: int, rng: np.random.Generator) -> Drawn:
        histories = []
        for place in rng.integers(int(ends[-1]), size=num):
            number = int(np.searchsorted(ends, place, side="right"))
            step = int(place - (ends[number] - len(episodes[number].actions)))
            histories.append(past(episodes[number], step, model, ahead, hold))
        return Drawn(histories, {})

    return branch


def past(episode: Episode, step: int, model: WorldModel, ahead: int, hold: int) -> History:
    """What a model is told of an episode's first ``step`` steps.

    Frames lie ``hold`` steps apart (``model.gap``, for models that have one), back from the step
    to the episode's first frame, which is among them where that is allowed; or as far back as
    leaves ``ahead`` steps of the window. There are at most ``model.max_context``.
    """
    gap = hold if model.gap is None else model.gap
    times = list(range(step, -1, -gap))
    if times[-1] and model.gap is None:
        times.append(0)
    times = [time for time in times if step - time + ahead <= model.spec.window]
    limit = model.max_context
    if limit is not None and len(times) > limit:
        # as ``Imagination``: the first and the latest; frame by frame, none between is left out
        keep_first = model.gap is None and limit > 1
        times = [*times[: limit - 1], times[-1]] if keep_first else times[:limit]
    times.reverse()
    origin = times[0]
    return History(
        tuple(episode.observations[time] for time in times),
        tuple(time - origin for time in times),
        tuple(episode.actions[origin:step]),
    )
