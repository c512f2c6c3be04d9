"""A cube with handwritten digits in a room: geometry, and how scenes are drawn.

Axes: x and y along the floor, z up; the room's centre is the origin. Lengths are in cube edges.
Side face k of the cube looks, before it is turned, along angle k * 90 degrees: +x, +y, -x, -y;
face 4 is the top, face 5 lies on the floor. (The paper's own scenes were never published; sizes
are ours.)

Source: Consistent Jumpy Predictions, sec. 4.2 "MNIST Dice".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from envs.handwriting import Digits, digit_pool
from envs.randomness import SPLIT_BIT, integers, uniform
from envs.simulator import State, at_start
from worldmodel.common.camera import Camera

CAMERA_RADIUS: Final = 3.2
CAMERA_HEIGHT: Final = 1.5
LOOK_HEIGHT: Final = 0.4
"""The camera looks at the point of this height above the room's centre."""
FIELD_OF_VIEW: Final = math.radians(45)
"""Vertical and horizontal."""
PITCH: Final = -math.atan2(CAMERA_HEIGHT - LOOK_HEIGHT, CAMERA_RADIUS)
ROOM: Final = 4.0
"""Walls are this far from the centre."""
HALF: Final = 0.5
"""Half an edge of the cube."""
JITTER: Final = 0.35
"""The cube's centre lies within so much of the room's, along x and y."""

CAMERA: Final = Camera(FIELD_OF_VIEW, 1.9, 9.0, ((-1.1, -1.1, -0.1), (1.1, 1.1, 1.1)))
"""Intrinsics: no surface is nearer than the cube's next edge, none farther than a corner of the
room; the cube, its shadow and the floor around it lie in the region."""

SIDES: Final = 4
FACES: Final = 6
POOL: Final = 100
"""Digits that faces choose from, ten of each class."""
PATTERNS: Final = ("plain", "checks", "stripes", "planks", "bricks", "dots", "waves", "marble")
PATTERN_SIDE: Final = 128
"""Pixels of a bitmap of a pattern; it repeats every two cube edges."""

_BLUR: Final = 9
"""Width in pixels: about what one pixel of a 64-pixel frame covers on a wall."""

_PLACE_STREAM: Final = 0
_TURN_STREAM: Final = 1
_FACE_STREAM: Final = 2
_PATTERN_STREAM: Final = 3
_COLOUR_STREAM: Final = 4
_LIGHT_STREAM: Final = 5
_CAMERA_STREAM: Final = 6


@dataclass(frozen=True)
class DiceState(State):
    """B rooms, each seen from one place.

    Attributes:
        centre: ``(B, 2)`` float32, x and y of the cube's centre.
        turn: ``(B,)`` float32, yaw of the cube in radians, 0 .. pi / 2.
        faces: ``(B, 6)`` int64, which digit of the pool each face bears; rows 100 .. 199 of the
            pool are the unseen ones.
        patterns: ``(B, 2)`` int64, of floor and walls.
        colours: ``(B, 6, 3)`` float32 in [0, 1]: of floor and its pattern, walls and theirs, cube
            and ink.
        light: ``(B, 3)`` float32, unit vector towards the light.
        camera: ``(B,)`` float32, where on its circle the camera stands, radians.
    """

    centre: Tensor
    turn: Tensor
    faces: Tensor
    patterns: Tensor
    colours: Tensor
    light: Tensor
    camera: Tensor


def draw(scene_ids: Tensor, unseen: bool) -> dict[str, Tensor]:
    """All fields of ``DiceState`` at the first moment, the same for the same ids.

    Args:
        scene_ids: ``(B,)`` int64.
        unseen: whether test scenes bear the unseen digits.
    """
    height = math.radians(45) + math.radians(20) * uniform(scene_ids, _LIGHT_STREAM, 1)[:, 0]
    around = 2 * math.pi * uniform(scene_ids, _LIGHT_STREAM + 100, 1)[:, 0]
    light = [height.cos() * around.cos(), height.cos() * around.sin(), height.sin()]
    faces = integers(scene_ids, _FACE_STREAM, FACES, POOL)
    if unseen:
        faces = faces + POOL * ((scene_ids >> SPLIT_BIT) & 1)[:, None]
    camera = uniform(scene_ids, _CAMERA_STREAM, 1)[:, 0] * (2 * math.pi) - math.pi
    return {
        **at_start(scene_ids),
        "centre": (2 * uniform(scene_ids, _PLACE_STREAM, 2) - 1) * JITTER,
        "turn": uniform(scene_ids, _TURN_STREAM, 1)[:, 0] * (math.pi / 2),
        "faces": faces,
        "patterns": integers(scene_ids, _PATTERN_STREAM, 2, len(PATTERNS)),
        "colours": _colours(scene_ids),
        "light": torch.stack(light, -1),
        "camera": camera,
    }


def _colours(scene_ids: Tensor) -> Tensor:
    """Floor and walls of any colour, their patterns darker; a pale cube with dark ink."""
    random = uniform(scene_ids, _COLOUR_STREAM, (6, 3))
    ground = 0.35 + 0.6 * random[:, 0:4:2]
    pattern = ground * (0.5 + 0.3 * random[:, 1:4:2])
    cube = 0.8 + 0.2 * random[:, 4:5]
    ink = 0.05 + 0.2 * random[:, 5:6]
    parts = [ground[:, :1], pattern[:, :1], ground[:, 1:], pattern[:, 1:], cube, ink]
    return torch.cat(parts, 1)


@lru_cache(maxsize=4)
def patterns(device: torch.device) -> Tensor:
    """Bitmaps of all patterns, ``(8, 128, 128)`` float32 in [0, 1]: share of the second colour.

    They are periodic, and soft enough to be looked up pixel by pixel.
    """
    place = (torch.arange(PATTERN_SIDE) + 0.5) / PATTERN_SIDE
    y, x = (
        place[:, None].expand(PATTERN_SIDE, PATTERN_SIDE),
        place[None].expand(PATTERN_SIDE, PATTERN_SIDE),
    )
    wave = ((x + 0.08 * (4 * math.pi * y).sin()) * 4 % 1 < 0.5).float()
    row = (y * 4).floor()
    shifted = (x + 0.25 * (row % 2)) % 0.5
    bricks = ((y * 4 % 1 < 0.16) | (shifted < 0.05)).float()
    planks = ((x * 4 % 1 < 0.1) | ((y + 0.37 * (x * 4).floor()) % 1 < 0.03)).float()
    grain = 0.35 * (0.5 + 0.5 * (2 * math.pi * (x * 4 + 0.3 * (2 * math.pi * y).sin())).sin())
    dots = ((x * 4 % 1 - 0.5).square() + (y * 4 % 1 - 0.5).square() < 0.08).float()
    vein = (2 * math.pi * (x + 0.3 * (2 * math.pi * y).sin() + 0.1 * (6 * math.pi * x).cos())).sin()
    marble = 1 - vein.abs().clamp(0, 0.35) / 0.35
    sharp = torch.stack(
        [
            torch.zeros(PATTERN_SIDE, PATTERN_SIDE),
            ((x * 4).floor() + (y * 4).floor()) % 2,
            (y * 4 % 1 < 0.5).float(),
            torch.maximum(planks, grain),
            bricks,
            dots,
            wave,
            marble,
        ]
    )
    soft = avg_pool2d(pad(sharp[:, None], (_BLUR // 2,) * 4, mode="circular"), _BLUR, 1)[:, 0]
    return soft.to(device)


def pool() -> Digits:
    """The 100 digits of the faces, then the 100 unseen ones: 200 rows."""
    train, test = digit_pool("train", POOL), digit_pool("test", POOL)
    return Digits(torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels]))


def poses(camera: Tensor) -> Tensor:
    """Poses of cameras at angles ``(..)`` on the circle, in radians.

    Returns:
        ``(.., 7)`` float32: x, y, z; cosine and sine of the view's yaw (towards the centre: the
        angle plus pi); cosine and sine of its pitch (constant, downwards).
    """
    cos, sin = camera.cos(), camera.sin()
    constant = torch.ones_like(cos)
    return torch.stack(
        [
            CAMERA_RADIUS * cos,
            CAMERA_RADIUS * sin,
            CAMERA_HEIGHT * constant,
            -cos,
            -sin,
            math.cos(PITCH) * constant,
            math.sin(PITCH) * constant,
        ],
        -1,
    )


def side_depths(state: DiceState, camera: Tensor) -> Tensor:
    """How far in front of each side face's plane cameras stand; negative behind it.

    Args:
        state: B scenes.
        camera: ``(B, n)`` float32, angles on the circle in radians.

    Returns:
        ``(B, n, 4)`` float32, in cube edges.
    """
    side = state.turn[:, None] + torch.arange(SIDES, device=camera.device) * (math.pi / 2)
    normal = torch.stack([side.cos(), side.sin()], -1)[:, None]  # (B, 1, 4, 2)
    there = CAMERA_RADIUS * torch.stack([camera.cos(), camera.sin()], -1) - state.centre[:, None]
    return (there[:, :, None] * normal).sum(-1) - HALF


def visible_sides(state: DiceState, camera: Tensor) -> Tensor:
    """Which side faces cameras ``(B, n)`` see: ``(B, n, 4)`` bool, one or two of the four."""
    return side_depths(state, camera) > 0


def facing(state: DiceState, camera: Tensor) -> Tensor:
    """The side face that is turned most to cameras ``(B, n)``: ``(B, n)`` int64, 0-3."""
    return side_depths(state, camera).argmax(-1)
