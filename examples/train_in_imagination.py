"""An agent that learns without a single real step: PPO, in what a world model imagines.

The actor visits four shapes; the action names the colour to walk to, and is held for five steps,
the way to a shape. The world model, which comes with the package, jumps over those five: one frame
is rendered for each decision, and none in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch
import tyro

import worldmodel
from agents import ImaginationVideo, RandomAgent, RealReturns, train_in_imagination
from envs import sample_scenes
from evaluation.measurements.control import Contestant, Control
from worldmodel.common import results

ENV = "narratives/TravelingSalesman-v0"
HOLD = 5


@dataclass(frozen=True)
class Settings:
    """How much of everything; the default takes about three minutes on one CPU thread."""

    steps: int = 30_000
    """Imagined decisions to learn from."""
    starts: int = 2048
    """First frames of real episodes, where imagined ones begin."""
    episodes: int = 100
    """Real test episodes, played at the end."""
    out: Path = Path("outputs/train_in_imagination")


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    model = worldmodel.load("traveling-salesman")
    scenes = sample_scenes(f"envs:{ENV}", args.starts, size=32)
    starts = scenes.observations(torch.zeros(args.starts, 1, dtype=torch.int64))[:, 0].numpy()

    # SB3's PPO in ImaginedVecEnv, with four frames stacked. TensorBoard gets what imagination
    # promises (rollout/ep_rew_mean), what reality pays (real/return), and films of both.
    def real() -> gym.Env:
        return gym.make(f"envs:{ENV}", size=32)

    every = max(1, args.steps // 3)
    watch = [
        RealReturns(real, every, min(args.episodes, 20), hold=HOLD, frame_stack=4),
        ImaginationVideo(real(), model, every, hold=HOLD),
    ]
    ppo = train_in_imagination(
        model, starts, args.steps, hold=HOLD, frame_stack=4, callback=watch,
        tensorboard_log=str(args.out), progress_bar=True,
    )  # fmt: skip
    ppo.save(args.out / "ppo")

    random = RandomAgent(model.spec.action.to_space())
    players = {"random play": Contestant(random), "PPO": Contestant(ppo, frame_stack=4)}
    rows = Control(env=ENV, episodes=args.episodes, hold=HOLD).play(players)
    print(f"Real returns of {args.episodes} test episodes (normalised: random 0, best tour 1):")
    print(results.table(rows, ["agent", "return", "normalised_return", "low", "high"]))
    print(f"The agent: {args.out / 'ppo.zip'}\nCurves and films: tensorboard --logdir {args.out}")
    print("Look whether real/return rises with rollout/ep_rew_mean, which was only imagined.")


if __name__ == "__main__":
    main()
