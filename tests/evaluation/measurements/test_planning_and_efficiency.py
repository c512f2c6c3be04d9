"""What acting in imagination costs and brings: measured where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import worldmodel
from agents.training import imagined_ppo
from evaluation.measurements.common_worlds import CommonWorlds
from evaluation.measurements.control import Control
from evaluation.measurements.efficiency import Efficiency, saved
from evaluation.measurements.planning import Planning
from evaluation.metrics.statistics import ratio
from evaluation.metrics.story_consistency import AGENT
from evaluation.runner.trained_agents import decisions, trained_agents
from worldmodel import (
    ActionSpec,
    Belief,
    Context,
    Queries,
    Spec,
    StepPrediction,
    WorldModel,
    Worlds,
)

SPEC = Spec((3, 16, 16), ActionSpec("discrete", (), (4,)), 20)


class Lottery(WorldModel):
    """A world pays its luck whatever is done, and for each first action an amount of its own."""

    name, jumpy = "lottery", True

    def __init__(self) -> None:
        super().__init__(SPEC, None)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def loss(self, *_: Any) -> Any: ...

    def _observe(self, context: Context) -> Belief:
        return Belief(context.present_times(), {})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        luck = torch.randn(len(belief.present), n, generator=generator)
        noise = torch.randn(len(belief.present), n, 4, generator=generator)
        return Worlds(belief.present, {"luck": 3 * luck, "noise": noise})

    def _advance(self, worlds: Worlds, actions: torch.Tensor) -> Worlds:
        return worlds

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        plans = queries.actions
        assert plans is not None and not frames
        first = worlds.state["noise"].gather(
            2, plans[:, None, :, 0].expand(-1, worlds.shape[1], -1)
        )
        paid = (worlds.state["luck"][..., None] + first)[..., None]  # all at the first step
        paid = torch.nn.functional.pad(paid, (0, queries.ahead(worlds.present) - 1))
        return StepPrediction(paid, torch.full_like(paid, torch.inf), None)


def test_common_worlds_cancel_what_they_have_in_common() -> None:
    """Luck has variance 9, an action's amount 1: plans of independent worlds differ by 2 * 10 / 4.
    In the same worlds only the amounts are left, where the first actions are not the same: in 3/4
    of random pairs; and in 1/4 of those with one decision changed, which is the first of four.
    """
    measurement = CommonWorlds("", AGENT, scenes=24, pairs=16, worlds=4, draws=40)
    rows = measurement.of_model(Lottery())
    assert [row["plans"] for row in rows] == ["any", "one"]
    expected = {"any": (20 / 4, 1.5 / 4), "one": (20 / 4, 2 / 4 / 4)}
    for row in rows:
        independent, shared = expected[row["plans"]]
        assert row["independent"] == pytest.approx(independent, rel=0.15)
        assert row["shared"] == pytest.approx(shared, rel=0.25)
        assert row["low"] < row["ratio"] < row["high"] and row["n"] == 24


def test_planning_is_timed_and_played() -> None:
    models = {
        name: worldmodel.make(name, Spec((3, 16, 16), SPEC.action, 10), "small")
        for name in ("jump", "sssm")
    }
    planning = Planning(env=AGENT, budgets=(2, 3), worlds=1, episodes=2, repeats=1)
    rows = planning.compare(models)
    assert [(row["model"], row["plans"]) for row in rows] == [
        ("jump", 2), ("jump", 3), ("sssm", 2), ("sssm", 3),
    ]  # fmt: skip
    for row in rows:
        assert row["plans_per_second"] == row["plans"] / row["seconds"]
        assert row["episodes"] == 2 and row["low"] <= row["normalised_return"] <= row["high"]
    timed = Planning(env=AGENT, budgets=(2,), episodes=0, repeats=1).compare(models)
    assert "return" not in timed[0]


@pytest.mark.parametrize("hold", [0, -5, 21])
def test_what_cannot_be_held_is_refused(hold: int) -> None:
    message = f"hold: expected from 1 to 20, the model's window, got {hold}"
    with pytest.raises(ValueError, match=message):
        decisions(Lottery(), hold)
    with pytest.raises(ValueError, match=message):
        CommonWorlds("", AGENT, hold=hold).of_model(Lottery())
    with pytest.raises(ValueError, match=message):
        Planning(env=AGENT, hold=hold).compare({"lottery": Lottery()})


def test_too_few_for_an_interval_are_refused_before_the_work() -> None:
    for episodes in (-1, 0, 1):
        with pytest.raises(ValueError, match=f"episodes: expected at least 2.*, got {episodes}"):
            Control(env=AGENT, episodes=episodes).play({"random": lambda: pytest.fail("made")})
    for episodes in (-1, 1):
        with pytest.raises(ValueError, match=f"episodes: expected 0, or at least 2.*{episodes}"):
            Planning(env=AGENT, episodes=episodes).compare({"lottery": Lottery()})
    with pytest.raises(ValueError, match="scenes: expected at least 2"):
        CommonWorlds("", AGENT, scenes=1).of_model(Lottery())
    with pytest.raises(ValueError, match="episodes, hold: expected at least 1, got 2 and 0"):
        Control(env=AGENT, episodes=2, hold=0).play({"random": lambda: pytest.fail("made")})


def test_ratio_of_means() -> None:
    random = np.random.default_rng(0)
    below = random.uniform(1, 2, 200)
    found = ratio(3 * below + random.normal(0, 0.3, 200), below)
    assert found.low < 3 < found.high and found.high - found.low < 0.2
    with pytest.raises(ValueError, match="same >= 2 pairs"):
        ratio(below, below[1:])


def test_saved_steps_are_the_ratio_at_the_level() -> None:
    """Random play 0, final 10: level 8. Without at 800 steps, with imagination at 150."""
    random = np.zeros(4)

    def curve(points: dict[int, float]) -> list[tuple[int, np.ndarray]]:
        return [(steps, np.full(4, value)) for steps, value in points.items()]

    without = [curve({0: 0.0, 1000: 10.0, 2000: 10.0})]
    found = saved(random, without, [curve({100: 6.0, 200: 10.0})])
    assert found.value == pytest.approx(800 / 150) and found.low == found.high == found.value
    assert saved(random, without, [curve({100: 9.0, 200: 10.0})]).value == 8.0  # or more
    assert saved(random, without, [curve({100: 6.0, 200: 7.0})]).value == 0.0  # never reached
    noise = np.random.default_rng(0)
    assert np.isnan(saved(random, [curve({0: 0.0, 1000: -1.0})], without).value)  # no level
    spread = [[(s, r + noise.normal(0, 2, 4)) for s, r in without[0]] for _ in range(3)]
    again = [curve({100: 5.0 + i, 200: 10.0}) for i in range(3)]
    found = saved(random, spread, again)
    assert found.low < found.value < found.high and found.n == 3


def test_efficiency_runs_both_sides() -> None:
    efficiency = Efficiency(
        budget=256, sizes=(30, 60), seeds=1, window=6, fit_steps=2, imagined_steps=64, episodes=2,
        points=1, plans=4,
    )  # fmt: skip
    rows = efficiency.measure()
    assert [row["agent"] for row in rows] == [
        "random play", "PPO", "PPO", *["PPO in imagination"] * 2, "planner", "planner", "ratio",
        "ratio",
    ]  # fmt: skip
    taken = [row["real_steps"] for row in rows[1:7]]
    assert taken[:2] == [0, 256] and taken[2:4] == taken[4:]
    assert 30 <= taken[2] < 60 <= taken[3]
    assert [row.get("of") for row in rows[-2:]] == ["PPO in imagination", "planner"]


def test_ppo_in_imagination_plays_with_its_median(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(imagined_ppo.IMAGE_SETTINGS, "n_steps", 4)
    control = Control(
        "traveling-salesman", episodes=2, planners=False, imagined_steps=64, depth=2, runs=2
    )
    rows = control.measure()
    names = [row["agent"] for row in rows]
    assert names == [
        "random",
        *(f"PPO in imagination, {each}" for each in ("seed 0", "seed 1", "median")),
    ]
    *runs, middle = (row["normalised_return"] for row in rows[-3:])
    assert middle == pytest.approx(np.mean(runs)) and rows[-1]["runs"] == 2
    assert (rows[-1]["low"], rows[-1]["high"]) == (min(runs), max(runs))
    for wrong in ("depth", "runs"):
        with pytest.raises(ValueError, match=f"{wrong}: expected at least 1, got 0"):
            replace(control, **{wrong: 0}).measure()
    with pytest.raises(ValueError, match="depth: is of PPO in imagination, got 2 without it"):
        replace(control, imagined_steps=0).measure()


@pytest.mark.slow
def test_trained_agents_are_compared() -> None:
    agents = trained_agents("traveling-salesman", AGENT, 200, imagined_steps=64)
    rows = Control(env=AGENT, episodes=2).play(agents)
    assert [(row["agent"], row["real_steps"]) for row in rows[:-1]] == [
        ("PPO in imagination", 0), ("PPO with lookahead", 200), ("DQN with Dyna", 200),
        ("PPO", 200), ("DQN", 200),
    ]  # fmt: skip
    assert rows[-1]["agent"] == "inverse policy" and 200 <= rows[-1]["real_steps"] < 240
    with pytest.raises(ValueError, match="real_steps: expected at least 5"):
        trained_agents("traveling-salesman", AGENT, 4)
