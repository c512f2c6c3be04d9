"""JUMP's parts against the paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenes import BOX, DISCRETE, PASSIVE, context, fresh, generator, moving_square, random_actions

from worldmodel import ActionSpec, Queries, Spec, StepPrediction, fit, make, preset, to_float
from worldmodel.models.jumpy.jump import Jump, JumpConfig
from worldmodel.models.jumpy.keys import ActionPath
from worldmodel.models.jumpy.training_draws import TrainingDraws
from worldmodel.models.layers.gaussian import kl_divergence


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_narrative_preset_has_the_papers_parameters() -> None:
    """The public reading of seed 001's appendix B at 64 px (a scalar view): 3,496,615."""
    model = make("jump", Spec((3, 64, 64), ActionSpec("none"), 20), "narrative")
    assert isinstance(model, Jump)
    assert parameters(model.encoder) == 14_552
    assert parameters(model.latent.prior) == 1_274_374
    assert parameters(model.latent.posterior) == 1_290_758
    assert parameters(model.renderer) == 916_931


@pytest.mark.parametrize(("name", "numbers"), [("narrative", 768), ("dice", 1152)])
def test_latent_has_the_papers_size(name: str, numbers: int) -> None:
    model = make("jump", Spec((3, 64, 64), ActionSpec("none"), 20), name)
    with torch.inference_mode():
        worlds = model.sample(model.observe(context(model.spec, 1, 1)), 2, generator())
    assert worlds.state["z"][0, 0].numel() == numbers


def test_pixel_variance_is_annealed() -> None:
    model = make("jump", PASSIVE, replace(preset("jump", "narrative"), anneal=0.5))
    assert isinstance(model, Jump)
    assert [model.config.pixel_variance(p) for p in (0.0, 0.25, 0.5, 1.0)] == [2.0, 1.25, 0.5, 0.5]


@pytest.mark.parametrize("spec", [DISCRETE, BOX], ids=["discrete", "box"])
def test_action_path_parallel_equals_stepwise(spec: Spec) -> None:
    torch.manual_seed(0)
    path = ActionPath(spec.action, 16)
    actions = random_actions(spec, 4, 8)
    assert actions is not None
    with torch.no_grad():
        parallel = path(actions, path.start(4))
        state = path.start(4)
        for step in range(8):
            state = path.step(state, actions[:, step])
            torch.testing.assert_close(state, parallel[:, step])
        later = actions.clone()
        later[:, 5:] = random_actions(spec, 4, 3, seed=9)
        torch.testing.assert_close(path(later, path.start(4))[:, :5], parallel[:, :5])


@pytest.mark.parametrize("name", ["narrative", "views", "small", "jumpy"])
def test_adding_context_adds_to_the_representation(name: str) -> None:
    """r is a sum: the whole context's equals the parts' (seed 001, section 3.2)."""
    model = fresh("jump", name, PASSIVE)
    whole = context(PASSIVE, frames=3)
    with torch.no_grad():
        one = model.observe(replace(whole, observations=whole.observations[:, :1],
                                    times=whole.times[:, :1]))  # fmt: skip
        rest = model.observe(replace(whole, observations=whole.observations[:, 1:],
                                     times=whole.times[:, 1:]))  # fmt: skip
        both = model.observe(whole)
    torch.testing.assert_close(one.state["r"] + rest.state["r"], both.state["r"])


def test_kl_against_torch() -> None:
    statistics = torch.randn(4, 3, 2, 5, generator=generator())
    mean_q, logvar_q, mean_p, logvar_p = statistics
    q = torch.distributions.Normal(mean_q, (0.5 * logvar_q).exp())
    p = torch.distributions.Normal(mean_p, (0.5 * logvar_p).exp())
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(kl_divergence(mean_q, logvar_q, mean_p, logvar_p), expected)


def test_outcomes_by_hand() -> None:
    rewards = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(1, 1, 1, 4)
    continues = torch.tensor([1.0, 0.5, 1.0, 0.0]).view(1, 1, 1, 4)
    steps = StepPrediction(rewards, continues.logit(), None)
    answer = steps.at(torch.tensor([[4, 0, 1, 3, 0]]), plans=1)  # the present is time 3
    earned, alive = answer.rewards, answer.alive
    # times 4, 5 | 6, 7 : the step to 5 survives with 1/2 and counts in full
    assert alive.flatten().tolist() == [0.0, 1.0, 1.0, 0.5, 1.0]
    assert earned.flatten().tolist() == [8.0, 0.0, 1.0, 2.0 + 0.5 * 4.0, 0.0]


def test_training_draws() -> None:
    lengths = torch.tensor([8, 3] * 200)
    first = TrainingDraws(context_min=2, context_max=4, context_frames=5)
    times, mask, targets, weights = first.draw(lengths, 8, generator())
    assert times.shape == (400, 4) and targets.shape == (400, 3)
    counts = mask.sum(1)
    assert set(counts.tolist()) == {2, 3, 4}
    assert (times[mask] <= 4).all() and (times <= lengths[:, None])[mask].all()
    assert (targets <= lengths[:, None]).all() and targets.max() == 8
    for row, kept in zip(times[:50], mask[:50], strict=True):
        assert len(set(row[kept].tolist())) == int(kept.sum())
    assert weights[::2].eq(1).all() and (weights[1::2] < 1).all() and weights.gt(0).all()
    anywhere = TrainingDraws(context_frames=0)
    times, mask, *_ = anywhere.draw(lengths, 8, generator())
    assert times[mask].max() > 5
    assert 0.4 < (times.masked_fill(~mask, 0).amax(1) == 0).float().mean() < 0.75


def test_bad_settings() -> None:
    for change, message in [
        ({"steps": 0}, "steps"),
        ({"kernel": 4}, "odd"),
        ({"renderer": "nerf"}, "renderer"),
        ({"key_features": 4}, "the 'draw' renderer reads neither"),
        ({"attention_heads": 1}, "the 'draw' renderer reads neither"),
        ({"renderer": "film", "attention_heads": -1}, "attention_heads"),
        ({"context_min": 7}, "context_min"),
        ({"variance_end": 0.0}, "variance_end"),
        ({"anneal": 0.0}, "anneal"),
        ({"time_bands": -1}, "time_bands"),
    ]:
        with pytest.raises(ValueError, match=message):
            JumpConfig(**change)  # type: ignore[arg-type]


def test_too_long_context() -> None:
    model = fresh("jump", "small", DISCRETE)
    with pytest.raises(ValueError, match="trained with; pass a subset"):
        model.observe(context(DISCRETE, frames=8))


def test_it_learns_to_see_and_to_predict_rewards() -> None:
    """A square pushed by actions: far better than before training, at times never seen."""
    episodes = moving_square(64)
    torch.manual_seed(0)
    config = replace(preset("jump", "views"), film=32, scene=64)
    model = make("jump", DISCRETE, config)
    batch = episodes.windows(8, 32, seed=99).batch(0)

    def errors() -> tuple[float, float]:
        start = torch.zeros(32, 1, dtype=torch.int64)
        times = torch.arange(1, 9).expand(32, -1)
        with torch.no_grad():
            belief = model.observe(type(context(DISCRETE))(
                to_float(batch.observations(start)), start))  # fmt: skip
            worlds = model.sample(belief, 1, generator())
            answer = model.predict(worlds, Queries(times, batch.actions[:, None]))
        assert answer.observations is not None
        seen = answer.observations[:, 0, 0] - to_float(batch.observations(times))
        earned = answer.rewards[:, 0, 0].cumsum(1)[:, :4] - batch.rewards.cumsum(1)[:, :4]
        return float(seen.square().mean()), float(earned.square().mean())

    before = errors()
    fit(model, episodes.windows(8, 32), 150, progress=False)
    after = errors()
    blank = float(to_float(batch.observations(torch.arange(1, 9).expand(32, -1))).square().mean())
    assert after[0] < 0.7 * min(before[0], blank)
    assert after[1] < 0.5 * before[1]
