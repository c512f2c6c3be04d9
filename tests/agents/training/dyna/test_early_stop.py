from typing import Any

import numpy as np
import pytest
import torch
from dyna_fakes import LineEnv, LineModel
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from torch import Tensor

from agents import RecordEpisodes
from agents.training.dyna.early_stop import StopImagining, one_step_spread
from agents.training.imagined_ppo import monitor_and_stack
from agents.vec_env import ImaginedVecEnv
from worldmodel import Episodes
from worldmodel.types import Belief, Queries, StepPrediction, Worlds


class Unsure(LineModel):
    """The line, in worlds that differ by as much as the place is far from 0."""

    stochastic = True

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        worlds = super()._sample(belief, n, generator)
        luck = torch.randn(worlds.shape, generator=generator)
        return Worlds(worlds.present, {**worlds.state, "luck": luck})

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        steps = super()._predict(worlds, queries, frames)
        if steps.observations is None:
            return steps
        far = worlds.state["place"].abs() * worlds.state["luck"]
        shown = steps.observations + far[:, :, None, None, None]
        return StepPrediction(steps.rewards, steps.logits, shown)

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        moved = super()._advance(worlds, actions)
        return Worlds(moved.present, {**moved.state, "luck": worlds.state["luck"]})


def recorded(steps: int = 40) -> Episodes:
    env = RecordEpisodes(LineEnv())
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(steps):
        *_, terminated, truncated, _ = env.step(0.1 * env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return env.episodes()


def stopping(model: Any = None, **settings: Any) -> StopImagining:
    model = LineModel() if model is None else model
    imagined = ImaginedVecEnv(model.requires_grad_(False), recorded(), 4, horizon=4)
    usual: dict[str, Any] = {"every": 10, "patience": 3, "limit": None, "seed": 0}
    stop = StopImagining(imagined, recorded(), **{**usual, **settings})
    venv = monitor_and_stack(imagined, 1)
    venv.reset()
    agent = PPO("MlpPolicy", venv, n_steps=4, batch_size=16, device="cpu")
    agent.set_logger(configure(None, []))
    stop.init_callback(agent)
    stop.on_training_start({"new_obs": np.zeros((4, 1), np.float32)}, {})
    return stop


def looks(stop: StopImagining, *returns: list[float]) -> list[bool]:
    """Whether it goes on after looks at episodes with these returns."""
    going = []
    for episodes in returns:
        stop.model.num_timesteps += 10
        stop.locals["infos"] = [{"episode": {"r": value}} for value in episodes] or [{}]
        going.append(stop.on_step())
        stop.on_rollout_end()
    stop.locals["infos"] = [{}]
    return [*going[1:], stop.on_step()]


def test_it_stops_when_returns_no_longer_rise() -> None:
    stop = stopping()
    assert looks(stop, [1, 1], [2, 2], [2, 2], [3, 3], [3, 3], [3, 3]) == [True] * 6
    assert looks(stop, [3, 3]) == [False]
    assert stop.reason == "returns"


def test_a_rise_within_the_noise_is_none() -> None:
    stop = stopping()
    assert looks(stop, [0, 4], [1, 4], [0, 5.5], [2, 4]) == [True, True, True, False]
    stop = stopping()  # the same means, but sure
    assert looks(stop, [2, 2], [2.5, 2.5], [2.75, 2.75], [3, 3]) == [True] * 4


def test_looks_without_episodes_do_not_count() -> None:
    stop = stopping()
    assert all(looks(stop, [3, 3], [], [], [], [], [3, 3], [3, 3]))
    assert not any(looks(stop, [3, 3]))
    never = stopping(patience=None)
    assert all(looks(never, *[[1, 1]] * 20))


def test_it_looks_every_so_many_decisions() -> None:
    stop = stopping(every=30)
    assert all(looks(stop, *[[1, 1]] * 11))
    assert looks(stop, [1, 1]) == [False]


def test_it_stops_where_worlds_disagree_more_than_usual() -> None:
    stop = stopping(Unsure(), limit=3.0)
    known = stop.recorded[0].observations[:4]
    stop.imagined.branches.frames[:] = known
    assert looks(stop, [1, 1]) == [True]
    assert stop.disagreement is not None and 0.2 < stop.disagreement < 3
    near = stop.disagreement
    stop.imagined.branches.frames[:] = 100 * known
    assert looks(stop, [2, 2]) == [False]
    assert stop.reason == "disagreement"
    assert stop.disagreement == pytest.approx(100 * near, rel=0.01)
    silent = stopping(Unsure())
    silent.imagined.branches.frames[:] = 100 * known
    assert looks(silent, [1, 1]) == [True]  # without a limit it is only logged
    assert silent.disagreement == pytest.approx(100 * near, rel=0.01)


def test_spread_of_one_step() -> None:
    frames = np.array([[3.0], [-1.0]], np.float32)
    spread = one_step_spread(Unsure(), frames, np.zeros((2, 1), np.float32), 0, worlds=4000)
    assert spread.tolist() == [pytest.approx(2.0, rel=0.05)]
    sure = LineModel()
    assert one_step_spread(sure, frames, np.zeros((2, 1), np.float32), 0).tolist() == [0.0]


def test_ppo_stops() -> None:
    stop = stopping()
    agent = stop.model
    agent.learn(10_000, callback=stop)
    assert stop.reason == "returns"
    assert agent.num_timesteps < 2_000
