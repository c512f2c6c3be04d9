"""Random walk: coloured balls that each move one step up, down, left or right.

Source: VIM, seed 002 (thesis), sections 8.5.1 and 8.5.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from gymnasium import spaces
from torch import Tensor

from envs.narratives.shapes import KIND_NAMES, PALETTE, RADII, render
from envs.randomness import hash_ids, uniform
from envs.simulator import Simulator, State, at_start, check_size
from envs.template_match import white_level
from worldmodel.common.config_checks import whole_number

BALLS: Final = 3
MOVES: Final = ((0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0))
"""Up, down, left, right."""
NONE: Final = -1
"""What ``moves_of`` says of anything but one such move."""
CELLS: Final = 8
"""Balls stand on a grid of 8 x 8 cells; a move is one cell: 4 of 32 pixels. (Ours: the paper
names neither step nor borders.)"""

_SIZE: Final = 2
"""Index into ``RADII``: 2.9 of 32 pixels (ours)."""
_COLOUR_STREAM: Final = 0
_PLACE_STREAM: Final = 1
_MOVE_STREAM: Final = 2
_CORE: Final = 0.04  # half the width of a cell's middle, in canvas widths: well inside a ball
_COVERED: Final = 0.2  # squared distance of colours from which a ball counts as covered


@dataclass(frozen=True)
class RandomWalkState(State):
    """Three balls.

    Attributes:
        cells: ``(B, 3, 2)`` int64, column and row 0 .. 7, in drawing order.
        colours: ``(B, 3)`` int64, all different, index into ``PALETTE``.
    """

    cells: Tensor
    colours: Tensor


class RandomWalk(Simulator[RandomWalkState]):
    """Each ball makes ``moves`` random moves between two frames; nothing is at stake.

    A move that would leave the canvas is impossible: the others share its chance. Balls may
    cover each other.

    Args:
        moves: atomic moves of each ball between two frames; 1 is the paper's Random Walk, more its
            compositional variant.
        max_steps: cut-off; None for 14 (15 frames). A scene never ends by itself.

    Raises:
        TypeError: an argument is not an int.
        ValueError: an argument is below 1.
    """

    def __init__(self, moves: int = 1, max_steps: int | None = None) -> None:
        self.moves = whole_number("moves", moves, 1)
        super().__init__(spaces.Discrete(1), 14 if max_steps is None else max_steps)

    def begin(self, scene_ids: Tensor) -> RandomWalkState:
        """Balls of three colours, anywhere."""
        cells = (uniform(scene_ids, _PLACE_STREAM, (BALLS, 2)) * CELLS).to(torch.int64)
        ranks = uniform(scene_ids, _COLOUR_STREAM, len(PALETTE)).argsort(dim=1, stable=True)
        return RandomWalkState(**at_start(scene_ids), cells=cells, colours=ranks[:, :BALLS])

    def advance(self, state: RandomWalkState, actions: Tensor) -> tuple[RandomWalkState, Tensor]:
        """Move every ball."""
        names = hash_ids(state.scene_ids, _MOVE_STREAM, state.steps)
        scores = uniform(names, 0, (self.moves, BALLS, len(MOVES)))
        directions = torch.tensor(MOVES, device=names.device).to(torch.int64)
        cells = state.cells
        for move in range(self.moves):
            there = cells[:, :, None] + directions  # (B, 3, 4, 2)
            inside = ((there >= 0) & (there < CELLS)).all(-1)
            # The highest of independent scores: uniform among the moves that stay inside.
            chosen = torch.where(inside, scores[:, move], -1.0).argmax(-1)
            cells = there.gather(2, chosen[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
        return replace(state, cells=cells), torch.zeros(len(names), device=names.device)

    def render(self, state: RandomWalkState, size: int) -> Tensor:
        """The present frames, ``(B, size, size, 3)`` uint8."""
        centres = positions(state)[:, None]
        circle = torch.full_like(state.colours, KIND_NAMES.index("circle"))[:, None]
        sizes = torch.full_like(circle, _SIZE)
        return render(centres, state.colours[:, None], circle, sizes, size)[:, 0]


def positions(state: RandomWalkState) -> Tensor:
    """The balls' centres in canvas widths, ``(B, 3, 2)`` float32."""
    return (state.cells.to(torch.float32) + 0.5) / CELLS


def segments(state: RandomWalkState, size: int) -> Tensor:
    """Which ball is visible at each pixel, ``(B, size, size)`` int64: 0 where there is none.

    Ball i is i + 1. A pixel belongs to the foremost ball that covers its middle.

    Raises:
        ValueError: ``size`` is no multiple of 8.
    """
    pixels = (torch.arange(check_size(size), device=state.cells.device) + 0.5) / size
    x, y = positions(state).unbind(-1)  # (B, 3)
    away = (pixels - x[..., None]).square()[:, :, None] + (pixels - y[..., None]).square()[
        ..., None
    ]
    covers = away <= RADII[_SIZE] ** 2  # (B, 3, size, size)
    number = torch.arange(1, BALLS + 1, device=covers.device)[:, None, None]
    return (covers * number).amax(1)


def locate(frames: Tensor, facts: RandomWalkState) -> Tensor:
    """In which cell each known ball is, in (generated) frames.

    A ball is in the cell whose middle is nearest to its colour; where none is near, another ball
    covers it. Foremost balls are looked for first. Right for .99 of balls in test frames at 32 and
    64 pixels, also blurred 3 or 5 pixels wide; the rest are covered.

    Args:
        frames: ``(B, n, S, S, 3)`` uint8, or floating point in [0, 1].
        facts: the scenes, B of them.

    Returns:
        ``(B, n, 3, 2)`` int64, column and row 0 .. 7.

    Raises:
        ValueError: wrong shape.
    """
    pixels = frames.to(torch.float32) / white_level(frames, len(facts.scene_ids))
    middles = pixels.flatten(2, 3).transpose(2, 3) @ _middles(frames.shape[2], frames.device)
    colours = torch.tensor(PALETTE, device=frames.device)[facts.colours] / 255  # (B, 3, 3)
    away = (middles[:, :, None] - colours[:, None, :, :, None]).square().sum(3)  # (B, n, 3, 64)
    covered = torch.zeros_like(away[:, :, 0], dtype=torch.bool)
    cells = torch.zeros(away.shape[:3], dtype=torch.int64, device=frames.device)
    for ball in reversed(range(BALLS)):
        distance = away[:, :, ball]
        distance = torch.where(covered, distance.clamp_max(_COVERED), distance)
        cells[:, :, ball] = distance.argmin(-1)
        every_cell = torch.arange(CELLS * CELLS, device=cells.device)
        covered = covered | (every_cell == cells[:, :, ball, None])
    return torch.stack([cells % CELLS, cells // CELLS], -1)


def moves_of(cells: Tensor) -> Tensor:
    """Which move each ball made between frames.

    Args:
        cells: ``(B, n, 3, 2)`` int64, as of :func:`locate`.

    Returns:
        ``(B, n - 1, 3)`` int64: index into ``MOVES``, or -1 (``NONE``) for anything else.

    Raises:
        ValueError: wrong shape.
    """
    if cells.ndim != 4 or cells.shape[-1] != 2:
        raise ValueError(f"cells must be (B, n, balls, 2), got {tuple(cells.shape)}")
    moved = (cells[:, 1:] - cells[:, :-1])[..., None, :]
    known = torch.tensor(MOVES, device=cells.device).to(cells.dtype)
    same = (moved == known).all(-1)  # (B, n - 1, 3, 4)
    return torch.where(same.any(-1), same.to(torch.int64).argmax(-1), NONE)


def _middles(size: int, device: torch.device) -> Tensor:
    """Weights that average a frame over the middle of each cell, (size * size, 64)."""
    place = (torch.arange(size, device=device) + 0.5) / size
    cell = (torch.arange(CELLS, device=device) + 0.5) / CELLS
    near = ((place[:, None] - cell).abs() < _CORE).to(torch.float32)  # (size, 8)
    near = near / near.sum(0)
    weights = near[:, None, :, None] * near[None, :, None, :]  # (y, x, row, column)
    return weights.reshape(size * size, CELLS * CELLS)
