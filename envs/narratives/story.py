"""The story engine: what every narrative shares.

A story is a batch of scenes that evolve in steps. Between *decision points* shapes do what was
decided; at a decision point somebody, nature or the agent, decides what comes next. A story says
how a scene begins and how it advances; the engine draws casts, finds room for them, and freezes
scenes that have ended.

Source: Consistent Jumpy Predictions, sec. 4.1 "Narratives".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Final, Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from envs.narratives.randomness import integers, uniform
from envs.narratives.shapes import KIND_NAMES, PALETTE, RADII, bounding_radii, render

# Streams of a scene's randomness; stories number their own from STORY_STREAM on.
COLOUR_STREAM: Final = 0
KIND_STREAM: Final = 1
SIZE_STREAM: Final = 2
PLACE_STREAM: Final = 3
STORY_STREAM: Final = 100

CLEARANCE: Final = 0.02
"""Shapes begin at least this far apart, and from the canvas's edge (canvas widths)."""
_CANDIDATES: Final = 64


@dataclass(frozen=True)
class StoryState:
    """A batch of scenes at one moment; stories add fields, each a tensor with B rows.

    Attributes:
        scene_ids: ``(B,)`` int64.
        steps: ``(B,)`` int64, steps taken so far.
        ended: ``(B,)`` bool, the story is over; further steps change nothing.
        positions: ``(B, N, 2)`` float32, centres in canvas units, in drawing order.
        colours, kinds, sizes: ``(B, N)`` int64, indices into the tables of ``shapes``.
    """

    scene_ids: Tensor
    steps: Tensor
    ended: Tensor
    positions: Tensor
    colours: Tensor
    kinds: Tensor
    sizes: Tensor

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

    def render(self, size: int) -> Tensor:
        """The present frames, ``(B, size, size, 3)`` uint8."""
        cast = (self.colours[:, None], self.kinds[:, None], self.sizes[:, None])
        return render(self.positions[:, None], *cast, size)[:, 0]


State = TypeVar("State", bound=StoryState)


class Story(ABC, Generic[State]):
    """How scenes of one kind begin and go on.

    Attributes:
        shapes: number of shapes N.
        actions: number of actions; 1 where nature decides everything.
        max_steps: a scene that has not ended by then is cut off (truncated).
    """

    def __init__(self, *, shapes: int, actions: int, max_steps: int) -> None:
        if isinstance(max_steps, bool) or not isinstance(max_steps, int):
            raise TypeError(f"max_steps must be an int, got {type(max_steps).__name__}")
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}")
        self.shapes = shapes
        self.actions = actions
        self.max_steps = max_steps

    @abstractmethod
    def begin(self, scene_ids: Tensor) -> State:
        """The first moment of each scene ``(B,)`` int64; the same id is always the same scene."""

    @abstractmethod
    def advance(self, state: State, actions: Tensor) -> tuple[State, Tensor]:
        """One step of every scene, as if none had ended; the engine counts ``steps``.

        Returns:
            The next state, with ``ended`` set, and rewards ``(B,)`` float32.
        """

    def step(self, state: State, actions: Tensor) -> tuple[State, Tensor, Tensor]:
        """Take one action ``(B,)`` int64 in every scene; ended scenes stay as they are.

        Returns:
            The next state, rewards ``(B,)`` float32 (0 where ended before) and terminated ``(B,)``
            bool: whether this step ended the story.
        """
        after, rewards = self.advance(state, actions)
        after = state.where(state.ended, after)
        rewards = torch.where(state.ended, 0.0, rewards)
        after = replace(after, steps=state.steps + (~state.ended).to(torch.int64))
        return after, rewards, after.ended & ~state.ended


def draw_cast(scene_ids: Tensor, shapes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, kinds and sizes, each ``(B, N)`` int64, independent and uniform."""
    return (
        integers(scene_ids, COLOUR_STREAM, shapes, len(PALETTE)),
        integers(scene_ids, KIND_STREAM, shapes, len(KIND_NAMES)),
        integers(scene_ids, SIZE_STREAM, shapes, len(RADII)),
    )


def place(scene_ids: Tensor, kinds: Tensor, sizes: Tensor) -> Tensor:
    """Random places where shapes neither touch each other nor the edge.

    Shapes are placed one by one, large ones first: each takes the first of 64 random places that
    is free, or, were none free, the one with most room.

    Args:
        scene_ids: ``(B,)`` int64.
        kinds, sizes: ``(B, N)`` int64.

    Returns:
        ``(B, N, 2)`` float32 in canvas units.
    """
    batch, shapes = kinds.shape
    radii, order = bounding_radii(kinds, sizes).sort(dim=1, descending=True, stable=True)
    draws = uniform(scene_ids, PLACE_STREAM, (shapes, _CANDIDATES, 2))
    margin = (radii + CLEARANCE)[..., None, None]
    candidates = margin + draws * (1 - 2 * margin)  # (B, N, K, 2)
    placed = candidates[:, :, 0].clone()
    for i in range(1, shapes):
        gaps = candidates[:, i, :, None] - placed[:, None, :i]  # (B, K, i, 2)
        distances = (gaps[..., 0] * gaps[..., 0] + gaps[..., 1] * gaps[..., 1]).sqrt()
        room = (distances - radii[:, None, :i] - radii[:, i, None, None]).amin(-1)  # (B, K)
        # All free places count alike, and argmax may return any of the equal ones: rank them.
        rank = torch.arange(_CANDIDATES, 0, -1, device=room.device, dtype=room.dtype)
        best = torch.where(room >= CLEARANCE, rank, room - 2).argmax(-1)
        placed[:, i] = candidates[:, i].gather(1, best[:, None, None].expand(-1, 1, 2))[:, 0]
    return torch.empty_like(placed).scatter_(1, order[..., None].expand(-1, -1, 2), placed)
