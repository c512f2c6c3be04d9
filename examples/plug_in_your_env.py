"""From an environment of a few lines to a world model, an agent trained in it, and a planner.

``python examples/plug_in_your_env.py`` takes about three minutes on one CPU thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

from agents import RandomAgent, TreeSearch, TreeSearchConfig, evaluate, train_in_imagination
from worldmodel import collect, fit, make


class Catch(gym.Env):
    """A ball falls; 1 if the paddle (left, stay, right) is below it where it lands."""

    observation_space = gym.spaces.Box(0, 255, (16, 16, 1), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.height, self.paddle, self.ball = 0, 7, int(self.np_random.integers(14))
        return self.draw(), {}

    def step(self, action: int) -> Any:
        self.height += 2
        self.paddle = int(np.clip(self.paddle + 2 * (action - 1), 0, 13))
        landed = self.height == 14
        return self.draw(), float(landed and abs(self.ball - self.paddle) <= 1), landed, False, {}

    def draw(self) -> np.ndarray:
        frame = np.zeros((16, 16, 1), np.uint8)
        frame[self.height : self.height + 2, self.ball : self.ball + 2] = 255
        frame[14:, self.paddle : self.paddle + 3] = 160
        return frame


@dataclass(frozen=True)
class Settings:
    """How much of everything."""

    episodes: int = 1000
    """Of random play, to learn from."""
    fit_steps: int = 2000
    imagined_steps: int = 20_000
    test_episodes: int = 100
    folder: Path | None = None
    """Keep the world model there; None keeps nothing."""


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)

    episodes = collect(Catch(), args.episodes)
    model = make("jump", episodes.spec(window=7))
    fit(model, episodes.windows(window=7, batch_size=32), args.fit_steps, folder=args.folder)
    agent = train_in_imagination(model, episodes.starts(), args.imagined_steps)
    planner = TreeSearch(model, TreeSearchConfig(plans=256, worlds=1, horizon=7))

    players = {
        "random": RandomAgent(Catch.action_space),
        "PPO, trained in imagination": agent,
        "tree search": planner,
    }
    for name, player in players.items():
        returns = evaluate(player, Catch, args.test_episodes, seed=10**6)
        print(f"{name:>28}: {returns.mean():.2f} of the balls are caught")


if __name__ == "__main__":
    main()
