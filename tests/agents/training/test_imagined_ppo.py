from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import FakeEnv, FakeModel, frames
from stable_baselines3 import PPO

from agents import RandomAgent, RandomShooting, RandomShootingConfig
from agents.evaluation import evaluate
from agents.lookahead import LookaheadVecWrapper
from agents.lookahead_policy import LookaheadExtractor
from agents.monitoring.comparison import compare
from agents.policies import SmallCnn
from agents.training.imagined_ppo import train_in_imagination

STARTS = frames(0, 1, 2, 3)
SMALL = {"n_steps": 4, "batch_size": 16, "n_epochs": 1}


def test_train_in_imagination_gives_an_agent_for_the_real_env() -> None:
    threads = torch.get_num_threads()
    agent = train_in_imagination(
        FakeModel(), STARTS, 64, num_envs=4, hold=3, frame_stack=2, **SMALL
    )
    assert isinstance(agent, PPO)
    assert isinstance(agent.policy.features_extractor, SmallCnn)
    assert torch.get_num_threads() == threads
    assert evaluate(agent, FakeEnv, 3, hold=3, frame_stack=2).shape == (3,)


def test_it_may_look_ahead() -> None:
    wrap = partial(LookaheadVecWrapper, model=FakeModel(), jumps=1, hold=3, depth=2, frames=False)
    agent = train_in_imagination(FakeModel(), STARTS, 64, 4, hold=3, wrap=wrap, **SMALL)
    assert isinstance(agent.policy.features_extractor, LookaheadExtractor)
    assert evaluate(agent, FakeEnv, 3, hold=3, wrap=wrap).shape == (3,)


def test_training_is_reproducible() -> None:
    def weights() -> torch.Tensor:
        model = FakeModel(seen=False)
        agent = train_in_imagination(model, STARTS, 16, 4, hold=3, frame_stack=4, **SMALL)
        return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])

    torch.testing.assert_close(weights(), weights(), rtol=0, atol=0)


@pytest.mark.slow
def test_training_learns_the_fake() -> None:
    class Bright(FakeModel):
        """The wanted action is always 3: learnable in seconds."""

        def _observe(self, context):
            belief = super()._observe(context)
            belief.state["wanted"] = torch.full_like(belief.state["wanted"], 3)
            return belief

    agent = train_in_imagination(
        Bright(), STARTS, 6000, num_envs=16, hold=3, frame_stack=1, ent_coef=0.0
    )
    actions, _ = agent.predict(frames(0, 1), deterministic=True)
    assert actions.tolist() == [3, 3]


def test_train_rejects() -> None:
    for name in ("steps", "frame_stack", "threads"):
        kwargs = {"steps": 10, name: 0}
        with pytest.raises(ValueError, match=name):
            train_in_imagination(FakeModel(), STARTS, **kwargs)
    with pytest.raises(ValueError, match="frame_stack"):
        train_in_imagination(FakeModel(), STARTS, 10, frame_stack=11)


def test_all_agents_on_a_real_environment() -> None:
    from test_vec_env import tiny_jump

    def env() -> gym.Env:
        return gym.make("envs:narratives/TravelingSalesman-v0", size=32)

    start, _ = env().reset(seed=0)
    model = tiny_jump()
    model.spec.check_spaces(env().observation_space, env().action_space, "env")
    planner = RandomShooting(model, RandomShootingConfig(plans=8, worlds=2, horizon=8, hold=5))
    agent = train_in_imagination(model, start[None], 32, 4, hold=5, frame_stack=2, **SMALL)
    for player, stack in ((planner, 1), (agent, 2), (RandomAgent(env().action_space), 1)):
        returns = evaluate(player, env, 2, hold=5, frame_stack=stack)
        assert returns.shape == (2,)
        assert np.isfinite(returns).all()
    assert compare(model, env(), planner, hold=5, worlds=1).side_by_side().shape[1:] == (32, 66, 3)
