"""train_planner: counts, resume, callbacks, legal actions, known functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from dyna_fakes import CountedLine, LineConfig, LineEnv, LineModel
from stable_baselines3.common.callbacks import BaseCallback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import (
    CemConfig,
    KnownFunctions,
    OnlineConfig,
    PlannerResult,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    RealReturns,
    evaluate,
    train_planner,
)
from agents.training import online_planning
from worldmodel import Spec
from worldmodel.base import Losses
from worldmodel.models.baselines.copy_last import CopyLast

CEM = CemConfig(plans=16, worlds=1, horizon=4, iterations=2)


def config(**settings: Any) -> OnlineConfig:
    usual = {"start_steps": 12, "refit_every": 6, "first_fit_steps": 30, "fit_steps": 5}
    return OnlineConfig(**{**usual, **settings})


def run(steps: int = 40, offset: float = 0.5, **kwargs: Any) -> PlannerResult:
    given: dict[str, Any] = {"planner": CEM, "config": config(), "progress": False, **kwargs}
    return train_planner(LineModel(offset), CountedLine, steps, **given)


def assert_same(a: PlannerResult, b: PlannerResult) -> None:
    assert a.rounds == b.rounds
    for x, y in zip(a.episodes, b.episodes, strict=True):
        np.testing.assert_array_equal(x.observations, y.observations)
    for p, q in zip(a.planner.model.parameters(), b.planner.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_real_steps_rounds_and_fits_are_counted() -> None:
    before = CountedLine.count
    result = run(43)
    assert CountedLine.count - before == result.episodes.steps == 43
    # 12 at random, cut there; episodes of 8 steps, refitted after 6 of them and at their end
    assert [len(episode.actions) for episode in result.episodes] == [8, 4, 8, 8, 8, 7]
    assert [row.real_steps for row in result.rounds] == [12, 20, 28, 36, 43]
    assert [row.fits for row in result.rounds] == [1, 3, 5, 7, 9]
    assert [steps for steps, _ in result.returns] == [8, 20, 28, 36]
    ended = [e for e in result.episodes if len(e.actions) == 8]
    returns = [value for _, value in result.returns]
    np.testing.assert_allclose(returns, [float(e.rewards.sum()) for e in ended])
    assert result.rounds[-1].real_return is None and result.rounds[0].error == {}
    assert {"real_return", "fit_loss", "error_loss"} <= set(result.rounds[1].scalars())


def test_it_learns_the_model_and_plans_in_it() -> None:
    result = run(60)
    (offset,) = result.planner.model.parameters()
    assert abs(offset.item()) < 0.2
    assert min(value for _, value in result.returns[2:]) > 30
    assert evaluate(result.planner, CountedLine, 3).min() > 30
    assert evaluate(RandomAgent(LineEnv().action_space), CountedLine, 3).max() < 30


def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    whole = run(44)
    run(25, folder=tmp_path)  # cut within an episode
    parts = run(20, folder=tmp_path / "b")
    assert parts.rounds[-1].real_steps == 20
    assert_same(run(44, folder=tmp_path / "b", resume=True), whole)
    assert_same(run(44, folder=tmp_path / "b", resume=True), whole)  # nothing is left to do
    with pytest.raises(ValueError, match="made with planner: plans = 16, now it is 8"):
        run(60, folder=tmp_path / "b", resume=True, planner=CemConfig(8, 1, 4, iterations=2))
    with pytest.raises(FileExistsError, match="resume=True"):
        run(44, folder=tmp_path / "b")


def test_a_round_that_is_killed_is_played_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, fit, count = run(44), online_planning.refit, 0

    def killed(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(online_planning, "refit", killed)
    with pytest.raises(KeyboardInterrupt, match="resume=True goes on after round 2"):
        run(44, folder=tmp_path)
    assert_same(run(44, folder=tmp_path, resume=True), whole)


class Noted(BaseCallback):
    """Notes its calls, and stops training at a step."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.steps: list[int] = []
        self.last = last

    def _on_training_start(self) -> None:
        self.calls.append("start")

    def _on_rollout_start(self) -> None:
        self.calls.append("rollout")

    def _on_rollout_end(self) -> None:
        self.calls.append("end of rollout")

    def _on_training_end(self) -> None:
        self.calls.append("end")

    def _on_step(self) -> bool:
        self.steps.append(self.num_timesteps)
        return self.num_timesteps < self.last


def test_callbacks_see_a_run_and_can_end_it() -> None:
    noted = Noted(17)
    result = run(60, callback=noted)
    rollouts = ["rollout", "end of rollout"] * 2
    assert noted.calls == ["start", *rollouts, "end"]
    assert noted.steps[-1] == 17 and noted.steps == sorted(noted.steps)
    assert result.episodes.steps == result.rounds[-1].real_steps == 17


def test_evaluations_are_logged_and_change_nothing(tmp_path: Path) -> None:
    returns = RealReturns(CountedLine, every=10, episodes=2)
    log = tmp_path / "log"
    result = run(44, callback=[returns], tensorboard_log=str(log))
    assert_same(result, run(44))
    steps = [step for step, _ in returns.history]
    assert steps == [0, 12, 28, 44]
    before, after = (returns.history[row][1] for row in (0, -1))
    assert before.mean() < after.mean() and after.min() > 30
    (events,) = [EventAccumulator(str(log / "planner"))]
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"real/return", "planner/real_return", "planner/fit_loss"} <= scalars
    assert len(list((log / "planner").iterdir())) == 1


class Even(LineEnv):
    """Whole steps; steps of odd numbers are not legal."""

    def __init__(self) -> None:
        super().__init__(steps=6, limit=100.0)
        self.action_space = gym.spaces.Discrete(5)
        self.actions: list[int] = []

    def action_masks(self) -> np.ndarray:
        return np.arange(5) % 2 == 0

    def step(self, action: Any) -> Any:
        self.actions.append(int(action))
        return super().step(np.array([action], np.float32))


class EvenModel(LineModel):
    def __init__(self) -> None:
        super().__init__(0.0, LineConfig(limit=100.0))
        env = Even()
        self.spec = Spec.from_spaces(env.observation_space, env.action_space, 8)

    def _advance(self, worlds: Any, actions: Any) -> Any:
        return super()._advance(worlds, actions[..., None].float())

    def _predict(self, worlds: Any, queries: Any, frames: bool) -> Any:
        plans = type(queries)(queries.times, queries.actions[..., None].float())
        return super()._predict(worlds, plans, frames)

    def loss(self, scenes: Any, progress: float, generator: Any) -> Any:
        error = self.offset.square()
        return Losses(error, {"loss": error.detach()})


def test_only_legal_actions_are_taken() -> None:
    env = Even()
    planner = CemConfig(plans=64, worlds=1, horizon=2)
    train_planner(EvenModel(), env, 30, planner, config(), progress=False)
    assert len(env.actions) == 30 and set(env.actions[:12]) == {0, 2, 4}
    assert set(env.actions[12:]) == {4}


def test_known_rewards_are_planned_for() -> None:
    def downward(observation: Any, action: Any, following: Any) -> Any:
        return -following[:, 0]

    result = run(40, known=KnownFunctions(reward=downward))
    assert max(value for _, value in result.returns[2:]) < -20
    assert evaluate(result.planner, CountedLine, 2).max() < -20


def test_any_planner_may_plan_with_held_actions() -> None:
    shooting = RandomShootingConfig(plans=20, worlds=1, horizon=3, hold=2)
    result = run(40, planner=shooting)
    assert isinstance(result.planner, RandomShooting)
    for episode in result.episodes:
        pairs = episode.actions[: len(episode.actions) // 2 * 2].reshape(-1, 2)
        assert (pairs[:, 0] == pairs[:, 1]).all()
    evaluate(result.planner, CountedLine, 1, hold=2)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="planner: expected one of RandomShootingConfig.*OnlineCon"):
        run(planner=config())
    with pytest.raises(ValueError, match="real_steps: expected at least 1"):
        run(0)
    with pytest.raises(ValueError, match="refit_every: expected at least 1, got 0"):
        config(refit_every=0)
    with pytest.raises(ValueError, match="resume: needs the folder"):
        run(resume=True)
    spec = LineModel().spec
    with pytest.raises(ValueError, match="copy-last has nothing to learn"):
        train_planner(CopyLast(spec, None), CountedLine, 5)
