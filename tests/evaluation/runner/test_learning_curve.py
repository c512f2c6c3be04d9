"""Evaluations happen at the grid's steps, count no real step, and end a run that has arrived."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import agents
from agents.recipes import TUNED
from evaluation.runner import learning_curve
from evaluation.runner.learning_curve import LearningCurve, Policy, Protocol, grid


def test_grid() -> None:
    assert grid(250, 1000) == [250, 500, 750, 1000]
    assert grid(250, 900) == [250, 500, 750, 900]
    assert grid(500, 100) == [100]
    points = grid(250, 60_000)
    assert points[:20] == list(range(250, 5001, 250)) and points[-1] == 60_000
    steps = np.diff(points)
    assert (steps <= np.maximum(250, 0.05 * np.array(points[:-1]))).all()
    assert len(points) < 90
    with pytest.raises(ValueError, match="every: expected at least 1"):
        grid(0, 10)


def random_steps(curve: LearningCurve, count: int) -> None:
    """That many real steps in two environments, in turns."""
    envs = [curve.count(gym.make("CartPole-v1")) for _ in range(2)]
    for env in envs:
        env.reset(seed=0)
    for step in range(count):
        env = envs[step % 2]
        _, _, terminated, truncated, _ = env.step(step // 2 % 2)
        if terminated or truncated:
            env.reset()


def scripted(monkeypatch: pytest.MonkeyPatch, values: dict[int, float]) -> dict[str, Any]:
    """A curve whose evaluations give the values by real steps, 0 elsewhere."""
    made: dict[str, Any] = {}

    def evaluate(agent: Any, env: Any, episodes: int, *_: Any, **__: Any) -> np.ndarray:
        return np.full(episodes, values.get(made["curve"].steps, 0.0))

    monkeypatch.setattr(learning_curve.agents, "evaluate", evaluate)
    protocol = Protocol(level=10, every=10, budget=100, patience=2)
    made["curve"] = LearningCurve(protocol, "CartPole-v1", lambda: Policy(None))  # type: ignore
    return made


def test_points_and_the_end_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = scripted(monkeypatch, {20: 9.0, 50: 12.0})["curve"]
    curve.run(lambda: random_steps(curve, 200))
    assert curve.steps == 100
    assert [steps for steps, _, _ in curve.points] == list(range(10, 101, 10))
    assert curve.points[0] == (10, 0.0, 5)  # far from the level: the first episodes only
    assert curve.points[1] == (20, 9.0, 20) and curve.points[4] == (50, 12.0, 20)
    assert curve.seconds > 0


def test_a_run_ends_when_it_stays_at_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = scripted(monkeypatch, {20: 11.0, 40: 11.0, 50: 10.0})["curve"]
    curve.run(lambda: random_steps(curve, 200))
    assert curve.steps == 50 and len(curve.points) == 5


def test_what_is_learned_last_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that learns after its last step: nothing more is stepped, so ``run`` evaluates."""
    curve = scripted(monkeypatch, {100: 11.0})["curve"]
    curve.run(lambda: random_steps(curve, 100))
    assert curve.points[-1] == (100, 11.0, 20)


def test_without_a_policy_nothing_is_evaluated() -> None:
    curve = LearningCurve(Protocol(10, 10, 30), "CartPole-v1", lambda: None)
    curve.run(lambda: random_steps(curve, 100))
    assert curve.points == [] and curve.steps == 30


@pytest.mark.parametrize("number", range(2))
def test_evaluations_change_nothing(number: int) -> None:
    """An agent learns the same, bit for bit, however often it is evaluated."""
    recipe = TUNED["CartPole-v1"][number]

    def weights(every: int) -> list[torch.Tensor]:
        curve = LearningCurve(Protocol(1e6, every, 1500), "CartPole-v1", lambda: Policy(agent))
        agent = recipe.make(lambda: curve.count(gym.make("CartPole-v1")), seed=3)
        curve.run(lambda: agent.learn(3000))
        assert curve.steps == 1500
        return list(agent.policy.state_dict().values())

    assert all((one == other).all() for one, other in zip(weights(50), weights(2000), strict=True))


def test_evaluated_episodes_are_those_of_evaluate() -> None:
    with gym.make("CartPole-v1") as env:
        agent = agents.RandomAgent(env.action_space, 0)
    value, episodes = Protocol(5, 10, 10, episodes=7).evaluate(Policy(agent), "CartPole-v1")
    assert episodes == 7 and value >= 8


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="budget: expected at least 1, got 0"):
        Protocol(1, 1, 0)
    with pytest.raises(ValueError, match="first_episodes: expected at most 3"):
        Protocol(1, 1, 1, episodes=3)
