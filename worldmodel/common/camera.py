"""A pinhole camera whose intrinsics are known, and how its pose is read from numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

PoseLayout = Literal["position_yaw_pitch", "camera_to_world"]
Point = tuple[float, float, float]

POSE_NUMBERS = {"position_yaw_pitch": 7, "camera_to_world": 12}
"""Of each layout."""
TOLERANCE = 1e-2
"""By which the axes that a pose names may miss the length 1, and a right angle."""


class Cameras(NamedTuple):
    """Where cameras stand and how they are turned.

    Attributes:
        position: float32 (..., 3), in the world.
        axes: float32 (..., 3, 3), rows: unit vectors to the right, down and forward.
    """

    position: Tensor
    axes: Tensor

    @property
    def forward(self) -> Tensor:
        """(..., 3), the optical axis."""
        return self.axes[..., 2, :]

    def flat(self) -> Cameras:
        """Of (B, n) cameras B * n."""
        return Cameras(self.position.flatten(0, 1), self.axes.flatten(0, 1))


@dataclass(frozen=True)
class Camera:
    """What is known of a camera besides its pose. Lengths are in the poses' units.

    Attributes:
        field_of_view: vertical, in radians; pixels are square, the optical axis meets the middle.
        near, far: depths along the optical axis between which surfaces lie.
        region: two opposite corners (x, y, z) of a box around what matters; it is modelled finely,
            what lies outside coarsely.
        layout: how a pose is read. ``position_yaw_pitch``: x, y, z; cosine and sine of the yaw
            about z, which points up; cosine and sine of the pitch, positive upwards (7 numbers).
            ``camera_to_world``: the rows of the 3 x 4 matrix whose columns are the camera's axes,
            right, down and forward (OpenCV), and its position (12 numbers).

    Raises:
        ValueError: an angle, depth or corner is out of range, or there is no such layout.
    """

    field_of_view: float
    near: float
    far: float
    region: tuple[Point, Point]
    layout: PoseLayout = "position_yaw_pitch"

    def __post_init__(self) -> None:
        corners = tuple(tuple(float(x) for x in corner) for corner in self.region)
        object.__setattr__(self, "region", corners)  # JSON turns tuples into lists
        if not 0 < self.field_of_view < math.pi:
            raise ValueError(
                f"field_of_view: expected radians above 0 and below pi, got {self.field_of_view}"
            )
        if not 0 < self.near < self.far < math.inf:
            raise ValueError(f"near, far: expected 0 < near < far, got {self.near} and {self.far}")
        if [len(corner) for corner in corners] != [3, 3] or not all(
            -math.inf < low < high < math.inf for low, high in zip(*corners, strict=True)
        ):
            raise ValueError(
                f"region: expected two corners (x, y, z), the lower one first, got {self.region}"
            )
        if self.layout not in get_args(PoseLayout):
            raise ValueError(f"layout: expected one of {get_args(PoseLayout)}, got {self.layout!r}")

    @property
    def pose(self) -> int:
        """Numbers of a pose."""
        return POSE_NUMBERS[self.layout]

    def read(self, poses: Tensor) -> Cameras:
        """Cameras of poses (..., P); axes are scaled to the length 1."""
        poses = poses.float()
        if self.layout == "camera_to_world":
            matrix = poses.unflatten(-1, (3, 4))
            return Cameras(matrix[..., 3], normalize(matrix[..., :3].transpose(-1, -2), dim=-1))
        yaw = normalize(poses[..., 3:5], dim=-1)
        cos, sin = normalize(poses[..., 5:7], dim=-1).unbind(-1)
        x, y = yaw.unbind(-1)
        right = torch.stack([y, -x, torch.zeros_like(x)], -1)
        down = torch.stack([sin * x, sin * y, -cos], -1)
        forward = torch.stack([cos * x, cos * y, sin], -1)
        return Cameras(poses[..., :3], torch.stack([right, down, forward], -2))

    def check(self, poses: Tensor, argument: str) -> None:
        """Raise ValueError, naming ``argument``, unless ``poses`` (..., P) are of the layout."""
        if self.layout == "camera_to_world":
            axes = poses.float().unflatten(-1, (3, 4))[..., :3]
            wrong = axes.transpose(-1, -2) @ axes - torch.eye(3, device=poses.device)
        else:
            pairs = poses[..., 3:7].float().unflatten(-1, (2, 2))
            wrong = pairs.square().sum(-1) - 1
        if poses.numel() and float(wrong.abs().max()) > TOLERANCE:
            what = {
                "camera_to_world": "columns of the rotation that are unit vectors at right angles",
                "position_yaw_pitch": "x, y, z, and cosine and sine of yaw and of pitch",
            }
            raise ValueError(
                f"{argument}: expected poses of layout {self.layout!r}, {what[self.layout]}; got "
                f"{[round(x, 3) for x in poses.reshape(-1, poses.shape[-1])[0].tolist()]} first"
            )
