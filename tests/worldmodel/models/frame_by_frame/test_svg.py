"""SVG against the layer tables, and its losses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from frame_fixtures import CLOSE, TINY, learn, scenes, sensitive_svg
from scenes import DISCRETE, PASSIVE, generator
from torch import nn
from torch.distributions import Normal, kl_divergence

from worldmodel import Spec, make
from worldmodel.models.frame_by_frame.svg import PRESETS, Svg
from worldmodel.models.frame_by_frame.teacher_forcing import take_segment


@pytest.fixture(scope="module")
def model() -> Svg:
    return sensitive_svg(DISCRETE)


# -- the layer table ------------------------------------------------------------------------------


def conv(inputs: int, outputs: int, kernel: int, norm: bool = True) -> int:
    return inputs * outputs * kernel**2 + outputs + (2 * outputs if norm else 0)


def recurrence(inputs: int, layers: int, outputs: int, hidden: int = 256) -> int:
    lstm = layers * (4 * hidden * (2 * hidden) + 8 * hidden)
    return inputs * hidden + hidden + lstm + hidden * outputs + outputs


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_paper_preset_has_the_tables_parameters() -> None:
    model = Svg(replace(PASSIVE, observation=(3, 64, 64)), PRESETS["paper"])
    widths = (3, 64, 128, 256, 512)
    down = sum(conv(a, b, 4) for a, b in pairwise(widths))
    assert parameters(model.encoder) == down + conv(512, 128, 4)
    up = conv(128, 512, 4) + conv(1024, 256, 4) + conv(512, 128, 4) + conv(256, 64, 4)
    assert parameters(model.decoder) == up + conv(128, 3, 4, norm=False)
    assert parameters(model.predictor) == recurrence(128 + 10, 2, 128)
    assert parameters(model.posterior) == parameters(model.prior) == recurrence(128, 1, 2 * 10)
    assert model.beta == 1e-4


def test_vgg_presets_have_the_tables_parameters() -> None:
    model = Svg(replace(PASSIVE, observation=(3, 64, 64)), PRESETS["bair"])
    deep = [(3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512)]
    down = sum(conv(a, b, 3) for stage in deep for a, b in pairwise(stage))
    assert parameters(model.encoder) == down + conv(512, 128, 4)
    mirrored = [(1024, 512, 512, 256), (512, 256, 256, 128), (256, 128, 64), (128, 64)]
    up = sum(conv(a, b, 3) for stage in mirrored for a, b in pairwise(stage))
    assert parameters(model.decoder) == conv(128, 512, 4) + up + conv(64, 3, 3, norm=False)
    assert parameters(model.predictor) == recurrence(128 + 64, 2, 128)
    assert PRESETS["kth"].latent == 24 and PRESETS["kth"].beta == 1e-6


def test_variants_differ_in_the_prior_alone() -> None:
    spec, config = replace(PASSIVE, observation=(3, 64, 64)), PRESETS["paper"]
    learned, fixed, none = (make(name, spec, config) for name in ("svg-lp", "svg-fp", "svg-det"))
    prior = posterior = recurrence(128, 1, 2 * 10)
    assert parameters(learned) - parameters(fixed) == prior
    assert parameters(fixed) - parameters(none) == posterior + 10 * 256  # z into the predictor
    assert isinstance(none, Svg) and not none.stochastic and none.noise_shape == (0,)


@pytest.mark.parametrize("preset", ["paper", "bair"])
@pytest.mark.parametrize(("size", "last"), [(64, 512), (32, 256)])
def test_the_last_convolution_sees_4x4(preset: str, size: int, last: int) -> None:
    model = Svg(replace(PASSIVE, observation=(3, size, size)), PRESETS[preset]).eval()
    with torch.no_grad():
        h, skips = model.encoder(torch.rand(2, 3, size, size))
        assert h.shape == (2, 128) and skips[-1].shape[1] == last
        frames = model.decoder(h, skips)
    assert frames.shape == (2, 3, size, size)
    assert ((frames >= 0) & (frames <= 1)).all()
    # the equivalent Gaussian variance beta C H W / 2 (reference notes: 0.614 for BAIR)
    assert model.beta * 3 * size * size / 2 == pytest.approx(0.6144)


def test_actions_join_the_inputs() -> None:
    one, other = Svg(DISCRETE, TINY), Svg(PASSIVE, TINY)
    for name in ("prior", "posterior", "predictor"):
        assert getattr(one, name).enter.in_features == getattr(other, name).enter.in_features + 3


@pytest.mark.parametrize("size", [(48, 48), (64, 32), (128, 128)])
def test_sizes_that_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"takes square frames of \[16, 32, 64\] pixels"):
        Svg(replace(PASSIVE, observation=(3, *size)), PRESETS["paper"])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"backbone": "resnet"}, "backbone"),
        ({"channels": ()}, "channels"),
        ({"channels": (8, 0)}, "channels"),
        ({"latent": 0}, "latent"),
        ({"prior_layers": 0}, "prior_layers"),
        ({"past": 9, "frames": 9}, "past, frames"),
        ({"past": 0, "frames": 1}, "past, frames"),
        ({"beta": 0.0}, "beta"),
        ({"reward_variance": -1.0}, "reward_variance"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_bad_config(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        replace(TINY, **change)


# -- training -------------------------------------------------------------------------------------


@torch.no_grad()
def test_sequences_equal_steps(model: Svg) -> None:
    x = torch.rand(2, 5, model.predictor.enter.in_features, generator=generator())
    whole, state = model.predictor(x), model.predictor.start(x[:, 0])
    for t in range(5):
        y, state = model.predictor.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], **CLOSE)


@pytest.mark.parametrize("name", ["svg-lp", "svg-fp", "svg-det"])
@pytest.mark.parametrize("backbone", ["dcgan", "vgg"])
@pytest.mark.parametrize("spec", [PASSIVE, DISCRETE], ids=["passive", "discrete"])
def test_loss_reaches_every_parameter(spec: Spec, backbone: Any, name: str) -> None:
    model = make(name, spec, replace(TINY, past=0, backbone=backbone))
    losses = model(scenes(spec), 0.0, generator())
    losses.total.backward()
    assert all(torch.isfinite(part) for part in losses.parts.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["svg-lp", "svg-fp", "svg-det"])
def test_kl_is_that_of_the_distributions(name: str) -> None:
    """Of the posterior from the learned prior, or from N(0, I); each step's is logged."""
    model = make(name, DISCRETE, TINY).eval()
    assert isinstance(model, Svg)
    batch = scenes(DISCRETE)
    with torch.no_grad():
        segment = take_segment(batch, DISCRETE, 8)
        h = model.encoder(segment.observations.flatten(0, 1))[0].unflatten(0, (4, 9))
        kl = torch.zeros(4, 8)
        if model.posterior is not None:
            q = model.posterior(torch.cat([h[:, 1:], segment.actions], -1))
            before = torch.cat([h[:, :-1], segment.actions], -1)
            p = torch.zeros_like(q) if model.prior is None else model.prior(before)
            pair = (
                Normal(mean, (0.5 * logvar).exp())
                for mean, logvar in (q.chunk(2, -1), p.chunk(2, -1))
            )
            kl = kl_divergence(*pair).sum(-1)
        losses = model.loss(batch, 0.0, generator())
    torch.testing.assert_close(losses.parts["kl"], (kl * segment.valid).sum(1).mean())
    mean = (kl * segment.valid).sum(0) / segment.valid.sum(0)
    torch.testing.assert_close(losses.curves["kl"], mean)
    assert (losses.parts["kl"] > 0) == model.stochastic


def test_loss_sums_steps_and_masks_the_end() -> None:
    model = sensitive_svg(DISCRETE)
    batch = scenes(DISCRETE)
    with torch.no_grad():
        losses = model.loss(batch, 0.0, generator())
        parts = losses.parts
        per_scene = parts["mse"] * batch.lengths.sum() / len(batch.lengths)
        nats = parts["kl"] + parts["reward"] + parts["continue"]
        torch.testing.assert_close(losses.total, per_scene + model.beta * nats)
        for row, length in enumerate(batch.lengths.tolist()):  # nothing behind the end is read
            batch.frames[row, length + 1 :] = 255
            batch.actions[row, length:] = -1
            batch.rewards[row, length:] = 1e6
        assert torch.equal(model.loss(batch, 0.0, generator()).total, losses.total)
        model.config = replace(TINY, frames=4)
        shorter = replace(batch, lengths=batch.lengths.clamp_max(3))
        expected = model.loss(batch, 0.0, generator()).total
        assert torch.equal(model.loss(shorter, 0.0, generator()).total, expected)


def test_draw_last() -> None:
    lengths = torch.tensor([8, 1, 0]).repeat(400)
    fixed = replace(TINY, past=3).draw_last(lengths, None)[0]
    assert torch.equal(fixed, torch.tensor([2, 1, 0]).repeat(400))
    drawn = replace(TINY, past=0).draw_last(lengths, generator())[0]
    assert (drawn >= 0).all() and (drawn <= lengths).all()
    assert drawn[::3].unique().tolist() == list(range(8))
    assert 0.5 < (drawn[::3] == 0).float().mean() < 0.65


def test_overfits_a_batch() -> None:
    torch.manual_seed(0)
    model = Svg(DISCRETE, TINY)
    history = learn(model, scenes(DISCRETE), steps=60, rate=2e-3)
    assert history[-1]["mse"] < 0.1 * history[0]["mse"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["reward"] < 0.5 * history[0]["reward"]
