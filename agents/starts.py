"""Where imagined episodes begin: given frames, recorded episodes, or an environment's resets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.history import Frames, check_frames, context_indices
from worldmodel.base import WorldModel
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.data.make_env import Env, EnvLike
from worldmodel.data.vector import is_vector
from worldmodel.spec import Spec

Parts = Mapping[str, NDArray[Any]]
"""A Dict observation's parts, (n, ...) each."""

Starts = (
    Callable[[int, np.random.Generator], Frames | Parts]
    | Frames
    | Sequence[Frames]
    | Parts
    | Episodes
    | EnvLike
)
"""What ``ImaginedVecEnv`` takes; see there."""


@dataclass(frozen=True)
class EpisodeStarts:
    """The beginnings of n imagined episodes: M frames of each, up to its start, and the actions.

    Attributes:
        frames: (n, M, \\*observation), at the border to Gymnasium.
        times: int64 (n, M), ascending steps from each window's origin.
        mask: bool (n, M), True where there is a frame: the first ones of a row.
        actions: (n, T, \\*action) since each window's origin; behind a row's present is padding.
        present: int64 (n,), steps since each window's origin.
        constants: the parts of a Dict observation that the model does not imagine, (n, ...) each.
    """

    frames: Frames
    times: NDArray[np.int64]
    mask: NDArray[np.bool_]
    actions: NDArray[Any]
    present: NDArray[np.int64]
    constants: dict[str, NDArray[Any]]

    @classmethod
    def first(cls, spec: Spec, frames: Frames, constants: dict[str, NDArray[Any]]) -> EpisodeStarts:
        """Windows that begin at frames (n, \\*observation)."""
        count = len(frames)
        zeros, every = np.zeros((count, 1), np.int64), np.ones((count, 1), np.bool_)
        actions = spec.action.blank(count, 0)
        return cls(np.array(frames)[:, None], zeros, every, actions, zeros[:, 0], constants)

    def some(self, rows: NDArray[np.int64]) -> EpisodeStarts:
        """Those of these rows, which may repeat."""
        return EpisodeStarts(
            self.frames[rows],
            self.times[rows],
            self.mask[rows],
            self.actions[rows],
            self.present[rows],
            {name: values[rows] for name, values in self.constants.items()},
        )

    def latest(self) -> Frames:
        """The frames (n, \\*observation) at the starts."""
        latest: Frames = self.frames[np.arange(len(self.frames)), self.mask.sum(1) - 1]
        return latest


STEPS_TO_CHECK = 64
"""Of an environment's episode, for whether parts of its observations stay constant."""

StartSampler = Callable[..., EpisodeStarts]
"""Of a number of episodes and a NumPy generator; for environments of their resets' options, too."""


@dataclass(frozen=True)
class DictObservation:
    """A Dict observation of which the model imagines one part; the others stay constant.

    Whether they do is checked in recorded episodes and in environments; of given arrays and
    functions it cannot be known.
    """

    space: gym.spaces.Dict
    imagined: str

    @classmethod
    def of(cls, space: gym.spaces.Dict, model: WorldModel) -> DictObservation:
        """Find the part that the model imagines.

        Raises:
            TypeError: not a Dict space.
            ValueError: not exactly one part is what the model was made for.
        """
        if not isinstance(space, gym.spaces.Dict):
            raise TypeError(
                "observation_space: expected a gymnasium Dict with the imagined and the constant "
                f"parts, got {type(space).__name__}"
            )
        expected = model.spec.observation_space()
        names = [name for name, part in space.spaces.items() if part == expected]
        if space == expected:
            raise ValueError(
                "observation_space: the model imagines all parts of it; leave observation_space "
                "away"
            )
        if len(names) != 1:
            raise ValueError(
                f"observation_space: exactly one part must be {expected}, which the model was made "
                f"for; these are: {names}, of {list(space.spaces)}. A model that is made for the "
                "whole Dict needs no observation_space"
            )
        return cls(space, names[0])

    def constants(self, parts: Any, argument: str) -> dict[str, NDArray[Any]]:
        """All but the imagined part, checked: (n, ...) each.

        Raises:
            TypeError: not a mapping.
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
            values, shape = np.array(parts[name], space.dtype), (count, *(space.shape or ()))
            if values.shape != shape:
                raise ValueError(
                    f"{argument}: expected {name!r} of shape {shape}, got {values.shape}"
                )
            constants[name] = values
        return constants

    def check_constant(self, episode: Mapping[str, NDArray[Any]], where: str) -> None:
        """Raise ValueError unless the constant parts (T, ...) of an episode are so.

        ``where`` names the episode.
        """
        for name, values in episode.items():
            if name != self.imagined and (values != values[:1]).any():
                raise ValueError(
                    f"starts: part {name!r} changes in {where}, so it cannot stay as the start "
                    "gives it; imagine it, too: make the model for the whole Dict "
                    "(Spec.from_spaces, or agents.adapt where that refuses it), and leave "
                    "observation_space away"
                )


def is_env_to_make(starts: Any) -> bool:
    """Whether the starts are an environment that is yet to be made: an id, or a function that can
    be called without arguments.
    """
    if isinstance(starts, str) or not callable(starts) or isinstance(starts, gym.Env):
        return isinstance(starts, str)
    try:
        inspect.signature(starts).bind()
    except (TypeError, ValueError):
        return False
    return True


def start_sampler(
    starts: Starts, model: WorldModel, ahead: int, hold: int, parts: DictObservation | None
) -> StartSampler:
    """A function ``(num, numpy generator)`` that returns the beginnings of ``num`` episodes.

    ``ahead`` steps of the model's window are left; frames of a context lie ``hold`` steps apart.

    Raises:
        TypeError, ValueError: the starts are not what the model was made for.
    """
    if isinstance(starts, Episodes):
        return _recorded_steps(starts, model, ahead, hold, parts)
    if isinstance(starts, gym.Env):
        return _env_resets(starts, model, parts)
    if is_vector(starts):
        raise TypeError(
            f"starts: expected one environment, recorded episodes or frames, got the vector "
            f"environment {type(starts).__name__}; give a function that makes one of its "
            "environments, or what collect records of it"
        )
    if callable(starts):
        return partial(_call, starts, model, parts)
    return partial(_choose, _first_frames(starts, model, parts, "starts"))


def _call(
    function: Callable[..., Any],
    model: WorldModel,
    parts: DictObservation | None,
    num: int,
    rng: np.random.Generator,
) -> EpisodeStarts:
    return _first_frames(function(num, rng), model, parts, "starts(num, rng)", num)


def _choose(given: EpisodeStarts, num: int, rng: np.random.Generator) -> EpisodeStarts:
    return given.some(rng.integers(len(given.frames), size=num))


def _first_frames(
    frames: Any,
    model: WorldModel,
    parts: DictObservation | None,
    argument: str,
    count: int | None = None,
) -> EpisodeStarts:
    """Episodes that begin at given frames (n, \\*observation), or at Dict observations."""
    constants = {} if parts is None else parts.constants(frames, argument)
    images = frames if parts is None else frames[parts.imagined]
    checked = check_frames(model.spec, images, argument, count)
    return EpisodeStarts.first(model.spec, checked, constants)


def _env_resets(env: Env, model: WorldModel, parts: DictObservation | None) -> StartSampler:
    """Resets of a real environment with random seeds; steps are taken only to check ``parts``."""
    space = model.spec.observation_space() if parts is None else parts.space
    if env.observation_space != space or env.action_space != model.spec.action.to_space():
        raise ValueError(
            f"starts: the environment's spaces are {env.observation_space} and {env.action_space}, "
            f"expected {space} and {model.spec.action.to_space()}"
        )

    if parts is not None:
        _check_resets(env, parts)
    return partial(_reset, env, model, parts)


def _reset(
    env: Env,
    model: WorldModel,
    parts: DictObservation | None,
    num: int,
    rng: np.random.Generator,
    options: Sequence[dict[str, Any]] = (),
) -> EpisodeStarts:
    frames = []
    for row in range(num):
        chosen = options[row] if options and options[row] else None
        frame, _ = env.reset(seed=int(rng.integers(2**31)), options=chosen)
        frames.append(deepcopy(frame))  # the environment may return the same buffer each time
    if not isinstance(env.observation_space, gym.spaces.Dict):
        return _first_frames(np.stack(frames), model, None, "starts")
    names = env.observation_space.spaces
    batch = {name: np.stack([frame[name] for frame in frames]) for name in names}
    return _first_frames(batch, model, parts, "starts")


def _check_resets(env: Env, parts: DictObservation) -> None:
    """Play an episode at random, at most ``STEPS_TO_CHECK`` steps, and refuse parts that change."""
    actions = deepcopy(env.action_space)  # its own random numbers stay as they are
    actions.seed(0)
    observations, ended = [deepcopy(env.reset(seed=0)[0])], False
    while not ended and len(observations) <= STEPS_TO_CHECK:
        observation, _, terminated, truncated, _ = env.step(actions.sample())
        observations.append(deepcopy(observation))
        ended = terminated or truncated
    recorded = {name: np.stack([one[name] for one in observations]) for name in parts.space.spaces}
    parts.check_constant(recorded, "an episode of the environment")


def _imagined_part(
    episodes: Episodes, model: WorldModel, parts: DictObservation
) -> tuple[Episodes, dict[str, NDArray[Any]]]:
    """Recorded Dicts as episodes of the imagined part, in memory; and the constant parts, a row
    for each episode.
    """
    spec = episodes.spec(1)
    if spec.observation_space() != parts.space:
        raise ValueError(
            f"starts: the recorded episodes hold no constant parts of {parts.space}, they are of "
            f"{episodes.observation_space}; give a dict of arrays, or a function that returns one"
        )
    imagined, rows = list[Episode](), list[dict[str, NDArray[Any]]]()
    for number, episode in enumerate(episodes):
        recorded = spec.unpack(episode.observations)
        parts.check_constant(recorded, f"recorded episode {number}")
        frames = recorded[parts.imagined].astype(model.spec.border[1], copy=False)
        imagined.append(replace(episode, observations=frames))
        rows.append(
            {name: values[0] for name, values in recorded.items() if name != parts.imagined}
        )
    constants = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Episodes(imagined, spec.action, parts.space[parts.imagined]), constants


def _recorded_steps(
    episodes: Episodes, model: WorldModel, ahead: int, hold: int, parts: DictObservation | None
) -> StartSampler:
    """Steps of recorded episodes, each equally likely, with the frames before as context."""
    constants: dict[str, NDArray[Any]] = {}
    if parts is not None:
        episodes, constants = _imagined_part(episodes, model, parts)
    spec = episodes.spec(model.spec.window)
    model.spec.check_spaces(spec.observation_space(), spec.action.to_space(), "starts")
    return partial(_branch, episodes, constants, _Pasts(model, ahead, hold))


class _Pasts:
    """``past_times`` of all steps, as arrays.

    Attributes:
        back: int64 (window + 1, M), how many steps before a step its frames lie, in the order of
            time; after the last one padding. Beyond the window all steps are alike.
        count: int64 (window + 1,), of these frames.
    """

    def __init__(self, model: WorldModel, ahead: int, hold: int) -> None:
        steps = range(model.spec.window + 1)
        pasts = [past_times(step, model, ahead, hold) for step in steps]
        self.count = np.array([len(times) for times in pasts])
        self.back = np.zeros((len(pasts), self.count.max()), np.int64)
        for step, times in enumerate(pasts):
            self.back[step, : len(times)] = step - np.array(times)

    def of(self, steps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Times in their episodes and mask, (n, M) each, of steps (n,)."""
        known = np.minimum(steps, len(self.count) - 1)
        slots = np.arange(self.count[known].max())
        times = steps[:, None] - self.back[known][:, : len(slots)]
        return times, slots < self.count[known][:, None]


def _branch(
    episodes: Episodes,
    constants: dict[str, NDArray[Any]],
    pasts: _Pasts,
    num: int,
    rng: np.random.Generator,
) -> EpisodeStarts:
    """Frames and actions are taken from each episode at once, however many starts it has."""
    ends = np.cumsum(episodes.lengths)
    index = rng.integers(int(ends[-1]), size=num)
    numbers = np.searchsorted(ends, index, side="right")
    steps = index - (ends - episodes.lengths)[numbers]
    times, mask = pasts.of(steps)
    origin = times[:, 0]
    present = steps - origin
    taken = np.arange(present.max())  # steps since the origin
    first = episodes[int(numbers[0])].observations
    frames = np.zeros((*times.shape, *first.shape[1:]), first.dtype)
    actions = episodes.action.blank(num, len(taken))
    for number in np.unique(numbers):
        episode, rows = episodes[int(number)], np.flatnonzero(numbers == number)
        frames[rows] = episode.observations[times[rows]]
        if len(taken):
            when = np.minimum(origin[rows, None] + taken, len(episode.actions) - 1)
            known = (taken < present[rows, None]).reshape(len(rows), -1, *[1] * (actions.ndim - 2))
            actions[rows] = np.where(known, episode.actions[when], actions[rows])
    frames[~mask] = 0
    own = {name: values[numbers] for name, values in constants.items()}
    return EpisodeStarts(frames, (times - origin[:, None]) * mask, mask, actions, present, own)


def past_times(step: int, model: WorldModel, ahead: int, hold: int) -> list[int]:
    """The times in an episode whose frames a model is given as context at a step of it, ascending.

    The frames lie ``hold`` steps apart (``model.gap``, for models that have one), counted back from
    the step. The episode's first frame is added, unless the model has a gap. Frames are left out
    that lie so far back that less than ``ahead`` steps of the window would remain, and those that
    ``context_indices`` leaves out.
    """
    gap = hold if model.gap is None else model.gap
    times = list(range(step, -1, -gap))
    if times[-1] and model.gap is None:
        times.append(0)
    times = sorted(time for time in times if step - time + ahead <= model.spec.window)
    chosen = context_indices(len(times), model.max_context, first=model.gap is None)
    return [times[i] for i in chosen]
