"""The paper's test of consistency: the context shows three sides, the queries the fourth.

Given views that never show one side of the cube, a model that draws whole scenes must give that
side one digit, in whatever view it appears (Consistent Jumpy Predictions, sec. 4.2: KL_1, KL_3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final

import torch
from torch import Tensor

from envs.dice.raycast import render
from envs.dice.scene import CAMERA_RADIUS, HALF, POOL, SIDES, DiceState
from envs.randomness import hash_ids, integers, uniform
from envs.template_match import nearest, white_level

FRONT: Final = math.radians(35)
"""Targets see the hidden side at most so far from its front, as measured at the cube."""
_MARGIN: Final = 0.03  # radians between a context view and the first sight of the hidden side


@dataclass(frozen=True)
class HiddenFaceViews:
    """Context and target views, and the true digit of the hidden side.

    Attributes:
        hidden: ``(B,)`` int64, the side that no context view shows, 0-3.
        digit: ``(B,)`` int64, the pool's row that it bears.
        context: ``(B, M)`` float32, angles on the camera's circle, radians.
        targets: ``(B, n)`` float32, likewise.
    """

    hidden: Tensor
    digit: Tensor
    context: Tensor
    targets: Tensor


def hidden_face_views(
    state: DiceState, contexts: int = 5, targets: int = 3, seed: int = 0
) -> HiddenFaceViews:
    """Draw views by which one random side stays hidden until the targets show it.

    Context views lie spread over the whole arc from which the hidden side cannot be seen, so that
    from three of them on the three other sides are all seen.

    Args:
        state: B scenes; where their cameras stand does not matter.
        contexts: M, at least 1.
        targets: n, at least 1.
        seed: another seed, other sides and views.

    Raises:
        ValueError: ``contexts`` or ``targets`` is below 1.
    """
    if contexts < 1 or targets < 1:
        raise ValueError(f"contexts and targets must be at least 1, got {contexts} and {targets}")
    names = hash_ids(state.scene_ids, seed)
    hidden = integers(names, 0, 1, SIDES)[:, 0]
    normal = state.turn + hidden * (math.pi / 2)
    cx, cy = state.centre.unbind(1)

    # The side is seen where R cos(camera - normal) > HALF + (centre along the normal).
    along = cx * normal.cos() + cy * normal.sin()
    edge = ((HALF + along) / CAMERA_RADIUS).acos() + _MARGIN
    share = (torch.arange(contexts, device=names.device) + uniform(names, 1, contexts)) / contexts
    share = share.gather(1, uniform(names, 2, contexts).argsort(dim=1, stable=True))
    context = (normal + edge)[:, None] + share * (2 * (math.pi - edge))[:, None]

    context = torch.atan2(context.sin(), context.cos())
    return HiddenFaceViews(
        hidden=hidden,
        digit=state.faces.gather(1, hidden[:, None])[:, 0],
        context=context,
        targets=facing_views(state, hidden, targets, seed),
    )


def facing_views(state: DiceState, side: Tensor, views: int, seed: int = 0) -> Tensor:
    """Draw cameras that see a side at most ``FRONT`` from its front, as measured at the cube.

    Args:
        state: B scenes.
        side: ``(B,)`` int64, 0-3.
        views: n.
        seed: another seed, other views.

    Returns:
        ``(B, n)`` float32, angles on the camera's circle, radians.
    """
    names = hash_ids(state.scene_ids, seed)
    normal = state.turn + side * (math.pi / 2)
    cx, cy = state.centre.unbind(1)
    angle = normal[:, None] + (2 * uniform(names, 3, views) - 1) * FRONT
    ahead = cx[:, None] * angle.cos() + cy[:, None] * angle.sin()
    offset = (cx * cx + cy * cy)[:, None]
    reach = (ahead * ahead + CAMERA_RADIUS**2 - offset).sqrt() - ahead
    return torch.atan2(cy[:, None] + reach * angle.sin(), cx[:, None] + reach * angle.cos())


def off_front(state: DiceState, camera: Tensor, side: Tensor) -> Tensor:
    """How far cameras ``(B, n)`` are from the front of sides ``(B,)``, as measured at the cube: (B,
    n), radians in [0, pi].
    """
    place = CAMERA_RADIUS * torch.stack([camera.cos(), camera.sin()], -1) - state.centre[:, None]
    normal = state.turn + side * (math.pi / 2)
    angle = torch.atan2(place[..., 1], place[..., 0]) - normal[:, None]
    return torch.atan2(angle.sin(), angle.cos()).abs()


def look(state: DiceState, camera: Tensor, size: int) -> Tensor:
    """What cameras at angles ``(B, n)`` see: ``(B, n, size, size, 3)`` uint8."""
    batch, n = camera.shape
    scenes = state.map(lambda value: value.repeat_interleave(n, 0))
    frames = render(replace(scenes, camera=camera.flatten()), size)
    return frames.reshape(batch, n, *frames.shape[1:])


def read_face(frames: Tensor, state: DiceState, camera: Tensor, side: Tensor) -> Tensor:
    """Which digit a side of the cube bears in (generated) frames: analysis by synthesis.

    The scene is drawn with each of the 100 digits on that side, and compared in grey
    (``envs.template_match``). Of 180 views of ``hidden_face_views`` in
    test scenes all digits are read right at 64 pixels, also from frames blurred 3 or 5 pixels wide;
    at 32 pixels all sharp ones, .99 blurred 3 wide, and .20 (.58 of classes) blurred 5 wide.

    Args:
        frames: ``(B, n, S, S, 3)`` uint8, or floating point in [0, 1].
        state: the scenes, B of them.
        camera: ``(B, n)`` float32, from where the frames look.
        side: ``(B,)`` int64, which side face, 0-3.

    Returns:
        ``(B, n)`` int64, row of the pool (``envs.dice.scene.pool``).

    Raises:
        ValueError: wrong shape.
    """
    batch, n = camera.shape
    white = white_level(frames, batch)
    if frames.shape[1] != n:
        raise ValueError(f"frames must be ({batch}, {n}, S, S, 3), got {tuple(frames.shape)}")
    grey = frames.to(torch.float32).mean(-1, keepdim=True) / white
    first = state.faces.gather(1, side[:, None])[:, 0] // POOL * POOL
    every = torch.arange(POOL, device=frames.device)
    digits = torch.empty((batch, n), dtype=torch.int64, device=frames.device)
    for b in range(batch):
        scenes = state.map(itemgetter(torch.full((POOL,), b, device=frames.device)))
        faces = scenes.faces.clone()
        faces[:, side[b]] = first[b] + every
        for i in range(n):
            view = replace(scenes, faces=faces, camera=camera[b, i].expand(POOL))
            templates = render(view, frames.shape[2]).to(torch.float32).mean(-1, keepdim=True) / 255
            digits[b, i] = first[b] + nearest(grey[b, i][None, None], templates[None])[0, 0]
    return digits
