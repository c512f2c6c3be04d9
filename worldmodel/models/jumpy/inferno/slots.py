"""From a frame to a scene: slots, and what they say of objects (seed 002, tables 10.6 and 10.7).

Shapes: P pictures, K objects.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.inferno.config import InfernoConfig
from worldmodel.models.layers.slot_attention import (
    LOG_SPREAD,
    Focus,
    SlotAttention,
    random_places,
)

POSE = 7
"""Numbers of a pose: translation and scale along x, y and z, and a rotation about x."""


REACH = (1.0, 1.0, 0.5)
"""Translations along x, y and z lie between these and minus these."""
SCALES = 2.0
"""So many times larger or smaller than usual is an object at most."""
NEARBY = 0.5
"""Share of ``REACH``, from where the attention of a slot lies."""


class Scene(NamedTuple):
    """P scenes: what is rendered, and may be changed before.

    Attributes:
        pose: float32 (P, K, 7). Translation and scale along x, y, z, in units of half the scene's
            cube, and a rotation about x in radians, which is 0 as inferred.
        shape, appearance: float32 (P, K, L).
        background_shape, background_appearance: float32 (P, L).
        position: float32 (P, 3), where the camera stands that observed it, in the scene.
        axes: float32 (P, 3, 3), rows: unit vectors to the right of it, down and forward.
    """

    pose: Tensor
    shape: Tensor
    appearance: Tensor
    background_shape: Tensor
    background_appearance: Tensor
    position: Tensor
    axes: Tensor


class SceneSlots(nn.Module):
    """Slot attention with K slots of objects and one of the background, whose Gaussian is its own.

    With a ``focus`` each object's slot begins at a random place and looks around where it is: that
    is added to the logits of its attention, and it moves to the middle of what it wins.

    Args:
        height, width: of the encoded frame, in places.
        config: sizes.
    """

    def __init__(self, height: int, width: int, config: InfernoConfig) -> None:
        super().__init__()
        size = config.size
        self.focus = Focus(height, width, config.focus) if config.focus else None
        self.attention = SlotAttention(config.channels, size, size, config.attention_steps)
        self.background_mean = nn.Parameter(torch.randn(size) * size**-0.5)
        self.background_log_spread = nn.Parameter(torch.randn(size) * size**-0.5 + LOG_SPREAD)

    def forward(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Slots of objects (P, K, D) and of the background (P, D), and with a ``focus`` where in
        the picture the former look, (P, K, 2), x and y from -1 to 1.

        Args:
            features: (P, n, F), of the places of a frame, row by row.
            noise: (P, K + 1, D), standard normal; the background's is the last.
        """
        spread = self.background_log_spread.exp()
        background = self.background_mean + spread * noise[:, -1:]
        slots = torch.cat([self.attention.initial(noise[:, :-1]), background], 1)
        keys, values = self.attention.project(features)
        place = random_places(noise[:, :-1]) if self.focus else None
        slots, middle = self.attention(keys, values, slots, self.focus, place)
        slots = slots.float()
        return slots[:, :-1], slots[:, -1], middle


class ConditionalNorm(nn.Module):
    """Layer normalisation whose scale and shift are a linear map of a condition (Dumoulin et al.
    2018).
    """

    def __init__(self, size: int, condition: int) -> None:
        super().__init__()
        self.size = size
        self.map = nn.Linear(condition, 2 * size)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (..., size), condition (..., condition)."""
        scale, shift = self.map(condition).chunk(2, -1)
        normed: Tensor = layer_norm(x, (self.size,)) * (1 + scale) + shift
        return normed


class SlotToObject(nn.Module):
    """The pose of an object from its slot; shape and appearance from both (table 10.7)."""

    def __init__(self, config: InfernoConfig) -> None:
        super().__init__()
        size, latent = config.size, config.latent
        self.log_scale = math.log(config.object_scale)
        self.pose = nn.Sequential(
            nn.Linear(size, config.pose_hidden),
            nn.LayerNorm(config.pose_hidden),
            nn.ReLU(),
            nn.Linear(config.pose_hidden, POSE),
        )
        self.enter = nn.Linear(size, latent)
        self.norm = ConditionalNorm(latent, POSE)
        self.leave = nn.Linear(latent, 2 * latent)
        self.background = nn.Sequential(
            nn.Linear(size, latent), nn.LayerNorm(latent), nn.ReLU(), nn.Linear(latent, 2 * latent)
        )

    def forward(
        self, slots: Tensor, background: Tensor, centre: Tensor | None, cameras: Cameras
    ) -> Scene:
        """The scenes that slots stand for.

        Args:
            slots, background: (P, K, D) and (P, D).
            centre: (P, K, 3), what translations are relative to; None for the scene's middle.
            cameras: P that observe, in the frames of the scenes.
        """
        bounded = self.pose(slots).float().tanh()
        place = bounded[..., :3] * bounded.new_tensor(REACH)
        if centre is not None:
            place = centre + NEARBY * place
        size = bounded[..., 3:6]
        none = torch.zeros_like(size[..., :1])
        relative = torch.cat([place, size, none], -1)
        scale = (self.log_scale + math.log(SCALES) * size).exp()
        pose = torch.cat([place, scale, none], -1)
        latent = self.leave(self.norm(self.enter(slots), relative).relu())
        shape, appearance = latent.float().chunk(2, -1)
        ground_shape, ground_appearance = self.background(background).float().chunk(2, -1)
        return Scene(pose, shape, appearance, ground_shape, ground_appearance, *cameras)


def to_object(points: Tensor, pose: Tensor) -> Tensor:
    """Points of the scene (..., 3) in the space of objects with poses (..., 7).

    A point of an object is scaled, turned about x and moved: this is the inverse.
    """
    moved = points - pose[..., :3]
    cos, sin = pose[..., 6].cos(), pose[..., 6].sin()
    x, y, z = moved.unbind(-1)
    turned = torch.stack([x.expand_as(y * cos), cos * y + sin * z, cos * z - sin * y], -1)
    return turned / pose[..., 3:6]
