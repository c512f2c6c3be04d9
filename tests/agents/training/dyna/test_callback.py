import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import FakeEnv, FakeModel
from dyna_fakes import LineConfig, LineEnv, LineModel
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

from agents import DynaCallback, DynaConfig, HoldAction, RecordEpisodes, SmallCnn
from agents.training.dyna.exploration import Exploration
from agents.training.dyna.mixed_buffer import ImaginedTransitions, MixedReplayBuffer
from agents.training.dyna.refit import model_error
from agents.vec_env import ImaginedVecEnv

SMALL = {"features_extractor_class": SmallCnn, "features_extractor_kwargs": {"features_dim": 8}}
LEARNER = {"learning_starts": 4, "batch_size": 4, "train_freq": 2, "seed": 0, "device": "cpu"}


def exact(model: Any) -> Any:
    """With nothing to learn."""
    return model.requires_grad_(False)


def config(**settings: Any) -> DynaConfig:
    usual = {"start": 8, "every": 8, "imagine_every": 4, "branches": 2, "horizon": 2, "num_envs": 6}
    return DynaConfig(**{**usual, **settings})


def imagined(callback: DynaCallback) -> dict[str, np.ndarray]:
    return {field: parts[""] for field, parts in callback.transitions.whole().items()}


class Branching(DynaCallback):
    """Notes what it imagines each time: branches, and the transitions of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[tuple[int, dict[str, np.ndarray]]] = []

    def _imagine(self, count: int) -> None:
        before = len(self.transitions)
        super()._imagine(count)
        added = {name: values[before:] for name, values in imagined(self).items()}
        self.batches.append((count, added))


def line_agent(
    kind: Any = SAC, hold: int = 2, num_envs: int = 1, limit: float = 6.0, **settings: Any
) -> tuple[Any, list[RecordEpisodes]]:
    recorders = [RecordEpisodes(LineEnv(limit=limit)) for _ in range(num_envs)]
    venv = VecMonitor(DummyVecEnv([lambda r=r: HoldAction(r, hold) for r in recorders]))
    policy = {"net_arch": [8]}
    return (
        kind("MlpPolicy", venv, buffer_size=1000, policy_kwargs=policy,
             **{**LEARNER, **settings}),
        recorders,
    )  # fmt: skip


def image_agent(
    hold: int = 3, stack: int = 1, steps: int = 4, **settings: Any
) -> tuple[DQN, RecordEpisodes]:
    recorder = RecordEpisodes(FakeEnv(steps=steps))
    venv: Any = DummyVecEnv([lambda: HoldAction(recorder, hold)])
    if stack > 1:
        venv = VecFrameStack(venv, stack)
    agent = DQN("CnnPolicy", venv, buffer_size=400,
                policy_kwargs=SMALL, **{**LEARNER, **settings})  # fmt: skip
    return agent, recorder


def levels(frames: np.ndarray) -> np.ndarray:
    """Of images (n, C, H, W), channels first."""
    return frames[:, :, -1, -1].astype(int) // 10


# -- the transitions -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SAC, TD3, TQC, DDPG])
def test_imagined_transitions_of_vectors_are_true(kind: Any) -> None:
    agent, recorders = line_agent(kind, limit=3.0)
    model = exact(LineModel(config=LineConfig(limit=3.0)))
    callback = Branching(model, recorders, config(hold=2, branches=40, every=16))
    agent.learn(60, callback=callback)
    assert agent.num_timesteps == 60
    rows = imagined(callback)
    begin, action = rows["observations"][:, 0], rows["actions"][:, 0] * 2  # stored in [-1, 1]
    one, two = begin + action, begin + 2 * action
    early = np.abs(one) > 3  # ended within the hold
    ended = early | (np.abs(two) > 3)
    earned = np.where(early, one, one + two)
    np.testing.assert_allclose(rows["rewards"][:, 0], earned, atol=1e-5)
    np.testing.assert_array_equal(rows["dones"][:, 0], ended)
    np.testing.assert_allclose(rows["next_observations"][:, 0], two, atol=1e-5)
    assert ended.any() and not ended.all()


def test_ended_branches_are_dropped_and_cut_ones_have_not_ended() -> None:
    agent, recorders = line_agent(hold=2, limit=3.0)
    model = exact(LineModel(config=LineConfig(limit=3.0)))
    callback = Branching(model, recorders, config(hold=2, branches=3, horizon=3, num_envs=12))
    agent.learn(9, callback=callback)
    ((count, rows),) = callback.batches
    assert count == 3 * 4
    before, after, ended = (
        rows[name][:, 0] for name in ("observations", "next_observations", "dones")
    )
    begin, running = 0, 12
    for _ in range(3):  # every branch goes on from where it was, unless it has ended
        here = slice(begin, begin + running)
        going = after[here][ended[here] == 0]
        begin, running = begin + running, len(going)
        if begin < len(before):
            np.testing.assert_array_equal(before[begin : begin + running], going)
    assert begin == len(before) < 36
    assert running and not ended[-running:].all()  # those that reach the horizon may go on


def test_imagined_transitions_of_images_are_true() -> None:
    agent, recorder = image_agent(hold=2)
    callback = DynaCallback(exact(FakeModel()), recorder, config(hold=2, branches=10))
    agent.learn(40, callback=callback)
    rows = imagined(callback)
    before, after = rows["observations"], rows["next_observations"]
    assert before.shape[1:] == (3, 32, 32) and before.dtype == np.uint8
    action, wanted = rows["actions"][:, 0], before[:, 0, 0, 0]
    np.testing.assert_array_equal(levels(after)[:, 0], levels(before)[:, 0] + 2 * action)
    np.testing.assert_array_equal(after[:, 0, 0, 0], wanted)
    np.testing.assert_array_equal(rows["rewards"][:, 0], 2.0 * (action == wanted))
    assert not rows["dones"].any()  # cut at the horizon, but not ended


def test_branches_begin_in_the_middle_of_episodes_too() -> None:
    agent, recorder = image_agent(steps=6)
    settings = config(hold=3, horizon=1, branches=10)
    callback = DynaCallback(exact(FakeModel()), recorder, settings)
    agent.learn(32, callback=callback)
    begins = set(levels(imagined(callback)["observations"])[:, 0].tolist())
    buffer = agent.replay_buffer
    at_decisions = levels(buffer.observations[: buffer.pos, 0])[:, 0].tolist()
    assert begins - set(at_decisions)  # frames between decisions


def test_stacked_frames_are_stacked_as_the_real_ones() -> None:
    agent, recorder = image_agent(hold=1, stack=3, steps=12)
    callback = Branching(exact(FakeModel()), recorder, config(horizon=4, branches=1, every=1000))
    agent.learn(9, callback=callback)
    ((count, rows),) = callback.batches
    before, after = levels(rows["observations"]), levels(rows["next_observations"])
    np.testing.assert_array_equal(after[:, :6], before[:, 3:])
    np.testing.assert_array_equal(after[:, 6:], before[:, 6:] + rows["actions"])
    assert (before[:count] == 0).all()  # as after a real reset
    np.testing.assert_array_equal(before[count:], after[:-count])


def test_several_environments() -> None:
    agent, recorders = line_agent(num_envs=2, hold=1)
    callback = DynaCallback(exact(LineModel()), recorders, config())
    agent.learn(40, callback=callback)
    rows = imagined(callback)
    moved = rows["next_observations"] - rows["observations"]
    np.testing.assert_allclose(moved, rows["actions"] * 2, atol=1e-5)


@pytest.mark.parametrize("imagine_every", [None, 2, 4])
@pytest.mark.parametrize("branches", [1, 5])
def test_branches_are_those_of_each_real_step(imagine_every: Any, branches: int) -> None:
    agent, recorders = line_agent(hold=1, limit=1000.0)
    settings = config(branches=branches, imagine_every=imagine_every, horizon=1)
    callback = DynaCallback(exact(LineModel()), recorders, settings)
    agent.learn(39, callback=callback)  # rollouts are of 2 steps: 40
    assert callback.fits == 5 == 40 // 8
    assert callback.imagined == branches * (4 * 8 + (imagine_every or 8))
    assert len(callback.transitions) == branches * (imagine_every or 8)  # since the last fit


def test_horizons_rise() -> None:
    settings = DynaConfig(horizon=1, horizon_end=15, horizon_steps=(20_000, 150_000))
    steps = (0, 20_000, 29_285, 29_286, 85_000, 150_000, 10**6)
    assert [settings.horizon_at(step) for step in steps] == [1, 1, 1, 2, 8, 15, 15]
    assert DynaConfig(horizon=3).horizon_at(10**6) == 3
    agent, recorders = line_agent(hold=1, limit=1000.0)
    model = exact(LineModel(config=LineConfig(limit=1000.0)))
    settings = config(horizon=1, horizon_end=3, horizon_steps=(8, 24))
    callback = Branching(model, recorders, settings)
    agent.learn(33, callback=callback)
    each = [len(rows["rewards"]) / count for count, rows in callback.batches]
    assert each == [1, 1, 2, 2, 3, 3, 3]


# -- learning --------------------------------------------------------------------------------------


def test_batches_hold_their_share_of_real_transitions() -> None:
    agent, recorders = line_agent(hold=1)
    model = exact(LineModel())
    model.offset.data += 100.0  # so that imagined transitions are known by where they lead to
    callback = DynaCallback(model, recorders, config(real_share=0.25))
    shares: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if self.model.replay_buffer.size() < 4:
                return
            batch = self.model.replay_buffer.sample(64)
            assert all(len(part) == 64 for part in batch[:5])
            assert all(part.dtype == torch.float32 for part in batch[:5])
            moved = (batch.next_observations - batch.observations).abs()[:, 0]
            shares.append(float((moved < 50).float().mean()))

    own = agent.replay_buffer
    agent.learn(24, callback=[callback, Watch()])
    assert set(shares) == {1.0, 0.25}  # all are real before the first fit
    assert shares[-1] == 0.25
    assert agent.replay_buffer is own
    assert own.pos == 24  # only real ones


@pytest.mark.parametrize(("share", "real"), [(0.0, 0), (1e-6, 1), (0.05, 2), (1.0, 32)])
def test_shares(share: float, real: int) -> None:
    space = gym.spaces.Box(-1, 1, (2,), np.float64)
    buffer = ReplayBuffer(8, space, gym.spaces.Discrete(3), "cpu")
    transitions = ImaginedTransitions(0)
    mixed = MixedReplayBuffer(buffer, transitions, share)
    one = np.zeros((1, 2))
    mixed.add(one, one, np.array([2]), np.array([1.0]), np.array([False]), [{}])
    assert buffer.pos == mixed.pos == mixed.size() == 1
    assert mixed.sample(32).rewards.mean() == 1  # as long as nothing is imagined
    ones = np.ones((5, 2), np.float32)
    transitions.add(ones, np.arange(5) % 3, ones, np.arange(5) > 3, np.full(5, 9.0))
    batch, plain = mixed.sample(32), buffer.sample(32)
    assert int((batch.rewards == 1).sum()) == real
    assert [part.shape for part in batch[:5]] == [part.shape for part in plain[:5]]
    assert [part.dtype for part in batch[:5]] == [part.dtype for part in plain[:5]]
    again = pickle.loads(pickle.dumps(mixed))
    assert type(again) is ReplayBuffer and again.pos == 1  # imagined ones are not saved
    mixed.reset()
    assert buffer.size() == 0


def test_each_row_explores_on_its_own() -> None:
    agent, recorder = image_agent(hold=1, exploration_fraction=1.0, exploration_final_eps=0.5)
    agent.exploration_rate = 0.5
    explore = Exploration(agent, 4000, seed=0)
    frames = np.zeros((4000, 3, 32, 32), np.uint8)
    actions, same = explore.act(frames, np.arange(4000))
    assert actions is same
    shares = np.bincount(actions, minlength=4) / 4000
    greedy = agent.predict(frames[:1], deterministic=True)[0][0]
    expected = np.full(4, 0.125) + 0.5 * (np.arange(4) == greedy)
    np.testing.assert_allclose(shares, expected, atol=0.03)
    policy = {"net_arch": [8]}
    quantiles = QRDQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10, policy_kwargs=policy)
    quantiles.exploration_rate = 0.0
    still = np.zeros((9, 4), np.float32)
    assert len(set(Exploration(quantiles, 9, 0).act(still, np.arange(9))[0].tolist())) == 1


def test_noise_is_each_branchs_own() -> None:
    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.2 * np.ones(1), dt=1.0)
    agent, _ = line_agent(TD3, action_noise=noise)
    explore, seen = Exploration(agent, 500, 0), np.zeros((500, 1), np.float32)
    greedy = agent.policy.scale_action(agent.predict(seen[:1], deterministic=True)[0])[0, 0]
    explore.begin()
    first = explore.act(seen, np.arange(500))[1][:, 0] - greedy
    second = explore.act(seen[:250], np.arange(0, 500, 2))[1][:, 0] - greedy
    assert 0.15 < first.std() < 0.25
    assert np.corrcoef(first[::2], second)[0, 1] > 0.4  # the branches that go on go on with theirs
    explore.begin()
    third = explore.act(seen, np.arange(500))[1][:, 0] - greedy
    assert abs(np.corrcoef(first, third)[0, 1]) < 0.2


def test_states_have_noise_of_their_own_with_sde() -> None:
    agent, recorders = line_agent(SAC, use_sde=True)
    callback = DynaCallback(exact(LineModel()), recorders, config(hold=2))
    agent.learn(24, callback=callback)
    assert len(np.unique(imagined(callback)["actions"])) > 4


def test_nothing_is_imagined_before_learning_starts() -> None:
    agent, recorders = line_agent(hold=1, learning_starts=20)
    callback = DynaCallback(exact(LineModel()), recorders, config())
    agent.learn(18, callback=callback)
    assert callback.fits == 2
    assert callback.imagined == 0
    agent.learn(8, callback=callback, reset_num_timesteps=False)
    assert callback.imagined > 0


def test_the_model_is_fitted_and_its_error_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []

    def note(model: Any, episodes: Any, config: Any) -> dict[str, float]:
        measured.append(list(episodes))
        return model_error(model, episodes, config)

    monkeypatch.setattr("agents.training.dyna.callback.model_error", note)
    agent, recorders = line_agent(hold=1, limit=100.0)  # episodes of 8 steps
    model = LineModel(offset=1.0)
    callback = DynaCallback(
        model, recorders, config(start=12, every=12, first_fit_steps=50, fit_steps=200)
    )
    agent.learn(24, callback=callback)
    assert callback.fits == 2
    halfway = callback.error["loss"]  # of the model before the second fit
    assert 0.01 < halfway < 1.0
    assert callback.losses["loss"] < 0.1 * halfway
    assert not model.training
    # The second episode was under way when the model was fitted first: only the third is new.
    (fresh,) = measured
    expected = recorders[0].episodes()[2]
    assert [len(episode.actions) for episode in fresh] == [8]
    np.testing.assert_array_equal(fresh[0].observations, expected.observations)


def test_a_fit_of_no_steps_changes_nothing() -> None:
    agent, recorders = line_agent(hold=1)
    model = LineModel(offset=1.0)
    callback = DynaCallback(model, recorders, config(first_fit_steps=0, fit_steps=0))
    agent.learn(24, callback=callback)
    assert callback.fits == 3
    assert model.offset.item() == 1.0
    assert callback.imagined > 0


@pytest.mark.parametrize("kind", [SAC, TD3])
def test_same_seed_same_bits(kind: Any) -> None:
    def run() -> list[np.ndarray]:
        noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)) if kind is TD3 else None
        agent, recorders = line_agent(kind, action_noise=noise)
        settings = config(hold=2, first_fit_steps=5, fit_steps=5)
        callback = DynaCallback(LineModel(offset=0.3), recorders, settings)
        agent.learn(32, callback=callback)
        weights = [p.detach().numpy() for p in agent.policy.parameters()]
        return [*imagined(callback).values(), *weights]

    for a, b in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_goes_on_in_the_next_call_of_learn() -> None:
    agent, recorders = line_agent(hold=1)
    callback = DynaCallback(exact(LineModel()), recorders, config())
    agent.learn(20, callback=callback)
    agent.learn(20, callback=callback, reset_num_timesteps=False)
    assert agent.num_timesteps == 40
    assert callback.fits == 5
    assert isinstance(agent.replay_buffer, ReplayBuffer)
    assert not isinstance(agent.replay_buffer, MixedReplayBuffer)


def test_it_goes_on_after_an_error() -> None:
    agent, recorders = line_agent(hold=1)
    callback = DynaCallback(exact(LineModel()), recorders, config())

    class Fails(BaseCallback):
        def _on_step(self) -> bool:
            raise KeyboardInterrupt

    agent.learn(16, callback=callback)
    with pytest.raises(KeyboardInterrupt):
        agent.learn(8, callback=[callback, Fails()], reset_num_timesteps=False)
    assert isinstance(agent.replay_buffer, MixedReplayBuffer)
    agent.learn(8, callback=callback, reset_num_timesteps=False)
    assert not isinstance(agent.replay_buffer, MixedReplayBuffer)


def test_it_logs(tmp_path: Any) -> None:
    agent, recorders = line_agent(hold=1)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    settings = config(first_fit_steps=2, fit_steps=2)
    agent.learn(32, callback=DynaCallback(LineModel(), recorders, settings), log_interval=1)
    names = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    expected = {"dyna/fits", "dyna/imagined", "dyna/reward", "dyna_fit/loss", "dyna_error/loss"}
    assert expected <= set(names)


# -- errors ----------------------------------------------------------------------------------------


def learn(agent: Any, recorders: Any, model: Any = None, **settings: Any) -> None:
    model = exact(LineModel()) if model is None else model
    agent.learn(24, callback=DynaCallback(model, recorders, config(**settings)))


def test_hold_must_be_that_of_the_environment() -> None:
    for told, real in ((1, 2), (3, 2)):
        agent, recorders = line_agent(hold=real)
        with pytest.raises(ValueError, match=r"hold: .* HoldAction"):
            learn(agent, recorders, hold=told)
    outside = RecordEpisodes(HoldAction(LineEnv(), 2))
    with pytest.raises(ValueError, match="inside"):
        learn(SAC("MlpPolicy", outside, buffer_size=100, **LEARNER), outside, hold=2)


def test_other_environments_are_refused() -> None:
    agent, recorders = line_agent(num_envs=2)
    with pytest.raises(ValueError, match="one for each of the 2"):
        learn(agent, recorders[0], hold=2)
    with pytest.raises(ValueError, match=r"recorders\[0\]"):
        DynaCallback(FakeModel(), recorders)
    with pytest.raises(ValueError, match="at most 4 fit"):
        DynaCallback(LineModel(), recorders, DynaConfig(hold=3, horizon=5))
    recorder = RecordEpisodes(LineEnv())
    normalised = VecNormalize(DummyVecEnv([lambda: recorder]))
    with pytest.raises(ValueError, match="VecNormalize"):
        learn(SAC("MlpPolicy", normalised, buffer_size=100, **LEARNER), recorder)
    halved = gym.wrappers.TransformObservation(
        recorder, lambda x: x / 2, gym.spaces.Box(-1, 1, (1,), np.float32)
    )
    with pytest.raises(ValueError, match="observation_space"):
        learn(SAC("MlpPolicy", halved, buffer_size=100, **LEARNER), recorder)


def test_other_algorithms_and_buffers_are_refused() -> None:
    recorder = RecordEpisodes(LineEnv())
    with pytest.raises(TypeError, match="PPO is not off-policy"):
        learn(PPO("MlpPolicy", recorder, n_steps=4, batch_size=4, device="cpu"), recorder)
    agent, recorders = line_agent()
    frugal = SAC("MlpPolicy", recorder, buffer_size=100, optimize_memory_usage=True,
                 replay_buffer_kwargs={"handle_timeout_termination": False},
                 **LEARNER)  # fmt: skip
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        learn(frugal, recorder)
    agent.replay_buffer.n_steps = 3  # as that of NStepReplayBuffer
    with pytest.raises(ValueError, match="n_steps=1"):
        learn(agent, recorders, hold=2)
    several = SAC("MlpPolicy", recorder, buffer_size=100, n_steps=3, **LEARNER)
    with pytest.raises(ValueError, match="NStepReplayBuffer sums the rewards of 3 steps"):
        learn(several, recorder)


def test_config_checks_itself() -> None:
    for name in ("start", "every", "imagine_every", "branches", "horizon", "hold", "num_envs"):
        with pytest.raises(ValueError, match=name):
            DynaConfig(**{name: 0})
    for name in ("real_share", "first_fit_steps", "fit_steps"):
        with pytest.raises(ValueError, match=name):
            DynaConfig(**{name: -1})
    with pytest.raises(ValueError, match="real_share: expected between 0 and 1"):
        DynaConfig(real_share=1.5)
    with pytest.raises(ValueError, match="imagine_every: .* every=250"):
        DynaConfig(imagine_every=251)
    with pytest.raises(ValueError, match="horizon_end: expected at least horizon=2"):
        DynaConfig(horizon=2, horizon_end=1)
    with pytest.raises(ValueError, match="horizon_steps"):
        DynaConfig(horizon_steps=(5, 5))
    with pytest.raises(ValueError, match="chunk, stagger and fps"):
        DynaConfig(imagination={"fps": 2})
    with pytest.raises(ValueError, match="imagination"):
        DynaConfig(imagination={"hold": 2})


def test_imagination_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def note(*args: Any, **kwargs: Any) -> ImaginedVecEnv:
        made.append(kwargs)
        return ImaginedVecEnv(*args, **kwargs)

    monkeypatch.setattr("agents.training.dyna.refit.ImaginedVecEnv", note)
    agent, recorders = line_agent()
    learn(agent, recorders, hold=2, seed=7, imagination={"penalty": 0.5, "worlds": 2})
    assert all(kwargs["worlds"] == 2 for kwargs in made)
