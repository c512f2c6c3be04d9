"""Geometry, the camera, and the pictures of the dice scenes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from envs.dice import DiceState, Views, look, poses
from envs.dice.raycast import Rays, _draw_side, render
from envs.dice.scene import (
    CAMERA,
    CAMERA_HEIGHT,
    CAMERA_RADIUS,
    PATTERNS,
    PITCH,
    POOL,
    facing,
    patterns,
    pool,
    visible_sides,
)

TEST = 1 << 40


def scenes(count: int, first: int = 0) -> DiceState:
    return Views().begin(torch.arange(count) + first)


def test_faces_and_rooms_are_uniform():
    state = scenes(20_000)
    counts = torch.stack([(state.faces == digit).sum(0) for digit in range(POOL)]).float()
    assert ((counts - 200).square() / 200).sum(0).max() < 149  # 99 dof: p = 0.001
    both = state.faces[:, 0] // 10 * 10 + state.faces[:, 1] // 10
    counts = torch.bincount(both, minlength=100)
    assert ((counts - 200.0).square() / 200).sum() < 149
    for values, n in ((state.patterns[:, 0], len(PATTERNS)), (state.patterns[:, 1], len(PATTERNS))):
        counts = torch.bincount(values, minlength=n)
        assert ((counts - 2500.0).square() / 2500).sum() < 24.4  # 7 dof
    quarters = (state.camera + math.pi) / (2 * math.pi)
    assert (torch.histc(quarters, 8, 0, 1) / 20_000 - 1 / 8).abs().max() < 0.01
    assert state.centre.abs().max() <= 0.35 and (state.light[:, 2] > 0.7).all()
    torch.testing.assert_close(state.light.norm(dim=1), torch.ones(20_000))


def test_train_and_test_scenes_share_digits_unless_told_otherwise():
    for first in (0, TEST):
        assert scenes(500, first).faces.max() < POOL
    unseen = Views(test_digits="unseen")
    assert unseen.begin(torch.arange(500)).faces.max() < POOL
    assert unseen.begin(torch.arange(500) + TEST).faces.min() >= POOL
    digits = pool()
    assert torch.bincount(digits.labels[:POOL]).tolist() == [10] * 10
    assert torch.bincount(digits.labels[POOL:]).tolist() == [10] * 10
    flat = digits.images.flatten(1)
    assert len(flat.unique(dim=0)) == 2 * POOL
    with pytest.raises(ValueError, match="test_digits"):
        Views(test_digits="other")


def test_poses_look_at_the_centre():
    x, y, z, cos_yaw, sin_yaw, cos_pitch, sin_pitch = poses(torch.tensor([0.0, 1.0, -2.0])).unbind(
        -1
    )
    torch.testing.assert_close((x * x + y * y).sqrt(), torch.full((3,), CAMERA_RADIUS))
    assert (z == CAMERA_HEIGHT).all()
    torch.testing.assert_close(x + CAMERA_RADIUS * cos_yaw, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y + CAMERA_RADIUS * sin_yaw, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.atan2(sin_pitch, cos_pitch), torch.full((3,), PITCH))
    assert PITCH < 0


def test_views_go_where_they_are_told():
    views = Views()
    state = views.begin(torch.arange(3))
    after, reward, over = views.step(state, torch.tensor([[0.5], [-1.0], [0.0]]))
    assert after.camera.tolist() == pytest.approx([0.5 * math.pi, -math.pi, 0.0])
    assert (reward == 0).all() and not over.any()
    assert torch.equal(views.poses(after), poses(after.camera))


def test_visible_sides_are_those_whose_digits_show():
    """Another digit on a side changes the picture just where that side is visible."""
    state = scenes(40)
    seen = visible_sides(state, state.camera[:, None])[:, 0]
    assert set(seen.sum(1).tolist()) == {1, 2}
    for side in range(4):
        faces = state.faces.clone()
        faces[:, side] = (faces[:, side] + 50) % POOL
        changed = (render(state, 128) != render(replace(state, faces=faces), 128)).flatten(1).any(1)
        assert not (changed & ~seen[:, side]).any()
        # A side that is seen at a grazing angle is thinner than a pixel.
        assert (changed == seen[:, side]).float().mean() > 0.93
    under = state.faces.clone()
    under[:, 5] = (under[:, 5] + 50) % POOL
    assert torch.equal(render(state, 64), render(replace(state, faces=under), 64))


def test_facing_is_the_side_in_front():
    state = scenes(100)
    for side in range(4):
        camera = state.turn + side * math.pi / 2
        centred = replace(state, centre=torch.zeros_like(state.centre))
        assert (facing(centred, camera[:, None]) == side).all()


def test_frames_do_not_depend_on_the_batch():
    state = scenes(300)
    together = render(state, 64)
    alone = [render(state.map(lambda v, i=i: v[i : i + 1]), 64) for i in range(0, 300, 7)]
    assert torch.equal(torch.cat(alone), together[::7])


@pytest.mark.parametrize("size", [8, 32, 96, 128])
def test_sizes(size):
    frames = render(scenes(3), size)
    assert frames.shape == (3, size, size, 3) and frames.dtype == torch.uint8
    assert frames.flatten(1).float().std(1).min() > 10


def test_the_picture_is_the_same_scene_at_any_size():
    small, large = render(scenes(20), 64).float(), render(scenes(20), 256).float()
    mean = large.unflatten(1, (64, 4)).unflatten(3, (64, 4)).mean((2, 4))
    assert (small - mean).abs().mean() < 6


@pytest.mark.parametrize("axis", [0, 1])
def test_a_ray_along_a_face_meets_it_nowhere(axis):
    """Such a ray divides by zero; nothing may come of it, also where the face is turned away."""
    zero, state = torch.zeros(1, 1), scenes(40)
    state = replace(state, camera=torch.zeros(40), turn=torch.zeros(40))
    view = Rays(slice(0, 1), zero + 1.0, zero, zero - 0.3, 0.01)
    canvas = torch.zeros(3, 40, 1, 1)
    _draw_side(canvas, state, view, axis)
    assert torch.isfinite(canvas).all()


def test_digits_stand_upright_and_are_not_mirrored():
    """A side seen from straight ahead shows its digit as the pool has it."""
    state = scenes(60)
    centred = replace(
        state, centre=torch.zeros_like(state.centre), turn=torch.zeros_like(state.turn)
    )
    front = render(replace(centred, camera=torch.zeros_like(state.camera)), 128).float().mean(-1)
    ink = pool().images[state.faces[:, 0]]
    part = 255 - front[:, 44:92, 40:88]
    part = torch.nn.functional.interpolate(part[:, None], (28, 28), mode="area")[:, 0]
    part, ink = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (part, ink))
    mirrored = ink.unflatten(1, (28, 28)).flip(2).flatten(1)
    upended = ink.unflatten(1, (28, 28)).flip(1).flatten(1)
    right = (part * ink).sum(1)
    assert (right > (part * mirrored).sum(1)).float().mean() > 0.9
    assert (right > (part * upended).sum(1)).float().mean() > 0.9


def test_the_shadow_darkens_the_floor_on_the_far_side_of_the_light():
    state = scenes(30)
    state = replace(
        state, patterns=torch.zeros_like(state.patterns), camera=torch.zeros_like(state.camera)
    )
    left = torch.tensor([0.0, 0.7071, 0.7071]).expand(30, 3)  # light from +y: the viewer's right
    frames = {
        sign: render(replace(state, light=left * torch.tensor([1, sign, 1])), 64).float()
        for sign in (1, -1)
    }
    darker = (frames[1] < frames[-1] - 10).float().mean((0, 3))  # (64, 64)
    assert darker[40:, :32].mean() > 2 * darker[40:, 32:].mean()


def test_patterns_repeat_without_a_seam():
    drawn = patterns(torch.device("cpu"))
    assert drawn.shape == (len(PATTERNS), 128, 128)
    assert drawn.min() >= 0 and drawn.max() <= 1
    seam = (drawn[:, 0] - drawn[:, -1]).abs().amax()
    assert seam <= (drawn[:, 1:] - drawn[:, :-1]).abs().amax() + 0.05


def test_looking_from_several_places():
    state = scenes(4)
    camera = torch.linspace(-3, 3, 12).view(4, 3)
    frames = look(state, camera, 32)
    assert frames.shape == (4, 3, 32, 32, 3)
    assert torch.equal(frames[2, 1], render(replace(state, camera=camera[:, 1]), 32)[2])


def test_the_camera_is_what_the_pictures_are_of() -> None:
    """The cube's corners, projected with the known intrinsics, frame the cube's pixels."""
    state = scenes(12)
    pale = state.colours.clone()
    pale[:, 4:] = 1 - pale[:, 4:]  # of the cube and its ink
    frames = render(state, 64).int() - render(replace(state, colours=pale), 64).int()
    cube = frames.abs().amax(-1) > 40
    cameras = CAMERA.read(poses(state.camera))
    side = state.turn[:, None] + math.pi / 4 + torch.arange(4) * (math.pi / 2)
    corner = state.centre[:, None] + math.sqrt(0.5) * torch.stack([side.cos(), side.sin()], -1)
    low, high = (torch.cat([corner, torch.full_like(corner[..., :1], z)], -1) for z in (0.0, 1.0))
    offset = torch.cat([low, high], 1) - cameras.position[:, None]
    x, y, depth = (offset @ cameras.axes.transpose(1, 2)).unbind(-1)
    assert depth.min() > CAMERA.near and depth.max() < CAMERA.far
    for scene in range(12):
        for lines, along in ((cube[scene].any(0), x), (cube[scene].any(1), y)):
            reach = math.tan(CAMERA.field_of_view / 2)
            pixels = ((along / depth)[scene] / reach + 1) * 32
            first, last = lines.nonzero()[0], lines.nonzero()[-1] + 1
            assert abs(float(first) - float(pixels.min())) < 1.5
            assert abs(float(last) - float(pixels.max())) < 1.5
    corners = torch.tensor(CAMERA.region)
    assert (torch.cat([low, high], 1) > corners[0]).all()
    assert (torch.cat([low, high], 1) < corners[1]).all()
