"""The shapes that every model, planner and environment of this project agree on.

Axes: B scenes, M context pairs, K queries, S sampled worlds per scene, N plans, L planned steps,
W window length in steps. A window has W steps and therefore W + 1 observations, at the times 0..W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import torch
from torch import Tensor
from typing_extensions import Self


@dataclass(frozen=True)
class Context:
    """What is known of B scenes: a set of (time, observation) pairs and the actions so far.

    Attributes:
        observations: float32 (B, M, C, H, W) in [0, 1]; or vectors (B, M, D), as the environment
            gives them.
        times: int64 (B, M), steps from the window's origin, in [0, window].
        actions: (B, T, \\*action) taken from time 0 on, or None for passive scenes. Row b is read
            up to its present; what lies behind is padding.
        mask: bool (B, M), True where a pair is there; None means all are.
        present: int64 (B,), the number of steps taken so far; None means the latest observed time.
        poses: float32 (B, M, P), where the camera was; None where times are the keys.
    """

    observations: Tensor
    times: Tensor
    actions: Tensor | None = None
    mask: Tensor | None = None
    present: Tensor | None = None
    poses: Tensor | None = None

    @classmethod
    def views(cls, observations: Tensor, poses: Tensor, mask: Tensor | None = None) -> Context:
        """Views of a scene that stands still.

        Args:
            observations: float32 (B, M, C, H, W) in [0, 1].
            poses: float32 (B, M, P), of the camera.
            mask: bool (B, M), True where a view is there; None means all are.
        """
        times = torch.zeros(poses.shape[:2], dtype=torch.int64, device=poses.device)
        return cls(observations, times, mask=mask, poses=poses)

    @classmethod
    def empty(cls, batch: int, observation: tuple[int, ...]) -> Context:
        """Nothing is known of any scene, and no step was taken: for models that draw from noise.

        Args:
            batch: B.
            observation: shape of one, (C, H, W) or (D,).
        """
        none = torch.zeros(batch, 0, dtype=torch.int64)
        return cls(torch.zeros(batch, 0, *observation), none)

    def full_mask(self) -> Tensor:
        """The mask (B, M), made of True where none was given."""
        if self.mask is not None:
            return self.mask
        return torch.ones_like(self.times, dtype=torch.bool)

    def present_times(self) -> Tensor:
        """int64 (B,): the present of each scene; 0 where nothing was observed."""
        if self.present is not None:
            return self.present
        if self.times.shape[1] == 0:
            return self.times.new_zeros(len(self.times))
        return self.times.masked_fill(~self.full_mask(), -1).amax(1)


@dataclass(frozen=True)
class Queries:
    """What to predict.

    Attributes:
        times: int64 (B, K), steps from the window's origin, in [0, window].
        actions: (B, N, L, \\*action), N plans that start at each world's present, or None where
            nothing is decided (passive scenes, or no query after the present).
        poses: float32 (B, K, P), of the camera; None where times are the keys.
    """

    times: Tensor
    actions: Tensor | None = None
    poses: Tensor | None = None

    @classmethod
    def views(cls, poses: Tensor) -> Queries:
        """Views of a scene that stands still, from poses (B, K, P)."""
        times = torch.zeros(poses.shape[:2], dtype=torch.int64, device=poses.device)
        return cls(times, poses=poses)

    @property
    def plans(self) -> int:
        """N; 1 without plans."""
        return 1 if self.actions is None else self.actions.shape[1]

    def ahead(self, present: Tensor) -> int:
        """Steps from ``present`` (B,) to the farthest query of any scene; 0 if none lies ahead."""
        return max(int((self.times.amax(1) - present).max()), 0)


@dataclass(frozen=True)
class Prediction:
    """The answer of sampled worlds to queries; N is 1 without plans.

    Attributes:
        observations: float32 (B, S, N, K, C, H, W) or (B, S, N, K, D), unclamped; None with
            ``frames=False``.
        rewards: float32 (B, S, N, K): expected reward collected after the previous query (in
            order of time; the first interval begins at the world's present) and up to this one,
            given that the episode still ran at the previous query. 0 at or before the present.
        alive: float32 (B, S, N, K): probability that the episode has not terminated by then.
    """

    observations: Tensor | None
    rewards: Tensor
    alive: Tensor

    @property
    def running(self) -> Tensor:
        """float32 (B, S, N, K): probability that the episode still ran at the previous query, 1
        before the first one; times ``rewards``, what each interval is expected to pay.
        """
        return torch.cat([torch.ones_like(self.alive[..., :1]), self.alive[..., :-1]], -1)


@dataclass(frozen=True)
class StepPrediction:
    """What a model returns from ``_predict``; ``WorldModel.predict`` makes a ``Prediction`` of it.

    N is the number of plans, or 1 where one answer serves all of them. Step l of L ends
    ``(l + 1) * stride`` environment steps after the present; L reaches at least to the farthest
    query.

    Attributes:
        rewards: float32 (B, S, N, L), expected reward of each step, in the environment's units.
        logits: float32 (B, S, N, L), of the probability that the step does not end the episode.
        observations: float32 (B, S, N, K, C, H, W) or (B, S, N, K, D) at the queries, unclamped;
            None with ``frames=False``.
    """

    rewards: Tensor
    logits: Tensor
    observations: Tensor | None

    def float(self) -> StepPrediction:
        """In float32, whatever the networks computed in."""
        frames = self.observations
        return StepPrediction(
            self.rewards.float(), self.logits.float(), None if frames is None else frames.float()
        )

    def at(self, ends: Tensor, plans: int) -> Prediction:
        """Sum the rewards over the intervals between queries, and repeat an answer for all plans.

        A step counts with the probability that the episode still ran before it, so the step that
        ends an episode counts.

        Args:
            ends: int64 (B, K), how many of the L steps each query waits for.
            plans: N of the ``Prediction``.
        """
        now = self.rewards.new_zeros(*self.rewards.shape[:3], 1)
        alive = torch.cat([now + 1, self.logits.sigmoid().cumprod(-1)], -1)  # (B, S, N, L + 1)
        earned = torch.cat([now, (alive[..., :-1] * self.rewards).cumsum(-1)], -1)

        order = ends.argsort(dim=1, stable=True)
        in_order = ends.gather(1, order)
        before = torch.cat([torch.zeros_like(in_order[:, :1]), in_order[:, :-1]], 1)
        previous = torch.empty_like(before).scatter_(1, order, before)

        def pick(values: Tensor, index: Tensor) -> Tensor:
            shape = (*values.shape[:3], index.shape[1])
            return values.gather(-1, index[:, None, None].expand(shape))

        survived = pick(alive, previous).clamp_min(1e-6)
        rewards = (pick(earned, ends) - pick(earned, previous)) / survived
        observations = self.observations
        if observations is not None:
            observations = observations.expand(-1, -1, plans, *observations.shape[3:])
        lead = (-1, -1, plans, -1)
        return Prediction(observations, rewards.expand(lead), pick(alive, ends).expand(lead))


State = dict[str, Tensor]
"""Tensors by name that share their first axes."""


@dataclass(frozen=True)
class _Scenes:
    """What a model knows of B scenes: ``present`` (B,), and tensors that lead with B."""

    present: Tensor
    state: State = field(repr=False)

    def index(self, rows: Tensor) -> Self:
        """Some of the scenes: ``rows`` int64 or bool over B."""
        return self._map(lambda value: value[rows])

    def put(self, rows: Tensor, other: Self) -> Self:
        """A copy in which the scenes ``rows`` (int64) are replaced by those of ``other``."""

        def replaced(value: Tensor, new: Tensor) -> Tensor:
            value = value.clone(memory_format=torch.contiguous_format)
            value[rows] = new
            return value

        return self._map(replaced, other)

    def float(self) -> Self:
        """With all floating-point tensors in float32, whatever the networks computed in."""
        return self._map(lambda value: value.float() if value.is_floating_point() else value)

    def _map(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """``function`` of every tensor and of its namesakes in ``others``."""
        parts: dict[str, Any] = {}
        for name in (part.name for part in fields(self)):
            value, *more = (getattr(each, name) for each in (self, *others))
            parts[name] = (
                {key: function(value[key], *(other[key] for other in more)) for key in value}
                if isinstance(value, dict)
                else function(value, *more)
            )
        return replace(self, **parts)


@dataclass(frozen=True)
class Belief(_Scenes):
    """What a context says.

    Attributes:
        present: int64 (B,), the time up to which actions have been taken.
        state: tensors (B, ...) of the model that observed the context.
    """


@dataclass(frozen=True)
class Worlds(_Scenes):
    """S whole scenes for each of B contexts, each fixed once and for all.

    Attributes:
        present: int64 (B,), the time up to which actions have been taken.
        state: tensors (B, S, ...) of the model that sampled them; they hold all randomness.
        scene: tensors (B, ...), what all worlds of a scene share.
    """

    scene: State = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, S)."""
        first = next(iter(self.state.values()))
        return first.shape[0], first.shape[1]

    def some(self, which: slice) -> Worlds:
        """Of each scene only these of its worlds."""
        return replace(self, state={name: value[:, which] for name, value in self.state.items()})


@runtime_checkable
class SceneBatch(Protocol):
    """B recorded or generated windows of T steps, whose frames are fetched when needed."""

    @property
    def actions(self) -> Tensor:
        """(B, T, \\*action)."""

    @property
    def rewards(self) -> Tensor:
        """float32 (B, T), ``rewards[:, t]`` follows ``actions[:, t]``; 0 after the end."""

    @property
    def terminated(self) -> Tensor:
        """bool (B, T), True at the step that ended the episode."""

    @property
    def lengths(self) -> Tensor:
        """int64 (B,), steps before the end; the times 0..lengths are valid."""

    def observations(self, times: Tensor) -> Tensor:
        """uint8 (B, n, H, W, C) or float32 (B, n, D) at the times int64 (B, n)."""

    def poses(self, times: Tensor) -> Tensor | None:
        """float32 (B, n, P), where the camera was at the times; None if there is no camera."""


@runtime_checkable
class SceneSource(Protocol):
    """An endless, deterministic source of training batches: the same index, the same batch."""

    @property
    def action_space(self) -> gym.Space[Any]:
        """The action space of the environment that the scenes come from."""

    def batch(self, index: int) -> SceneBatch:
        """The batch of that index."""


@runtime_checkable
class RecordedBatch(SceneBatch, Protocol):
    """Windows of recorded steps."""

    @property
    def rows(self) -> Tensor:
        """int64 (B,), the number of each window's first step among all recorded ones."""


@runtime_checkable
class RecordedSource(SceneSource, Protocol):
    """A source over a finite recording."""

    def sweep(self, steps: int) -> Iterator[RecordedBatch]:
        """Batches that hold each recorded step once, of about ``steps`` steps at most."""
