"""The shapes that every model, planner and environment of this project agree on.

Axes: B scenes, M context pairs, K queries, S sampled worlds per scene, N plans, L planned steps,
W window length in steps. A window has W steps and therefore W + 1 observations, at the times 0..W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ActionSpec:
    """What an action looks like.

    Attributes:
        kind: "none" (passive scenes), "discrete", "multi_discrete", "multi_binary" or "box".
        shape: shape of one action as stored; ``()`` for discrete.
        categories: number of choices of each discrete entry; empty for binary and box.
        low, high: bounds of a box, flattened; empty otherwise.
        dtype: of a box.
    """

    kind: str
    shape: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dtype: str = "float32"

    @property
    def features(self) -> int:
        """Width of the encoded action: one-hot entries, bits, or scaled numbers."""
        if self.kind == "none":
            return 0
        return sum(self.categories) if self.categories else math.prod(self.shape)

    def encode(self, actions: Tensor) -> Tensor:
        """Actions (..., \\*shape) to float32 features (..., features); boxes are scaled to [-1, 1].

        Raises:
            ValueError: a discrete action lies outside its range.
        """
        lead = actions.shape[: actions.dim() - len(self.shape)]
        if self.kind == "none":
            return torch.zeros(*lead, 0, device=actions.device)
        if self.categories:
            entries = actions.long().reshape(*lead, len(self.categories))
            limit = torch.tensor(self.categories, device=actions.device)
            if bool(((entries < 0) | (entries >= limit)).any()):
                raise ValueError(
                    f"actions: entries must lie in [0, {list(self.categories)}), "
                    f"got values from {int(entries.min())} to {int(entries.max())}"
                )
            hot = [
                torch.nn.functional.one_hot(entries[..., i], n)
                for i, n in enumerate(self.categories)
            ]
            return torch.cat(hot, -1).float()
        flat = actions.float().reshape(*lead, self.features)
        if self.kind == "multi_binary":
            return flat
        low = torch.tensor(self.low, device=actions.device)
        high = torch.tensor(self.high, device=actions.device)
        return (2 * flat - low - high) / (high - low)

    @classmethod
    def from_space(cls, space: gym.Space[Any]) -> ActionSpec:
        """Describe a Gymnasium action space. ``Discrete(1)`` leaves no choice: kind "none".

        Raises:
            ValueError: the space is of another kind, or a box without finite bounds.
        """
        if isinstance(space, gym.spaces.Discrete):
            if space.start != 0:
                raise ValueError(f"action_space: Discrete must start at 0, got start={space.start}")
            n = int(space.n)
            return cls("none") if n == 1 else cls("discrete", (), (n,))
        if isinstance(space, gym.spaces.MultiDiscrete):
            if space.start.any():
                raise ValueError(f"action_space: MultiDiscrete must start at 0, got {space}")
            return cls("multi_discrete", space.shape, tuple(int(n) for n in space.nvec.flatten()))
        if isinstance(space, gym.spaces.MultiBinary):
            return cls("multi_binary", tuple(space.shape))
        if isinstance(space, gym.spaces.Box):
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise ValueError(
                    "action_space: a Box needs finite low and high; wrap the environment in "
                    "gymnasium.wrappers.RescaleAction"
                )
            if not (space.low < space.high).all():
                raise ValueError(f"action_space: every low must be below its high, got {space}")
            low = tuple(float(x) for x in space.low.flatten())
            high = tuple(float(x) for x in space.high.flatten())
            return cls("box", space.shape, (), low, high, str(space.dtype))
        raise ValueError(
            f"action_space: {space} is not supported; use Discrete, MultiDiscrete, MultiBinary "
            "or a bounded Box"
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ActionSpec:
        """From the JSON of ``dataclasses.asdict``, which turns tuples into lists."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)

    def to_space(self) -> gym.Space[Any]:
        """The Gymnasium space that this describes (``Discrete(1)`` for "none")."""
        if self.kind == "none":
            return gym.spaces.Discrete(1)
        if self.kind == "discrete":
            return gym.spaces.Discrete(self.categories[0])
        if self.kind == "multi_discrete":
            return gym.spaces.MultiDiscrete(np.array(self.categories).reshape(self.shape))
        if self.kind == "multi_binary":
            return gym.spaces.MultiBinary(self.shape if len(self.shape) > 1 else self.shape[0])
        low = np.array(self.low, self.dtype).reshape(self.shape)
        high = np.array(self.high, self.dtype).reshape(self.shape)
        return gym.spaces.Box(low, high, dtype=low.dtype.type)


@dataclass(frozen=True)
class Spec:
    """What a model was made for: stored in its checkpoint, checked at every border.

    Attributes:
        observation: image shape (C, H, W); H and W are multiples of 8.
        action: the action space.
        window: W, the number of steps that the model can look across.
        pose: P, numbers of a camera pose. Above 0 the scene stands still, poses alone are its
            keys (times count for nothing), nothing is decided and nothing is at stake.
    """

    observation: tuple[int, int, int]
    action: ActionSpec
    window: int
    pose: int = 0

    def __post_init__(self) -> None:
        channels, height, width = self.observation
        if channels not in (1, 3) or height % 8 or width % 8 or min(height, width) < 16:
            raise ValueError(
                "observation: expected an image of 1 or 3 channels whose height and width are "
                f"multiples of 8 and at least 16, got (C, H, W) = {self.observation}"
            )
        if self.window < 1:
            raise ValueError(f"window: expected at least 1 step, got {self.window}")
        if self.pose < 0:
            raise ValueError(f"pose: expected 0 or more numbers, got {self.pose}")
        if self.pose and self.action.kind != "none":
            raise ValueError(
                f"pose: a scene with poses as keys stands still and takes no actions, got "
                f"{self.action.kind} actions"
            )

    @classmethod
    def from_spaces(
        cls,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        window: int,
        pose: int = 0,
    ) -> Spec:
        """Describe an environment with uint8 image observations (H, W, C).

        With ``pose`` numbers in a camera pose, its actions only move the camera: they are left
        away, since the pose says where it is.

        Raises:
            ValueError: the observation space is not such an image space, or the action space is
                not supported.
        """
        box = observation_space
        if not (isinstance(box, gym.spaces.Box) and box.dtype == np.uint8 and len(box.shape) == 3):
            raise ValueError(
                "observation_space: expected a uint8 Box of shape (H, W, C), got "
                f"{observation_space}; gymnasium.wrappers.AddRenderObservation and "
                "ResizeObservation make one"
            )
        height, width, channels = box.shape
        action = ActionSpec("none") if pose else ActionSpec.from_space(action_space)
        return cls((channels, height, width), action, window, pose)

    def observation_space(self) -> gym.spaces.Box:
        """The uint8 (H, W, C) space that this describes."""
        channels, height, width = self.observation
        return gym.spaces.Box(0, 255, (height, width, channels), np.uint8)

    def check_spaces(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], owner: str
    ) -> None:
        """Raise ValueError, naming ``owner``, unless the spaces are the ones of this spec."""
        expected = (self.observation_space(), self.action.to_space())
        if observation_space != expected[0]:
            raise ValueError(
                f"{owner}: observation space is {observation_space}, the model was made for "
                f"{expected[0]}"
            )
        if action_space != expected[1]:
            raise ValueError(
                f"{owner}: action space is {action_space}, the model was made for {expected[1]}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Spec:
        """The inverse of ``to_dict``, through JSON or not."""
        channels, height, width = data["observation"]
        action = ActionSpec.from_dict(data["action"])
        pose = int(data.get("pose", 0))  # checkpoints from before poses have none
        return cls((channels, height, width), action, int(data["window"]), pose)


def to_float(observations: Tensor) -> Tensor:
    """uint8 (..., H, W, C) of the Gymnasium border to float32 (..., C, H, W) in [0, 1]."""
    return observations.movedim(-1, -3).float() / 255.0


def to_uint8(observations: Tensor) -> Tensor:
    """Float (..., C, H, W), clamped to [0, 1], to contiguous uint8 (..., H, W, C)."""
    return (observations.clamp(0, 1) * 255.0).round().byte().movedim(-3, -1).contiguous()


@dataclass(frozen=True)
class Context:
    """What has been seen of B scenes: a set of (time, observation) pairs and the actions so far.

    Attributes:
        observations: float32 (B, M, C, H, W) in [0, 1].
        times: int64 (B, M), steps from the window's origin, in [0, window].
        actions: (B, T, \\*action) taken from time 0 on, or None for passive scenes. Row b is read
            up to its present; what lies behind is padding.
        mask: bool (B, M), True where a pair is there; None means all are.
        present: int64 (B,), the number of steps taken so far; None means the latest time seen.
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
        """Views of a scene that stands still: (B, M, C, H, W) seen from poses (B, M, P)."""
        times = torch.zeros(poses.shape[:2], dtype=torch.int64, device=poses.device)
        return cls(observations, times, mask=mask, poses=poses)

    def full_mask(self) -> Tensor:
        """The mask (B, M), made of True where none was given."""
        if self.mask is not None:
            return self.mask
        return torch.ones_like(self.times, dtype=torch.bool)

    def present_times(self) -> Tensor:
        """int64 (B,): the present of each scene."""
        if self.present is not None:
            return self.present
        return self.times.masked_fill(~self.full_mask(), -1).amax(1)


@dataclass(frozen=True)
class Queries:
    """Where to look.

    Attributes:
        times: int64 (B, K), steps from the window's origin, in [0, window].
        actions: (B, N, L, \\*action), N plans that start at each world's present, or None where
            nothing is decided (passive scenes, or no query after the present).
        poses: float32 (B, K, P), where to look from; None where times are the keys.
    """

    times: Tensor
    actions: Tensor | None = None
    poses: Tensor | None = None

    @classmethod
    def views(cls, poses: Tensor) -> Queries:
        """Look at a scene that stands still from poses (B, K, P)."""
        times = torch.zeros(poses.shape[:2], dtype=torch.int64, device=poses.device)
        return cls(times, poses=poses)


@dataclass(frozen=True)
class Prediction:
    """What the sampled worlds show at the queries. The N axis is there if plans were given.

    Attributes:
        observations: float32 (B, S, [N,] K, C, H, W), unclamped; None with ``frames=False``.
        rewards: float32 (B, S, [N,] K): expected reward collected after the previous query (in
            order of time; the first interval begins at the world's present) and up to this one,
            given that the episode still ran at the previous query. 0 at or before the present.
        alive: float32 (B, S, [N,] K): probability that the episode has not terminated by then.
    """

    observations: Tensor | None
    rewards: Tensor
    alive: Tensor


@dataclass(frozen=True)
class Belief:
    """What a context says; ``state`` tensors (B, ...) belong to the model that made it."""

    present: Tensor
    state: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Worlds:
    """S whole scenes for each of B contexts, each fixed once and for all.

    Attributes:
        present: int64 (B,), the time up to which actions have been taken.
        state: tensors (B, S, ...) of the model that sampled them; they hold all randomness.
    """

    present: Tensor
    state: dict[str, Tensor] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, S)."""
        first = next(iter(self.state.values()))
        return first.shape[0], first.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """``function`` applied to every state tensor."""
        return {name: function(value) for name, value in self.state.items()}

    def index(self, rows: Tensor) -> Worlds:
        """The worlds of some scenes: ``rows`` int64 or bool over B."""
        return Worlds(self.present[rows], self.map(lambda value: value[rows]))

    def put(self, rows: Tensor, other: Worlds) -> Worlds:
        """A copy in which the scenes ``rows`` (int64) are replaced by those of ``other``."""
        present = self.present.clone()
        present[rows] = other.present
        state = {}
        for name, value in self.state.items():
            state[name] = value.clone(memory_format=torch.contiguous_format)
            state[name][rows] = other.state[name]
        return replace(self, present=present, state=state)


@runtime_checkable
class SceneBatch(Protocol):
    """B recorded or generated windows of T steps, whose frames are fetched only when asked for.

    Attributes:
        actions: (B, T, \\*action).
        rewards: float32 (B, T), ``rewards[:, t]`` follows ``actions[:, t]``; 0 after the end.
        terminated: bool (B, T), True at the step that ended the episode.
        lengths: int64 (B,), steps before the end; the times 0..lengths are valid.
    """

    @property
    def actions(self) -> Tensor:
        """(B, T, \\*action)."""

    @property
    def rewards(self) -> Tensor:
        """float32 (B, T)."""

    @property
    def terminated(self) -> Tensor:
        """bool (B, T)."""

    @property
    def lengths(self) -> Tensor:
        """int64 (B,)."""

    def observations(self, times: Tensor) -> Tensor:
        """uint8 (B, n, H, W, C) at the times int64 (B, n)."""

    def poses(self, times: Tensor) -> Tensor | None:
        """float32 (B, n, P), where the camera was at the times; None if there is no camera."""


@runtime_checkable
class SceneSource(Protocol):
    """An endless, deterministic source of training batches: the same index, the same batch.

    Attributes:
        action_space: of the environment that the scenes come from.
    """

    @property
    def action_space(self) -> gym.Space[Any]:
        """The Gymnasium space of one action."""

    def batch(self, index: int) -> SceneBatch:
        """The batch of that index."""
