"""Two ways to look before you leap: a planner, and PPO that sees where each action would lead.

A planner needs no training: it draws plans, scores all of them in the same sampled worlds, and does
the first action of the best. ``LookaheadVecWrapper`` puts what each action may bring beside what an
agent sees; what to make of it, it learns from real steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

import worldmodel
from agents import (
    HoldAction,
    LookaheadPolicy,
    LookaheadVecWrapper,
    RandomAgent,
    TreeSearch,
    TreeSearchConfig,
)
from evaluation.measurements.control import Contestant, Control
from worldmodel.common import results

ENV = "narratives/TravelingSalesman-v0"
HOLD = 5


@dataclass(frozen=True)
class Settings:
    """How much of everything; the default takes a few minutes on one CPU thread."""

    plans: int = 256
    """Scored at each decision of the planner."""
    decisions: int = 1024
    """Real ones that PPO learns from, of five steps each."""
    episodes: int = 32
    out: Path = Path("outputs/plan_with_lookahead")


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    model = worldmodel.load("traveling-salesman-jumpy")

    def real() -> gym.Env:
        return gym.make(f"envs:{ENV}", size=32)

    config = TreeSearchConfig(plans=args.plans, worlds=1, horizon=4, hold=HOLD)
    planner = TreeSearch(model, config)
    action, _ = planner.predict(real().reset(seed=0)[0][None])
    scores = planner.last.scores[0]
    print(f"One decision: {len(scores)} plans promise {scores.min():.2f} to {scores.max():.2f};")
    print(f"action {action[0]} begins the best, which is {planner.last.chosen[0].tolist()}")

    def imagine(venv: VecEnv) -> VecEnv:  # 4 x 4 plans of two decisions, of which nothing is shown
        return LookaheadVecWrapper(venv, model, jumps=1, hold=HOLD, frames=False, depth=2)

    venv = imagine(VecMonitor(DummyVecEnv([lambda: HoldAction(real(), HOLD)] * 8)))
    ppo = PPO(
        LookaheadPolicy, venv, n_steps=16, batch_size=64, n_epochs=4, learning_rate=3e-3,
        gamma=0.98, ent_coef=0.01, seed=0, tensorboard_log=str(args.out),
    )  # fmt: skip
    ppo.learn(args.decisions, progress_bar=True)

    players = {
        "random play": Contestant(RandomAgent(model.spec.action.to_space())),
        "tree search": Contestant(planner),
        "PPO with lookahead": Contestant(ppo, real_steps=ppo.num_timesteps * HOLD, wrap=imagine),
    }
    rows = Control(env=ENV, episodes=args.episodes, hold=HOLD).play(players)
    print(f"Real returns of {args.episodes} test episodes (normalised: random 0, best tour 1):")
    print(results.table(rows, ["agent", "real_steps", "normalised_return", "low", "high"]))
    print(f"Look how PPO's rollout/ep_rew_mean rises: tensorboard --logdir {args.out}")


if __name__ == "__main__":
    main()
