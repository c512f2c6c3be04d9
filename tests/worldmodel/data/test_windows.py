"""Windows of recorded episodes: every step counts the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.worldmodel.scenes import ENDS, ended_by_chance, moving_square
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.data.windows import WindowBatch
from worldmodel.models.frame_by_frame.sssm import PRESETS as SSSM
from worldmodel.models.frame_by_frame.sssm import Sssm
from worldmodel.models.frame_by_frame.svg import PRESETS as SVG
from worldmodel.models.jumpy.jump.config import PRESETS as JUMP
from worldmodel.models.layers.presents import subset_weights
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import SceneBatch, SceneSource

WINDOW, WINDOWS = 10, 20_000


def test_windows() -> None:
    episodes = moving_square(6, steps=10)
    source = episodes.windows(4, batch_size=64, seed=3, whole=True)
    batch = source.batch(0)
    assert isinstance(source, SceneSource) and isinstance(batch, SceneBatch)
    assert batch.actions.shape == (64, 4) and batch.lengths.eq(4).all()
    assert batch.terminated.any() and not batch.terminated[:, :3].any()
    times = torch.arange(5).expand(64, -1)
    frames = batch.observations(times)
    assert frames.shape == (64, 5, 32, 32, 3) and frames.dtype == torch.uint8
    left = frames[..., 0].amax(2).float().argmax(-1)  # left edge of the square
    moved = (left[:, :-1] + 3 * (batch.actions - 1)).clamp(0, 26)
    assert torch.equal(left[:, 1:], moved)
    assert torch.equal(source.batch(0).actions, batch.actions)
    assert not torch.equal(source.batch(1).actions, batch.actions)
    short = moving_square(2, steps=3).windows(8, batch_size=4, whole=True).batch(0)
    assert short.lengths.eq(3).all() and short.rewards[:, 3:].eq(0).all()
    assert torch.equal(short.observations(torch.full((4, 1), 8)),
                       short.observations(torch.full((4, 1), 3)))  # fmt: skip


def test_every_step_is_as_likely_as_any_other_to_begin_a_window() -> None:
    source = moving_square(3, steps=5) + moving_square(1, steps=30, seed=1)
    windows = source.windows(4, batch_size=9000)
    drawn = [windows._window(step) for step in range(source.steps)]
    assert len({(id(episode), offset) for episode, offset in drawn}) == source.steps == 45
    lengths = windows.batch(0).lengths
    expected = torch.tensor([4, 4, 4, 33]) / 45  # an episode has one window of 1, 2 and 3 steps
    counts = torch.stack([(lengths == steps).float().mean() for steps in (1, 2, 3, 4)])
    torch.testing.assert_close(counts, expected, atol=0.02, rtol=0)


def hazard_is_right(ended: Tensor, going: Tensor) -> None:
    """Ends among the cases that were going on, (.., cases): within 4 sigma, episodes counted too.

    Weighted cases are 0 .. 1 instead of bool.
    """
    found = ended.sum(-1) / going.sum(-1)
    episodes = 4000 * (1 - ENDS) ** WINDOW  # that are so long
    sigma = (ENDS * (1 - ENDS) / going.sum(-1)).sqrt() + ENDS / math.sqrt(episodes)
    assert ((found - ENDS).abs() < 4 * sigma).all(), found


def test_ends_are_as_frequent_in_windows_as_after_recorded_steps() -> None:
    """Drawn by episode, it was .18 at the first step where .1 is right."""
    batch = ended_by_chance(4000).windows(WINDOW, WINDOWS).batch(0)
    going = batch.lengths > torch.arange(WINDOW)[:, None]
    hazard_is_right(batch.terminated.T.float(), going.float())


def contexts_of_jump(frames: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def draw(lengths: Tensor) -> tuple[Tensor, Tensor]:
        config = replace(JUMP["vector"], context_frames=frames)
        drawn = config.draw(lengths, WINDOW, torch.Generator().manual_seed(0))
        return drawn.context.masked_fill(~drawn.mask, 0).amax(1), drawn.weights

    return draw


def lasts_of_svg(lengths: Tensor) -> tuple[Tensor, Tensor]:
    config = replace(next(iter(SVG.values())), past=0, frames=WINDOW + 1)
    return config.draw_last(lengths, torch.Generator().manual_seed(0))


def firsts_of_sssm(lengths: Tensor) -> tuple[Tensor, Tensor]:
    model = Sssm(Spec((1, 16, 16), ActionSpec("none"), WINDOW), SSSM["small"])
    return model.draw_first(lengths, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "draw", [contexts_of_jump(0), contexts_of_jump(4), lasts_of_svg, firsts_of_sssm]
)
def test_ends_are_as_frequent_after_the_presents_of_training(
    draw: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    batch = ended_by_chance(4000).windows(WINDOW, WINDOWS).batch(0)
    presents, weights = draw(batch.lengths)
    for present in range(4):
        here = weights * (presents == present)
        ended = batch.terminated[:, present] * here
        hazard_is_right(ended, (batch.lengths > present) * here)


def test_weights_of_subsets() -> None:
    frames, sizes = torch.tensor([4, 3, 3, 1, 2]), torch.tensor([2, 2, 3, 1, 1])
    expected = [math.comb(n, k) / math.comb(4, k) for n, k in zip(frames, sizes, strict=True)]
    torch.testing.assert_close(subset_weights(frames, sizes, 4), torch.tensor(expected))


def vectors(lengths: tuple[int, ...] = (3, 7, 1, 5)) -> Episodes:
    """Episodes of numbers that are all different; every other one terminates."""
    made, count = [], 0
    for number, steps in enumerate(lengths):
        seen = np.arange(count, count + steps + 1, dtype=np.float32)[:, None]
        count += steps + 1
        actions = np.arange(steps) % 2
        made.append(Episode(seen, actions, seen[1:, 0].copy(), terminated=number % 2 == 0))
    return Episodes(made, ActionSpec("discrete", (), (2,)))


@pytest.mark.parametrize("window", [1, 4, 9])
def test_vectors_are_cut_as_images_are(window: int) -> None:
    """Without a loop over windows, the same batches."""
    source = vectors().windows(window, 6, seed=3)
    times = torch.arange(window + 1).expand(6, -1)
    for index in range(4):
        fast = source.batch(index)
        cut = [source._window(row) for row in fast.rows.tolist()]
        slow = WindowBatch(cut, window, torch.device("cpu"), fast.rows.numpy())
        for name in ("rows", "lengths", "actions", "rewards", "terminated"):
            one, other = getattr(fast, name), getattr(slow, name)
            assert torch.equal(one, other) and one.dtype == other.dtype, name
        assert torch.equal(fast.observations(times), slow.observations(times))


def test_a_sweep_holds_each_step_once() -> None:
    episodes = vectors()
    for window in (1, 4):
        rewards = [
            float(reward)
            for batch in episodes.windows(window, 3).sweep(1000)
            for row, length in zip(batch.rewards, batch.lengths, strict=True)
            for reward in row[:length]
        ]
        assert rewards == [float(r) for episode in episodes for r in episode.rewards]
    some = list(episodes.windows(1, 3).sweep(5))
    assert 3 <= sum(len(batch.rows) for batch in some) <= 6
