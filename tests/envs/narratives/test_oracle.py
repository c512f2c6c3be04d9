"""Frames of known scenes are read back, sharp and blurred."""

from __future__ import annotations

import pytest
import torch

from envs import sample_scenes
from envs.narratives.oracle import (
    ABSENT,
    chases,
    coherent_reaction,
    coherent_story,
    locate,
    reagent_colours,
    ring_position,
    visited_city,
)
from envs.narratives.shape_parser import read_frame
from envs.narratives.traveling_salesman import ACTOR, TravelingSalesman
from tests.envs.pictures import BLURS, blurred

NATURE = "narratives/TravelingSalesmanNature-v0"


def accuracy(size, scenes=200):
    """Shares of shapes with right colour and place (1 px), kind, and size; all frames at t = 0."""
    batch = sample_scenes(NATURE, scenes, size=size, split="test")
    read = read_frame(batch.observations(torch.zeros(scenes, 1, dtype=torch.int64))[:, 0])
    located = kind = grade = 0
    for i, shapes in enumerate(read):
        for j in range(5):
            x, y = batch.trajectory.positions[i, 0, j].tolist()
            near = [
                s
                for s in shapes
                if max(abs(s.x - x), abs(s.y - y)) * size < 1
                and s.colour == batch.trajectory.colours[i, 0, j]
            ]
            if near:
                located += 1
                kind += near[0].kind == batch.trajectory.kinds[i, 0, j].item()
                grade += near[0].size == batch.trajectory.sizes[i, 0, j].item()
    spurious = sum(len(shapes) > 5 for shapes in read)
    return located / (5 * scenes), kind / (5 * scenes), grade / (5 * scenes), spurious


@pytest.mark.parametrize(
    ("size", "located", "kind", "grade"), [(64, 0.99, 0.99, 0.99), (32, 0.99, 0.98, 0.98)]
)
def test_reading_frames(size, located, kind, grade):
    measured = accuracy(size)
    assert measured[0] >= located and measured[1] >= kind and measured[2] >= grade
    assert measured[3] == 0


def test_reading_an_empty_frame():
    assert read_frame(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)) == [[], []]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("width", "least"), [(1, 1.0), (3, 0.98), (5, 0.98)])
def test_visits_are_read_from_sharp_and_blurred_frames(size, width, least):
    batch = sample_scenes(NATURE, 100, size=size, split="test")
    facts = batch.start()
    frames = batch.observations(torch.tensor([[0, 5, 10, 15, 20]]).expand(100, -1))
    visits = visited_city(blurred(frames, width), facts)
    right = (visits[:, 1:] == facts.order).float().mean().item()
    apart = (visits[:, 0] == ABSENT).float().mean().item()
    assert right >= least
    assert apart >= 0.9
    assert coherent_story(visits[:, 1:]).float().mean() >= least - 0.05


def test_coherent_story():
    visits = torch.tensor([[2, 0, 1, 3], [2, 0, 1, 1], [ABSENT, 0, 1, 2]])
    assert coherent_story(visits).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="visits"):
        coherent_story(visits[:, :3])


def test_bad_input():
    facts = TravelingSalesman().begin(torch.arange(2))
    with pytest.raises(ValueError, match="frames"):
        visited_city(torch.zeros(3, 1, 16, 16, 3), facts)
    with pytest.raises(TypeError, match="uint8"):
        read_frame(torch.zeros(1, 16, 16, 3))
    with pytest.raises(ValueError, match="frames"):
        read_frame(torch.zeros(1, 16, 8, 3, dtype=torch.uint8))
    assert facts.positions.shape[1] == ACTOR + 1


def shown(name, scenes, size, count=6):
    """A batch of test scenes, evenly spread times (B, n), and the frames then."""
    batch = sample_scenes(f"narratives/{name}-v0", scenes, size=size, split="test", seed=3)
    times = torch.linspace(0, batch.actions.shape[1], count).long().expand(scenes, -1)
    return batch, times, batch.observations(times)


def told(batch, field, times):
    """What the trajectory says of ``field`` at the times."""
    return getattr(batch.trajectory, field)[torch.arange(len(times))[:, None], times]


@pytest.mark.parametrize("name", ["ColorReaction", "ColorReactionNature"])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("width", BLURS)
def test_reagents_colours(name, size, width):
    batch, times, frames = shown(name, 40, size)
    found = reagent_colours(blurred(frames, width), batch.start())
    right = found == told(batch, "colours", times)[..., : found.shape[-1]]
    assert right.float().mean() >= (0.98 if size == 64 else 0.9)


def test_coherent_reaction():
    colours = torch.tensor([[3, 3, 5, 5], [3, 3, 3, 3], [3, 5, 3, 3], [3, 5, 7, 7]])
    assert coherent_reaction(colours).tolist() == [True, False, False, False]
    batch, times, frames = shown("ColorReactionNature", 40, 64)
    assert coherent_reaction(reagent_colours(frames, batch.start())[..., 0]).float().mean() > 0.97
    with pytest.raises(ValueError, match="colours"):
        coherent_reaction(colours[:, :1])


LOCATED = {
    ("DAGChase", 64): (0.93, 0.9, 0.85),
    ("DAGChase", 32): (0.87, 0.8, 0.45),
    ("DAGChaseNature", 64): (0.85, 0.8, 0.75),
    ("DAGChaseNature", 32): (0.8, 0.75, 0.6),
}


@pytest.mark.parametrize("name", ["DAGChase", "DAGChaseNature"])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("width", BLURS)
def test_shapes_are_located(name, size, width):
    batch, times, frames = shown(name, 60, size)
    found = locate(blurred(frames, width), batch.start())
    off = (found - told(batch, "positions", times)).abs().amax(-1) * size
    assert (off < 1.5).float().mean() >= LOCATED[name, size][BLURS.index(width)]


def test_who_chases_whom_is_read_from_motion():
    batch, times, frames = shown("DAGChaseNature", 60, 64, count=21)
    truth = batch.start().parents[:, :3]
    exact = chases(told(batch, "positions", times))[:, :3]
    assert (exact == truth).float().mean() >= 0.9
    read = chases(locate(frames, batch.start()))[:, :3]
    assert (read == truth).float().mean() >= 0.8
    with pytest.raises(ValueError, match="positions"):
        chases(torch.zeros(2, 1, 4, 2))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("width", BLURS)
def test_the_ring_is_found_and_does_not_hide_visits(size, width):
    batch, times, frames = shown("Intercept", 60, size, count=5)
    facts = batch.start()
    found = ring_position(blurred(frames, width), facts)
    off = (found - told(batch, "ring", times)).abs().amax(-1) * size
    assert (off < 1.5).float().mean() >= 0.9
    visits = visited_city(blurred(frames, width), facts)[:, 1:]
    assert (visits == facts.order).float().mean() >= 0.93
