"""An analytic ray caster for the dice scenes, in batches.

The camera always looks at the centre from one radius and one height, so in its own frame every ray
is fixed. A ray's direction is a term of its row plus a term of its column, whatever frame it is
turned into; its height depends on the row alone. Most of the work is therefore one addition or
one product over the image. Edges are soft by how far, in pixels, a ray passes them; a cube's
visible faces never overlap, so their coverages add up.

Only additions, products, divisions and comparisons touch pixels: a frame does not depend on its
neighbours in the batch, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from envs.dice.scene import (
    CAMERA_HEIGHT,
    CAMERA_RADIUS,
    FIELD_OF_VIEW,
    HALF,
    JITTER,
    PATTERN_SIDE,
    PITCH,
    ROOM,
    SIDES,
    DiceState,
    patterns,
    pool,
)
from envs.handwriting import directory
from envs.simulator import check_size

AMBIENT: Final = 0.5
DIFFUSE: Final = 0.55
SHADOW: Final = 0.45
"""Share of the floor's light that the cube's shadow takes away."""

_SHADOW_EDGE: Final = 0.12  # width of the shadow's soft edge in cube edges
_FAR: Final = 16.0  # in cube edges: keeps coordinates above 0 before they are cut to integers
_TOP: Final = 0.5  # how much the top is foreshortened; exact only along one of its axes
_DIGIT_SIDE: Final = 64
_DIGIT_SHARE: Final = 0.92  # of a face's width
_WALLS: Final = (6.0, 9.0)
"""Between these depths lie all feet of walls that are in view (6.3 and 8.9)."""
_CHUNK_CPU: Final = 1 << 17
_CHUNK_GPU: Final = 1 << 24


@dataclass(frozen=True)
class Rays:
    """The rays of some rows of an image, in the camera's frame.

    Attributes:
        rows: which.
        forward: ``(rows, 1)`` float32, way towards the centre per unit, by row.
        aside: ``(1, size)`` float32, way to the right, by column.
        up: ``(rows, 1)`` float32, way up, by row (negative downwards).
        pixel: width of a pixel at distance 1.
    """

    rows: slice
    forward: Tensor
    aside: Tensor
    up: Tensor
    pixel: float


class Bands(NamedTuple):
    """Rows in which each surface is visible in some scene; the others are not computed."""

    walls: Rays
    floor: Rays
    sides: Rays
    top: Rays


@lru_cache(maxsize=16)
def bands(size: int, device: torch.device) -> Bands:
    """The rays through the middles of all pixels, by the surfaces that they can meet."""
    reach = math.tan(FIELD_OF_VIEW / 2)
    place = ((torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1) * reach
    forward = math.cos(PITCH) + place * math.sin(PITCH)
    up = math.sin(PITCH) - place * math.cos(PITCH)

    def row(depth: float, height: float) -> int:
        """The row of a point that lies so far ahead and so high."""
        drop = height - CAMERA_HEIGHT
        ahead = math.cos(PITCH) * depth + math.sin(PITCH) * drop
        at = (math.sin(PITCH) * depth - math.cos(PITCH) * drop) / ahead
        return math.floor((at / reach + 1) / 2 * size)

    def part(first: int, last: int) -> Rays:
        rows = slice(max(0, first - 1), min(size, last + 2))  # edges are a pixel wide
        f, u, a = (v.to(device, torch.float32) for v in (forward[rows], up[rows], place))
        return Rays(rows, f[:, None], a[None], u[:, None], 2 * reach / size)

    spread = math.hypot(JITTER, JITTER) + math.hypot(HALF, HALF)
    near, far = CAMERA_RADIUS - spread, CAMERA_RADIUS + spread
    return Bands(
        walls=part(0, row(_WALLS[0], 0)),
        floor=part(row(_WALLS[1], 0), size),
        sides=part(row(far, 2 * HALF), row(near, 0)),
        top=part(row(far, 2 * HALF), row(near, 2 * HALF)),
    )


@lru_cache(maxsize=4)
def digit_bitmaps(device: torch.device, source: str | None) -> Tensor:
    """Ink of the 200 digits, ``(200, 64, 64)`` float32 in [0, 1], with a margin, blurred.

    Args:
        device: where they are used.
        source: ``envs.handwriting.directory()``: other files, other digits.
    """
    inner = round(_DIGIT_SIDE * _DIGIT_SHARE)
    large = interpolate(pool().images[:, None], (inner, inner), mode="bilinear")
    margin = _DIGIT_SIDE - inner
    large = pad(large, (margin // 2, margin - margin // 2) * 2)
    return avg_pool2d(large, 3, 1, 1)[:, 0].to(device)


def render(state: DiceState, size: int) -> Tensor:
    """The views of B scenes, ``(B, size, size, 3)`` uint8.

    Raises:
        TypeError, ValueError: ``size`` is not a positive multiple of 8.
    """
    check_size(size)
    batch, device = len(state.scene_ids), state.scene_ids.device
    frames = torch.empty((batch, size, size, 3), dtype=torch.uint8, device=device)
    pixels = _CHUNK_CPU if device.type == "cpu" else _CHUNK_GPU
    step = max(1, pixels // (size * size))
    for start in range(0, batch, step):
        part = slice(start, start + step)
        frames[part] = _cast(state.map(itemgetter(part)), size)
    return frames


def _cast(state: DiceState, size: int) -> Tensor:
    device = state.scene_ids.device
    band = bands(size, device)
    canvas = torch.zeros((3, len(state.scene_ids), size, size), device=device)
    _draw_floor(canvas, state, band.floor)
    _draw_walls(canvas, state, band.walls)
    for axis in range(2):
        _draw_side(canvas, state, band.sides, axis)
    _draw_top(canvas, state, band.top)
    return canvas.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8).permute(1, 2, 3, 0)


def _turned(state: DiceState, view: Rays, angle: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rays in a frame turned by ``angle`` (F,) against the world.

    Returns:
        x and y of the directions (F, size, size), and of the camera (F, 1, 1).
    """
    across = state.camera - angle
    cos, sin = across.cos()[:, None, None], across.sin()[:, None, None]
    x = view.aside * -sin - view.forward * cos
    y = view.aside * cos - view.forward * sin
    return x, y, CAMERA_RADIUS * cos, CAMERA_RADIUS * sin


def _draw_floor(canvas: Tensor, state: DiceState, view: Rays) -> None:
    """The floor, with the cube's shadow, as if there were no walls."""
    dx, dy, ox, oy = _turned(state, view, torch.zeros_like(state.turn))
    reach = (CAMERA_HEIGHT / -view.up).clamp(0, _FAR)
    x, y = dx.mul_(reach).add_(ox), dy.mul_(reach).add_(oy)
    pattern = _look_up(state.patterns[:, 0], x, y)
    light = _shadow(state, x, y).mul_(-SHADOW).add_(1)
    light *= AMBIENT + DIFFUSE * state.light[:, 2, None, None]
    for channel, colour in _mixes(state.colours[:, :2], pattern):
        torch.mul(colour, light, out=canvas[channel, :, view.rows])


def _draw_walls(canvas: Tensor, state: DiceState, view: Rays) -> None:
    """The walls, over the floor."""
    dx, dy, ox, oy = _turned(state, view, torch.zeros_like(state.turn))
    # Where the ray meets the walls that it heads for.
    right, behind = dx > 0, dy > 0
    tx = (torch.where(right, ROOM, -ROOM) - ox).div_(dx)
    ty = (torch.where(behind, ROOM, -ROOM) - oy).div_(dy)
    sideways = tx < ty
    t = torch.minimum(tx, ty)
    height = (t * view.up).add_(CAMERA_HEIGHT)
    along = torch.where(sideways, dy.mul_(t).add_(oy), dx.mul_(t).add_(ox))
    pattern = _look_up(state.patterns[:, 1], along, height.clamp(-_FAR, _FAR))
    # Where the wall's foot crosses a pixel, part of it is floor.
    cover = height.div_(t.mul_(view.pixel)).add_(0.5).clamp_(0, 1)
    towards_x, towards_y = state.light[:, :2, None, None].unbind(1)
    lit_x = torch.where(right, -towards_x, towards_x)
    lit_y = torch.where(behind, -towards_y, towards_y)
    light = torch.where(sideways, lit_x, lit_y).clamp_(min=0).mul_(DIFFUSE).add_(AMBIENT + 0.1)
    for channel, colour in _mixes(state.colours[:, 2:4], pattern):
        colour *= light
        _cover(canvas[channel, :, view.rows], colour, cover)


def _mixes(colours: Tensor, share: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each channel of two colours (F, 2, 3), the second by its ``share`` (F, rows, size)."""
    for channel in range(3):
        first, second = colours[:, :, channel, None, None].unbind(1)
        yield channel, (share * (second - first)).add_(first)


def _cover(canvas: Tensor, colour: Tensor, cover: Tensor) -> None:
    """Lay ``colour`` over the canvas where, and as far as, it covers it; all (F, rows, size)."""
    colour -= canvas
    colour *= cover
    canvas += colour


def _look_up(which: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Pattern ``which`` (F,) at places (F, rows, size) in cube edges."""
    side, per_edge = PATTERN_SIDE, PATTERN_SIDE // 2
    column = ((u + _FAR) * per_edge).to(torch.int64).bitwise_and_(side - 1)
    row = ((v + _FAR) * per_edge).to(torch.int64).bitwise_and_(side - 1)
    row += which[:, None, None] * side
    return patterns(u.device).flatten()[row.mul_(side).add_(column)]


def _shadow(state: DiceState, x: Tensor, y: Tensor) -> Tensor:
    """How much of the cube's shadow lies on floor points (F, size, size), 0 .. 1.

    The shadow is the cube's base swept along the way that light shifts its top: a hexagon, the
    meeting of three strips.
    """
    cos, sin = state.turn.cos()[:, None, None], state.turn.sin()[:, None, None]
    x, y = x - state.centre[:, 0, None, None], y - state.centre[:, 1, None, None]
    a, b = x * cos + y * sin, y * cos - x * sin  # as the cube sees it
    light = state.light[..., None, None]
    stretch = -2 * HALF / light[:, 2]
    ex = (light[:, 0] * cos + light[:, 1] * sin) * stretch
    ey = (light[:, 1] * cos - light[:, 0] * sin) * stretch
    length = (ex * ex + ey * ey).sqrt()
    outside = (a - ex / 2).abs_() - (HALF + ex.abs() / 2)
    outside = torch.maximum(outside, (b - ey / 2).abs_() - (HALF + ey.abs() / 2))
    across = (a * (ey / length) - b * (ex / length)).abs_()
    outside = torch.maximum(outside, across - HALF * (ex.abs() + ey.abs()) / length)
    return outside.mul_(-1 / _SHADOW_EDGE).add_(0.5).clamp_(0, 1)


def _front_sides(state: DiceState) -> tuple[Tensor, Tensor]:
    """For each axis of the cube the side (F, 2) turned to the camera, and the camera (F, 2)."""
    across = state.camera - state.turn
    cos, sin = state.turn.cos(), state.turn.sin()
    cx, cy = state.centre.unbind(1)
    place = torch.stack(
        [
            CAMERA_RADIUS * across.cos() - (cx * cos + cy * sin),
            CAMERA_RADIUS * across.sin() - (cy * cos - cx * sin),
        ],
        1,
    )
    away = (place < 0).to(torch.int64)  # the far side of that axis: faces 2 and 3
    return torch.arange(2, device=away.device) + 2 * away, place


def _draw_side(canvas: Tensor, state: DiceState, view: Rays, axis: int) -> None:
    """The side of the cube along ``axis`` that is turned to the camera."""
    sides, place = _front_sides(state)
    across, towards = reversed(_turned(state, view, state.turn)[:2])
    if axis == 1:
        across, towards = towards, across
    sign = torch.where(place[:, axis] < 0, -1.0, 1.0)[:, None, None]
    depth = HALF * sign - place[:, axis, None, None]
    depth = torch.where(depth * sign < 0, depth, 0.0)  # behind the plane: nothing is seen
    # A ray may run exactly along the plane, and then never meets it.
    t = (depth / towards).nan_to_num_(0.0, 0.0, 0.0)
    right = sign if axis == 0 else -sign  # to the right along the face, seen from outside
    a = across.mul_(t).add_(place[:, 1 - axis, None, None]).mul_(right)
    b = (t * view.up).add_(CAMERA_HEIGHT - HALF)
    slant = -depth * sign / CAMERA_RADIUS
    side = sides[:, axis]
    angle = state.turn + side * (math.pi / 2)
    lit = state.light[:, 0] * angle.cos() + state.light[:, 1] * angle.sin()
    digit = state.faces.gather(1, side[:, None])[:, 0]
    _draw_face(canvas, state, view, (a, b, t), slant, digit, lit)


def _draw_top(canvas: Tensor, state: DiceState, view: Rays) -> None:
    """The top of the cube."""
    _, place = _front_sides(state)
    dx, dy, _, _ = _turned(state, view, state.turn)
    t = (2 * HALF - CAMERA_HEIGHT) / view.up.clamp_max(-1e-3)
    a = dx.mul_(t).add_(place[:, 0, None, None])
    b = dy.mul_(t).add_(place[:, 1, None, None])
    digit = state.faces[:, SIDES]
    _draw_face(canvas, state, view, (a, b, t.expand_as(a)), None, digit, state.light[:, 2])


def _draw_face(
    canvas: Tensor,
    state: DiceState,
    view: Rays,
    hits: tuple[Tensor, Tensor, Tensor],
    slant: Tensor | None,
    digit: Tensor,
    lit: Tensor,
) -> None:
    """One face of the cube with its digit.

    Args:
        canvas: (3, F, size, size).
        state: F scenes.
        view: the rows that it can be in.
        hits: right and up from the face's middle where rays meet its plane, and how far away
            that is, not positive where they do not; (F, rows, size) each.
        slant: (F, 1, 1), how much its width is foreshortened; None for the top, whose width and
            height both are.
        digit: (F,) int64.
        lit: (F,) float32, cosine between its normal and the light.
    """
    a, b, t = hits
    aside, above = a.abs().sub_(HALF), b.abs().sub_(HALF)
    edge = torch.maximum(aside if slant is None else aside.mul_(slant), above)
    edge /= t.clamp_min(1e-3) * (view.pixel if slant is not None else view.pixel / _TOP)
    cover = edge.neg_().add_(0.5).clamp_(0, 1).mul_(t > 0)
    column = a.add_(HALF).mul_(_DIGIT_SIDE).clamp_(0, _DIGIT_SIDE - 1).to(torch.int64)
    row = b.neg_().add_(HALF).mul_(_DIGIT_SIDE).clamp_(0, _DIGIT_SIDE - 1).to(torch.int64)
    row += digit[:, None, None] * _DIGIT_SIDE
    ink = digit_bitmaps(a.device, directory()).flatten()[row.mul_(_DIGIT_SIDE).add_(column)]
    colours = state.colours[:, 4:] * (AMBIENT + DIFFUSE * lit.clamp_min(0))[:, None, None]
    for channel, colour in _mixes(colours, ink):
        _cover(canvas[channel, :, view.rows], colour, cover)
