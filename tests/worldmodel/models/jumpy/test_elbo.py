"""JUMP's bound on the likelihood, against estimates that share no code with it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import PASSIVE, generator
from torch import Tensor
from torch.distributions import Normal

from worldmodel import ActionSpec, Episode, Episodes, Spec, fit, make
from worldmodel.models.jumpy.jump import Jump, JumpConfig
from worldmodel.models.jumpy.jump.renderer import LatentWorlds

VARIANCE = 2.0
"""Small enough that the latent is used, large enough that drawing from the prior finds it, too."""

TINY = JumpConfig(
    steps=2, hidden=4, tower=4, canvas=4, canvas_in=4, latent=1, kernel=1, scene=8, head=4,
    targets=2, context_min=1, context_max=1, context_frames=1,
    variance_start=VARIANCE, variance_end=VARIANCE, learning_rate=1e-2, learning_rate_end=1e-2,
)  # fmt: skip
SPEC = Spec((1, 16, 16), ActionSpec("none"), 1)
PAIR = torch.ones(1, 1, dtype=torch.bool)
TIMES = torch.tensor([[0]]), PAIR, torch.tensor([[0, 1]]), torch.ones(1)


def scenes(count: int = 64) -> Episodes:
    """Two frames: grey, and then all of a random brightness, which a context cannot tell."""
    levels = torch.randint(0, 256, (count,), generator=generator(3)).tolist()
    frames = torch.full((count, 2, 16, 16, 1), 128, dtype=torch.uint8)
    for row, level in enumerate(levels):
        frames[row, 1] = level
    return Episodes(
        [Episode(f.numpy(), torch.zeros(1).long().numpy(), torch.zeros(1).numpy(), False)
         for f in frames], ActionSpec("none"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Jump:
    """Trained a little, so that prior and posterior differ."""
    made = make("jump", SPEC, TINY)
    assert isinstance(made, Jump)
    fit(made, scenes().windows(1, 32), 300, progress=False)
    return made


def log_density(model: Jump, z: Tensor, r: Tensor, told: Tensor | None) -> Tensor:
    """log p(z | r), or log q(z | r, told), of z (n, steps, 1, 2, 2): each step given the last."""
    tower = model.latent.prior if told is None else model.latent.posterior
    given = r if told is None else torch.cat([r, told], 1)
    constant = tower.begin(given).expand(len(z), -1, -1, -1)
    last, state = torch.zeros_like(z[:, 0]), None
    total = torch.zeros(len(z))
    for now in z.unbind(1):
        mean, logvar, state = tower.step(constant, last, state)
        total = total + Normal(mean, (0.5 * logvar).exp()).log_prob(now).flatten(1).sum(1)
        last = now
    return total


@torch.no_grad()
def test_bound_against_brute_force(model: Jump, monkeypatch: pytest.MonkeyPatch) -> None:
    """E_q[log p(x, z) / q(z)] is what training reports; log p(x) lies above it, a little."""
    batch = scenes().windows(1, 1, seed=7).batch(0)
    monkeypatch.setattr(JumpConfig, "draw", lambda *_: TIMES)
    x = (batch.observations(TIMES[2]).movedim(-1, -3) / 255.0).flatten(1)  # both frames
    keys = model.time(TIMES[2])
    seen = batch.observations(TIMES[2]).movedim(-1, -3) / 255.0
    mask = torch.ones(1, 2, dtype=torch.bool)
    r = model.encoder(seen[:, :1], keys[:, :1], mask[:, :1])
    told = model.encoder(seen, keys, mask)

    def log_likelihood(z: Tensor) -> Tensor:
        worlds = LatentWorlds(z, r, z)  # of which this renderer reads z alone
        frames = model.renderer(worlds, keys.expand(len(z), -1, -1), None).flatten(1)
        return Normal(frames, math.sqrt(VARIANCE / 2)).log_prob(x).sum(1)

    n = 60_000
    z, _ = model.latent.infer(r.expand(n, -1, -1, -1), told.expand(n, -1, -1, -1), generator())
    weights = (
        log_likelihood(z) + log_density(model, z, r, None) - log_density(model, z, r, told)
    ).double()
    bound = float(weights.mean())
    weighted = float(weights.logsumexp(0)) - math.log(n)
    prior = log_likelihood(model.latent.sample(r, n, generator())).double()
    brute = float(prior.logsumexp(0)) - math.log(n)

    reported = [-float(model(batch, 0.0, generator(seed)).parts["negative_elbo"])
                for seed in range(400)]  # fmt: skip
    mean = sum(reported) / len(reported)
    error = float(weights.std()) / math.sqrt(len(reported))
    assert mean == pytest.approx(bound, abs=5 * error + 0.01)
    assert weighted == pytest.approx(brute, abs=0.15)
    assert bound <= weighted + 1e-6
    assert weighted - bound < 2.0
    assert float(model(batch, 0.0, generator(0)).parts["kl"]) > 1.0  # the latent says something


@torch.no_grad()
def test_posterior_is_of_a_set() -> None:
    """Targets in another order: the same latent and the same KL (seed 001, equation 4)."""
    jump = make("jump", PASSIVE, replace(TINY, key_features=4, renderer="film"))
    assert isinstance(jump, Jump)
    frames = torch.rand(3, 5, 3, 32, 32, generator=generator())
    keys = jump.time(torch.arange(5).expand(3, -1))
    r = torch.rand(3, jump.encoder.channels, 8, 8, generator=generator())
    order = torch.tensor([3, 0, 4, 1, 2])
    shown, kl, scene = jump._explain({"r": r}, keys, frames, generator())
    mixed, same, again = jump._explain({"r": r}, keys[:, order], frames[:, order], generator())
    torch.testing.assert_close(shown[:, order], mixed, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kl, same, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scene, again, rtol=1e-4, atol=1e-5)
