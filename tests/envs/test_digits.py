"""SVG's rules, and where the digits are."""

from __future__ import annotations

import pytest
import torch

from envs import play
from envs.digits import StochasticMovingDigits, coherent_motion, locate
from tests.envs.pictures import BLURS, blurred

TEST = 1 << 40


def played(count, steps=19, first=0, **settings):
    simulator = StochasticMovingDigits(**settings)
    ids = torch.arange(count) + first
    return play(simulator, ids, torch.zeros(count, steps, dtype=torch.int64))


def test_beginnings_are_uniform():
    start = StochasticMovingDigits().begin(torch.arange(9000))
    for values, n, low in ((start.positions, 32, 0), (start.velocities, 9, -4)):
        for digit in range(2):
            for axis in range(2):
                counts = torch.bincount(values[:, digit, axis] - low, minlength=n)
                assert len(counts) == n
                chi = ((counts - 9000 / n).square() / (9000 / n)).sum()
                assert chi < {32: 61.1, 9: 26.1}[n]  # 31 and 8 dof: p = 0.001


def test_bounces_follow_the_rules():
    """From each frame to the next: hold inside, top and bottom first, then left and right."""
    path = played(600, 60).trajectory
    here, speed = path.positions[:, :-1], path.velocities[:, :-1]
    there, after = path.positions[:, 1:], path.velocities[:, 1:]
    raw = here + speed
    low, high = raw < 0, raw >= 32
    assert torch.equal(there, raw.clamp(0, 31))
    free = ~(low | high).any(-1)
    assert torch.equal(after[free], speed[free])
    for axis in range(2):
        for crossed, sign in ((low, 1), (high, -1)):
            # At a corner the second check, of x, draws the speed along y anew.
            alone = crossed[..., axis] & ~(low | high)[..., 1 - axis]
            away = sign * after[..., axis][alone]
            along = after[..., 1 - axis][alone]
            counts = torch.bincount(away, minlength=5)
            assert counts[0] == 0 and len(counts) == 5
            expected = counts.sum() / 4
            assert ((counts[1:] - expected).square() / expected).sum() < 16.3  # 3 dof: p = 0.001
            counts = torch.bincount(along + 4, minlength=9)
            expected = counts.sum() / 9
            assert len(counts) == 9
            assert ((counts - expected).square() / expected).sum() < 26.1  # 8 dof
    corner = (low | high).all(-1)
    assert corner.sum() > 50
    x_away = torch.where(low[..., 0], after[..., 0], -after[..., 0])[corner]
    assert (x_away >= 1).all()
    assert (torch.where(low[..., 1], after[..., 1], -after[..., 1])[corner] < 1).any()


def test_digits_move_apart_and_scenes_differ():
    path = played(500).trajectory
    moves = path.velocities[:, 0].float().flatten(1)
    assert torch.corrcoef(moves.T).fill_diagonal_(0).abs().max() < 0.15
    assert not torch.equal(path.positions[0], path.positions[1])


@pytest.mark.parametrize("digits", [1, 2])
def test_frames_are_digits_added_up(digits):
    simulator = StochasticMovingDigits(digits)
    state = simulator.begin(torch.arange(20))
    frames = simulator.render(state, 64)
    assert frames.shape == (20, 64, 64, 3) and (frames == frames[..., :1]).all()
    canvas = torch.zeros(20, 64, 64)
    for i, (patches, corners) in enumerate(
        zip(simulator.patches(state), state.positions, strict=True)
    ):
        for patch, (x, y) in zip(patches, corners.tolist(), strict=True):
            canvas[i, y : y + 32, x : x + 32] += patch
    assert torch.equal(frames[..., 0], (canvas.clamp(max=1) * 255 + 0.5).to(torch.uint8))
    half = simulator.render(state, 32).float()
    mean = frames.float().unflatten(1, (32, 2)).unflatten(3, (32, 2)).mean((2, 4))
    assert (half - mean).abs().max() <= 1
    assert simulator.render(state, 128).shape == (20, 128, 128, 3)
    assert simulator.labels(state).shape == (20, digits)


def test_train_and_test_scenes_show_other_digits():
    simulator = StochasticMovingDigits()
    seen, unseen = (simulator.begin(torch.arange(3000) + first).images for first in (0, TEST))
    assert not set(seen.flatten().tolist()) & set(unseen.flatten().tolist())
    assert len(seen.unique()) > 1000 and len(unseen.unique()) > 500


LEAST = {(64, 1): 0.98, (64, 3): 0.98, (64, 5): 0.96, (32, 1): 0.97, (32, 3): 0.94, (32, 5): 0.82}


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("width", BLURS)
def test_digits_are_located(size, width):
    batch = played(60, first=TEST)
    times = torch.tensor([[0, 9, 19]]).expand(60, -1)
    frames = batch.simulator.render(batch.moments(times), size).unflatten(0, (60, 3))
    found = locate(blurred(frames, width), batch.simulator, batch.start())
    truth = batch.trajectory.positions[:, [0, 9, 19]]
    assert ((found - truth).abs().amax(-1) <= 1).float().mean() >= LEAST[size, width] - 0.02


def test_one_digit_is_located():
    batch = played(20, digits=1)
    frames = batch.observations(torch.tensor([[5]]).expand(20, -1))
    found = locate(frames, batch.simulator, batch.start())
    assert torch.equal(found[:, 0], batch.trajectory.positions[:, 5])


def test_coherent_motion():
    path = played(200).trajectory.positions
    assert coherent_motion(path).all()
    jump = path.clone()
    jump[:, 10:] = (jump[:, 10:] + 16) % 32
    assert coherent_motion(jump).float().mean() < 0.05
    crooked = path.clone()
    crooked[:, 10] += 3
    assert coherent_motion(crooked).float().mean() < 0.5
    noisy = path + torch.randint(-1, 2, path.shape, generator=torch.Generator().manual_seed(0))
    assert coherent_motion(noisy).float().mean() < 0.05
    assert coherent_motion(noisy, tolerance=2).all()


def test_bad_input():
    for digits, error in ((0, ValueError), (3, ValueError), (1.0, TypeError)):
        with pytest.raises(error, match="digits"):
            StochasticMovingDigits(digits)
    simulator = StochasticMovingDigits()
    for shape in ((3, 1, 64, 64, 3), (2, 1, 64, 64, 1), (2, 1, 64, 32, 3), (2, 0, 64, 64, 3)):
        with pytest.raises(ValueError, match="frames"):
            locate(torch.zeros(shape), simulator, simulator.begin(torch.arange(2)))
    for shape in ((2, 5, 2, 3), (2, 1, 2, 2)):
        with pytest.raises(ValueError, match="corners"):
            coherent_motion(torch.zeros(shape))
    with pytest.raises(ValueError, match="tolerance"):
        coherent_motion(torch.zeros(2, 5, 2, 2), tolerance=-1)
