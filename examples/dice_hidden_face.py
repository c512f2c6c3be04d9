"""A cube with a digit on each side. Five views show three sides; what is on the fourth?

Nobody can know, so each sampled room may have another digit there. But within one room it is one
digit, from wherever one looks: that is what it means to sample a scene and not a picture.

The model is ``dice-views``, which came with the package. ``--train`` trains one from poses alone
for some minutes instead, too few for sharp digits; run it again to go on where it was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium as gym
import torch
import tyro

import worldmodel
from evaluation.metrics.dice_consistency import draw
from worldmodel import Spec, WorldModel
from worldmodel.training import STATE


@dataclass(frozen=True)
class Settings:
    """Which model, and which scene."""

    checkpoint: str = "dice-views"
    """A model of dice/Views-v0: a folder, or the name of a shipped one."""
    train: bool = False
    """Train another one instead, about six minutes of one CPU thread."""
    steps: int = 1500
    """Of the whole training; digits need tens of thousands."""
    batch_size: int = 32
    scene: int = 0
    """Number of the test scene."""
    out: Path = Path("outputs/dice_hidden_face")


def train(args: Settings) -> WorldModel:
    env = gym.make("envs:dice/Views-v0", size=32)
    source = env.unwrapped.scenes(batch_size=args.batch_size)
    pose = source.batch(0).poses(torch.zeros(args.batch_size, 1, dtype=torch.int64))
    spec = Spec.from_spaces(env.observation_space, env.action_space, 9, pose=pose.shape[-1])
    config = replace(
        worldmodel.preset("jump", "views"), context_frames=10, context_max=5, targets=3,
        variance_start=0.5, variance_end=0.03, anneal=0.4,
    )  # fmt: skip
    model = worldmodel.make("jump", spec, config)
    folder = args.out / f"model-{args.steps}"
    begun = (folder / STATE).exists()
    worldmodel.fit(model, source, args.steps, folder=folder, resume=begun, save_minutes=1)
    print(f"The model: --checkpoint {folder}")
    return model


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    model = train(args) if args.train else worldmodel.load(args.checkpoint)
    picture = args.out / "hidden_face.png"
    # model.observe(five views); model.sample(belief, 2): two rooms; model.predict(rooms, all views)
    draw({"two rooms": model}, picture, args.scene, worlds=2, scale=4)
    print(f"{picture}: five views that were shown (yellow) and three of the hidden side; below,")
    print("the same views of two sampled rooms. Look at the last three of each row: one digit?")
    print("Whether they agree numbers tell: python -m evaluation consistency dice-views")


if __name__ == "__main__":
    main()
