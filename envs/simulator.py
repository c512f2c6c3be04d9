"""What every kind of scene shares: how scenes begin, go on, and look, in batches.

One simulator serves the single environment, the vector environment and the streams that models
train on. Its randomness is a function of the scene id (see ``randomness``), so a
scene is the same in all three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium as gym
import torch
from torch import Tensor
from typing_extensions import Self

from worldmodel.common.camera import Camera
from worldmodel.common.config_checks import whole_number


@dataclass(frozen=True)
class State:
    """A batch of scenes at one moment; simulators add fields, each a tensor with B rows.

    Attributes:
        scene_ids: ``(B,)`` int64.
        steps: ``(B,)`` int64, steps taken so far.
        ended: ``(B,)`` bool, the scene is over; further steps change nothing.
    """

    scene_ids: Tensor
    steps: Tensor
    ended: Tensor

    def where(self, mask: Tensor, other: Self) -> Self:
        """Rows of this state where ``mask (B,)`` is true, rows of ``other`` elsewhere."""
        chosen = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            rows = mask.reshape(-1, *[1] * (mine.ndim - 1))
            chosen[field.name] = mine if mine is theirs else torch.where(rows, mine, theirs)
        return type(self)(**chosen)

    def put(self, rows: Tensor, other: Self) -> Self:
        """This state with ``rows`` ``(R,)`` int64 replaced by the R rows of ``other``."""
        chosen = {}
        for field in fields(self):
            value = getattr(self, field.name).clone()
            value[rows] = getattr(other, field.name)
            chosen[field.name] = value
        return type(self)(**chosen)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same change to every tensor: picking rows, say, or moving to a device."""
        return type(self)(**{f.name: change(getattr(self, f.name)) for f in fields(self)})


S = TypeVar("S", bound=State)


def at_start(scene_ids: Tensor) -> dict[str, Tensor]:
    """The fields of ``State`` at the first moment of scenes ``(B,)`` int64."""
    ended = torch.zeros_like(scene_ids, dtype=torch.bool)
    return {"scene_ids": scene_ids, "steps": torch.zeros_like(scene_ids), "ended": ended}


def stack(states: Sequence[S]) -> S:
    """Moments of the same scenes as one state whose tensors are ``(B, moments, ..)``.

    What never changes is not copied.
    """
    stacked: dict[str, Tensor] = {}
    for field in fields(states[0]):
        values = [getattr(state, field.name) for state in states]
        if all(value is values[0] for value in values):
            shape = (len(values[0]), len(values), *values[0].shape[1:])
            stacked[field.name] = values[0][:, None].expand(shape)
        else:
            stacked[field.name] = torch.stack(values, dim=1)
    return type(states[0])(**stacked)


class Simulator(ABC, Generic[S]):
    """How scenes of one kind begin, go on, and look.

    All methods work on batches, on whatever device the tensors are, and treat each scene apart
    from its neighbours in the batch. A new kind of scene is a subclass and an entry in
    ``envs.SCENES``.

    Attributes:
        action_space: of one scene. ``Discrete(1)`` where nature decides everything.
        max_steps: a scene that has not ended by then is cut off (truncated).
        hold: steps for which random play holds an action by default.
        fps: speed at which a person can follow, frames per second.
        camera: its intrinsics, and how ``poses`` are read; None if there are no poses.

    Raises:
        TypeError: ``max_steps`` is not an int.
        ValueError: ``max_steps`` is below 1.
    """

    hold: ClassVar[int] = 1
    fps: ClassVar[int] = 5
    camera: ClassVar[Camera | None] = None

    def __init__(self, action_space: gym.Space[Any], max_steps: int) -> None:
        self.action_space = action_space
        self.max_steps = whole_number("max_steps", max_steps, 1)

    @abstractmethod
    def begin(self, scene_ids: Tensor) -> S:
        """The first moment of each scene ``(B,)`` int64; the same id is always the same scene."""

    @abstractmethod
    def advance(self, state: S, actions: Tensor) -> tuple[S, Tensor]:
        """One step of every scene, as if none had ended; :meth:`step` counts ``steps``.

        Args:
            state: B scenes.
            actions: ``(B, *action)``, int64 for discrete actions, float32 for boxes.

        Returns:
            The next state, with ``ended`` set, and rewards ``(B,)`` float32.
        """

    @abstractmethod
    def render(self, state: S, size: int) -> Tensor:
        """The frames of a ``state``, ``(B, size, size, 3)`` uint8; ``size`` a multiple of 8."""

    def poses(self, state: S) -> Tensor | None:
        """Where the camera is, ``(B, P)`` float32; None if time alone is the key."""
        return None

    def best_return(self, state: S) -> Tensor:
        """The highest return ``(B,)`` float32 that is still possible; subclasses say how exactly.

        0 where nothing is at stake.
        """
        return torch.zeros(len(state.scene_ids), device=state.scene_ids.device)

    def step(self, state: S, actions: Tensor) -> tuple[S, Tensor, Tensor]:
        """Take one of the ``actions`` in every scene; ended scenes stay as they are.

        Returns:
            The next state, rewards ``(B,)`` float32 (0 where ended before) and terminated ``(B,)``
            bool: whether this step ended the scene.
        """
        after, rewards = self.advance(state, actions)
        after = state.where(state.ended, after)
        rewards = torch.where(state.ended, 0.0, rewards)
        after = replace(after, steps=state.steps + (~state.ended).to(torch.int64))
        return after, rewards, after.ended & ~state.ended


def check_size(size: int) -> int:
    """Return ``size`` if frames can have it; else raise TypeError or ValueError."""
    if whole_number("size", size) <= 0 or size % 8:
        raise ValueError(f"size must be a positive multiple of 8 pixels (32, 64, ..), got {size}")
    return size
