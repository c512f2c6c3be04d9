import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeEnv, FakeModel, frames
from stable_baselines3 import PPO

from agents.monitoring.comparison import play, real_beside_imagined
from agents.planners import RandomAgent, RandomShooting, RandomShootingConfig
from agents.policies import SmallCnn
from agents.training.train import evaluate, train_in_imagination

STARTS = frames(0, 1, 2, 3)
SMALL = {"n_steps": 4, "batch_size": 16, "n_epochs": 1}


class Scripted:
    """Plays one action and notes what it saw."""

    def __init__(self, action: int) -> None:
        self.action = action
        self.seen: list[np.ndarray] = []
        self.starts: list[np.ndarray] = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.append(observation.copy())
        self.starts.append(np.array(episode_start))
        return np.full(len(observation), self.action), state


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


def test_train_in_imagination_gives_an_agent_for_the_real_env() -> None:
    threads = torch.get_num_threads()
    agent = train_in_imagination(
        FakeModel(), STARTS, 64, num_envs=4, hold=3, frame_stack=2, **SMALL
    )
    assert isinstance(agent, PPO)
    assert isinstance(agent.policy.features_extractor, SmallCnn)
    assert torch.get_num_threads() == threads
    assert evaluate(agent, FakeEnv, 3, hold=3, frame_stack=2).shape == (3,)


def test_training_is_reproducible() -> None:
    def weights() -> torch.Tensor:
        agent = train_in_imagination(FakeModel(seen=False), STARTS, 16, 4, hold=3, **SMALL)
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


@pytest.mark.parametrize("shape", [(3, 16, 16), (12, 32, 32), (1, 24, 40), (9, 64, 64)])
def test_small_cnn_takes_any_size(shape: tuple[int, int, int]) -> None:
    cnn = SmallCnn(gym.spaces.Box(0, 255, shape, np.uint8), features_dim=10)
    assert cnn(torch.rand(2, *shape)).shape == (2, 10)


def test_small_cnn_rejects() -> None:
    for shape in [(3, 20, 32), (8,)]:
        with pytest.raises(ValueError, match="multiples of 8"):
            SmallCnn(gym.spaces.Box(0, 255, shape, np.uint8))


def test_play_records_every_frame() -> None:
    agent = Scripted(2)
    seen, actions, _ = play(FakeEnv(steps=5), agent, seed=0, steps=12, hold=3, frame_stack=2)
    assert seen.shape == (6, 32, 32, 3)
    assert actions.tolist() == [2] * 5
    assert seen[:, -1, -1, 0].tolist() == [0, 20, 40, 60, 80, 100]
    assert [s[0, -1, -1].tolist() for s in agent.seen] == [[0] * 6, [0, 0, 0, 60, 60, 60]]


@pytest.mark.parametrize("hold", [1, 5])
def test_real_beside_imagined_agree_for_a_perfect_model(hold: int) -> None:
    model = FakeModel().train()
    video = real_beside_imagined(model, FakeEnv(steps=12), None, seed=1, hold=hold)
    assert video.shape == (13, 32, 66, 3)
    assert video.dtype == np.uint8
    bright = np.minimum(video[..., :32, :], 250)
    np.testing.assert_array_equal(bright, np.minimum(video[..., 34:, :], 250))
    assert model.training


def test_real_beside_imagined_shows_what_a_stride_reaches() -> None:
    model, every = FakeModel(), real_beside_imagined(FakeModel(), FakeEnv(steps=12), seed=1)
    model.stride = 5
    assert np.array_equal(real_beside_imagined(model, FakeEnv(steps=12), seed=1), every[::5])


def test_real_beside_imagined_stops_at_the_window() -> None:
    assert len(real_beside_imagined(FakeModel(), FakeEnv(steps=100), Scripted(0))) == 13


def test_real_beside_imagined_rejects_other_spaces() -> None:
    env = gym.wrappers.TransformObservation(
        FakeEnv(), lambda x: x[:16], gym.spaces.Box(0, 255, (16, 32, 3), np.uint8)
    )
    with pytest.raises(ValueError, match="env: observation space"):
        real_beside_imagined(FakeModel(), env)


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
    assert real_beside_imagined(model, env(), planner, hold=5).shape[1:] == (32, 66, 3)


def test_evaluate_names_a_wrong_frame_stack() -> None:
    agent = train_in_imagination(FakeModel(), STARTS, 16, num_envs=4, frame_stack=2, **SMALL)
    with pytest.raises(ValueError, match="give the frame_stack of training"):
        evaluate(agent, FakeEnv, 1)


def test_evaluate_makes_its_own_environments() -> None:
    env = gym.make("CartPole-v1")
    with pytest.raises(TypeError, match="a function that makes the environment, got TimeLimit"):
        evaluate(RandomAgent(env.action_space), env, 1)  # type: ignore[arg-type]
