"""INFERNO: the thesis' tables, the composed density, masks of moved objects, cameras, queries."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from scenes import DISCRETE, PASSIVE, POSED, VIEWED, context, fresh, generator
from torch import Tensor, nn

from worldmodel import Queries, Spec, UnsupportedQuery, make, testing
from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.inferno import PRESETS, Inferno, InfernoConfig, Scene
from worldmodel.models.jumpy.inferno.cameras import SceneCamera
from worldmodel.models.jumpy.inferno.fields import Field, waves
from worldmodel.models.jumpy.inferno.renderer import (
    Renderer,
    Upscaler,
    compose,
    doublings,
    points_inside,
)
from worldmodel.models.jumpy.inferno.slots import to_object

TINY = replace(
    PRESETS["small"], objects=2, channels=8, coarse=4, size=16, pose_hidden=16, latent=8,
    object_layers=3, object_width=16, background_width=8, features=8, point_waves=2, upscaler=8,
)  # fmt: skip
PERSPECTIVE = replace(TINY, projection="perspective", samples=24, upscaling=0.0)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def made(config: InfernoConfig = TINY, spec: Spec = PASSIVE) -> Inferno:
    model = make("inferno", spec, config).eval()
    assert isinstance(model, Inferno)
    return model


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def linear(*widths: int) -> int:
    return sum(a * b + b for a, b in pairwise(widths))


def two_objects(model: Inferno, *places: tuple[float, float, float]) -> Scene:
    """A scene of a frame of noise, whose two objects are put at these places, opaque."""
    with torch.no_grad():
        model.renderer.objects.density.bias.fill_(3.0)
        scene = model.infer(torch.rand(1, *model.spec.observation))
    pose = scene.pose.clone()
    pose[0, :, :3] = torch.tensor(places)
    pose[..., 3:6] = 0.25
    return scene._replace(pose=pose)


def moved(scene: Scene, which: int, step: tuple[float, float, float]) -> Scene:
    pose = scene.pose.clone()
    pose[:, which, :3] += torch.tensor(step)
    return scene._replace(pose=pose)


# -- the tables -----------------------------------------------------------------------------------


def test_paper_preset_has_the_tables_parameters() -> None:
    """Tables 10.5 to 10.9 at 64 pixels, with what slot attention and GRAF have besides."""
    spec = replace(PASSIVE, observation=(3, 64, 64))
    model = Inferno(spec, PRESETS["paper"])
    convolutions = 3 * 64 * 25 + 64 + 3 * (64 * 64 * 25 + 64)
    position, perceptron = 2 * linear(18, 64), 2 * 64 + linear(64, 64, 64)
    assert parameters(model.encoder) == convolutions + position + perceptron
    attention = 2 * 128 + 2 * 64 + 2 * 128 + 128 * 128 + 2 * 64 * 128  # means, norms, q, k, v
    attention += 2 * (3 * 128 * 128 + 3 * 128) + 2 * 128 + linear(128, 128, 128)
    assert parameters(model.slots) == attention + 2 * 128
    pose, norm = linear(128, 7) + 2 * 7 + linear(7, 7), linear(7, 2 * 128)
    latent = linear(128, 128, 2 * 128)
    assert parameters(model.to_object) == pose + latent + norm + latent + 2 * 128
    point, direction = 3 + 60, 3 + 24
    codes, ends = 2 * linear(128, 64) + linear(128, 64), linear(64, 1) + linear(64, 128)
    field = 2 * linear(point, 64) + 7 * linear(64, 64) + linear(64, 64) + linear(direction, 64)
    assert parameters(model.renderer.objects) == field + codes + ends
    field = linear(point, 16) + 3 * linear(16, 16) + linear(16, 16) + linear(direction, 16)
    ground = field + 2 * linear(128, 16) + linear(16, 1) + linear(16, 128)
    assert parameters(model.renderer.background) == ground
    upscaler = 128 * 64 * 9 + 64 + 64 * 64 * 9 + 64 + 64 * 3 * 9 + 3
    assert parameters(model.upscaler) == upscaler
    kinds = [type(layer).__name__ for layer in model.upscaler.layers]
    one = ["Conv2d", "InstanceNorm2d", "ReLU", "Upsample"]
    assert kinds == [*one, *one, "Conv2d"]


def test_the_upscaler_has_a_layer_more_for_128_pixels() -> None:
    assert [doublings(side, side, 16) for side in (16, 24, 32, 64, 128)] == [0, 0, 1, 2, 3]
    assert doublings(32, 64, 16) == 1
    upscaler = Upscaler(3, 8, 4, 3)
    assert upscaler(torch.rand(2, 8, 16, 16)).shape == (2, 3, 128, 128)
    assert sum(isinstance(layer, nn.Conv2d) for layer in upscaler.layers) == 4


def test_shapes_of_a_scene() -> None:
    model = made(spec=replace(PASSIVE, observation=(1, 16, 24)))
    scene = model.infer(torch.rand(3, 1, 16, 24))
    shapes = [(3, 2, 7), (3, 2, 8), (3, 2, 8), (3, 8), (3, 8), (3, 3), (3, 3, 3)]
    assert [tuple(part.shape) for part in scene] == shapes
    assert (scene.pose[..., 3:6] > 0.149).all() and (scene.pose[..., 3:6] < 0.601).all()
    assert (scene.pose[..., 6] == 0).all()
    for upscales in (True, False):
        model.upscales.fill_(upscales)
        view = model.render(scene)
        assert view.frames.shape == (3, 1, 16, 24) and view.masks.shape == (3, 3, 16, 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objects": 0}, "objects"),
        ({"kernel": 4}, "kernel"),
        ({"coarse": 3}, "coarse: expected 1, 2 or 4"),
        ({"skip": 8}, "skip: expected a layer before the last of 8"),
        ({"upscaling": 1.5}, "upscaling: expected from 0 to 1"),
        ({"projection": "fisheye"}, "projection: expected one of"),
        ({"field_of_view": 180.0}, "field_of_view, elevation"),
        ({"near": 7.0}, "near, far: expected near < far"),
        ({"warm_up": 1.0}, "warm_up"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfernoConfig(**settings)


# -- composition ----------------------------------------------------------------------------------


def test_the_composed_density_by_hand() -> None:
    """Equation 10.4, and the weights of a ray, number by number."""
    densities = torch.tensor([[0.5, 0.1], [1.5, 0.0], [0.0, 2.0]])  # fields, points
    shares = compose(densities[None, :, None], torch.tensor([[0.4]]))[0, :, 0]
    alpha = [1 - math.exp(-2.0 * 0.4), 1 - math.exp(-2.1 * 0.4)]
    weights = [alpha[0], (1 - alpha[0]) * alpha[1]]
    left = (1 - alpha[0]) * (1 - alpha[1])
    expected = [
        [weights[0] * 0.5 / 2.0, weights[1] * 0.1 / 2.1 + left],
        [weights[0] * 1.5 / 2.0, 0.0],
        [0.0, weights[1] * 2.0 / 2.1],
    ]
    torch.testing.assert_close(shares, torch.tensor(expected))


@torch.no_grad()
def test_rays_meet_what_every_field_says_of_every_point() -> None:
    """The renderer, which evaluates fields where objects are and sums before its last layers,
    against all fields at all points, one by one.
    """
    model = made(replace(PERSPECTIVE, objects=3, direction_waves=1))
    renderer, scene = model.renderer, model.infer(torch.rand(2, 3, 32, 32))
    rays = model.camera.rays(model.camera.standard(2), 4, 5)
    rendered = renderer(scene, rays)
    step = (renderer.far - renderer.near) / renderer.samples
    for picture in range(2):
        for ray in range(20):
            origin, direction = rays.origins[picture, ray], rays.directions[picture, ray]
            transmitted, light = 1.0, torch.zeros(8)
            for point in range(renderer.samples):
                depth = renderer.near + (point + 0.5) * step
                density, colour = at_point(
                    renderer, scene, picture, origin + depth * direction, direction
                )
                alpha = 1 - torch.exp(-density * step * direction.norm())
                light = light + transmitted * alpha * colour
                transmitted = transmitted * (1 - alpha)
            _, ground = background_at(
                renderer, scene, picture, origin + depth * direction, direction
            )
            light = light + transmitted * ground
            torch.testing.assert_close(rendered.features[picture, ray], light, atol=1e-5, rtol=1e-4)


def at_point(
    renderer: Renderer, scene: Scene, picture: int, x: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum of densities at a point, and the mean of features, weighted by them."""
    density, features = background_at(renderer, scene, picture, x, direction)
    densities, colours = [density], [features]
    for k in range(scene.pose.shape[1]):
        local = (x - scene.pose[picture, k, :3]) / scene.pose[picture, k, 3:6]
        code = renderer.objects.code(scene.shape[picture, k], scene.appearance[picture, k])
        density, hidden = renderer.objects(local, direction, code)
        densities.append(density * max(0.0, 1 - float(local.square().sum())))
        colours.append(renderer.objects.colour(hidden))
    total = sum(densities)
    mean = sum(d * c for d, c in zip(densities, colours, strict=True)) / total
    return total, mean


def background_at(
    renderer: Renderer, scene: Scene, picture: int, x: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    code = renderer.background.code(
        scene.background_shape[picture], scene.background_appearance[picture]
    )
    density, hidden = renderer.background(x / (2 * renderer.far), direction, code)
    return density, renderer.background.colour(hidden)


def test_masks_share_every_pixel() -> None:
    for config in (TINY, PERSPECTIVE):
        model = made(config)
        masks = model.render(model.infer(torch.rand(2, 3, 32, 32))).masks
        assert (masks >= 0).all()
        torch.testing.assert_close(masks.sum(1), torch.ones(2, 32, 32))


def test_density_depends_on_the_shape_alone() -> None:
    """Equation 10.3 with "the occupancy output a function of only the shape latent"."""
    field = Field(4, 4, 8, 2, 5, 3, 2, 0.0)
    points, directions = torch.randn(6, 3), torch.randn(6, 3)
    shape, looks = torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    first = field(points, directions, field.code(shape[0], looks[0]))
    other = field(points, -directions, field.code(shape[0], looks[1]))
    reshaped = field(points, directions, field.code(shape[1], looks[0]))
    assert torch.equal(first[0], other[0]) and not torch.allclose(first[1], other[1])
    assert not torch.allclose(first[0], reshaped[0])


def test_waves_double_their_frequency() -> None:
    x = torch.tensor([[0.3]])
    angles = math.pi * 0.3 * torch.tensor([1.0, 2, 4])
    torch.testing.assert_close(waves(x, 3)[0], torch.cat([x[0], angles.sin(), angles.cos()]))


# -- objects that move ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "step", "shift"),
    [
        (PERSPECTIVE, (0.0, 0.0, 0.3), (0.0, -1.0)),  # upwards
        (PERSPECTIVE, (0.0, 0.3, 0.0), (-1.0, 0.0)),  # to the left
        (replace(TINY, upscaling=0.0), (0.3, 0.0, 0.0), (1.0, 0.0)),  # seen from above
        (replace(TINY, upscaling=0.0), (0.0, 0.3, 0.0), (0.0, -1.0)),
    ],
)
def test_moving_an_object_moves_its_mask_alone(
    config: InfernoConfig, step: tuple[float, float, float], shift: tuple[float, float]
) -> None:
    model = made(config)
    scene = two_objects(model, (0.0, 0.5, 0.0), (0.0, -0.5, 0.0))
    with torch.no_grad():
        before, after = model.render(scene), model.render(moved(scene, 0, step))
    touched = before.masks[:, 1] + after.masks[:, 1] > 0
    assert 0.02 < touched.float().mean() < 0.5
    torch.testing.assert_close(after.masks[:, 2], before.masks[:, 2])
    assert before.masks[:, 2].amax() > 0.5 and not (touched & (before.masks[:, 2] > 0)).any()
    same = ~touched[:, None].expand_as(after.frames)
    torch.testing.assert_close(after.frames[same], before.frames[same])
    there, here = (centre(view.masks[0, 1]) for view in (after, before))
    assert (there - here).dot(torch.tensor(shift)) > 2.0  # pixels
    assert (there - here).norm() < (there - here).dot(torch.tensor(shift)) + 0.7


def centre(mask: Tensor) -> Tensor:
    """x and y of a mask's middle, in pixels."""
    y, x = (torch.arange(side).float() for side in mask.shape)
    return torch.stack([mask.sum(0) @ x, mask.sum(1) @ y]) / mask.sum()


def test_an_object_in_front_hides_another() -> None:
    model = made(replace(TINY, upscaling=0.0, samples=16))
    scene = two_objects(model, (0.0, 0.0, -0.5), (0.0, 0.0, 0.4))
    below = model.render(scene).masks[0, :, 16, 16]
    above = model.render(moved(scene, 0, (0.0, 0.0, 1.2))).masks[0, :, 16, 16]
    assert below[2] > 0.9 and below[1] < 0.1
    assert above[1] > 0.9 and above[2] < 0.1


def test_an_object_is_scaled_and_turned() -> None:
    pose = torch.tensor([0.5, -1.0, 2.0, 2.0, 1.0, 0.5, math.pi / 2])
    local = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    placed = torch.tensor([[2.5, -1.0, 2.0], [0.5, -1.0, 3.0], [0.5, -1.5, 2.0]])
    torch.testing.assert_close(to_object(placed, pose), local, atol=1e-6, rtol=0)


def test_only_points_in_objects_are_looked_up() -> None:
    points = torch.zeros(1, 2, 2, 3)
    points[0, 1, :, 0] = torch.tensor([0.9, 1.1])
    pose = torch.tensor([[[0.0, 0, 0, 1, 1, 1, 0], [1.5, 0, 0, 0.5, 1, 1, 0]]])
    inside = points_inside(points, pose)
    assert inside.owner.tolist() == [0, 0, 0, 1]
    assert inside.number.tolist() == [0, 1, 2, 3]
    assert inside.where.tolist() == [0, 1, 2, 7]


# -- slots ----------------------------------------------------------------------------------------


def test_worlds_differ_by_their_slots() -> None:
    model = made()
    frames = torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1)
    noise = torch.randn(2, 3, 16)
    one, other = model.infer(frames, noise=noise), model.infer(frames)
    assert not torch.allclose(one.pose, other.pose)
    assert not torch.allclose(one.pose[0], one.pose[1])
    order = torch.tensor([1, 0, 2])  # of two objects; the background has a place of its own
    swapped = model.infer(frames, noise=noise[:, order])
    torch.testing.assert_close(swapped.pose, one.pose[:, [1, 0]])
    torch.testing.assert_close(swapped.background_shape, one.background_shape)


def test_objects_are_placed_where_their_slots_look() -> None:
    """With a focus; without, as in the thesis, the perceptron says where."""
    model = made(replace(TINY, focus=0.4))
    frames = torch.zeros(1, 3, 32, 32)
    noise = torch.randn(1, 3, 16)
    noise[0, 0, :2], noise[0, 1, :2] = -1.5, 1.5  # top left, bottom right
    for head in model.to_object.pose[3:]:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    left, right = model.infer(frames, noise=noise).pose[0, :, :2]
    assert left[0] < -0.2 and left[1] > 0.2 and right[0] > 0.2 and right[1] < -0.2
    plain = made(replace(TINY, focus=0.0)).infer(frames, noise=noise).pose
    assert (plain[..., :2].abs() < 1).all()


def test_appearance_is_conditioned_on_the_pose() -> None:
    model = made()
    slots, ground = torch.randn(1, 2, 16), torch.randn(1, 16)
    here = model.camera.standard(1)
    near, far = (model.to_object(slots, ground, torch.full((1, 2, 3), x), here) for x in (0.0, 0.5))
    torch.testing.assert_close(far[0][..., :3] - near[0][..., :3], torch.full((1, 2, 3), 0.5))
    assert not torch.allclose(near[1], far[1]) and not torch.allclose(near[2], far[2])


# -- cameras --------------------------------------------------------------------------------------


def test_the_fixed_camera_looks_down_at_the_middle() -> None:
    camera = SceneCamera(None, 32, 32, InfernoConfig())
    one = camera.standard(1)
    assert math.degrees(math.asin(float(one.position[0, 2]) / 2.732)) == pytest.approx(33)
    torch.testing.assert_close(one.forward[0], -one.position[0] / 2.732)
    torch.testing.assert_close(one.axes[0] @ one.axes[0].T, torch.eye(3), atol=1e-6, rtol=0)
    rays = camera.rays(one, 3, 3)
    middle = rays.origins[0, 4] + 2.732 * rays.directions[0, 4]
    torch.testing.assert_close(middle, torch.zeros(3), atol=1e-5, rtol=0)
    top = rays.directions[0, 1]
    angle = math.acos(float(top @ one.forward[0]) / float(top.norm()))
    assert math.tan(angle) == pytest.approx(2 / 3 * math.tan(math.radians(49.13) / 2), rel=1e-4)


def test_the_camera_above_sees_a_plane() -> None:
    camera = SceneCamera(None, 16, 32, TINY)
    rays = camera.rays(camera.standard(1), 16, 32)
    assert (rays.directions == torch.tensor([0.0, 0.0, -1.0])).all()
    first, last = rays.origins[0, 0], rays.origins[0, -1]
    torch.testing.assert_close(first, torch.tensor([-31 / 32, 15 / 32, 1.0]))
    torch.testing.assert_close(last, torch.tensor([31 / 32, -15 / 32, 1.0]))
    chosen = camera.rays(camera.standard(1), 16, 32, torch.tensor([[0, 511]]))
    torch.testing.assert_close(chosen.origins[0], torch.stack([first, last]))


def test_the_floor_under_a_pixel() -> None:
    for config in (TINY, PERSPECTIVE):
        camera = SceneCamera(None, 32, 32, config)
        one = camera.standard(1)
        floor = camera.on_floor(one, torch.tensor([[[0.0, 0.0], [0.5, 0.5], [0.0, -1.0]]]))
        torch.testing.assert_close(floor[0, 0], torch.zeros(3), atol=1e-5, rtol=0)
        assert (floor[..., 2] == 0).all() and (floor.abs() <= 1).all()
    assert floor[0, 1, 1] < 0 < floor[0, 2, 0]  # right is -y; above is far ahead


def test_a_scene_is_as_its_observer_sees_it() -> None:
    """Two cameras opposite to each other: in the scene of one the other stands ahead."""
    camera = SceneCamera(VIEWED.camera, 32, 32, TINY)
    poses = torch.tensor([[[3.0, 0, 0.5, -1, 0, 1, 0], [-3.0, 0, 0.5, 1, 0, 1, 0]]])
    placed = camera.in_scene(poses, poses[:, 0])
    torch.testing.assert_close(placed.position[0], torch.tensor([[-3.0, 0, 0], [3.0, 0, 0]]))
    ahead, back = placed.forward[0]
    torch.testing.assert_close(ahead, torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(back, torch.tensor([-1.0, 0, 0]))
    other = camera.in_scene(poses, poses[:, 1])
    torch.testing.assert_close(other.position[0, 0], placed.position[0, 1])


def test_views_of_one_scene_agree() -> None:
    """What a view shows depends on where it is taken from, relative to the observer, alone."""
    model = made(replace(TINY, upscaling=0.0), VIEWED)
    given = testing.random_context(VIEWED, frames=1)
    assert given.poses is not None
    worlds = model.sample(model.observe(given), 1, generator())
    own = model.predict(worlds, Queries.views(given.poses)).observations
    scene = Scene(**{name: value[:, 0] for name, value in worlds.state.items()})
    assert own is not None
    torch.testing.assert_close(own[:, 0, 0, 0], model.render(scene).frames)
    turned = model.render(scene, Cameras(-scene.position * torch.tensor([1, 1, -1]), scene.axes))
    assert not torch.allclose(turned.frames, own[:, 0, 0, 0])


# -- queries --------------------------------------------------------------------------------------


def test_times_that_were_not_observed_are_refused() -> None:
    model = made(spec=DISCRETE)
    given = replace(context(DISCRETE, frames=1), times=torch.tensor([[2], [4]]))
    given = replace(given, actions=torch.zeros(2, 4, dtype=torch.int64))
    worlds = model.sample(model.observe(given), 2, generator())
    answer = model.predict(worlds, Queries(torch.tensor([[2, 2], [4, 4]]))).observations
    assert answer is not None and answer.shape == (2, 2, 1, 2, 3, 32, 32)
    assert torch.equal(answer[:, :, :, 0], answer[:, :, :, 1])
    with pytest.raises(UnsupportedQuery, match=r"at times \[2, 4\], and none before or after"):
        model.predict(worlds, Queries(torch.tensor([[2], [2]])))
    plan = torch.zeros(2, 1, 1, dtype=torch.int64)
    with pytest.raises(UnsupportedQuery, match="knows the frame that it observed"):
        model.predict(worlds, Queries(torch.tensor([[2], [5]]), plan))
    with pytest.raises(UnsupportedQuery, match="not what follows it"):
        model.advance(worlds, plan[:, 0])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="poses without one"):
        made(spec=POSED)
    model = made()
    with pytest.raises(ValueError, match="frames: expected \\(P, C, H, W\\)"):
        model.infer(torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match="poses: expected None, got \\(1, 7\\)"):
        model.infer(torch.rand(1, 3, 32, 32), torch.zeros(1, 7))
    with pytest.raises(ValueError, match="poses: expected \\(1, 7\\), got None"):
        made(spec=VIEWED).infer(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="more than the 1"):
        model.observe(context(PASSIVE, frames=2))


# -- training -------------------------------------------------------------------------------------


def test_the_loss_is_the_error_of_the_frame() -> None:
    """Of all rays, with points in the middle of their shares, it is that of what is rendered."""
    model = made(replace(TINY, rays=0, upscaling=0.0))
    source = testing.random_source(PASSIVE)
    losses = model(source.batch(0), 1.0, generator())
    assert torch.equal(losses.total.detach(), losses.parts["mse"])
    frames = torch.rand(2, 3, 32, 32)
    scene = model.infer(frames)
    shown = model.render(scene).frames
    flat = torch.full((2, 32 * 32, TINY.samples), 0.5)
    rays = model.camera.rays(model.camera.standard(2), 32, 32)
    features = model.renderer(scene, rays, flat).features
    torch.testing.assert_close(model._colours(features).unflatten(2, (32, 32)), shown)


def test_the_upscaler_is_taken_away() -> None:
    model = made(replace(TINY, upscaling=0.5)).train()
    batch = testing.random_source(PASSIVE).batch(0)
    for progress, there in ((0.0, True), (0.49, True), (0.5, False), (1.0, False)):
        model.zero_grad()
        model(batch, progress, generator()).total.backward()
        assert bool(model.upscales) == there
        assert all((weights.grad is not None) == there for weights in model.upscaler.parameters())
    model.eval()
    frames = torch.rand(1, 3, 32, 32)
    sharp = model.render(model.infer(frames)).frames
    model.upscales.fill_(True)
    assert not torch.allclose(model.render(model.infer(frames)).frames, sharp)


def test_other_views_are_learned_from() -> None:
    source = testing.random_source(VIEWED)
    one, three = (made(replace(TINY, views=views), VIEWED) for views in (1, 3))
    parts = three(source.batch(0), 0.0, generator()).parts
    mean = (parts["mse"] + 2 * parts["view_mse"]) / 3
    torch.testing.assert_close(parts["loss"], mean)
    assert "view_mse" not in one(source.batch(0), 0.0, generator()).parts


def test_learning_rate_warms_up_and_weights_decay() -> None:
    model = made(replace(TINY, warm_up=0.1, learning_rate=1e-3, learning_rate_end=1e-5))
    rates = [model.learning_rate(done, 100) for done in range(101)]
    assert rates[0] > 0 and rates[5] == pytest.approx(5e-4) and rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx(1e-4) and rates[100] == pytest.approx(1e-5)
    assert model.make_optimizer().param_groups[0]["weight_decay"] == TINY.weight_decay == 1e-6


def test_small_trains_on_both_kinds_of_keys() -> None:
    for spec in (DISCRETE, VIEWED):
        model = fresh("inferno", "small", spec)
        for progress in (0.0, 1.0):
            losses = model(testing.random_source(spec).batch(0), progress, generator())
            assert torch.isfinite(losses.total)
