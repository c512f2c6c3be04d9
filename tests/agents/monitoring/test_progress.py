"""Progress of agents that learn, of Dyna's fits and of what it imagines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import DQN, PPO

import worldmodel
from agents import DynaCallback, DynaConfig, HoldAction, RecordEpisodes, RoundsConfig, train_dyna
from agents.monitoring.progress import ProgressBar
from agents.training import run as runs
from agents.training.run_config import RunConfig

CART = "CartPole-v1"


class Bars:
    """Every bar that is shown, with its last count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from worldmodel.common import progress as module

        self.all: list[Any] = []
        make = module.tqdm

        def noted(*args: Any, **kwargs: Any) -> Any:
            bar = make(*args, **kwargs)
            if not kwargs["disable"]:
                self.all.append(bar)
            return bar

        monkeypatch.setattr(module, "tqdm", noted)

    def counts(self) -> dict[str, int]:
        return {bar.desc.removesuffix(": "): bar.n for bar in self.all}


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Bars:
    return Bars(monkeypatch)


def test_an_algorithm(bars: Bars) -> None:
    agent = PPO("MlpPolicy", CART, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    agent.learn(32, callback=ProgressBar("learn"))
    assert bars.counts() == {"learn": 32}
    agent.learn(32, callback=ProgressBar("go on"), reset_num_timesteps=False)
    assert bars.counts()["go on"] == bars.all[-1].total == 64 and bars.all[-1].initial == 32
    agent.learn(16, callback=ProgressBar(show=False))
    assert len(bars.all) == 2


def make_model(env: gym.Env[Any, Any]) -> worldmodel.WorldModel:
    spec = worldmodel.Spec.from_spaces(env.observation_space, env.action_space, window=1)
    return worldmodel.make("ensemble", spec)


@pytest.mark.parametrize("show", [True, False])
def test_fits_and_branches_of_dyna(bars: Bars, show: bool) -> None:
    recorder = RecordEpisodes(gym.make(CART))
    config = DynaConfig(start=60, every=40, branches=2, first_fit_steps=3, fit_steps=2, num_envs=50)
    agent = DQN("MlpPolicy", HoldAction(recorder, 1), learning_starts=10, device="cpu")
    dyna = DynaCallback(make_model(recorder), recorder, config, progress=show)
    agent.learn(100, callback=dyna)
    fits = {"fit 1 of ensemble": 3, "imagine branches": 2, "fit 2 of ensemble": 2}
    assert dyna.fits == 2 and bars.counts() == (fits if show else {})


@pytest.mark.parametrize("show", [True, False])
def test_rounds(bars: Bars, show: bool) -> None:
    env = gym.make(CART)
    config = RoundsConfig(
        first_collect_steps=20, collect_steps=20, first_fit_steps=3, fit_steps=2, num_envs=2,
        imagined_steps=64,
    )  # fmt: skip
    train_dyna(make_model(env), env, 40, config, progress=show, n_steps=32, batch_size=32)
    if not show:
        assert not bars.all
        return
    counts = bars.counts()
    assert counts["fit 1 of ensemble"] == 3 and counts["fit 2 of ensemble"] == 2
    assert counts["imagine"] >= 64 and len(bars.all) >= 5


def test_a_run(bars: Bars, tmp_path: Path) -> None:
    """The command's bar counts decisions, and is there without a terminal, too."""
    config = RunConfig(CART, "real", "dqn", steps=20)
    runs.train(config, tmp_path / "agent", evaluate_every=0, progress=True)
    assert bars.counts()["real"] == 20
