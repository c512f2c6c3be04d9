import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import SPEC, FakeEnv, FakeModel, Scripted, frames
from stable_baselines3.common.vec_env import VecNormalize

from agents import RandomAgent, RandomShooting, RandomShootingConfig
from agents.evaluation import evaluate, play
from agents.training.imagined_ppo import train_in_imagination

STARTS = frames(0, 1, 2, 3)
SMALL = {"n_steps": 4, "batch_size": 16, "n_epochs": 1}


@pytest.mark.parametrize("num_envs", [1, 3, 16])
def test_evaluate_plays_the_same_episodes_however_many_at_once(num_envs: int) -> None:
    wanted = []
    for seed in range(10, 17):
        env = FakeEnv()
        env.reset(seed=seed)
        wanted.append(env.wanted)
    returns = evaluate(Scripted(2), FakeEnv, 7, seed=10, hold=3, num_envs=num_envs)
    assert returns.tolist() == [12.0 * (w == 2) for w in wanted]


def test_evaluate_planner_beats_random_and_shares_episodes() -> None:
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=64, horizon=1, hold=4))
    best = evaluate(planner, FakeEnv, 5, hold=4)
    assert best.tolist() == [12.0] * 5
    random = evaluate(RandomAgent(SPEC.action.to_space()), FakeEnv, 5, hold=4)
    assert random.shape == (5,)
    assert random.mean() < 12


def test_evaluate_stacks_frames_and_says_where_episodes_start() -> None:
    agent = Scripted(1)
    evaluate(agent, lambda: FakeEnv(steps=4), 2, hold=2, frame_stack=3, num_envs=1)
    assert agent.seen[0].shape == (1, 32, 32, 9)
    assert [bool(start[0]) for start in agent.starts] == [True, False, True, False]


def test_returns_are_those_of_the_real_rewards() -> None:
    """With ``VecNormalize`` they were sums of normalised rewards."""
    settings = {"episodes": 7, "seed": 10, "hold": 3}
    real = evaluate(Scripted(2), FakeEnv, **settings)
    normalised = evaluate(
        Scripted(2), FakeEnv, wrap=lambda venv: VecNormalize(venv, norm_obs=False), **settings
    )
    assert normalised.tolist() == real.tolist() and real.max() == 12


def test_evaluate_takes_an_id() -> None:
    gym.register("agents-tests/Fake-v1", entry_point=FakeEnv)
    assert evaluate(Scripted(0), "agents-tests/Fake-v1", 2).shape == (2,)
    del gym.registry["agents-tests/Fake-v1"]


def test_evaluate_rejects() -> None:
    with pytest.raises(ValueError, match="episodes"):
        evaluate(Scripted(0), FakeEnv, 0)
    planner = RandomShooting(FakeModel(), RandomShootingConfig(hold=4))
    with pytest.raises(ValueError, match="4 steps"):
        evaluate(planner, FakeEnv, 1)


def test_play_records_every_frame() -> None:
    agent = Scripted(2)
    seen, actions, _ = play(FakeEnv(steps=5), agent, seed=0, steps=12, hold=3, frame_stack=2)
    assert seen.shape == (6, 32, 32, 3)
    assert actions.tolist() == [2] * 5
    assert seen[:, -1, -1, 0].tolist() == [0, 20, 40, 60, 80, 100]
    assert [s[0, -1, -1].tolist() for s in agent.seen] == [[0] * 6, [0, 0, 0, 60, 60, 60]]


def test_evaluate_names_a_wrong_frame_stack() -> None:
    agent = train_in_imagination(FakeModel(), STARTS, 16, num_envs=4, frame_stack=2, **SMALL)
    with pytest.raises(ValueError, match="give the frame_stack of training"):
        evaluate(agent, FakeEnv, 1)


def test_evaluate_takes_an_environment() -> None:
    env = FakeEnv()
    agent = Scripted(2)
    returns = evaluate(agent, env, 7, seed=10, hold=3, num_envs=4)
    np.testing.assert_array_equal(returns, evaluate(agent, FakeEnv, 7, seed=10, hold=3, num_envs=4))
    assert len(agent.seen[0]) == 1  # it cannot play several episodes at once
    closed = []
    env.close = lambda: closed.append(True)  # type: ignore[method-assign]
    evaluate(agent, env, 1)
    assert not closed
    with pytest.raises(TypeError, match="a function that makes an environment, .* got int"):
        evaluate(agent, 3, 1)  # type: ignore[arg-type]
