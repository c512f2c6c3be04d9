"""How a camera's pose is read from numbers, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodel import ActionSpec, Camera, Spec

CAMERA = Camera(1.0, 1.0, 6.0, ((-1.0, -1.0, 0.0), (1.0, 1.0, 1.0)))
MATRIX = replace(CAMERA, layout="camera_to_world")


def by_angles(yaw: float, pitch: float) -> Tensor:
    """At (1, 2, 3)."""
    angles = [math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)]
    return torch.tensor([1.0, 2.0, 3.0, *angles])


def test_yaw_and_pitch() -> None:
    cameras = CAMERA.read(by_angles(math.pi / 2, 0.0))
    assert cameras.position.tolist() == [1, 2, 3]
    right, down, forward = cameras.axes
    for axis, expected in ((right, (1, 0, 0)), (down, (0, 0, -1)), (forward, (0, 1, 0))):
        torch.testing.assert_close(axis, torch.tensor(expected).float(), atol=1e-6, rtol=0)
    upwards = CAMERA.read(by_angles(0.3, 0.4))
    assert upwards.forward[2] == pytest.approx(math.sin(0.4))
    eye = torch.eye(3)
    torch.testing.assert_close(upwards.axes @ upwards.axes.T, eye, atol=1e-6, rtol=0)
    assert float(torch.linalg.det(upwards.axes)) == pytest.approx(1.0)


def test_both_layouts_say_the_same() -> None:
    poses = torch.stack([by_angles(yaw, 0.2 * yaw) for yaw in (-2.0, 0.1, 3.0)])
    one = CAMERA.read(poses)
    rotation = one.axes.transpose(-1, -2)
    matrices = torch.cat([rotation, one.position[..., None]], -1).flatten(-2)
    other = MATRIX.read(matrices)
    torch.testing.assert_close(one.axes, other.axes)
    torch.testing.assert_close(one.position, other.position)
    MATRIX.check(matrices, "poses")
    CAMERA.check(poses, "poses")


@pytest.mark.parametrize(
    ("camera", "poses"),
    [
        (CAMERA, torch.tensor([[1.0, 2, 3, 0.5, 0.2, 1, 0]])),  # yaw and pitch themselves
        (CAMERA, torch.zeros(2, 3, 7)),
        (MATRIX, torch.zeros(2, 12)),
        (MATRIX, 2 * torch.eye(4)[:3].flatten()[None]),
    ],
)
def test_other_numbers_are_no_poses(camera: Camera, poses: Tensor) -> None:
    with pytest.raises(ValueError, match=r"context\.poses: expected poses of layout"):
        camera.check(poses, "context.poses")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field_of_view": 0.0}, "field_of_view: expected radians"),
        ({"field_of_view": 4.0}, "field_of_view: expected radians"),
        ({"near": 0.0}, "near, far: expected 0 < near < far"),
        ({"far": 1.0}, "near, far: expected 0 < near < far"),
        ({"region": ((0.0,) * 3, (1.0, 0.0, 1.0))}, "region: expected two corners"),
        ({"region": ((0.0,) * 2, (1.0,) * 2)}, "region: expected two corners"),
        ({"layout": "quaternion"}, "layout: expected one of"),
    ],
)
def test_bad_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CAMERA, **change)


def test_a_spec_keeps_its_camera() -> None:
    spec = Spec((3, 16, 16), ActionSpec("none"), 4, pose=7, camera=CAMERA)
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    without = replace(spec, camera=None)
    assert "camera" not in without.to_dict()  # as in older checkpoints
    assert Spec.from_dict(without.to_dict()) == without
    with pytest.raises(ValueError, match="camera, pose: layout 'camera_to_world' has 12 numbers"):
        replace(spec, camera=MATRIX)
    data = spec.to_dict()
    with pytest.raises(ValueError, match="camera: expected"):
        Spec.from_dict({**data, "camera": {**data["camera"], "near": -1.0}})
