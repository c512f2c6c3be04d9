"""Imagined rewards are expectations, whatever their scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenes import DISCRETE, PASSIVE, SMALL, fresh, generator, moving_square

import worldmodel
from worldmodel import Context, Episode, Episodes, Queries, Spec, fit, make
from worldmodel.rewards import RewardScale

QUIET: dict[str, Any] = {"progress": False}


def rewarded(rewards: list[list[float]], stride: int = 1, terminated: bool = True) -> RewardScale:
    """The scale of episodes with these rewards."""
    episodes = [
        Episode(np.zeros((len(each) + 1, 1), np.float32), np.zeros(len(each), int),
                np.array(each, np.float32), terminated)
        for each in rewards
    ]  # fmt: skip
    scale = RewardScale()
    scale.prepare(Episodes(episodes, DISCRETE.action).windows(4, 64), stride)
    return scale


def test_the_scale_is_that_of_valid_steps() -> None:
    scale = rewarded([[1.0], [1.0], [1.0], [1.0], [6.0]])  # windows are longer; zeros do not count
    assert float(scale.mean) == pytest.approx(2.0, abs=0.2)
    assert float(scale.spread) == pytest.approx(2.0, abs=0.2)
    rewards = torch.tensor([-3.0, 0.0, 1e3])
    torch.testing.assert_close(scale.decode(scale.encode(rewards)), rewards)


@pytest.mark.parametrize(("reward", "spread"), [(0.0, 1.0), (-1.0, 1.0), (3e5, 3e5), (1e-5, 1e-5)])
def test_rewards_that_never_change(reward: float, spread: float) -> None:
    scale = rewarded([[reward] * 3] * 2)
    assert float(scale.mean) == pytest.approx(reward) and float(scale.spread) == pytest.approx(
        spread
    )
    assert float(scale.decode(torch.zeros(()))) == pytest.approx(reward)


def test_a_stride_sums_rewards() -> None:
    assert float(rewarded([[1.0, 2.0, 1.0, 2.0]] * 2, stride=2).mean) < 3.0  # windows may be short
    assert float(rewarded([[2.0] * 40] * 2, stride=2).mean) == pytest.approx(4.0, abs=0.2)


def test_the_best_prediction_is_the_mean() -> None:
    """Of 20 with a chance of .1: 2. On symlog, whose mean was learned, it was .36."""
    random = np.random.default_rng(0)
    rewards = [[20.0 * (random.random() < 0.1) for _ in range(10)] for _ in range(400)]
    scale = rewarded(rewards)
    truth = torch.tensor(rewards)
    output = scale.encode(truth.mean()).expand_as(truth).clone().requires_grad_()
    ended = torch.zeros_like(truth, dtype=torch.bool)
    nats, _ = scale.nll(truth, ended, torch.ones_like(truth), output, output.detach(), 0.1)
    nats.sum().backward()
    assert output.grad is not None and abs(float(output.grad.mean())) < 1e-5
    assert float(scale.decode(output.detach()).mean()) == pytest.approx(float(truth.mean()))


def test_known_steps_do_not_count_for_ends() -> None:
    batch = moving_square(2, steps=4).windows(4, 3, whole=True).batch(0)
    logit, scale = torch.zeros(3, 4), RewardScale()
    presents = torch.tensor([0, 1, 3])
    every = scale.loss(batch, logit, logit, 1.0)
    known = scale.loss(batch, logit, logit, 1.0, presents)
    assert torch.equal(every[0], known[0])
    torch.testing.assert_close(known[1] / every[1], (4 - presents) / 4)


def imagined(model: worldmodel.WorldModel, spec: Spec) -> torch.Tensor:
    first = torch.rand(1, 1, *spec.observation, generator=generator())
    belief = model.observe(Context(first, torch.zeros(1, 1, dtype=torch.int64)))
    worlds, times = model.sample(belief, 2, generator()), torch.tensor([[model.stride]])
    plans = torch.zeros(1, 1, model.stride, dtype=torch.int64)
    with torch.no_grad():
        return model.predict(worlds, Queries(times, plans), frames=False).rewards


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        model
        for model in SMALL
        if (one := make(model[0], PASSIVE, model[1])).trainable and one.horizon is None
    ],
)
def test_every_model_learns_at_every_scale(name: str, preset: Any) -> None:
    """Rewards times a factor bring imagined rewards times that factor."""
    answers = []
    for factor in (1.0, 1e-6, 1e6):
        episodes = [replace(e, rewards=e.rewards * np.float32(factor)) for e in moving_square(4)]
        model = fresh(name, preset, DISCRETE)
        fit(model, Episodes(episodes, DISCRETE.action).windows(8, 4), 1, **QUIET)
        answers.append(imagined(model, DISCRETE) / factor)
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answers[2], answers[0], rtol=1e-3, atol=1e-4)


def test_the_scale_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    model = make("jump", DISCRETE, "small")
    fit(model, moving_square(4).windows(8, 4), 1, folder=tmp_path, **QUIET)
    again = worldmodel.load(tmp_path)
    for name, value in model.reward_scale.state_dict().items():
        assert torch.equal(again.reward_scale.state_dict()[name], value), name
    assert bool(again.reward_scale.prepared) and not bool(again.reward_scale.symlog)
    before = float(again.reward_scale.mean)
    others = [replace(e, rewards=e.rewards + 100) for e in moving_square(4)]
    fit(again, Episodes(others, DISCRETE.action).windows(8, 4), 1, **QUIET)
    assert float(again.reward_scale.mean) == before  # further training goes on with the scale


def test_older_checkpoints_predict_as_they_did(tmp_path: Path) -> None:
    model = worldmodel.load("traveling-salesman")
    scale = model.reward_scale
    assert bool(scale.symlog)
    outputs = torch.tensor([-2.0, 0.0, 0.5])
    torch.testing.assert_close(scale.decode(outputs), outputs.sign() * outputs.abs().expm1())
    torch.testing.assert_close(scale.encode(scale.decode(outputs)), outputs)
    worldmodel.save(model, tmp_path / "again")
    again = worldmodel.load(tmp_path / "again")
    assert torch.equal(imagined(again, model.spec), imagined(model, model.spec))
    windows = moving_square(4).windows(8, 4)
    with pytest.warns(UserWarning, match="older symlog scale"):
        scale.prepare(windows, 1)
    assert not bool(scale.symlog) and float(scale.spread) > 0
