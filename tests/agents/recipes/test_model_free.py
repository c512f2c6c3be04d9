"""RL Zoo's settings make algorithms that learn in their environments."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

import agents
from agents.recipes import TUNED, Linear, ModelFree, normaliser


@pytest.mark.parametrize("env", TUNED)
def test_every_recipe_makes_its_algorithm(env: str) -> None:
    try:
        gym.make(env).close()
    except gym.error.DependencyNotInstalled:
        pytest.skip(f"{env} needs an extra")
    for recipe in TUNED[env]:
        agent = recipe.make(env, seed=1)
        assert isinstance(agent, {"ppo": PPO, "dqn": DQN, "sac": SAC}[recipe.algorithm])
        assert agent.n_envs == recipe.num_envs
        assert (agent.get_vec_normalize_env() is not None) == recipe.normalise
        for name in ("gamma", "batch_size", "n_steps", "use_sde", "target_update_interval"):
            if name in recipe.settings:
                assert getattr(agent, name) == recipe.settings[name]


def test_schedules_fall_to_zero() -> None:
    (ppo, _) = TUNED["CartPole-v1"]
    agent = ppo.make("CartPole-v1")
    assert agent.lr_schedule(1.0) == 1e-3 and agent.lr_schedule(0.25) == 2.5e-4
    assert agent.clip_range(0.5) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="initial: expected above 0, got 0"):
        Linear(0)


def test_agents_play_with_the_statistics_of_training() -> None:
    recipe = ModelFree("ppo", 64, num_envs=2, normalise=True, settings={"n_steps": 16})
    agent = recipe.make("CartPole-v1")
    agent.learn(64)
    trained = agent.get_vec_normalize_env()
    assert trained is not None
    before = trained.obs_rms.mean.copy()
    wrap = normaliser(agent)
    assert wrap is not None
    first = agents.evaluate(agent, "CartPole-v1", 3, wrap=wrap)
    assert (first == agents.evaluate(agent, "CartPole-v1", 3, wrap=wrap)).all()
    assert (trained.obs_rms.mean == before).all()
    assert first.min() >= 8  # rewards are the environment's own, one a step
    venv = wrap(agent.get_env().unwrapped)
    assert isinstance(venv, VecNormalize) and not venv.training
    assert np.allclose(venv.obs_rms.mean, before)
    assert normaliser(ModelFree("dqn", 10).make("CartPole-v1")) is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="algorithm: expected ppo, dqn, sac, got 'a2c'"):
        ModelFree("a2c", 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_envs: expected at least 1, got 0"):
        ModelFree("ppo", 10, 0)
    with gym.make("CartPole-v1") as env:
        with pytest.raises(ValueError, match="env: 8 environments are needed"):
            TUNED["CartPole-v1"][0].make(env)
        assert ModelFree("dqn", 10).make(env).n_envs == 1
