"""The rasteriser draws what it says, whatever the batch."""

from __future__ import annotations

import math

import pytest
import torch

from envs.narratives.shapes import PALETTE, RADII, bounding_radii, render, segments
from envs.narratives.story import CLEARANCE, draw_cast, place
from envs.randomness import (
    check_scene_id,
    hash_ids,
    integers,
    to_split,
    uniform,
)


def one_shape(
    kind: int, size: int, *, colour: int = 11, x: float = 0.5, y: float = 0.5, px: int = 64
):
    facts = [torch.tensor([[[v]]]) for v in (colour, kind, size)]
    return render(torch.tensor([[[[x, y]]]]), *facts, px)[0, 0]


@pytest.mark.parametrize("size", range(4))
@pytest.mark.parametrize("kind", range(4))
def test_covered_area_is_that_of_the_kind(kind, size):
    corners = [None, 4, 3, 5][kind]
    radius = RADII[size] * [1.0, 1.2, 1.3, 1.1][kind]
    area = math.pi * radius**2
    if corners:
        area = corners / 2 * radius**2 * math.sin(2 * math.pi / corners)
    white = one_shape(kind, size, px=128).float().mean().item() / 255
    assert white == pytest.approx(area, rel=0.04)


def test_triangles_point_up_and_places_are_x_y():
    frame = one_shape(2, 3, x=0.25, y=0.75)[..., 0]
    rows, columns = torch.nonzero(frame > 127, as_tuple=True)
    assert 10 < columns.float().mean() < 22
    assert 44 < rows.float().mean() < 52
    widths = (frame > 127).sum(1)[rows.min() : rows.max() + 1]
    assert widths[0] < widths[-1]


@pytest.mark.parametrize("colour", range(12))
def test_middle_of_a_shape_has_its_colour(colour):
    frame = one_shape(0, 3, colour=colour)
    assert tuple(frame[32, 32].tolist()) == PALETTE[colour]
    assert frame[0, 0].sum() == 0


def test_later_shapes_lie_on_top():
    positions = torch.full((1, 1, 2, 2), 0.5)
    same = torch.zeros(1, 1, 2, dtype=torch.int64)
    frame = render(positions, torch.tensor([[[0, 2]]]), same, same, 32)[0, 0]
    assert tuple(frame[16, 16].tolist()) == PALETTE[2]


@pytest.mark.parametrize("px", [8, 32, 64])
def test_shapes_leave_the_canvas_gracefully(px):
    def shown(x, y):
        return one_shape(1, 3, x=x, y=y, px=px).float().sum().item()

    whole = shown(0.5, 0.5)
    assert shown(0.0, 0.5) == pytest.approx(whole / 2, rel=0.02)
    assert shown(1.0, 1.0) == pytest.approx(whole / 4, rel=0.05)
    assert shown(-10.0, 0.5) == 0
    assert shown(0.5, 1.2) == 0


@pytest.mark.parametrize("px", [24, 32, 64])
def test_frame_is_the_same_alone_and_in_a_batch(px):
    ids = torch.arange(256)
    colours, kinds, sizes = draw_cast(ids, 5)
    positions = place(ids, kinds, sizes)
    cast = [v[:, None] for v in (colours, kinds, sizes)]
    many = render(positions[:, None], *cast, px)
    for i in (0, 100, 255):
        alone = render(positions[i : i + 1, None], *(v[i : i + 1] for v in cast), px)
        assert torch.equal(alone[0], many[i])


def test_places_are_free():
    ids = torch.arange(5000)
    _, kinds, sizes = draw_cast(ids, 5)
    positions, radii = place(ids, kinds, sizes), bounding_radii(kinds, sizes)
    edge = torch.minimum(positions, 1 - positions).amin(-1) - radii
    assert edge.min() > CLEARANCE - 1e-5
    gaps = torch.cdist(positions, positions) - radii[:, :, None] - radii[:, None]
    nearest = (gaps + torch.eye(5) * 9).amin((1, 2))
    assert nearest.min() > 0
    assert (nearest > CLEARANCE - 1e-5).float().mean() > 0.999


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"size": 30}, ValueError, "multiple of 8"),
        ({"size": 0}, ValueError, "multiple of 8"),
        ({"size": 32.0}, TypeError, "size"),
        ({"positions": torch.zeros(1, 2, 2)}, ValueError, "positions"),
        ({"kinds": torch.zeros(1, 3, 5, dtype=torch.int64)}, ValueError, "kinds"),
    ],
)
def test_render_refuses_bad_input(change, error, match):
    index = torch.zeros(1, 1, 5, dtype=torch.int64)
    good = {"positions": torch.zeros(1, 2, 5, 2), "colours": index, "kinds": index, "sizes": index}
    with pytest.raises(error, match=match):
        render(**{**good, "size": 32, **change})


def test_uniform_depends_on_the_name_alone():
    ids = torch.tensor([3, 2**41 - 1, 77])
    draws = uniform(ids, 5, (4, 2))
    assert draws.shape == (3, 4, 2)
    assert torch.equal(draws[1:2], uniform(ids[1:2], 5, (4, 2)))
    assert torch.equal(draws.reshape(3, 8)[:, :3], uniform(ids, 5, 3))
    assert not torch.equal(draws, uniform(ids, 6, (4, 2)))


def test_uniform_is_uniform_and_uncorrelated():
    draws = uniform(torch.arange(4000), 0, 25)
    assert draws.min() >= 0 and draws.max() < 1
    counts = torch.histc(draws, 50, 0, 1)
    assert ((counts - 2000).square() / 2000).sum() < 90  # chi-square, 49 dof: p = 0.0003
    assert torch.corrcoef(draws.T).triu(1).abs().max() < 0.08
    assert torch.corrcoef(draws[:200]).triu(1).abs().mean() < 0.2


def test_known_hash_values():
    """The numbers of scenes are part of the data: they must never change."""
    # SplitMix64 with seed 0 begins with 0xE220A8397B1DCDAF.
    assert hash_ids(torch.tensor([0])).item() == 0xE220A8397B1DCDAF - (1 << 64)
    assert integers(torch.tensor([12345]), 1, 6, 100).tolist() == [[13, 19, 86, 22, 67, 21]]


def test_splits_share_no_scene():
    numbers = hash_ids(torch.arange(10000))
    train, test = to_split(numbers, "train"), to_split(numbers, "test")
    assert train.min() >= 0 and train.max() < 2**40 <= test.min() and test.max() < 2**41


@pytest.mark.parametrize(
    ("scene", "error"), [(-1, ValueError), (2**41, ValueError), ("a", TypeError)]
)
def test_scene_ids_are_checked(scene, error):
    with pytest.raises(error, match="scene"):
        check_scene_id(scene)


@pytest.mark.parametrize("size", [32, 64])
def test_segments_say_which_shape_is_where(size):
    ids = torch.arange(60)
    colours, kinds, sizes = draw_cast(ids, 5)
    colours = (colours[:, :1] + torch.arange(5)) % len(PALETTE)  # no two alike
    positions = place(ids, kinds, sizes)
    positions[:, 1] = positions[:, 0] + 0.05  # the later one covers the other in part
    frames = render(positions[:, None], *(f[:, None] for f in (colours, kinds, sizes)), size)[:, 0]
    segment = segments(positions, kinds, sizes, size)
    assert segment.shape == (60, size, size) and set(segment.unique().tolist()) == set(range(6))
    palette = torch.cat([torch.zeros(60, 1, 3), torch.tensor(PALETTE)[colours].float()], 1)
    expected = palette.gather(1, segment.flatten(1)[..., None].expand(-1, -1, 3))
    away = (frames.float().flatten(1, 2) - expected).abs().amax(-1)
    assert (away > 160).float().mean() < 0.005  # edges are blended: by at most a half and a bit
    assert (away < 1).float().mean() > 0.85
    with pytest.raises(ValueError, match="multiple of 8"):
        segments(positions, kinds, sizes, 30)
