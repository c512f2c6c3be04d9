"""One of four moves for each ball, or several."""

from __future__ import annotations

import pytest
import torch

from envs import play
from envs.balls import BALLS, CELLS, NONE, RandomWalk, locate, moves_of, segments
from envs.narratives.shapes import PALETTE
from tests.envs.pictures import BLURS, blurred


def walked(count, **settings):
    return play(
        RandomWalk(**settings), torch.arange(count), torch.zeros(count, 14, dtype=torch.int64), 32
    )


def test_moves_are_uniform_among_those_that_stay_inside():
    cells = walked(1500).trajectory.cells
    moves, here = moves_of(cells), cells[:, :-1]
    assert (moves != NONE).all() and (cells >= 0).all() and (cells < CELLS).all()
    middle = ((here > 0) & (here < CELLS - 1)).all(-1)
    counts = torch.bincount(moves[middle], minlength=4)
    expected = counts.sum() / 4
    assert ((counts - expected).square() / expected).sum() < 16.3  # 3 dof: p = 0.001
    top = (here[..., 1] == 0) & (here[..., 0] > 0) & (here[..., 0] < CELLS - 1)
    counts = torch.bincount(moves[top], minlength=4)
    expected = counts.sum() / 3
    assert counts[0] == 0  # up
    assert ((counts[1:] - expected).square() / expected).sum() < 13.8  # 2 dof


def test_balls_walk_apart_and_differ_in_colour():
    batch = walked(1500)
    colours = batch.start().colours
    assert (colours.sort(1).values[:, 1:] != colours.sort(1).values[:, :-1]).all()
    moves = moves_of(batch.trajectory.cells)
    same = (moves[..., 0] == moves[..., 1]).float().mean()
    assert abs(same - 0.26) < 0.02


def test_several_moves_are_compositions():
    cells = walked(300, moves=3).trajectory.cells
    went = cells[:, 1:] - cells[:, :-1]
    length = went.abs().sum(-1)
    assert set(length.unique().tolist()) == {1, 3}  # an odd number of moves, at most three
    assert (moves_of(cells) == NONE).any()
    one, three = RandomWalk(1), RandomWalk(3)
    ids = torch.arange(10)
    assert torch.equal(one.begin(ids).cells, three.begin(ids).cells)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("width", BLURS)
def test_balls_are_located(size, width):
    batch = walked(150)
    times = torch.arange(15).expand(150, -1)
    frames = batch.simulator.render(batch.moments(times), size).unflatten(0, (150, 15))
    found = locate(blurred(frames, width), batch.start())
    assert found.shape == (150, 15, BALLS, 2)
    assert (found == batch.trajectory.cells).all(-1).float().mean() >= 0.98
    assert (moves_of(found) == moves_of(batch.trajectory.cells)).float().mean() >= 0.97


def test_bad_input():
    for moves, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="moves"):
            RandomWalk(moves)
    for shape in ((3, 1, 32, 32, 3), (2, 1, 32, 32, 1), (2, 1, 32, 64, 3)):
        with pytest.raises(ValueError, match="frames"):
            locate(torch.zeros(shape), RandomWalk().begin(torch.arange(2)))
    with pytest.raises(ValueError, match="cells"):
        moves_of(torch.zeros(3, 3, 2))


@pytest.mark.parametrize("size", [32, 64])
def test_segments_say_which_ball_is_where(size):
    batch = walked(50)
    times = torch.full((50, 1), 7)
    moments = batch.moments(times)
    segment = segments(moments, size)
    frames = batch.simulator.render(moments, size).float()
    palette = torch.tensor(PALETTE)[moments.colours].float()  # (50, 3, 3)
    assert segment.shape == (50, size, size) and set(segment.unique().tolist()) == {0, 1, 2, 3}
    colour = torch.cat([torch.zeros(50, 1, 3), palette], 1)
    expected = colour.gather(1, segment.flatten(1)[..., None].expand(-1, -1, 3))
    away = (frames.flatten(1, 2) - expected).abs().amax(-1)
    assert (away > 160).float().mean() < 0.005  # the edges are blended: by at most a half and a bit
    assert (away < 1).float().mean() > 0.9
