"""Every planner, given a true simulator, does what trying everything finds best."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_envs import (
    MOVES,
    Aim,
    Hidden,
    Oven,
    Tiny,
    Treasure,
    every_plan,
    optimum,
    replay,
    returns,
    to_go,
)

from agents import (
    Cem,
    CemConfig,
    HoldAction,
    Mppi,
    MppiConfig,
    Planner,
    RandomShooting,
    RandomShootingConfig,
    TreeSearch,
    TreeSearchConfig,
    evaluate,
)
from agents.values import Value

PLANNERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "random": (RandomShooting, RandomShootingConfig, {"plans": 200}),
    "cem": (Cem, CemConfig, {"plans": 60, "choose": "best"}),
    "mppi": (Mppi, MppiConfig, {"plans": 60, "choose": "best"}),
    "tree": (TreeSearch, TreeSearchConfig, {"plans": 100}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "warm": {"warm_start": True},
    "cold": {"warm_start": False},
    "coarse": {"worlds": 3, "coarse": 1, "finalists": 0.1},
    "risk": {"worlds": 4, "risk": 0.5},
    "later": {"horizon": 2, "hold_later": 3, "warm_start": False},
    "discount": {"discount": 0.9},
}
EVERY = pytest.mark.parametrize("name", PLANNERS)


def planner(name: str, model: Any, value: Value | None = None, **options: Any) -> Planner:
    kind, config, settings = PLANNERS[name]
    made: Planner = kind(model, config(**{**settings, "worlds": 1, **options}), value)
    return made


def played(agent: Planner, kind: type[Tiny], **kwargs: Any) -> float:
    make = partial(gym.make, f"Tiny{kind.__name__}-v0", **kwargs)
    return float(evaluate(agent, make, 1, hold=agent.hold)[0])


# -- whole episodes -------------------------------------------------------------------------------


def test_the_greedy_fail() -> None:
    """So it takes foresight to pass what follows."""
    assert played(planner("tree", replay(Treasure), horizon=1), Treasure) < optimum(Treasure())
    assert played(planner("tree", replay(Oven), horizon=1), Oven) < optimum(Oven())


@EVERY
@pytest.mark.parametrize("option", OPTIONS)
def test_finds_the_treasure(name: str, option: str) -> None:
    agent = planner(name, replay(Treasure), **{"horizon": 4, **OPTIONS[option]})
    assert played(agent, Treasure) == optimum(Treasure()) == 20


@EVERY
@pytest.mark.parametrize("moves", list(MOVES))
def test_every_kind_of_choices(name: str, moves: str) -> None:
    agent = planner(name, replay(Treasure, moves=moves), horizon=4)
    assert played(agent, Treasure, moves=moves) == optimum(Treasure(moves)) == 20


@EVERY
def test_held_actions(name: str) -> None:
    """The treasure is three steps away, so two decisions of two steps do, and one is over."""
    agent = planner(name, replay(Treasure, spare=1, steps=5), horizon=3, hold=2)
    assert played(agent, Treasure, steps=5) == optimum(Treasure(steps=5), hold=2) == 30


@EVERY
@pytest.mark.parametrize("option", [{}, {"worlds": 2, "coarse": 1}])
def test_does_not_end_the_episode_too_early(name: str, option: dict[str, Any]) -> None:
    agent = planner(name, replay(Oven), horizon=6, **option)
    assert played(agent, Oven) == optimum(Oven())


@pytest.mark.parametrize("name", ["random", "cem", "mppi"])
def test_aims(name: str) -> None:
    """Numbers are found nearly; the brute force is a grid itself."""
    options = {"plans": 400} if name == "random" else {"plans": 60, "iterations": 5}
    agent = planner(name, replay(Aim), horizon=3, **options)
    assert played(agent, Aim) == pytest.approx(optimum(Aim()), abs=0.03)


@EVERY
@pytest.mark.parametrize("kind", [Treasure, Oven])
@pytest.mark.parametrize("option", [{}, {"worlds": 2, "coarse": 2, "finalists": 1.0}])
def test_an_exact_value_spares_all_foresight(
    name: str, kind: type[Tiny], option: dict[str, Any]
) -> None:
    agent = planner(name, replay(kind), to_go(kind()), **{"plans": 10, "horizon": 1, **option})
    assert played(agent, kind) == optimum(kind())


@EVERY
def test_in_evaluate_policy(name: str) -> None:
    agent = planner(name, replay(Treasure, spare=1, steps=6), horizon=3, hold=2)
    make = partial(gym.make, "TinyTreasure-v0", steps=6)
    venv = DummyVecEnv([lambda: Monitor(HoldAction(make(), 2)) for _ in range(2)])
    mean, std = evaluate_policy(agent, venv, n_eval_episodes=4)
    assert (mean, std) == (optimum(Treasure(steps=6), hold=2), 0.0)


# -- one decision, against all plans in the same worlds -----------------------------------------


def truth(
    agent: Planner, kind: type[Tiny], plans: list[Any], value: Value | None = None
) -> np.ndarray:
    """What plans are worth in the worlds of the agent's last decision."""
    assert agent.last is not None
    config = agent.config
    worlds = agent.last.worlds.state["episode"][0].tolist()
    earned = np.stack([returns(kind(), plans, seed, config.discount, value) for seed in worlds])
    kept = math.ceil(config.risk * len(worlds))
    return np.sort(earned, 0)[:kept].mean(0)


def told(agent: Planner) -> list[Any]:
    """The plans of the last decision, as actions of each step."""
    assert agent.last is not None
    config, actions = agent.config, agent.last.actions[0]
    holds = np.array([config.hold] + [config.later] * (actions.shape[1] - 1))
    return list(np.repeat(actions, holds, 1)[:, : agent.model.spec.window])


def place(observations: np.ndarray) -> np.ndarray:
    return 0.3 * observations[:, 0]


@EVERY
@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize(
    "option",
    [
        {"horizon": 3},
        {"horizon": 2, "discount": 0.8},
        {"horizon": 3, "risk": 0.3},
        {"horizon": 2, "hold_later": 2, "discount": 0.9, "warm_start": False},
        {"horizon": 3, "hold": 2, "discount": 0.5, "warm_start": False},
    ],
)
def test_scores_are_true_and_the_best_is_found(
    name: str, valued: bool, option: dict[str, Any]
) -> None:
    """In worlds that may be either of two, whose episodes begin alike."""
    value = place if valued else None
    settings = {"worlds": 4, "plans": 120 if name == "random" else 40, **option}
    agent = planner(name, replay(Hidden, episodes=5), value, **settings)
    agent.predict(Hidden().reset(seed=0)[0][None])
    assert agent.last is not None
    scores = agent.last.scores[0]
    np.testing.assert_allclose(scores, truth(agent, Hidden, told(agent), value), atol=1e-5)
    config, decisions = agent.config, agent.last.actions.shape[2]
    plans = every_plan(Hidden(), decisions, config.hold, config.later)
    assert scores.max() == pytest.approx(truth(agent, Hidden, plans, value).max(), abs=1e-5)


@EVERY
def test_coarse_to_fine_ends_with_a_plan_scored_in_full(name: str) -> None:
    """In the first world alone the other side looks best to some; none of these may win."""
    options = {"plans": 40, "worlds": 6, "coarse": 1, "finalists": 0.25, "horizon": 3}
    for seed in range(3):
        agent = planner(name, replay(Hidden, episodes=5), place, seed=seed, **options)
        agent.predict(Hidden().reset(seed=0)[0][None])
        assert agent.last is not None
        best, scores = int(agent.last.best[0]), agent.last.scores[0]
        true = truth(agent, Hidden, told(agent), place)
        assert scores[best] == pytest.approx(true[best], abs=1e-5)
        assert np.isclose(scores, true, atol=1e-5).sum() >= 0.2 * len(scores)
