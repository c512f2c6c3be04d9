"""The JUMP for a known camera: rays, the memory in space, copying, anchors, draws, settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from scenes import PASSIVE, VIEWED, fresh, generator
from torch import Tensor

import worldmodel
from worldmodel import Context, Queries, Spec, fit, make, preset, testing
from worldmodel.common.camera import Camera, Cameras
from worldmodel.models.jumpy.rectified_flow import set_flow_steps
from worldmodel.models.jumpy.views import ViewsConfig, ViewsJump
from worldmodel.models.jumpy.views.anchors import AnchorPoses
from worldmodel.models.jumpy.views.crops import draw_crops
from worldmodel.models.jumpy.views.draws import draw_views
from worldmodel.models.jumpy.views.flow import AnchorPrior
from worldmodel.models.jumpy.views.geometry import Space, pixel_centres
from worldmodel.models.jumpy.views.memory import COMPOSITED, SpaceMemory, Views
from worldmodel.models.jumpy.views.renderer import RayRenderer

CAMERA = testing.noise.CAMERA
TINY = replace(
    preset("jump", "rays-small"), features=8, cells=8, memory=4, content=8, samples=6, latent=2,
    flow_width=16, flow_blocks=1, crop=16,
)  # fmt: skip
SPACE = Space(CAMERA, 32, 48, TINY)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def circle(batch: int, count: int, seed: int = 0) -> Cameras:
    """Cameras (B, n) on a circle, that look at its middle."""
    angle = torch.rand(batch, count, generator=generator(seed)) * 2 * math.pi
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    height = none + 0.5
    poses = torch.stack([3.5 * cos, 3.5 * sin, height, -cos, -sin, none + 1, none], -1)
    return CAMERA.read(poses)


def model_of(config: ViewsConfig = TINY, spec: Spec = VIEWED) -> ViewsJump:
    model = make("jump", spec, config).eval()
    assert isinstance(model, ViewsJump)
    return model


def context(count: int = 3) -> Context:
    return testing.random_context(VIEWED, frames=count)


# -- geometry --------------------------------------------------------------------------------------


def test_rays_and_projections_are_inverse() -> None:
    cameras = circle(1, 5).flat()
    rows, columns = pixel_centres(4, torch.device("cpu")), pixel_centres(6, torch.device("cpu"))
    rays = SPACE.directions(cameras, rows.expand(5, -1), columns.expand(5, -1))
    points = cameras.position[:, None, None] + 2.5 * rays
    seen = SPACE.project(cameras, points.flatten(1, 2))
    image = seen.image.unflatten(1, (4, 6))
    torch.testing.assert_close(image[..., 0], columns.expand(5, 4, -1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(image[..., 1], rows[:, None].expand(5, 4, 6), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.depth * SPACE.unit, torch.full((5, 24), 2.5))
    assert seen.inside.all()
    behind = SPACE.project(cameras, (cameras.position[:, None, None] - rays).flatten(1, 2))
    assert not behind.inside.any() and behind.image.isfinite().all()


def test_space_is_a_regular_grid_once_contracted() -> None:
    assert SPACE.shape == (4, 8, 8)  # the region is half as high as it is wide
    where = SPACE.contract(SPACE.centres).unflatten(0, SPACE.shape)
    torch.testing.assert_close(where[0, 0, :, 0], (torch.arange(8) + 0.5) / 4 - 1)
    torch.testing.assert_close(where[:, 3, 5, 2], (torch.arange(4) + 0.5) / 2 - 1)
    inner = SPACE.contract(torch.tensor([[0.0, 0.0, 0.5], [0.5, 0.0, 0.5], [5.0, 0.0, 0.5]]))[:, 0]
    assert inner[0] == 0 and inner[1] == pytest.approx(0.5 / 1.7)
    assert inner[2] == pytest.approx(2.0 / 1.7)  # 4 half sides outside count as 1
    assert SPACE.depths[0] == 1 and SPACE.depths[-1] == pytest.approx(6.0)
    ratio = SPACE.depths[1:] / SPACE.depths[:-1]
    torch.testing.assert_close(ratio, ratio[:1].expand(5))


@torch.no_grad()
def test_a_ray_ends_where_space_is_dense() -> None:
    """A wall at x = 0 is met by a camera at x = 3 at the depth 3."""
    space = Space(CAMERA, 32, 32, replace(TINY, cells=32, samples=64))
    renderer = RayRenderer(3, space, TINY)
    volume = torch.zeros(1, 1 + COMPOSITED + 8, *space.shape)
    x = space.centres[:, 0].unflatten(0, space.shape)
    volume[:, 0] = torch.where(x < 0, 200.0, -200.0)
    volume[:, 1] = 7.0
    cameras = CAMERA.read(torch.tensor([[[3.0, 0.1, 0.5, -1, 0, 1, 0]]]))
    rows, columns = renderer.whole(cameras, 4, 4)
    surfaces = renderer.meet(volume, cameras, 0.2 * rows, 0.2 * columns)
    torch.testing.assert_close(surfaces.points[..., 0], torch.zeros(1, 16), atol=0.15, rtol=0)
    torch.testing.assert_close(surfaces.features[..., 0], torch.full((1, 16), 7.0))
    thin = renderer.meet(volume * 0 - 200, cameras, rows, columns)  # nothing is met until the end
    depth = (thin.points - cameras.position).matmul(cameras.forward[0, 0])
    torch.testing.assert_close(depth, torch.full((1, 16), 6.0), rtol=1e-3, atol=0)


@torch.no_grad()
def test_copying_looks_where_a_view_shows_the_point() -> None:
    """Features that say where in the image they are come back as the point's projection."""
    space = Space(CAMERA, 32, 32, TINY)
    renderer = RayRenderer(3, space, TINY)
    cameras = circle(2, 3)
    line = pixel_centres(16, torch.device("cpu"))
    y, x = torch.meshgrid(line, line, indexing="ij")
    features = torch.zeros(2, 3, 8, 16, 16)
    features[:, :, 0], features[:, :, 1] = x, y
    features[:, :, 2] = torch.arange(3.0)[:, None, None]
    mask = torch.tensor([[False, True, False], [True, True, True]])
    views = Views(features, cameras, mask, torch.zeros(3, dtype=torch.bool))
    volume = torch.zeros(2, 1 + COMPOSITED + 8, *space.shape)
    target = Cameras(cameras.position[:, 1:2], cameras.axes[:, 1:2])
    rows, columns = (0.5 * each for each in renderer.whole(target, 4, 4))
    surfaces = renderer.meet(volume, target, rows, columns)
    copied = renderer.copy(surfaces, views)
    there = space.project(
        Cameras(cameras.position[:1, 1], cameras.axes[:1, 1]), surfaces.points[:1]
    )
    torch.testing.assert_close(copied[:1, :, :2], there.image, atol=1e-4, rtol=0)
    assert (copied[0, :, 2] == 1).all()  # the only view that counts
    assert (copied[1, :, 2] > 0.5).all() and (copied[1, :, 2] < 1.5).all()  # mostly the same side
    rays = renderer.rays(volume, views, target, rows, columns)
    assert rays.shape == (2, 1, renderer.numbers, 4, 4)


@torch.no_grad()
def test_memory_is_a_sum_of_what_views_show() -> None:
    space = Space(CAMERA, 32, 32, TINY)
    memory = SpaceMemory(space, TINY)
    cameras, features = circle(2, 3), torch.randn(2, 3, 8, 16, 16, generator=generator())
    every = torch.ones(2, 3, dtype=torch.bool)
    flags = torch.zeros(3, dtype=torch.bool)

    def written(mask: Tensor) -> Tensor:
        r: Tensor = memory(Views(features, cameras, mask, flags))
        return r

    alone = [written(every & (torch.arange(3) == view)) for view in range(3)]
    torch.testing.assert_close(written(every), torch.stack(alone).sum(0))
    assert not written(~every).any()
    shows = space.project(cameras.flat(), space.centres[None]).inside.unflatten(0, (2, 3))
    torch.testing.assert_close(written(every)[:, -1], shows.sum(1).float())
    assert not alone[0][:, :-1].transpose(1, 2)[~shows[:, 0]].any()


# -- belief and worlds -----------------------------------------------------------------------------


def test_belief_is_full() -> None:
    model = model_of(replace(TINY, context_max=2))
    belief = model.observe(context(2))
    with pytest.raises(ValueError, match="5 views, more than the 2 .*forget some first"):
        model.update(model.update(belief, context(1)), context(2))


@torch.no_grad()
def test_a_world_is_its_z() -> None:
    """Many views at once are those of one world after another; the anchors follow from z."""
    model = model_of()
    worlds = model.sample(model.observe(context()), 3, generator())
    assert worlds.state["z"].shape == (2, 3, 4, 2, 4, 4)
    assert worlds.state["anchors"].shape == (2, 3, 4, 8, 16, 16)
    poses = testing.random_poses(VIEWED, torch.arange(20).expand(2, -1))
    assert poses is not None
    answer = model.predict(worlds, Queries.views(poses))
    assert answer.observations is not None
    assert answer.observations.shape == (2, 3, 1, 20, 3, 32, 32)
    assert not answer.rewards.any() and (answer.alive == 1).all()
    same = model.sample(model.observe(context()), 3, generator())
    assert torch.equal(same.state["z"], worlds.state["z"])


def test_poses_must_be_the_cameras() -> None:
    model = model_of()
    bad = replace(context(), poses=torch.ones(2, 3, 7))
    with pytest.raises(ValueError, match=r"context\.poses: expected poses of layout"):
        model.observe(bad)
    masked = replace(bad, mask=torch.tensor([[True, False, False]] * 2))
    assert masked.poses is not None and context().poses is not None
    masked.poses[:, 0] = context().poses[:, 0]
    belief = model.observe(masked)  # what is masked may be anything
    worlds = model.sample(belief, 1, generator())
    with pytest.raises(ValueError, match=r"queries\.poses: expected poses of layout"):
        model.predict(worlds, Queries.views(torch.ones(2, 3, 7)))


def test_other_specs_are_refused() -> None:
    for spec in (PASSIVE, replace(VIEWED, camera=None)):
        with pytest.raises(ValueError, match="spec: these settings are for poses of a camera"):
            make("jump", spec, TINY)


def test_matrices_are_poses_too() -> None:
    camera = replace(CAMERA, layout="camera_to_world")
    spec = replace(VIEWED, pose=12, camera=camera)
    for check in (testing.checks.check_answers, testing.checks.check_training):
        check(make("jump", spec, TINY).eval())


@pytest.mark.parametrize("sides", [(16, 16), (16, 40), (40, 24)])
def test_sizes(sides: tuple[int, int]) -> None:
    spec = replace(VIEWED, observation=(1, *sides))
    for check in (testing.checks.check_answers, testing.checks.check_training):
        check(make("jump", spec, TINY).eval())


# -- anchors and their prior -----------------------------------------------------------------------


def test_tokens_are_squares_of_all_anchors() -> None:
    prior = AnchorPrior(Space(CAMERA, 16, 24, TINY), (2, 3), TINY).eval()
    z = torch.randn(2, 4, 2, 2, 3, generator=generator())
    tokens = prior.tokens(z)
    assert tokens.shape == (2, 24, 2) and torch.equal(tokens[1, 6 + 5], z[1, 1, :, 1, 2])
    with torch.no_grad():
        condition = torch.zeros(2, 24, 16)
        drawn = prior.sample(condition, 3, 2, generator())
    assert drawn.shape == (6, 4, 2, 2, 3)


def test_anchors_are_far_from_each_other_and_chosen_once() -> None:
    env = gym.make("envs:dice/Views-v0", size=16)
    source = env.unwrapped.scenes(batch_size=8)
    space = Space(source.camera, 16, 16, TINY)
    anchors = AnchorPoses(space, 4)
    before = anchors.position.clone()
    anchors.prepare(source)
    assert not torch.equal(anchors.position, before)
    angle = torch.atan2(anchors.position[:, 1], anchors.position[:, 0]).sort().values
    gaps = torch.cat([angle.diff(), angle[:1] + 2 * math.pi - angle[3:]])
    assert ((gaps - math.pi / 2).abs() < 0.1).all()
    now = anchors.position.clone()
    anchors.prepare(env.unwrapped.scenes(batch_size=8, seed=1))
    assert torch.equal(anchors.position, now)
    timed = testing.random_source(PASSIVE)
    with pytest.raises(ValueError, match="source: expected scenes with camera poses"):
        AnchorPoses(space, 4).prepare(timed)


# -- training --------------------------------------------------------------------------------------


def test_draws_hide_a_side() -> None:
    """Of ten views the context lacks the four nearest to a side; every other target is near it."""
    cameras = circle(64, 10)
    lengths = torch.full((64,), 9)
    ring = SPACE.ring(4)
    anchors = Cameras(ring.position.expand(64, -1, -1), ring.axes.expand(64, -1, -1, -1))
    config = replace(TINY, hidden_share=1.0, context_min=5, context_max=5, targets=4)
    times = draw_views(SPACE, cameras, lengths, anchors, config, generator())
    apart = SPACE.distance(cameras, cameras)
    for scene in range(64):
        order = apart[scene].argsort(dim=1)  # (side, rank)
        drawn = set(times.context[scene, times.mask[scene]].tolist())
        near = set(times.targets[scene, ::2].tolist())
        fits = [
            side
            for side in range(10)
            if not drawn & set(order[side, :4].tolist()) and near <= set(order[side, :3].tolist())
        ]
        assert fits and len(drawn) == 5
    nearest = SPACE.distance(anchors, cameras).argmin(2)
    assert (times.anchors == nearest).float().mean() > 0.8
    assert all(len(set(row)) == 4 for row in times.anchors.tolist())


def test_draws_from_short_scenes() -> None:
    cameras, lengths = circle(32, 10), torch.arange(32) % 10
    ring = SPACE.ring(4)
    anchors = Cameras(ring.position.expand(32, -1, -1), ring.axes.expand(32, -1, -1, -1))
    for share in (0.0, 1.0):
        config = replace(TINY, hidden_share=share)
        times = draw_views(SPACE, cameras, lengths, anchors, config, generator())
        assert times.mask.any(1).all()
        assert (times.context <= lengths[:, None])[times.mask].all()
        assert (times.anchors <= lengths[:, None]).all()
        assert (times.targets <= lengths[:, None]).all()
        assert (times.mask.sum(1) <= lengths + 1).all()


def test_crops_are_of_the_rays() -> None:
    frames = torch.rand(3, 4, 3, 32, 48, generator=generator())
    crops = draw_crops(SPACE, circle(3, 4), frames, 16, generator())
    assert crops.frames.shape == (3, 4, 3, 16, 16) and crops.rows.shape == (3, 4, 8)
    top = ((crops.rows[..., 0] + 1) / 2 * 16 - 0.5).round().long() * 2
    left = ((crops.columns[..., 0] + 1) / 2 * 24 - 0.5).round().long() * 2
    for b in range(3):
        for k in range(4):
            y, x = int(top[b, k]), int(left[b, k])
            cut = frames[b, k, :, y : y + 16, x : x + 16]
            assert torch.equal(crops.frames[b, k], cut)
    whole = draw_crops(SPACE, circle(3, 4), frames[..., :32], 40, generator())
    assert torch.equal(whole.frames, frames[..., :32])


def test_at_last_the_prior_trains_alone() -> None:
    model = model_of(replace(TINY, prior_share=0.25))
    source = testing.random_source(VIEWED)
    model.prepare(source)
    prior = set(model.prior.parameters())
    for progress, every in ((0.7, True), (0.75, False)):
        model.train().zero_grad(set_to_none=True)
        losses = model(source.batch(0), progress, generator())
        losses.total.backward()
        learning = {weights for weights in model.parameters() if weights.grad is not None}
        assert learning == (set(model.parameters()) if every else prior)
        assert ("mse" in losses.parts) == every
        losses = model.eval()(source.batch(0), progress, generator())
        assert losses.parts["flow"] < losses.total  # validation measures everything


def test_flow_leaves_the_other_weights_alone() -> None:
    model = model_of(replace(TINY, detail=1e-9, anchor_detail=0.0, kl_weight=0.0)).train()
    source = testing.random_source(VIEWED)
    model.prepare(source)
    model(source.batch(0), 0.0, generator()).total.backward()
    others = (model.encoder, model.memory, model.volume, model.posterior, model.decoder)
    grads = [w.grad for part in others for w in part.parameters() if w.grad is not None]
    assert max(float(grad.abs().max()) for grad in grads) < 1e-6
    moved = [w.grad for w in model.prior.parameters()]
    assert all(grad is not None for grad in moved)


def test_scenes_without_z_show_the_context_alone() -> None:
    """The anchors do not count there: no target's error reaches z."""
    config = replace(TINY, context_only=0.999, anchor_detail=0.0, kl_weight=0.0)
    model = model_of(config).train()
    source = testing.random_source(VIEWED)
    model.prepare(source)
    model(source.batch(0), 0.0, generator()).total.backward()
    for weights in model.posterior.parameters():
        assert weights.grad is None or not weights.grad.any()


def test_rate_rises_and_falls() -> None:
    model = model_of(replace(TINY, learning_rate=1e-3, warmup=100, prior_share=0.3))
    rates = [model.learning_rate(done, 1000) for done in range(1000)]
    top = max(range(700), key=rates.__getitem__)
    assert rates[0] < 2e-5 and 90 <= top <= 101 and rates[699] < 3e-5 and rates[700] == 1e-3
    assert all(a >= b for fall in (rates[top:700], rates[700:]) for a, b in pairwise(fall))


def test_flow_steps(tmp_path: Path) -> None:
    model = fresh("jump", TINY, VIEWED)
    set_flow_steps(model, 3)
    loaded = worldmodel.load(worldmodel.save(model, tmp_path))
    assert isinstance(loaded, ViewsJump) and loaded.flow_steps == 3
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model"] == "jump" and config["variant"] == "ViewsConfig"


def test_a_source_of_another_camera_is_refused() -> None:
    env = gym.make("envs:dice/Views-v0", size=32)
    source = env.unwrapped.scenes(batch_size=2)
    other = Camera(1.0, 1.0, 6.0, CAMERA.region)
    spec = Spec.from_spaces(env.observation_space, env.action_space, 9, 7, other)
    with pytest.raises(ValueError, match="source: its camera is .*, the model's"):
        fit(make("jump", spec, TINY), source, 1, progress=False)


@pytest.mark.slow
def test_it_learns_to_copy() -> None:
    """After two minutes views of other rooms come out better than each room's mean colour."""
    env = gym.make("envs:dice/Views-v0", size=32)
    source = env.unwrapped.scenes(batch_size=8)
    spec = Spec.from_spaces(env.observation_space, env.action_space, 9, 7, source.camera)
    model = make("jump", spec, replace(preset("jump", "rays-small"), prior_share=0.0))
    fit(model, source, 300, progress=False)
    test = gym.make("envs:dice/Views-v0", size=32, split="test").unwrapped.scenes(batch_size=16)
    scenes = test.batch(0)
    times = torch.arange(6).expand(16, -1)
    frames, poses = spec.to_model(scenes.observations(times)), scenes.poses(times)
    with torch.no_grad():
        belief = model.eval().observe(Context.views(frames[:, :5], poses[:, :5]))
        answer = model.predict(model.sample(belief, 1, generator()), Queries.views(poses))
    assert answer.observations is not None
    error = (answer.observations[:, 0, 0] - frames).square().mean((0, 2, 3, 4))
    mean = (frames - frames.mean((1, 3, 4), keepdim=True)).square().mean()
    assert error[:5].mean() < 0.6 * mean and error[5] < 0.8 * mean


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": 7}, "cells: expected an even number"),
        ({"crop": 15}, "crop: expected an even number"),
        ({"samples": 1}, "samples"),
        ({"context_min": 7}, "context_min, context_max"),
        ({"flow_width": 18}, "flow_width: expected a multiple of heads"),
        ({"flow_solver": "rk4"}, "flow_solver"),
        ({"hidden_share": 1.5}, "hidden_share: expected from 0 to 1"),
        ({"context_only": 1.0}, "context_only: expected at least 0 and below 1"),
        ({"detail": 0.0}, "detail"),
        ({"latent": 0}, "latent"),
    ],
)
def test_bad_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
