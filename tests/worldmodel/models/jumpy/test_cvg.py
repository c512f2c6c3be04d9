"""CVG: the game of two players in one optimizer, pairs, unrolling, training."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cvg_fixtures import SPEC, TINY, source, squares, steps_of, tiny
from scenes import DISCRETE, POSED, generator
from torch import Tensor

from worldmodel import (
    ActionSpec,
    Context,
    Progress,
    Queries,
    Spec,
    UnsupportedQuery,
    fit,
    load,
    make,
    preset,
)
from worldmodel.data.windows import WindowBatch
from worldmodel.imagine import imagine
from worldmodel.models.jumpy.cvg import Cvg
from worldmodel.models.jumpy.cvg.discriminator import discriminator_loss, generator_loss, smaller
from worldmodel.models.layers.frame_norm import recorded_statistics

QUIET: dict[str, Any] = {"progress": False}


# -- the game ------------------------------------------------------------------------------------


def test_hinge_losses_by_hand() -> None:
    real, fake = torch.tensor([[2.0, 0.5], [-1.0, 1.0]]), torch.tensor([[-3.0, 0.0], [1.0, -0.5]])
    assert float(discriminator_loss(real, fake)) == pytest.approx((0.5 + 2) / 4 + (1 + 2 + 0.5) / 4)
    assert float(generator_loss(fake)) == pytest.approx(2.5 / 4)


@pytest.mark.parametrize(("progress", "level"), [(0.0, "first"), (0.5, "second")])
def test_players_take_turns(progress: float, level: str) -> None:
    """Two turns of the discriminators, one of the generator; nothing else moves, nor its Adam."""
    model = tiny()
    optimizer = model.make_optimizer()
    moved = []
    for step in range(6):
        before = {name: w.clone() for name, w in model.named_parameters()}
        optimizer.zero_grad(set_to_none=True)
        model(source().batch(step), progress, generator(step)).total.backward()
        optimizer.step()
        changed = {n.split(".")[0] for n, w in model.named_parameters() if not w.equal(before[n])}
        assert len(changed) == 1
        moved += changed
    assert moved == 2 * [f"{level}_judges", f"{level}_judges", level]
    done = {int(optimizer.state[w]["step"]) for w in getattr(model, level).parameters()}
    assert done == {2}
    other = "second" if level == "first" else "first"
    assert not any(w in optimizer.state for w in getattr(model, other).parameters())


def test_learning_rates_of_the_players() -> None:
    model, rates = tiny(), []

    class Watched(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    original = Cvg.make_optimizer(model)
    watched = Watched(original.param_groups)
    model.make_optimizer = lambda: watched  # type: ignore[method-assign]
    fit(model, source(), 2, **QUIET)
    assert rates == 2 * [pytest.approx([1e-4, 5e-4, 1e-4, 5e-4])]  # thesis, 6.A


def test_the_generator_learns_from_the_discriminator() -> None:
    """In its turn the generator's gradient raises logits; the discriminators' separates them."""
    model = tiny()
    first = steps_of(model, 0.0, 90)
    assert np.mean(first[60::3]) < np.mean(first[0:9:3])


# -- pairs ---------------------------------------------------------------------------------------


def test_the_matching_discriminator_sees_pairs() -> None:
    model = tiny()
    video, outline = model._recorded(source().batch(0), True, generator())
    assert outline is not None
    assert (video.shape, outline.shape) == ((4, 4, 1, 16, 16), (4, 2, 1, 8, 8))
    pairs = model.second_judges.pairs(video, outline)
    assert pairs.shape == (4, 2, 2, 8, 8)
    torch.testing.assert_close(pairs[:, :, :1], pairs[:, :, 1:])  # what is real, matches
    averages = video[:, ::2].unflatten(-1, (8, 2)).unflatten(-3, (8, 2)).mean((-1, -3))
    torch.testing.assert_close(outline, averages)
    right = model.second_judges(video, outline, None)
    wrong = model.second_judges(video, outline.flip(0), None)
    torch.testing.assert_close(right[:, :8], wrong[:, :8])  # 4 frames, and 4 of the whole video
    assert (right[:, 8:] - wrong[:, 8:]).abs().min() > 0
    assert right.shape == (4, 10)


def test_without_matching() -> None:
    model = tiny(matching=False)
    assert model.second_judges.matching is None
    assert all(math.isfinite(loss) for loss in steps_of(model, 0.9, 3))


def test_windows_begin_anywhere() -> None:
    model = tiny()
    values = torch.arange(4).expand(200, 4)
    windows = model._windows(values, generator())
    assert windows.shape == (200, 2)
    assert (windows[:, 1] == windows[:, 0] + 1).all()
    assert sorted(Counter(windows[:, 0].tolist())) == [0, 1, 2]


# -- generation ----------------------------------------------------------------------------------


def test_unrolled_four_times() -> None:
    """Trained on windows of 4 frames and videos of 8, unrolled to 32."""
    model = tiny()
    steps_of(model, 0.9, 3)
    longer = model.unrolled(31)
    outline, video = longer.levels(2, generator())
    assert (outline.shape, video.shape) == ((2, 16, 1, 8, 8), (2, 32, 1, 16, 16))
    assert 0 <= float(video.min()) <= float(video.max()) <= 1
    assert not video[:, 8:].equal(video[:, :-8])
    own = dict(longer.named_parameters())
    assert all(weights.equal(own[name]) for name, weights in model.named_parameters())
    with pytest.raises(ValueError, match="window: expected at least 1 step, got 0"):
        model.unrolled(0)


def test_an_upper_level_is_local() -> None:
    """A frame of the outline changes what lies near it, as the layers over time reach."""
    model = tiny().unrolled(63)
    outline = torch.rand(1, 32, 1, 8, 8, generator=generator())
    other = outline.clone()
    other[:, 0] = 1 - other[:, 0]
    z = torch.zeros(1, 4)
    with torch.no_grad(), recorded_statistics(model):
        changed = model.second(z, 64, outline) != model.second(z, 64, other)
    reached = changed.flatten(2).any(2)[0].nonzero().flatten().tolist()
    # two units, each with a convolution over three frames, after residuals of frames 0 and 1
    assert reached == [0, 1, 2]


def test_worlds_are_videos() -> None:
    model = tiny()
    worlds = model.sample(model.observe(Context.empty(2, SPEC.observation)), 3, generator())
    times = torch.tensor([[7, 0], [3, 3]])
    answer = model.predict(worlds, Queries(times))
    assert answer.observations is not None
    assert answer.observations.shape == (2, 3, 1, 2, 1, 16, 16)
    video = worlds.state["video"]
    assert answer.observations[0, 1, 0, 0].equal(video[0, 1, 7])
    assert answer.observations[1, 2, 0, 1].equal(video[1, 2, 3])
    assert not answer.rewards.any()
    assert (answer.alive == 1).all()
    later = model.advance(worlds, torch.zeros(2, 5))
    past = model.predict(later, Queries(times)).observations
    assert past is not None
    assert past.equal(answer.observations)


def test_frames_are_no_context() -> None:
    model = tiny()
    shown = Context(torch.zeros(2, 1, 1, 16, 16), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(
        UnsupportedQuery, match="cannot go on from frames, got 1; give it Context.e"
    ):
        model.observe(shown)
    with pytest.raises(ValueError, match=r"expected \(B, 0, C, H, W\)"):
        model.observe(Context.empty(2, (1, 8, 8)))
    with pytest.raises(ValueError, match="at least one scene, got a batch of 0"):
        model.observe(Context.empty(0, SPEC.observation))
    with pytest.raises(ValueError, match="n: expected at least 1 video"):
        model.levels(0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DISCRETE, "knows of no actions"),
        (POSED, "camera poses"),
        (replace(SPEC, observation=(1, 16, 32)), "square frames"),
        (replace(SPEC, observation=(1, 24, 24)), "power of two"),
        (replace(SPEC, observation=(1, 64, 64)), "give it 3 units"),
    ],
)
def test_specs_that_it_cannot_do(spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("cvg", spec, TINY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 3}, "scale: expected a power of two"),
        ({"first_share": 1.0}, "first_share"),
        ({"second_generator": ()}, "second_generator: expected channels"),
        ({"first_discriminator": (8, 0)}, "first_discriminator"),
        ({"crop": 0}, "crop"),
        ({"discriminator_rate": 0.0}, "discriminator_rate"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **settings)


def test_imagined_pictures_have_no_context() -> None:
    batch = squares().windows(7, batch_size=4, whole=True).batch(0)
    imagined = imagine(tiny(), batch, (0,), (0, 3, 7), worlds=2)
    assert imagined.worlds.shape == (4, 2, 3, 16, 16, 1)
    assert not imagined.in_context.any()


# -- training ------------------------------------------------------------------------------------


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    """Across the change of levels, in the middle of the players' turns."""
    whole = tiny()
    fit(whole, source(), 10, **QUIET)

    def interrupt(progress: Progress) -> None:
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        fit(tiny(), source(), 10, folder=tmp_path, log_every=1, callbacks=[interrupt], **QUIET)
    resumed = tiny()
    fit(resumed, source(), 10, folder=tmp_path, resume=True, **QUIET)
    again = load(tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(value, again.state_dict()[name]), name


def test_losses_are_no_errors() -> None:
    with pytest.raises(ValueError, match="holdout: an adversarial loss"):
        tiny().holdout_errors(source().batch(0), generator())


def test_the_small_preset_is_for_32_and_64_pixels() -> None:
    for size in (32, 64):
        spec = Spec((3, size, size), ActionSpec("none"), 15)
        model = make("cvg", spec, replace(preset("cvg", "small"), statistics_passes=1))
        assert isinstance(model, Cvg)
        outline, video = model.levels(1, generator())
        assert outline.shape == (1, 8, 3, size // 2, size // 2)
        assert video.shape == (1, 16, 3, size, size)


@pytest.mark.slow
def test_overfit() -> None:
    """The first level learns eight scenes by heart, all of them; the second begins to follow."""
    model = tiny(
        noise=8, first_generator=(32, 16), second_generator=(32, 16),
        first_discriminator=(16, 32), second_discriminator=(16, 32), learning_rate=1e-3,
        learning_rate_end=1e-3, discriminator_rate=2.0, statistics_passes=8, statistics_batch=16,
    )  # fmt: skip
    windows = [(episode, 0) for episode in squares()]
    batch = WindowBatch(windows * 2, 7, torch.device("cpu"))
    real = SPEC.to_model(batch.observations(torch.arange(8).expand(16, -1)))[:8]
    optimizer, random = model.make_optimizer(), generator()

    def train(progress: float, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            model(batch, progress, random).total.backward()
            optimizer.step()

    def distances(samples: Tensor, scenes: Tensor) -> Tensor:
        """Squared errors (n, 8) to each scene; 1 for black frames."""
        squares_ = (samples[:, None] - scenes).square().flatten(2).mean(2)
        return squares_ / scenes.square().mean()

    train(0.0, 480)
    outlines, videos = model.levels(32, generator(1))
    near = distances(outlines, smaller(real[:, ::2], 8))
    assert near.amin(1).mean() < 0.4
    assert len(near.argmin(1).unique()) >= 6
    before = distances(videos, real).amin(1).mean()
    train(0.9, 80)
    assert distances(model.levels(32, generator(1))[1], real).amin(1).mean() < 0.5 * before
