import math
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeModel, FrameByFrameFake, frame, frames
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)

from agents.policies import SmallCnn
from agents.training.imagined_ppo import monitor_and_stack
from agents.vec_env import ImaginedVecEnv
from worldmodel.base import WorldModel
from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.jumpy.jump.model import Jump
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import Queries, StepPrediction, Worlds

STARTS = frames(0, 1, 2, 3)
POLICY = {"features_extractor_class": SmallCnn, "features_extractor_kwargs": {"features_dim": 8}}


def tiny_jump() -> Jump:
    torch.manual_seed(0)
    config = JumpConfig(steps=2, hidden=4, tower=4, canvas=4, canvas_in=4, scene=16, path=4, film=4)
    model = Jump(Spec((3, 32, 32), ActionSpec("discrete", (), (4,)), 40), config)
    torch.nn.init.constant_(model.heads.out[-1].bias, 8.0)  # episodes go on
    return model


def make(model: WorldModel | None = None, num_envs: int = 2, **kwargs: object) -> ImaginedVecEnv:
    settings = {"hold": 3, "horizon": 4, **kwargs}
    return ImaginedVecEnv(FakeModel() if model is None else model, STARTS, num_envs, **settings)


def test_one_decision_is_hold_steps_and_one_frame() -> None:
    model = FakeModel()
    venv = ImaginedVecEnv(model, lambda num, rng: frames(*range(num)), 3, hold=3)
    observations = venv.reset()
    np.testing.assert_array_equal(observations, frames(0, 1, 2))
    observations, rewards, dones, infos = venv.step(np.array([0, 1, 1]))
    np.testing.assert_array_equal(observations, np.stack([frame(0), frame(1, 3), frame(2, 3)]))
    assert rewards.tolist() == [3.0, 3.0, 0.0]
    assert rewards.dtype == np.float32
    assert not dones.any()
    assert infos[0] == {"steps": 3, "alive": 1.0, "TimeLimit.truncated": False}
    assert [queries.times.shape for _, queries, _ in model.asked] == [(3, 1)]
    observations, _, _, _ = venv.step(np.array([2, 1, 0]))
    assert observations[:, -1, -1, 0].tolist() == [60, 60, 30]


def test_spaces_are_the_real_ones() -> None:
    venv = make()
    assert venv.observation_space == SPEC.observation_space()
    assert venv.action_space == SPEC.action.to_space()
    assert venv.observation_space.contains(venv.reset()[0])


def test_horizon_truncates() -> None:
    venv = make(horizon=2)
    venv.reset()
    venv.step(np.array([1, 2]))
    observations, _, dones, infos = venv.step(np.array([1, 2]))
    assert dones.all()
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["terminal_observation"][-1, -1, 0] == [60, 120][i]
        assert observations[i, -1, -1, 0] == 0
    _, _, dones, infos = venv.step(np.array([1, 2]))
    assert not dones.any()
    assert "terminal_observation" not in infos[0]


def test_termination_is_no_truncation_even_at_the_horizon() -> None:
    venv = make(FakeModel(goal=6), horizon=2)
    venv.reset()
    _, _, dones, infos = venv.step(np.array([2, 1]))
    assert dones.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["terminal_observation"][-1, -1, 0] == 60
    observations, _, dones, infos = venv.step(np.array([0, 1]))
    assert dones.tolist() == [False, True]
    assert infos[1]["TimeLimit.truncated"] is False
    assert observations[0, -1, -1, 0] == 0  # the new episode began at level 0
    _, _, dones, _ = venv.step(np.array([0, 0]))
    assert dones.tolist() == [True, False]  # and has its own horizon


def test_first_episodes_are_staggered() -> None:
    venv = make(num_envs=4, stagger=True)
    venv.reset()
    ends = np.array([venv.step(np.zeros(4, int))[2] for _ in range(8)])
    assert ends.sum(1).tolist() == [1, 1, 1, 1, 1, 1, 1, 1]
    assert [int(np.flatnonzero(ends[:, i])[0]) + 1 for i in range(4)] == [4, 3, 2, 1]


def test_statistics_show_no_shortened_episodes() -> None:
    """``evaluate_policy`` showed lengths 1 to 4 where the horizon is 4."""
    venv = VecMonitor(make(num_envs=4))
    policy = PPO("CnnPolicy", venv, n_steps=4, batch_size=8, n_epochs=1, policy_kwargs=POLICY)
    lengths = evaluate_policy(policy, venv, 8, return_episode_rewards=True)[1]
    assert lengths == [4] * 8
    trained = monitor_and_stack(make(num_envs=4, stagger=True), 1)
    trained.reset()
    infos = [info for _ in range(8) for info in trained.step(np.zeros(4, int))[3]]
    assert [info["episode"]["l"] for info in infos if "episode" in info] == [4] * 5
    assert sum("terminal_observation" in info for info in infos) == 8


def test_arrays_and_infos_are_fresh() -> None:
    venv = make(horizon=4)
    first = venv.reset()
    kept = [first.copy()]
    seen = [first]
    dicts = []
    for _ in range(5):
        observations, _, _, infos = venv.step(np.array([1, 2]))
        seen.append(observations)
        kept.append(observations.copy())
        dicts.extend(infos)
    for a, b in zip(seen, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({id(a) for a in seen}) == len(seen)
    assert len({id(d) for d in dicts}) == len(dicts)
    seen[-1][:] = 0
    assert venv.get_images()[1][-1, -1, 0] != 0
    STARTS.flags.writeable = True
    np.testing.assert_array_equal(STARTS, frames(0, 1, 2, 3))


def rollout(venv: VecEnv, steps: int = 9) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    out = [venv.reset()]
    for _ in range(steps):
        observations, rewards, dones, _ = venv.step(rng.integers(0, 4, venv.num_envs))
        out += [observations, rewards, dones]
    return out


@pytest.mark.parametrize("fake", [True, False])
def test_seeds_reproduce(fake: bool) -> None:
    model = FakeModel(seen=False) if fake else tiny_jump()
    a, b = rollout(make(model, seed=5)), rollout(make(model, seed=5))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    venv = make(model)
    venv.seed(7)
    a = rollout(venv)
    assert venv._seeds == [None, None]
    other = rollout(venv)
    venv.seed(7)
    b = rollout(venv)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not all(np.array_equal(x, y) for x, y in zip(a, other, strict=True))


def test_restart_changes_no_other_row() -> None:
    model = tiny_jump()
    venv = make(model, num_envs=3, hold=2, horizon=5)
    venv.reset()
    venv._limits[1] = 1
    before = {name: value.clone() for name, value in venv.branches.sampled.state.items()}
    venv.step(np.array([0, 1, 2]))
    after = venv.branches.sampled
    assert after.present.tolist() == [2, 0, 2]
    torch.testing.assert_close(after.state["z"][[0, 2]], before["z"][[0, 2]])
    assert not torch.equal(after.state["z"][1], before["z"][1])


@pytest.mark.parametrize("model", [FakeModel(), FrameByFrameFake(), tiny_jump()])
def test_every_model_steps(model: WorldModel) -> None:
    venv = make(model)
    venv.reset()
    for _ in range(5):
        observations, rewards, dones, infos = venv.step(np.array([1, 2]))
        assert observations.shape == (2, 32, 32, 3)
        assert np.isfinite(rewards).all()
        assert dones.dtype == bool
        assert len(infos) == 2


def test_wrappers_together(tmp_path: Path) -> None:
    venv: VecEnv = VecMonitor(make(num_envs=3, horizon=2))
    venv = VecVideoRecorder(venv, str(tmp_path), lambda step: step == 0, video_length=3)
    venv = VecCheckNan(VecFrameStack(venv, 4), raise_exception=True)
    venv = VecNormalize(VecTransposeImage(venv), norm_obs=False)
    assert venv.reset().shape == (3, 12, 32, 32)
    episodes = []
    for _ in range(5):
        observations, _, dones, infos = venv.step(np.array([1, 2, 3]))
        assert observations.shape == (3, 12, 32, 32)
        assert observations.dtype == np.uint8
        for done, info in zip(dones, infos, strict=True):
            if done:
                assert info["terminal_observation"].shape == (12, 32, 32)
                episodes.append(info["episode"]["l"])
    assert episodes == [2] * 6
    venv.close()
    assert list(tmp_path.glob("*.mp4"))


def test_a_chunk_is_a_decision_of_several_actions() -> None:
    model = FakeModel()
    venv = ImaginedVecEnv(model, frames(1, 2), 2, hold=3, chunk=True)
    assert venv.action_space == gym.spaces.MultiDiscrete([4, 4, 4])
    shown = venv.reset()
    wanted = shown[:, 0, 0, 0].astype(int)
    after, rewards, _, infos = venv.step(np.array([[1, 2, 1], [3, 2, 2]]))
    assert after[:, -1, -1, 0].tolist() == [40, 70]
    assert rewards.tolist() == [{1: 2, 2: 1}[wanted[0]], {1: 0, 2: 2}[wanted[1]]]
    assert infos[0]["steps"] == 3
    with pytest.raises(ValueError, match="actions"):
        venv.step(np.array([[1, 2], [1, 2]]))
    PPO("CnnPolicy", venv, n_steps=4, batch_size=8, n_epochs=1, policy_kwargs=POLICY).learn(8)


def test_terminations_by_chance() -> None:
    class Fading(FakeModel):
        def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
            seen = super()._predict(worlds, queries, frames)
            return replace(seen, logits=torch.full_like(seen.logits, math.log(3.0)))

    venv = make(Fading(), num_envs=400, hold=1, horizon=4, seed=3)
    venv.reset()
    _, _, dones, infos = venv.step(np.zeros(400, np.int64))
    assert not any(info["TimeLimit.truncated"] for info in infos)
    assert 70 < dones.sum() < 130  # 100 on the average, its deviation is 9


def test_disagreement_is_penalised() -> None:
    """Unseen, each world draws what is wanted: a quarter of them pays three times for an action."""
    venv = make(FakeModel(seen=False), num_envs=3, worlds=800, penalty=2.0)
    agreed = make(FakeModel(seen=False), num_envs=3, worlds=800)
    for each in (venv, agreed):
        each.reset()
    actions = np.array([1, 2, 3])
    (_, less, _, infos), (_, rewards, _, _) = venv.step(actions), agreed.step(actions)
    disagreement = np.array([info["disagreement"] for info in infos])
    np.testing.assert_allclose(disagreement, 3 * np.sqrt(0.25 * 0.75), rtol=0.1)
    np.testing.assert_allclose(less, rewards - 2 * disagreement, rtol=1e-6)
    assert set(rewards.tolist()) <= {0.0, 3.0}  # of the one world that is followed
    known = make(FakeModel(), worlds=5, penalty=2.0)
    known.reset()
    assert [info["disagreement"] for info in known.step(np.array([1, 1]))[3]] == [0.0, 0.0]


def test_render_and_the_rest_of_the_interface() -> None:
    venv = make(fps=7)
    venv.reset()
    venv.step(np.array([1, 2]))
    assert venv.metadata["render_fps"] == 7
    assert venv.render_mode == "rgb_array"
    assert venv.render().shape == (64, 32, 3)
    assert len(venv.get_images()) == 2
    assert venv.get_attr("hold") == [3, 3]
    assert venv.get_attr("hold", 0) == [3]
    assert not venv.has_attr("nonsense")
    assert venv.env_is_wrapped(VecMonitor) == [False, False]
    assert len(venv.env_method("render", indices=[1])) == 1
    with pytest.raises(AttributeError, match="fly"):
        venv.env_method("fly")
    venv.set_attr("stagger", True)
    assert venv.stagger
    with pytest.raises(ValueError, match="indices"):
        venv.set_attr("stagger", True, indices=[0])
    venv.close()


def test_grey_images_render_in_colour() -> None:
    spec = Spec((1, 16, 24), SPEC.action, 12)
    start = np.zeros((1, 16, 24, 1), np.uint8)
    venv = ImaginedVecEnv(FakeModel(spec), start, 2, hold=2)
    assert venv.reset().shape == (2, 16, 24, 1)
    assert venv.render().shape == (32, 24, 3)


def test_passive_scenes_step() -> None:
    spec = Spec(SPEC.observation, ActionSpec("none"), 12)
    venv = ImaginedVecEnv(FakeModel(spec), STARTS, 2, hold=2)
    venv.reset()
    assert venv.step(np.zeros(2, int))[0].shape == (2, 32, 32, 3)


def test_errors_teach() -> None:
    model = FakeModel()
    with pytest.raises(ValueError, match="at most 4 fit"):
        ImaginedVecEnv(model, STARTS, 2, hold=3, horizon=5)
    with pytest.raises(ValueError, match="hold"):
        ImaginedVecEnv(model, STARTS, 2, hold=13)
    with pytest.raises(ValueError, match="num_envs"):
        ImaginedVecEnv(model, STARTS, 0)
    with pytest.raises(TypeError, match="starts"):
        ImaginedVecEnv(model, STARTS.astype(np.float32))
    with pytest.raises(ValueError, match="starts"):
        ImaginedVecEnv(model, STARTS[0])
    with pytest.raises(ValueError, match=r"starts\(num, rng\)"):
        ImaginedVecEnv(model, lambda num, rng: STARTS[:1], 2).reset()
    with pytest.raises(TypeError, match="model"):
        ImaginedVecEnv("model", STARTS)
    venv = make()
    with pytest.raises(RuntimeError, match="reset"):
        venv.step(np.array([0, 0]))
    venv.reset()
    with pytest.raises(ValueError, match="actions"):
        venv.step(np.array([0, 0, 0]))
    assert ImaginedVecEnv(model, STARTS, 2, hold=5).horizon == 2
    for settings in ({"worlds": 0}, {"penalty": -1.0, "worlds": 2}, {"penalty": 1.0}):
        with pytest.raises(ValueError, match="worlds|penalty"):
            ImaginedVecEnv(model, STARTS, **settings)
    passive = FakeModel(Spec(SPEC.observation, ActionSpec("none"), 12))
    with pytest.raises(ValueError, match="chunk: the environment has no actions"):
        ImaginedVecEnv(passive, STARTS, chunk=True)
    model.stride = 2
    assert ImaginedVecEnv(model, STARTS, 2, hold=4).horizon == 3
    with pytest.raises(ValueError, match="hold: fake takes 2 steps at once"):
        ImaginedVecEnv(model, STARTS, 2, hold=3)


def test_ppo_learns_saves_loads(tmp_path: Path) -> None:
    venv = VecFrameStack(VecMonitor(make(tiny_jump(), num_envs=4, hold=5, horizon=8)), 4)
    settings = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "policy_kwargs": POLICY}
    agent = PPO("CnnPolicy", venv, seed=0, **settings)
    agent.learn(64)
    assert agent.ep_info_buffer is not None
    agent.save(tmp_path / "agent")
    again = PPO.load(tmp_path / "agent", env=VecFrameStack(make(tiny_jump(), hold=5, horizon=8), 4))
    observations = venv.reset()
    a, _ = agent.predict(observations, deterministic=True)
    b, _ = again.predict(observations, deterministic=True)
    np.testing.assert_array_equal(a, b)
    again.learn(16)


def test_dqn_learns() -> None:
    agent = DQN(
        "CnnPolicy",
        make(hold=3, horizon=4),
        buffer_size=64,
        learning_starts=8,
        batch_size=4,
        train_freq=4,
        policy_kwargs=POLICY,
        seed=0,
    )
    agent.learn(40)
    # Rewards of the buffer belong to its observations: the action that the corner pixel names
    buffer = agent.replay_buffer
    seen = buffer.observations[: buffer.pos, :, 0, 0, 0]
    paid = buffer.rewards[: buffer.pos] == 3
    np.testing.assert_array_equal(paid, seen == buffer.actions[: buffer.pos, :, 0])


def test_evaluate_policy_accepts_it() -> None:
    venv = VecMonitor(make())
    agent = PPO("CnnPolicy", venv, n_steps=4, batch_size=8, policy_kwargs=POLICY)
    mean, _ = evaluate_policy(agent, venv, n_eval_episodes=2)
    assert 0 <= mean <= 12
