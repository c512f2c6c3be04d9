"""Dyna: DQN on few real steps, with and without a world model that learns from the same steps.

``RecordEpisodes`` records what DQN meets. ``DynaCallback`` fits a fresh ensemble to it, refits it
as more comes in, and imagines short branches off what was met, of which most of a batch is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch
import tyro
from stable_baselines3 import DQN

import worldmodel
from agents import DynaCallback, DynaConfig, RandomAgent, RecordEpisodes, evaluate
from worldmodel import Spec

ENV = "CartPole-v1"


@dataclass(frozen=True)
class Settings:
    """How much of everything; the default takes about three minutes on one CPU thread."""

    steps: int = 3000
    """Real steps that each DQN learns from."""
    every: int = 500
    """Real steps between fits of the model."""
    fit_steps: int = 300
    """Of each refit; the first fit takes four times as many."""
    episodes: int = 50
    out: Path = Path("outputs/dyna_dqn")


def learn(args: Settings, dyna: bool) -> DQN:
    recorder = RecordEpisodes(gym.make(ENV))
    agent = DQN(
        "MlpPolicy", recorder, buffer_size=100_000, learning_starts=args.every, batch_size=64,
        learning_rate=1e-3, train_freq=4, gradient_steps=4, target_update_interval=100, gamma=0.98,
        exploration_fraction=0.2, seed=0, tensorboard_log=str(args.out),
    )  # fmt: skip
    spec = Spec.from_spaces(recorder.observation_space, recorder.action_space, window=5)
    model = worldmodel.make("ensemble", spec)
    config = DynaConfig(
        start=args.every, every=args.every, horizon=5,
        first_fit_steps=4 * args.fit_steps, fit_steps=args.fit_steps,
    )  # fmt: skip
    watch = DynaCallback(model, recorder, config) if dyna else None
    name = "dyna" if dyna else "dqn"
    agent.learn(args.steps, callback=watch, tb_log_name=name, progress_bar=True)
    if watch is not None:
        print(f"{watch.fits} fits of the model, {watch.imagined} imagined transitions")
        worldmodel.save(model, args.out / "model")
    return agent


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    players = {
        "random play": RandomAgent(gym.make(ENV).action_space),
        "DQN": learn(args, dyna=False),
        "DQN with Dyna": learn(args, dyna=True),
    }
    for name, player in players.items():
        returns = evaluate(player, ENV, args.episodes, seed=10**6)
        print(f"{name:>14}: {returns.mean():.0f} steps upright, of 500 ({args.steps} real steps)")
    print(f"The world model: {args.out / 'model'}\nCurves: tensorboard --logdir {args.out}")
    print("Look at dyna_error/..., the model's error on episodes that it has not been fitted to.")
    print("One seed says little: DQN varies from run to run, and Dyna does not win all of them.")


if __name__ == "__main__":
    main()
