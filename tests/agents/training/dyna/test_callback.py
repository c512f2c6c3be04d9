from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv, FakeModel
from dyna_fakes import LineConfig, LineEnv, LineModel
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

from agents import DynaCallback, DynaConfig, HoldAction, RecordEpisodes, SmallCnn
from agents.training.dyna.refit import model_error
from agents.vec_env import ImaginedVecEnv

SMALL = {"features_extractor_class": SmallCnn, "features_extractor_kwargs": {"features_dim": 8}}
LEARNER = {"learning_starts": 4, "batch_size": 4, "train_freq": 2, "seed": 0, "device": "cpu"}


class Noting(ReplayBuffer):
    """Notes which rows are imagined."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.imagined: list[bool] = []

    def add(self, obs, next_obs, action, reward, done, infos) -> None:
        for part in (obs, next_obs, action, reward, done, infos):
            assert len(part) == self.n_envs
        self.imagined.append("alive" in infos[0])
        super().add(obs, next_obs, action, reward, done, infos)

    def rows(self) -> dict[str, np.ndarray]:
        assert not self.full
        names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
        found = {name: getattr(self, name)[: self.pos].reshape(-1, *getattr(self, name).shape[2:])
                 for name in names}  # fmt: skip
        return {**found, "imagined": np.repeat(self.imagined, self.n_envs)}


def exact(model: Any) -> Any:
    """With nothing to learn."""
    return model.requires_grad_(False)


def config(**settings: Any) -> DynaConfig:
    usual = {"start": 8, "every": 8, "imagine_every": 4, "ratio": 2.0, "horizon": 2, "num_envs": 4}
    return DynaConfig(**{**usual, **settings})


def line_agent(
    kind: Any = SAC, hold: int = 2, num_envs: int = 1, limit: float = 6.0, **settings: Any
) -> tuple[Any, list[RecordEpisodes]]:
    recorders = [RecordEpisodes(LineEnv(limit=limit)) for _ in range(num_envs)]
    venv = VecMonitor(DummyVecEnv([lambda r=r: HoldAction(r, hold) for r in recorders]))
    policy = {"net_arch": [8]}
    return (
        kind("MlpPolicy", venv, buffer_size=1000, replay_buffer_class=Noting, policy_kwargs=policy,
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
    agent = DQN("CnnPolicy", venv, buffer_size=400, replay_buffer_class=Noting,
                policy_kwargs=SMALL, **{**LEARNER, **settings})  # fmt: skip
    return agent, recorder


def levels(frames: np.ndarray) -> np.ndarray:
    """Of images (n, C, H, W), channels first."""
    return frames[:, :, -1, -1].astype(int) // 10


# -- the rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SAC, TD3])
def test_imagined_rows_of_vectors_are_true_transitions(kind: Any) -> None:
    agent, recorders = line_agent(kind, limit=3.0, learning_starts=40)
    model = exact(LineModel(config=LineConfig(limit=3.0)))
    callback = DynaCallback(model, recorders, config(hold=2))
    agent.learn(60, callback=callback)
    assert agent.num_timesteps == 60
    rows = agent.replay_buffer.rows()
    assert rows["imagined"].sum() == callback.imagined == 2 * (60 - 8)

    begin, action = rows["observations"][:, 0], rows["actions"][:, 0] * 2  # stored in [-1, 1]
    one, two = begin + action, begin + 2 * action
    early = np.abs(one) > 3  # ended within the hold
    ended = early | (np.abs(two) > 3)
    earned = np.where(early, one, one + two)
    np.testing.assert_allclose(rows["rewards"], earned, atol=1e-5)
    np.testing.assert_array_equal(rows["dones"] * (1 - rows["timeouts"]), ended)
    assert not (rows["timeouts"] * ended).any()
    # Where a hold is cut short, the model shows the place that the whole hold would have led to.
    shown = np.where(early & ~rows["imagined"], one, two)
    np.testing.assert_allclose(rows["next_observations"][:, 0], shown, atol=1e-5)
    assert (ended & rows["imagined"]).any()
    assert (rows["timeouts"] * rows["imagined"]).any()


@pytest.mark.parametrize("horizon", [1, 2])
def test_imagined_rows_of_images_are_true_transitions(horizon: int) -> None:
    agent, recorder = image_agent(hold=2)
    callback = DynaCallback(exact(FakeModel()), recorder, config(hold=2, horizon=horizon))
    agent.learn(40, callback=callback)
    rows = {name: row[agent.replay_buffer.imagined] for name, row in
            agent.replay_buffer.rows().items()}  # fmt: skip
    before, after = rows["observations"], rows["next_observations"]
    assert before.shape[1:] == (3, 32, 32)
    action, wanted = rows["actions"][:, 0], before[:, 0, 0, 0]
    np.testing.assert_array_equal(levels(after)[:, 0], levels(before)[:, 0] + 2 * action)
    np.testing.assert_array_equal(after[:, 0, 0, 0], wanted)
    np.testing.assert_array_equal(rows["rewards"], 2.0 * (action == wanted))
    # Each of the 4 branches is truncated after ``horizon`` decisions; a fit begins them anew.
    np.testing.assert_array_equal(rows["dones"], rows["timeouts"])
    decisions = rows["timeouts"].reshape(-1, 4)
    expected = np.arange(1, 5) % horizon == 0  # 4 decisions between two fits: 2 x 8 rows / 4
    np.testing.assert_array_equal(decisions, np.tile(expected, 4)[:, None].repeat(4, 1))
    if horizon == 2:  # an episode goes on where it was
        first, second = (
            before.reshape(-1, 2, 4, 3, 32, 32)[:, 1],
            after.reshape(-1, 2, 4, 3, 32, 32),
        )
        np.testing.assert_array_equal(first, second[:, 0])


def test_branches_begin_in_the_middle_of_episodes_too() -> None:
    agent, recorder = image_agent(steps=6)
    agent.learn(32, callback=DynaCallback(exact(FakeModel()), recorder, config(hold=3, horizon=1)))
    rows = agent.replay_buffer.rows()
    begins = levels(rows["observations"])[:, 0]
    at_decisions = {int(level) for level in begins[~rows["imagined"]]}
    assert set(begins[rows["imagined"]]) - at_decisions  # frames between decisions


def test_stacked_frames_are_stacked_as_the_real_ones() -> None:
    agent, recorder = image_agent(hold=1, stack=3, steps=12)
    agent.learn(40, callback=DynaCallback(exact(FakeModel()), recorder, config(horizon=3)))
    rows = agent.replay_buffer.rows()
    before, after = levels(rows["observations"]), levels(rows["next_observations"])
    np.testing.assert_array_equal(after[:, :6], before[:, 3:])
    np.testing.assert_array_equal(after[:, 6:], before[:, 6:] + rows["actions"])
    first = before[rows["imagined"]].reshape(-1, 4, 9)[0]  # as after a real reset
    assert (first == 0).all()
    assert (before[rows["imagined"]][:, 6:] > 0).any()


def test_rows_of_several_environments() -> None:
    agent, recorders = line_agent(num_envs=2, hold=1)
    callback = DynaCallback(exact(LineModel()), recorders, config(ratio=3.0))
    agent.learn(40, callback=callback)
    rows = agent.replay_buffer.rows()
    assert rows["imagined"].sum() == 3 * (40 - 8)
    moved = rows["next_observations"] - rows["observations"]
    np.testing.assert_allclose(moved, rows["actions"] * 2, atol=1e-5)


@pytest.mark.parametrize(("ratio", "branches"), [(0.5, 4), (1.0, 6), (0.0, 4), (5.0, 4)])
def test_ratio_holds(ratio: float, branches: int) -> None:
    agent, recorders = line_agent(hold=1)
    callback = DynaCallback(
        exact(LineModel()), recorders, config(ratio=ratio, num_envs=branches, every=1000)
    )
    agent.learn(48, callback=callback)
    owed = ratio * (48 - 8)
    assert callback.imagined == owed // branches * branches
    assert sum(agent.replay_buffer.imagined) == callback.imagined
    assert callback.fits == 1


# -- learning --------------------------------------------------------------------------------------


def test_extra_training_is_in_proportion() -> None:
    class Counting(SAC):
        steps = 0

        def train(self, gradient_steps: int, batch_size: int = 64) -> None:
            self.steps += gradient_steps
            super().train(gradient_steps, batch_size)

    for own in (1, -1):
        agent, recorders = line_agent(Counting, hold=1, gradient_steps=own)
        agent.learn(48, callback=DynaCallback(exact(LineModel()), recorders, config()))
        share = 0.5 if own == 1 else 1.0  # per row
        real, imagined = 48 - 4, 2 * (48 - 8)
        assert agent.steps == share * (real + imagined)


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
    assert callback.imagined == 2 * (24 - 8)


@pytest.mark.parametrize("kind", [SAC, TD3])
def test_same_seed_same_bits(kind: Any) -> None:
    def run() -> list[np.ndarray]:
        noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)) if kind is TD3 else None
        agent, recorders = line_agent(kind, action_noise=noise)
        settings = config(hold=2, first_fit_steps=5, fit_steps=5)
        agent.learn(32, callback=DynaCallback(LineModel(offset=0.3), recorders, settings))
        weights = [p.detach().numpy() for p in agent.policy.parameters()]
        return [*agent.replay_buffer.rows().values(), *weights]

    for a, b in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_actions_explore_as_the_algorithm_does() -> None:
    noise = NormalActionNoise(np.zeros(1), 0.2 * np.ones(1))
    agent, recorders = line_agent(TD3, hold=1, action_noise=noise, learning_rate=0.0)
    agent.learn(40, callback=DynaCallback(exact(LineModel()), recorders, config(ratio=4.0)))
    rows = agent.replay_buffer.rows()
    seen = rows["observations"][rows["imagined"]]
    greedy = agent.policy.scale_action(agent.predict(seen, deterministic=True)[0])
    added = rows["actions"][rows["imagined"]] - greedy
    assert 0.1 < added.std() < 0.3
    warming, recorders = line_agent(TD3, hold=1, learning_starts=1000)
    warming.learn(40, callback=DynaCallback(exact(LineModel()), recorders, config(ratio=4.0)))
    rows = warming.replay_buffer.rows()
    drawn = rows["actions"][rows["imagined"]]
    assert drawn.min() < -0.9  # uniform, as SB3's warm-up
    assert drawn.max() > 0.9


def test_it_goes_on_in_the_next_call_of_learn() -> None:
    agent, recorders = line_agent(hold=1)
    callback = DynaCallback(exact(LineModel()), recorders, config())
    agent.learn(20, callback=callback)
    agent.learn(20, callback=callback, reset_num_timesteps=False)
    assert agent.num_timesteps == 40
    assert callback.imagined == 2 * (40 - 8)
    assert callback.fits == 5


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
    with pytest.raises(ValueError, match="multiple"):
        learn(agent, recorders, hold=2, num_envs=3)
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


def test_config_checks_itself() -> None:
    for name in ("start", "every", "imagine_every", "horizon", "hold", "num_envs"):
        with pytest.raises(ValueError, match=name):
            DynaConfig(**{name: 0})
    for name in ("ratio", "first_fit_steps", "fit_steps"):
        with pytest.raises(ValueError, match=name):
            DynaConfig(**{name: -1})
    with pytest.raises(ValueError, match="imagination"):
        DynaConfig(imagination={"hold": 2})


def test_imagination_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def note(*args: Any, **kwargs: Any) -> ImaginedVecEnv:
        made.append(kwargs)
        return ImaginedVecEnv(*args, **kwargs)

    monkeypatch.setattr("agents.training.dyna.refit.ImaginedVecEnv", note)
    agent, recorders = line_agent()
    learn(agent, recorders, hold=2, seed=7, imagination={"fps": 9})
    assert all(kwargs["fps"] == 9 for kwargs in made)
    assert [kwargs["seed"] for kwargs in made] == [7, 8, 9, 10]  # other worlds after each fit
