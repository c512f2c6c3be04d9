"""Recipes by environment; ``--method auto`` follows them and says so."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO, SAC

import agents
from agents import recipes
from agents.__main__ import main
from agents.planners import planner_of
from agents.planners.refining import CemConfig
from agents.recipes import IMAGINED, ImaginedPpo, ImaginedReplay, OnlinePlanner, recipe_for
from agents.recipes import recipe as recipe_module
from agents.training import run as runs
from agents.training.dyna.callback import DynaConfig
from agents.training.dyna.rounds import RoundsConfig
from agents.training.online_planning import OnlineConfig
from agents.training.run_config import RunConfig

FIT: dict[str, Any] = {"first_fit_steps": 2, "fit_steps": 1, "fit_batch_size": 4}
ROUNDS = RoundsConfig(
    **FIT, first_collect_steps=40, collect_steps=40, imagined_steps=64, num_envs=4
)
SMALL_PPO = ImaginedPpo(80, 8, rounds=ROUNDS, settings={"n_steps": 8, "batch_size": 32})
DYNA = DynaConfig(**FIT, start=20, every=20, branches=2)
SMALL_REPLAY = {
    kind: ImaginedReplay(60, 2, kind=kind, dyna=DYNA, settings={"learning_starts": 20})  # type: ignore[arg-type]
    for kind in ("dqn", "sac")
}


def test_ids_have_their_recipe() -> None:
    for env in ("CartPole-v1", "Pendulum-v1"):
        recipe = recipe_for(env)
        assert recipe.env == env and recipe.imagined == IMAGINED[env]
        assert recipe.policy.algorithm is not None and recipe.real == recipes.TUNED[env]
    assert recipe_for(lambda: gym.make("CartPole-v1")).env == "CartPole-v1"
    assert set(IMAGINED) == set(recipes.TUNED)


def test_other_environments_have_one_by_their_spaces() -> None:
    discrete, box = recipe_for("MountainCar-v0"), recipe_for("Pendulum-v1")
    assert discrete.env is not None and box.env is not None

    def resized(env: str) -> gym.Env[Any, Any]:
        made = gym.make(env)
        space = made.observation_space
        assert isinstance(space, gym.spaces.Box) and space.shape == (space.shape[0],)
        return gym.wrappers.TransformObservation(
            made, lambda seen: seen[:1], gym.spaces.Box(-10, 10, (1,))
        )

    for env, algorithm in (("CartPole-v1", "ppo"), ("Pendulum-v1", "sac")):
        recipe = recipe_for(lambda env=env: resized(env))
        assert recipe.env is None and recipe.policy.algorithm == algorithm
        text = recipe.describe("Own-v0")
        assert "general ones, since none are tuned for Own-v0" in text
    assert recipe_for("envs:narratives/TravelingSalesman-v0").policy.algorithm == "ppo"


def test_description() -> None:
    text = recipe_for("CartPole-v1").describe("CartPole-v1", 123)
    first, *rest = text.splitlines()
    assert "CartPole-v1: PPO in imagination (train_dyna), 123 real steps" in first
    assert "tuned for CartPole-v1" in first
    assert any("collect_steps=" in line for line in rest)
    assert "DQN on real steps" in rest[-1]


def test_an_explorer_is_named() -> None:
    text = recipe_for("Acrobot-v1").describe("Acrobot-v1")
    explored = next(line for line in text.splitlines() if "explorer of the first round" in line)
    assert "curiosity=20.0" in explored and "hold=4" in explored


def test_ppo_learns() -> None:
    agent = replace(SMALL_PPO, model="jump").learn("CartPole-v1", seed=1)
    assert isinstance(agent, PPO) and agent.n_steps == 8
    assert (agents.evaluate(agent, "CartPole-v1", 2) >= 8).all()


@pytest.mark.parametrize(("env", "kind"), [("CartPole-v1", "dqn"), ("Pendulum-v1", "sac")])
def test_replay_learns(env: str, kind: str) -> None:
    agent = replace(SMALL_REPLAY[kind], model="jump").learn(env, seed=1)
    assert isinstance(agent, {"dqn": DQN, "sac": SAC}[kind])
    assert agent.num_timesteps >= 60


def test_a_planner_learns() -> None:
    recipe = OnlinePlanner(
        60,
        4,
        planner=CemConfig(plans=4, worlds=2, horizon=2, iterations=1, hold=2),
        online=OnlineConfig(start_steps=40, refit_every=20, first_fit_steps=5, fit_steps=2),
    )
    planner = recipe.learn("CartPole-v1", seed=1)
    assert recipe.hold == planner.hold == 2 and recipe.algorithm is None
    assert (agents.evaluate(planner, "CartPole-v1", 2, hold=2) >= 8).all()
    assert "Cem" in recipe.settings_by_name()


@pytest.mark.parametrize("env", IMAGINED)
def test_every_recipe_fits_its_environment(env: str) -> None:
    """Model, windows, horizons and algorithms go together; without a step of learning."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            made = gym.make(env)
        except gym.error.DependencyNotInstalled:
            pytest.skip(f"{env} needs an extra")
        for recipe in IMAGINED[env]:
            model = recipe.make_model(made)
            if isinstance(recipe, ImaginedPpo):
                recipe.rounds.imagined_env(model, np.zeros((1, *model.spec.border[0]), "f4"), 0)
                assert recipe.rounds.first_collect_steps < recipe.steps
            elif isinstance(recipe, ImaginedReplay):
                recorder = agents.RecordEpisodes(made)
                agents.DynaCallback(model, recorder, recipe.dyna)
                patch.setitem(recipe.settings, "buffer_size", 10)  # type: ignore[arg-type]
                recipe.make(recorder, model.spec)
            else:
                assert isinstance(recipe, OnlinePlanner)
                planner_of(recipe.planner, model)


def test_model_settings_replace_those_of_the_preset() -> None:
    with gym.make("CartPole-v1") as env:
        model = replace(SMALL_PPO, model="jump", model_settings={"learning_rate": 0.5}).make_model(
            env
        )
    assert model.config.learning_rate == 0.5 and model.spec.window == 8


def train(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["agents", "train", *map(str, arguments)])
    main()


def test_where_only_planners_are_tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method: no method that ends with a policy.*'planner'"):
        recipe_for("MountainCar-v0").policy  # noqa: B018
    advice = r"recipe_for\('MountainCar-v0'\)\.imagined\[0\]\.learn\('MountainCar-v0'\)"
    with pytest.raises(SystemExit, match=advice):
        train(monkeypatch, "--env", "MountainCar-v0", "--method", "auto", "--out", tmp_path / "a")


@pytest.mark.parametrize(
    ("env", "small"), [("CartPole-v1", SMALL_PPO), ("Pendulum-v1", SMALL_REPLAY["sac"])]
)
def test_auto(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    env: str,
    small: recipes.Imagined,
) -> None:
    monkeypatch.setitem(recipe_module.IMAGINED, env, (replace(small, model="jump"),))
    out = tmp_path / "agent"
    train(
        monkeypatch,
        "--env",
        env,
        "--method",
        "auto",
        "--out",
        out,
        "--evaluate-every",
        0,
        "--eval-episodes",
        2,
        "--seed",
        3,
    )
    printed = capsys.readouterr().out
    assert small.label in printed and "real return, 2 episodes" in printed
    agent, config = runs.load(out)
    assert config.method == "auto" and config.algorithm == small.algorithm
    assert config.steps == small.steps and config.seed == 3
    assert agent.predict(agent.observation_space.sample())[0].shape == agent.action_space.shape
    assert (out / "model" / "config.json").exists()


def test_what_the_recipe_decides_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(recipe_module.IMAGINED, "CartPole-v1", (SMALL_PPO,))
    with pytest.raises(ValueError, match="fit_every: method='auto' takes it from the recipe"):
        runs.train(RunConfig("CartPole-v1", "auto", fit_every=7), tmp_path)
    with pytest.raises(ValueError, match="algorithm: method='auto' takes it"):
        runs.train(RunConfig("CartPole-v1", "auto", "dqn"), tmp_path)
    config = runs.resolved(RunConfig("CartPole-v1", "auto", seed=5))
    assert config == runs.resolved(config) and config.decisions == 80 and config.seed == 5


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="kind: expected 'sac' or 'dqn', got 'ppo'"):
        ImaginedReplay(10, 1, kind="ppo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        ImaginedPpo(0, 1)
