"""The negative ELBO at one variance, of models for which it can be written down."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation_fakes import truth
from torch import Tensor
from torch.distributions import Normal

from evaluation.measurements.elbo import Elbo
from evaluation.metrics.story_consistency import AGENT, NATURE
from evaluation.runner.held_out_scenes import VIEWS, held_out
from worldmodel import ActionSpec, Spec, make
from worldmodel.models.jumpy.badj import BadjConfig
from worldmodel.models.jumpy.jump import Jump, JumpConfig
from worldmodel.types import State

TINY = JumpConfig(
    steps=2, hidden=4, tower=4, canvas=4, canvas_in=4, latent=1, kernel=1, scene=8, head=4,
    variance_start=0.3, variance_end=0.3,
)  # fmt: skip
PASSIVE = Spec((3, 16, 16), ActionSpec("none"), 20)
TOURS = Spec((3, 16, 16), ActionSpec("discrete", (), (4,)), 20)
POSED = Spec((3, 16, 16), ActionSpec("none"), 9, pose=7)


class Grey(Jump):
    """Expects 0.5 everywhere, and has a KL of its own choice."""

    nats = 0.0

    def _explain(
        self, context: State, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        scene = torch.zeros(len(keys), self.config.scene)
        return torch.full_like(frames, 0.5), torch.full((len(keys),), self.nats), scene


def test_closed_form() -> None:
    """Context 15 of 21 frames and 6 targets: all the others, whatever is drawn."""
    model = Grey(PASSIVE, TINY)
    model.max_context = 15
    model.config = JumpConfig(context_max=15)
    elbo = Elbo(env=NATURE, pixel_variance=0.2, context=15, targets=6, scenes=3)
    found = elbo.of_scenes(model)
    seen = truth(NATURE, 3, 20)[:, 15:]
    expected = -Normal(0.5, math.sqrt(0.1)).log_prob(seen).flatten(1).sum(1)
    torch.testing.assert_close(found["reconstruction"], expected)
    assert (found["kl"] == 0).all()
    model.nats = 2.5
    more = elbo.of_scenes(model)
    torch.testing.assert_close(more["negative ELBO"], expected + 2.5)
    rows = elbo.of_model(model)
    assert [row["metric"] for row in rows] == [
        "negative ELBO, nats", "kl, nats", "reconstruction, nats"
    ]  # fmt: skip
    assert rows[1]["value"] == rows[1]["low"] == 2.5 and rows[1]["n"] == 3
    assert rows[0]["value"] == pytest.approx(float(expected.mean()) + 2.5)
    assert all({"pixel_variance": 0.2, "context": 15, "targets": 6}.items() <= row.items()
               for row in rows)  # fmt: skip


def test_training_reports_the_same_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same frames, the same draw, the same variance."""
    model = make("jump", TOURS, TINY).eval()
    elbo = Elbo(env=AGENT, pixel_variance=0.3, context=2, targets=19, scenes=3)
    found = elbo.of_scenes(model)
    mask = torch.ones(3, 2, dtype=torch.bool)
    order = torch.rand(3, 19, generator=torch.Generator().manual_seed(0)).argsort(1)
    times = torch.arange(2).expand(3, -1), mask, 2 + order, torch.ones(3)
    monkeypatch.setattr(JumpConfig, "draw", lambda *_: times)
    with torch.no_grad():
        batch = held_out(model, AGENT, 3)
        parts = model(batch, 0.0, torch.Generator().manual_seed(0)).parts
    torch.testing.assert_close(found["negative ELBO"].mean(), parts["negative_elbo"])
    torch.testing.assert_close(found["kl"].mean(), parts["kl"])


@pytest.mark.parametrize("name", ["jump", "badj"])
def test_views(name: str) -> None:
    """Camera poses are the keys, and no scene stands in for another."""
    config = TINY if name == "jump" else BadjConfig(steps=2, hidden=4, canvas=4)
    model = make(name, POSED, config).eval()
    elbo = Elbo(env=VIEWS, context=3, targets=2, scenes=2)
    found = elbo.of_scenes(model)
    assert all(values.shape == (2,) and values.isfinite().all() for values in found.values())
    assert (found["kl"] > 0).all()
    again = elbo.of_scenes(model)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_what_has_no_bound() -> None:
    model = make("jump", PASSIVE, TINY)
    with pytest.raises(TypeError, match="expected one of jump, gqn and badj, got copy-last"):
        Elbo(env=NATURE).of_scenes(make("copy-last", PASSIVE))
    with pytest.raises(TypeError, match="got jump with a flow prior, which has no density"):
        Elbo(env=NATURE).of_scenes(make("jump", PASSIVE, "small"))
    with pytest.raises(ValueError, match=r"context: expected 1 \.\. 6 frames"):
        Elbo(env=NATURE, context=7).of_scenes(model)
    with pytest.raises(ValueError, match=r"targets: expected 1 \.\. 18"):
        Elbo(env=NATURE, targets=19, scenes=2).of_scenes(model)
    with pytest.raises(ValueError, match="pixel_variance: expected above 0"):
        Elbo(env=NATURE, pixel_variance=0.0).of_scenes(model)
    with pytest.raises(ValueError, match="its actions are"):
        Elbo(env=AGENT, scenes=2).of_scenes(model)
    with pytest.raises(ValueError, match="name the env with --env"):
        Elbo(scenes=2).of_scenes(model)
