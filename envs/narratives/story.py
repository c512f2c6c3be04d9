"""The story engine: what every narrative shares.

A story is a batch of scenes that evolve in steps. Between *decision points* shapes do what was
decided; at a decision point somebody, nature or the agent, decides what comes next. A story says
how a scene begins and how it advances; here casts are sampled, placed and rendered.

Source: Consistent Jumpy Predictions, sec. 4.1 "Narratives".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.narratives.shapes import KIND_NAMES, PALETTE, RADII, bounding_radii, render
from envs.randomness import integers, uniform
from envs.simulator import Simulator, State

# Streams of a scene's randomness; stories number their own from STORY_STREAM on.
COLOUR_STREAM: Final = 0
KIND_STREAM: Final = 1
SIZE_STREAM: Final = 2
PLACE_STREAM: Final = 3
STORY_STREAM: Final = 100

CLEARANCE: Final = 0.02
"""Shapes begin at least this far apart, and from the canvas's edge (canvas widths)."""
_CANDIDATES: Final = 64
Circle = tuple[float, float, float]
"""x and y of the centre, and radius, in canvas units."""


@dataclass(frozen=True)
class StoryState(State):
    """A batch of scenes at one moment; stories add fields, each a tensor with B rows.

    Attributes:
        positions: ``(B, N, 2)`` float32, centres in canvas units, in drawing order.
        colours, kinds, sizes: ``(B, N)`` int64, indices into the tables of ``shapes``.
    """

    positions: Tensor
    colours: Tensor
    kinds: Tensor
    sizes: Tensor


ST = TypeVar("ST", bound=StoryState)


class Story(Simulator[ST]):
    """How scenes of one kind begin and go on.

    Attributes:
        shapes: number of shapes N.
        controlled: whether an agent decides (else nature does, and there is one action).

    Raises:
        TypeError: ``controlled`` is not a bool, or ``max_steps`` not an int.
        ValueError: ``max_steps`` is below 1.
    """

    hold: ClassVar[int] = 5

    def __init__(self, *, controlled: bool, shapes: int, actions: int, max_steps: int) -> None:
        if not isinstance(controlled, bool):
            raise TypeError(f"controlled must be a bool, got {type(controlled).__name__}")
        super().__init__(spaces.Discrete(actions if controlled else 1), max_steps)
        self.controlled = controlled
        self.shapes = shapes

    def render(self, state: ST, size: int) -> Tensor:
        """The present frames, ``(B, size, size, 3)`` uint8."""
        cast = (state.colours[:, None], state.kinds[:, None], state.sizes[:, None])
        return render(state.positions[:, None], *cast, size)[:, 0]


def draw_cast(scene_ids: Tensor, shapes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, kinds and sizes, each ``(B, N)`` int64, independent and uniform."""
    return (
        integers(scene_ids, COLOUR_STREAM, shapes, len(PALETTE)),
        integers(scene_ids, KIND_STREAM, shapes, len(KIND_NAMES)),
        integers(scene_ids, SIZE_STREAM, shapes, len(RADII)),
    )


def place(
    scene_ids: Tensor, kinds: Tensor, sizes: Tensor, reserved: Circle | None = None
) -> Tensor:
    """Random places where shapes neither touch each other nor the edge.

    Shapes are placed one by one, large ones first: each takes the first of 64 random places that
    is free, or, were none free, the one with most room.

    Args:
        scene_ids: ``(B,)`` int64.
        kinds, sizes: ``(B, N)`` int64.
        reserved: a circle that stays free.

    Returns:
        ``(B, N, 2)`` float32 in canvas units.
    """
    batch, shapes = kinds.shape
    radii, order = bounding_radii(kinds, sizes).sort(dim=1, descending=True, stable=True)
    draws = uniform(scene_ids, PLACE_STREAM, (shapes, _CANDIDATES, 2))
    margin = (radii + CLEARANCE)[..., None, None]
    candidates = margin + draws * (1 - 2 * margin)  # (B, N, K, 2)
    placed = candidates[:, :, 0].clone()
    circle = torch.tensor(reserved or (0.5, 0.5, 0.0), device=kinds.device).expand(batch, 1, 3)
    for i in range(0 if reserved else 1, shapes):
        others, reach = placed[:, :i], radii[:, :i]
        if reserved:
            others = torch.cat([circle[..., :2], others], 1)
            reach = torch.cat([circle[..., 2], reach], 1)
        gaps = candidates[:, i, :, None] - others[:, None]  # (B, K, i, 2)
        distances = (gaps[..., 0] * gaps[..., 0] + gaps[..., 1] * gaps[..., 1]).sqrt()
        room = (distances - reach[:, None] - radii[:, i, None, None]).amin(-1)  # (B, K)
        # All free places count alike, and argmax may return any of the equal ones: rank them.
        rank = torch.arange(_CANDIDATES, 0, -1, device=room.device, dtype=room.dtype)
        best = torch.where(room >= CLEARANCE, rank, room - 2).argmax(-1)
        placed[:, i] = candidates[:, i].gather(1, best[:, None, None].expand(-1, 1, 2))[:, 0]
    return torch.empty_like(placed).scatter_(1, order[..., None].expand(-1, -1, 2), placed)
