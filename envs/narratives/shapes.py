"""Coloured shapes on a black canvas: what they are, where they fit, and how they are drawn.

Source: Consistent Jumpy Predictions, sec. 4.1 "Narratives" (12 colours, 4 sizes, 4 kinds).
Canvas units: the canvas is [0, 1] x [0, 1], x to the right and y downwards.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from envs.simulator import check_size

COLOUR_NAMES: Final = (
    "red", "green", "blue", "yellow", "orange", "purple",
    "cyan", "magenta", "lime", "pink", "azure", "white",
)  # fmt: skip
PALETTE: Final = (
    (235, 20, 20), (20, 190, 50), (45, 70, 255), (255, 230, 0), (255, 120, 0), (135, 30, 215),
    (0, 225, 225), (255, 30, 200), (165, 255, 40), (255, 160, 160), (95, 165, 255), (255, 255, 255),
)  # fmt: skip
"""RGB, 0-255. Distinct in direction as well, so that a blended edge shows its colour."""

KIND_NAMES: Final = ("circle", "square", "triangle", "pentagon")
RADII: Final = (0.06, 0.075, 0.09, 0.105)
"""Nominal radius of the four sizes, in canvas widths."""

CIRCUMRADII: Final = (1.0, 1.2, 1.3, 1.1)
"""Circumradius of each kind over the nominal radius: corners stick out so that areas are alike."""

# Every kind is symmetric in x, so three half-planes in (|x|, y) describe each polygon. Angles of
# the outward normals in degrees, counter-clockwise with y up; and how many sides the polygon has.
_NORMAL_ANGLES: Final = ((0, 90, -90), (30, -90, -90), (54, -18, -90))
_SIDES: Final = (4, 3, 5)
_NEVER: Final = -1e6  # a signed distance that never wins the maximum

# Numbers in the canvas that is drawn at once: stays in a CPU's cache, fills a GPU.
_CHUNK_CPU: Final = 1 << 19
_CHUNK_GPU: Final = 1 << 26


def _half_planes() -> tuple[list[list[tuple[float, float]]], list[float]]:
    """Normals (4 kinds, 3, 2) with y down and inradius over nominal radius (4 kinds)."""
    normals = [[(0.0, 0.0)] * 3]  # the circle has none
    inradii = [0.0]
    for angles, sides, circumradius in zip(_NORMAL_ANGLES, _SIDES, CIRCUMRADII[1:], strict=True):
        radians = [math.radians(a) for a in angles]
        normals.append([(math.cos(a), -math.sin(a)) for a in radians])
        inradii.append(circumradius * math.cos(math.pi / sides))
    return normals, inradii


_NORMALS, _INRADII = _half_planes()


def bounding_radii(kinds: Tensor, sizes: Tensor) -> Tensor:
    """Radius of the circle around each shape's centre that holds it, in canvas widths (float32)."""
    radii = torch.tensor(RADII, device=sizes.device)[sizes]
    return radii * torch.tensor(CIRCUMRADII, device=kinds.device)[kinds]


def _coverage(x: Tensor, y: Tensor, kinds: Tensor, radii: Tensor) -> Tensor:
    """How much of each pixel a shape covers: (F, N, P, P) float32 in [0, 1].

    A polygon is the maximum of half-planes in (|x|, y): each is a sum of a column and a row term,
    so that the full-size work is three additions. A circle rides along as one more term.

    Args:
        x, y: (F, N, P), columns and rows of pixels as seen from the shape's centre, in pixels.
        kinds, radii: (F, N); radii in pixels.
    """
    device = x.device
    x = x.abs()
    is_circle = kinds == 0
    normals = torch.tensor(_NORMALS, device=device)[kinds]  # (F, N, 3, 2)
    inradii = torch.tensor(_INRADII, device=device)[kinds] * radii
    offsets = torch.where(is_circle, -_NEVER, inradii)[..., None, None]
    columns = x[..., None, :] * normals[..., 0, None]  # (F, N, 3, P)
    rows = y[..., None, :] * normals[..., 1, None] - offsets  # (F, N, 3, P)

    circle = is_circle[..., None]
    square = (y * y * circle)[..., :, None] + (x * x * circle)[..., None, :]
    distance = square.sqrt_().sub_(torch.where(is_circle, radii, -_NEVER)[..., None, None])
    for k in range(3):
        plane = rows[..., k, :, None] + columns[..., k, None, :]
        distance = torch.maximum(distance, plane, out=distance)
    return distance.neg_().add_(0.5).clamp_(0.0, 1.0)


def segments(positions: Tensor, kinds: Tensor, sizes: Tensor, size: int) -> Tensor:
    """Which shape is visible at each pixel: 0 where there is none, shape i is i + 1.

    A pixel belongs to the foremost shape that covers its middle.

    Args:
        positions: ``(B, N, 2)`` float32, centres in canvas units; later shapes lie over earlier.
        kinds, sizes: ``(B, N)`` int64, indices into ``KIND_NAMES`` and ``RADII``.
        size: height and width in pixels, a multiple of 8.

    Returns:
        ``(B, size, size)`` int64.

    Raises:
        ValueError: ``size`` is no multiple of 8.
    """
    pixels = torch.arange(check_size(size), device=positions.device) + 0.5
    x, y = (pixels - size * centre[..., None] for centre in positions.unbind(-1))
    radii = torch.tensor(RADII, device=positions.device)[sizes] * size
    covers = _coverage(x, y, kinds, radii) >= 0.5
    number = torch.arange(1, kinds.shape[1] + 1, device=covers.device)[:, None, None]
    return (covers * number).amax(1)


def _paint(centres: Tensor, kinds: Tensor, radii: Tensor, rgb: Tensor, size: int) -> Tensor:
    """Lay shapes over black in order; of each, only a patch of the canvas that holds it.

    Args:
        centres: (F, N, 2) in pixels.
        kinds, radii: (F, N).
        rgb: (F, N, 3), 0-255.
        size: of the canvas.

    Returns:
        uint8 (F, size, size, 3).
    """
    frames, shapes, _ = centres.shape
    device = centres.device
    reach = max(RADII) * max(CIRCUMRADII) * size + 1
    patch = min(size, math.ceil(2 * reach) + 1)
    origin = (centres - patch / 2).floor().clamp(0, size - patch).to(torch.int64)
    within = torch.arange(patch, device=device)
    pixel = origin[..., None] + within  # (F, N, 2, P)
    x, y = (pixel + 0.5 - centres[..., None]).unbind(2)
    coverage = _coverage(x, y, kinds, radii).flatten(2)  # (F, N, P * P)

    canvas = torch.zeros((3, frames * size * size), device=device)
    first = torch.arange(frames, device=device)[:, None, None] * size * size
    for i in range(shapes):
        rows, columns = pixel[:, i, 1, :, None], pixel[:, i, 0, None, :]
        index = (first + rows * size + columns).reshape(1, -1).expand(3, -1)
        below = canvas.gather(1, index).reshape(3, frames, -1)
        above = (rgb[:, i].T[..., None] - below).mul_(coverage[:, i])
        canvas.scatter_(1, index, below.add_(above).reshape(3, -1))
    return canvas.add_(0.5).to(torch.uint8).reshape(3, frames, size, size).permute(1, 2, 3, 0)


def render(positions: Tensor, colours: Tensor, kinds: Tensor, sizes: Tensor, size: int) -> Tensor:
    """Draw frames: anti-aliased shapes on black, later shapes over earlier ones.

    Args:
        positions: ``(B, n, N, 2)`` float32, centres in canvas units; n frames, N shapes.
        colours: ``(B, n, N)`` or ``(B, 1, N)`` int64, index into ``PALETTE``.
        kinds: likewise, index into ``KIND_NAMES``.
        sizes: likewise, index into ``RADII``.
        size: height and width in pixels, a multiple of 8.

    Returns:
        ``(B, n, size, size, 3)`` uint8. A frame does not depend on its neighbours in the batch.

    Raises:
        ValueError: wrong shapes or size.
    """
    check_size(size)
    if positions.ndim != 4 or positions.shape[-1] != 2:
        raise ValueError(f"positions must be (B, n, N, 2), got {tuple(positions.shape)}")
    batch, n, shapes, _ = positions.shape
    flat: list[Tensor] = []
    for name, attribute in (("colours", colours), ("kinds", kinds), ("sizes", sizes)):
        if attribute.ndim != 3 or attribute.shape not in ((batch, n, shapes), (batch, 1, shapes)):
            raise ValueError(
                f"{name} must be {(batch, n, shapes)} or {(batch, 1, shapes)} like positions, "
                f"got {tuple(attribute.shape)}"
            )
        flat.append(attribute.expand(batch, n, shapes).reshape(-1, shapes))
    device = positions.device
    centres = positions.reshape(-1, shapes, 2) * size
    radii = torch.tensor(RADII, device=device)[flat[2]] * size
    rgb = torch.tensor(PALETTE, dtype=torch.float32, device=device)[flat[0]]

    frames = torch.empty((batch * n, size, size, 3), dtype=torch.uint8, device=device)
    elements = _CHUNK_CPU if device.type == "cpu" else _CHUNK_GPU
    step = max(1, elements // (3 * size * size))
    for start in range(0, batch * n, step):
        part = slice(start, start + step)
        frames[part] = _paint(centres[part], flat[1][part], radii[part], rgb[part], size)
    return frames.reshape(batch, n, size, size, 3)
