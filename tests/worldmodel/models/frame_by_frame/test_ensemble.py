"""The ensemble: its members, what it draws where a Gaussian is wrong, and what fit makes of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from scenes import DISCRETE, GOALS, VECTOR, generator
from torch import Tensor

from agents import ImaginedVecEnv, adapt
from worldmodel import ActionSpec, Context, Episode, Episodes, Queries, Spec, collect, fit, make
from worldmodel.models.frame_by_frame.ensemble import Ensemble
from worldmodel.models.frame_by_frame.ensemble_config import PRESETS, EnsembleConfig
from worldmodel.models.frame_by_frame.ensemble_data import Recorded
from worldmodel.models.frame_by_frame.ensemble_nets import (
    Categories,
    Group,
    MemberNets,
)
from worldmodel.models.frame_by_frame.ensemble_roll import MemberLayout
from worldmodel.models.frame_by_frame.teacher_forcing import take_segment

SMALL = EnsembleConfig(
    members=3, elites=2, layers=2, hidden=32, head_hidden=16, weight_decay=(0.0, 0.0, 0.0)
)
QUIET: dict[str, Any] = {"progress": False}
COIN = ActionSpec("discrete", (), (2,))


def fresh(spec: Spec = VECTOR, config: EnsembleConfig = SMALL, seed: int = 0) -> Ensemble:
    model = make("ensemble", spec, config, seed).eval()
    assert isinstance(model, Ensemble)
    return model


def pushed(episodes: int = 12, steps: int = 20, seed: int = 0) -> Episodes:
    """A point in [-1, 1] that the action pushes, and its sign; the reward is its position."""
    random, made = np.random.default_rng(seed), []
    for _ in range(episodes):
        x, actions = random.uniform(-1, 1), random.integers(2, size=steps)
        path = [x]
        for action in actions:
            x = 0.9 * x + 0.1 * (2 * action - 1)
            path.append(x)
        numbers = np.array(path, np.float32)
        both = np.stack([numbers, np.sign(numbers)], 1)
        made.append(Episode(both, actions, numbers[1:], terminated=False))
    return Episodes(made, COIN)


def coin(episodes: int = 40, steps: int = 25) -> Episodes:
    """1 or -1 by chance, whatever is done; the reward is what came."""
    random, made = np.random.default_rng(0), []
    for _ in range(episodes):
        x = random.choice([-1, 1], size=(steps + 1, 1)).astype(np.float32)
        actions = random.integers(2, size=steps)
        made.append(Episode(x, actions, x[1:, 0].copy(), terminated=False))
    return Episodes(made, COIN)


def one_step(model: Ensemble, x: Tensor, actions: Tensor, worlds: int) -> Any:
    """What may follow observations (B, D) and actions (B,)."""
    context = Context(x[:, None], torch.zeros(len(x), 1, dtype=torch.int64))
    with torch.no_grad():
        made = model.sample(model.observe(context), worlds, generator())
        times = torch.ones(len(x), 1, dtype=torch.int64)
        return model.predict(made, Queries(times, actions[:, None, None]))


# -- members ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_one_product_is_each_member_by_itself() -> None:
    nets = MemberNets(4, (3, 8, 8, 2))
    x = torch.randn(11, 3, generator=generator())
    member = torch.tensor([2, 0, 0, 3, 2, 2, 0, 3, 3, 3, 0])  # no row is of member 1
    together = MemberLayout.of(member, 4).apply(nets, x)
    for row in range(len(x)):
        alone = nets(x[row].expand(4, 1, -1))[member[row], 0]
        torch.testing.assert_close(together[row], alone)


def test_a_world_is_one_of_the_elites() -> None:
    model = fresh()
    model.calibrate({"dynamics": torch.tensor([0.3, 0.1, 0.2])}, [])
    assert model.elites.tolist() == [1, 2]
    context = Context(torch.zeros(50, 1, 5), torch.zeros(50, 1, dtype=torch.int64))
    worlds = model.sample(model.observe(context), 4, generator())
    member = worlds.state["member"]
    assert (member.sort(1).values == torch.tensor([1, 1, 2, 2])).all()  # as many of each
    assert 10 < (member[:, 0] == 1).sum() < 40  # of any one world by chance
    moved = model.advance(worlds, torch.zeros(50, 2).long())
    assert torch.equal(moved.state["member"], member)


@torch.no_grad()
def test_members_may_be_drawn_for_each_step() -> None:
    """TS1: without noise of its own, the answer of a step is that of one of the members."""
    model = fresh(config=replace(SMALL, propagation="step", elites=3))
    x, actions = torch.zeros(1, 5), torch.zeros(1).long()
    model.dynamics.logvar_max.fill_(-50.0)
    model.dynamics.logvar_min.fill_(-60.0)
    drawn = one_step(model, x, actions, 60).observations[0, :, 0, 0]
    groups = drawn.round(decimals=5).unique(dim=0, return_counts=True)[1]
    assert len(groups) == 3 and groups.min() > 8
    with pytest.raises(ValueError, match="propagation: expected 'world' or 'step', got 'both'"):
        replace(SMALL, propagation="both")  # type: ignore[arg-type]


def test_bootstrap_counts_belong_to_the_step() -> None:
    source = pushed().windows(1, 64)
    model = fresh(pushed().spec(8))

    def counts(index: int) -> tuple[Tensor, Tensor]:
        batch = source.batch(index)
        segment = take_segment(batch, model.spec, 1)
        return batch.rows, model._counts(batch, segment, None)

    by_row: dict[int, Tensor] = {}
    for rows, drawn in map(counts, range(10)):
        for row, count in zip(rows.tolist(), drawn.T, strict=True):
            assert torch.equal(by_row.setdefault(row, count), count)
    every = torch.stack(list(by_row.values()))
    assert not torch.equal(every[:, 0], every[:, 1])
    assert (every.mean(0) - 1).abs().max() < 0.25
    assert (every == 0).float().mean() == pytest.approx(np.exp(-1), abs=0.08)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elites": 4}, "elites: expected at most the 3 members, got 4"),
        ({"weight_decay": (0.0,)}, "weight_decay: expected 3 numbers"),
        ({"logvar_max": -11.0}, "logvar_min, logvar_max: expected the first below"),
        ({"hidden": 0}, "hidden: expected at least 1"),
    ],
)
def test_bad_settings_are_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_auto_is_by_the_observations() -> None:
    assert [make("auto", spec).name for spec in (VECTOR, GOALS, DISCRETE)] == [
        "ensemble", "ensemble", "jump",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="ensemble takes vectors, got images.*jump takes both"):
        make("ensemble", DISCRETE, PRESETS["vector"])


# -- what is no Gaussian ---------------------------------------------------------------------------


def test_what_takes_few_values_is_detected() -> None:
    random = np.random.default_rng(0)
    cells = np.eye(4, dtype=np.float32)[random.integers(3, size=(400, 1)).repeat(2, 1)]
    cells[:, 1] = cells[random.permutation(400), 1]  # the fourth cell was never entered
    few = random.choice([0.5, 2.5], size=(400, 2, 1)).astype(np.float32)
    still = random.normal(size=(400, 1, 1)).astype(np.float32).repeat(2, 1)
    smooth = random.normal(size=(400, 2, 1)).astype(np.float32)
    both = torch.from_numpy(np.concatenate([smooth, cells, few, still], 2)).double()
    data = Recorded(both[:, 0], both[:, 1], torch.zeros(400).double())
    hot = Group((1, 2, 3, 4), (1.0, 1.0, 1.0, 1.0))
    assert data.groups(16, 64) == [hot, Group((5, 5), (0.5, 2.5))]
    with pytest.warns(UserWarning, match=re.escape("the numbers [5] take few values each")):
        assert data.groups(16, 1) == [hot]


def test_one_slot_of_each_group_is_drawn_as_often_as_it_should_be() -> None:
    groups = [Group((0, 1, 2), (1.0, 1.0, 1.0)), Group((4, 4), (-3.0, 7.0))]
    categories = Categories(5, 8)
    assert categories.set(groups) and not categories.set(groups) and categories.used == 5
    chance = torch.tensor([0.2, 0.5, 0.3, 0.9, 0.1])
    logits = (chance.log() + torch.tensor([5.0, 5, 5, -70, -70])).expand(20_000, -1)
    torch.testing.assert_close(categories.log_probabilities(logits)[0].exp(), chance)
    drawn = categories.draw(logits, torch.randn(20_000, 5, generator=generator()))
    assert (drawn[:, :3].sum(1) == 1).all() and ((drawn == 0) | (drawn == 1))[:, :3].all()
    assert set(drawn[:, 4].unique().tolist()) == {-3.0, 7.0} and not drawn[:, 3].any()
    torch.testing.assert_close(drawn[:, :3].mean(0), chance[:3], atol=0.012, rtol=0)
    assert (drawn[:, 4] == 7).float().mean() == pytest.approx(0.1, abs=0.01)
    seen = torch.tensor([[0.0, 1, 0, 9, 7]])
    assert categories.nll(logits[:1], seen).item() == pytest.approx(-np.log(0.5 * 0.1), rel=1e-4)


def test_a_mechanical_coin() -> None:
    """A few steps teach it that there are two sides; a world has one of them at each step."""
    episodes = coin(20)
    model = fresh(episodes.spec(20))
    fit(model, episodes, 20, **QUIET)
    answer = one_step(model, torch.tensor([[1.0], [-1.0]]), torch.zeros(2).long(), 200)
    sides = answer.observations.flatten()
    assert set(sides.tolist()) == {-1.0, 1.0}
    assert (sides == 1).float().mean() == pytest.approx(0.5, abs=0.2)


@pytest.mark.slow
def test_a_coin() -> None:
    """Shares of both sides within 99.9% intervals; the reward belongs to the side that came."""
    episodes = coin()
    model = make("auto", episodes.spec(20))
    assert isinstance(model, Ensemble)
    fit(model, episodes, 500, **QUIET)
    answer = one_step(model, torch.tensor([[1.0], [-1.0]]), torch.zeros(2).long(), 2000)
    sides = answer.observations[:, :, 0, 0, 0]
    assert (sides.abs() < 0.5).float().mean() < 0.05
    recorded, imagined = 500, 2000  # steps from each side, and worlds
    allowed = 3.3 * np.sqrt(0.25 * (1 / recorded + 1 / imagined))
    assert ((sides > 0).float().mean(1) - 0.5).abs().max() < allowed
    assert (answer.rewards[:, :, 0, 0] - sides).abs().max() < 0.1


# -- training --------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_members_are_calibrated_together(apart: float) -> None:
    """90% of what was held out lies in 90% intervals of the worlds, if members agree or not."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 2, 1)).astype(np.float32)
    made = [Episode(each, np.zeros(1, np.int64), np.zeros(1, np.float32), False) for each in x]
    episodes = Episodes(made, COIN)
    model = fresh(episodes.spec(8))
    model.prepare(episodes.windows(1, 300))
    model.dynamics.weights[-1].zero_()
    model.dynamics.biases[-1][:, :, 0] = apart * torch.tensor([[-1.0], [1.0], [9.0]])
    held = [episodes.windows(1, 300).batch(0)]
    model.calibrate({"dynamics": torch.tensor([0.1, 0.1, 0.2])}, held)
    before, after = torch.from_numpy(x).unbind(1)
    answer = one_step(model, before, torch.zeros(300).long(), 400)
    low, high = answer.observations[:, :, 0, 0].quantile(torch.tensor([0.05, 0.95]), 1)
    assert ((low < after) & (after < high)).float().mean() == pytest.approx(0.9, abs=0.03)


def test_few_steps_calibrate_nothing() -> None:
    """The tail of few is a matter of chance; narrower than the truth, planners would exploit it."""
    episodes = pushed(4)
    model = fresh(episodes.spec(8))
    model.prepare(episodes.windows(1, 80))
    model.calibrate({"dynamics": torch.arange(3.0)}, [episodes.windows(1, 80).batch(0)])
    assert (model.noise_scale == 1).all()
    many = pushed(12)
    model.calibrate({"dynamics": torch.arange(3.0)}, [many.windows(1, 240).batch(0)])
    assert model.noise_scale[0] != 1 and model.noise_scale[1] == 1  # the sign is no Gaussian


def test_new_scales_leave_the_answers_alone() -> None:
    episodes = pushed()
    model = fresh(episodes.spec(8))
    fit(model, episodes, 30, **QUIET)
    x, actions = torch.tensor([[0.3, 1.0], [-0.5, -1.0]]), torch.tensor([0, 1])
    before = one_step(model, x, actions, 20)
    wide = [replace(e, observations=np.float32([3, 1]) * e.observations + np.float32([1, 0]),
                    rewards=5 * e.rewards) for e in episodes]  # fmt: skip
    scale = model.change_scale.clone()
    model.prepare((episodes + Episodes(wide, COIN)).windows(1, 32))
    assert model.change_scale[0] > 1.3 * scale[0]
    after = one_step(model, x, actions, 20)
    torch.testing.assert_close(after.observations, before.observations, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(after.rewards, before.rewards, atol=1e-4, rtol=1e-3)


def test_fit_learns_steps_and_disagreement_rises_outside_of_the_data() -> None:
    episodes = pushed()
    model = fresh(episodes.spec(8))
    losses = fit(model, episodes, 150, batch_size=64, **QUIET)
    assert losses["mse"] < 0.05 and losses["holdout"] < 0.2
    inside = torch.tensor([[-0.5, -1.0], [0.0, 1.0], [0.5, 1.0]])
    answer = one_step(model, inside, torch.ones(3).long(), 40)
    position = answer.observations[:, :, 0, 0, 0].mean(1)
    torch.testing.assert_close(position, 0.9 * inside[:, 0] + 0.1, atol=0.05, rtol=0)

    def disagreement(x: Tensor) -> Tensor:
        context = Context(x[:, None], torch.zeros(len(x), 1, dtype=torch.int64))
        worlds = model.sample(model.observe(context), 1, generator())
        with torch.no_grad():
            return model.disagreement(worlds, torch.ones(len(x), 2).long())[:, 0]

    outside = inside * torch.tensor([0.0, 1.0]) + torch.tensor([6.0, 0.0])
    assert disagreement(outside).min() > 3 * disagreement(inside).max()
    venv = ImaginedVecEnv(model, lambda n, _: outside[:n].numpy(), num_envs=3, penalty=2.0)
    plain = ImaginedVecEnv(model, lambda n, _: outside[:n].numpy(), num_envs=3)
    venv.reset(), plain.reset()
    _, rewards, _, infos = venv.step(np.ones(3, int))
    _, unpunished, _, _ = plain.step(np.ones(3, int))
    apart = np.array([info["disagreement"] for info in infos])
    np.testing.assert_allclose(rewards, unpunished - 2.0 * apart, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_slippery_lake() -> None:
    """Always one cell, as often as by the rules where enough was recorded; and its own end."""
    env = adapt("FrozenLake-v1", is_slippery=True)
    episodes = collect(env, 1500, seed=0, **QUIET)
    model = make("auto", episodes.spec(20))
    assert isinstance(model, Ensemble)
    fit(model, episodes, 1500, **QUIET)
    taken = np.zeros((16, 4))
    for episode in episodes:
        np.add.at(taken, (episode.observations[:-1].argmax(1), episode.actions), 1)
    rules: Any = env.unwrapped
    assert isinstance(env.observation_space, gym.spaces.Box)
    for cell, action in np.argwhere(taken > 300):
        answer = one_step(model, torch.eye(16)[[cell]], torch.tensor([action]), 2000)
        cells = answer.observations[0, :, 0, 0]
        assert ((cells == 0) | (cells == 1)).all() and (cells.sum(1) == 1).all()
        expected = np.zeros(16)
        for chance, after, reward, ended in rules.P[cell][action]:
            expected[after] += chance
            there = cells[:, after] == 1
            alive, earned = (part[0, there, 0, 0] for part in (answer.alive, answer.rewards))
            assert (alive - float(not ended)).abs().mean() < 0.1
            assert (earned - reward).abs().mean() < 0.1
        spread = np.sqrt(expected * (1 - expected) * (1 / taken[cell, action] + 1 / 2000))
        assert (abs(cells.mean(0).numpy() - expected) <= 3.3 * spread + 0.03).all()
