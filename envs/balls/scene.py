"""How the balls walk and look."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from gymnasium import spaces
from torch import Tensor

from envs.narratives.shapes import KIND_NAMES, PALETTE, RADII, render
from envs.randomness import hash_ids, uniform
from envs.simulator import Simulator, State

BALLS: Final = 3
MOVES: Final = ((0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0))
"""Up, down, left, right."""
CELLS: Final = 8
"""Balls stand on a grid of 8 x 8 cells; a move is one cell: 4 of 32 pixels. (Ours: the paper
names neither step nor borders.)"""

_SIZE: Final = 2
"""Index into ``RADII``: 2.9 of 32 pixels (ours)."""
_COLOUR_STREAM: Final = 0
_PLACE_STREAM: Final = 1
_MOVE_STREAM: Final = 2


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

    A move that would leave the canvas is never drawn: the others share its chance. Balls may
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
        if isinstance(moves, bool) or not isinstance(moves, int):
            raise TypeError(f"moves must be an int, got {type(moves).__name__}")
        if moves < 1:
            raise ValueError(f"moves must be at least 1, got {moves}")
        super().__init__(spaces.Discrete(1), 14 if max_steps is None else max_steps)
        self.moves = moves

    def begin(self, scene_ids: Tensor) -> RandomWalkState:
        """Balls of three colours, anywhere."""
        places = (uniform(scene_ids, _PLACE_STREAM, (BALLS, 2)) * CELLS).to(torch.int64)
        ranks = uniform(scene_ids, _COLOUR_STREAM, len(PALETTE)).argsort(dim=1, stable=True)
        return RandomWalkState(
            scene_ids=scene_ids,
            steps=torch.zeros_like(scene_ids),
            ended=torch.zeros_like(scene_ids, dtype=torch.bool),
            cells=places,
            colours=ranks[:, :BALLS],
        )

    def advance(self, state: RandomWalkState, actions: Tensor) -> tuple[RandomWalkState, Tensor]:
        """Walk."""
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


RADIUS: Final = RADII[_SIZE]
"""Of a ball, in canvas widths."""
