"""Show any frames of a scene and ask for any others: the future, the past, what lies in between.

Models that go frame by frame look ahead only. One that jumps takes a scene as a set of frames. Here
the same test scene is asked for three times; the shipped model is shown its first frame, its last
one, or both. It is told the actions, too, which name the shape that the actor walks to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

import worldmodel
from envs import sample_scenes
from evaluation.report.pictures import labelled, save
from worldmodel.common.video import write_video
from worldmodel.imagine import imagine, sheet, video


@dataclass(frozen=True)
class Settings:
    """What is looked at; seconds on one CPU thread."""

    checkpoint: str = "traveling-salesman"
    """Shipped name, or a folder of yours with its ``env``."""
    env: str = "narratives/TravelingSalesman-v0"
    scene: int = 0
    """Number of the test scene."""
    last: int = 20
    """Time of the last frame."""
    worlds: int = 3
    out: Path = Path("outputs/backwards_and_in_between")


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    model = worldmodel.load(args.checkpoint)
    size = model.spec.observation[-1]
    scene = sample_scenes(args.env, 1, split="test", size=size, index=args.scene)
    questions = {"the future": [0], "the past": [args.last], "in between": [0, args.last]}

    bands, videos = [], []
    for name, times in questions.items():
        print(f"{name}: context {times}, queries 0 .. {args.last}", flush=True)
        some = imagine(model, scene, times, range(0, args.last + 1, 2), args.worlds)
        bands.append(labelled(sheet(some), name))
        every = imagine(model, scene, times, range(args.last + 1), args.worlds)
        videos.append(video(every, scale=3))
    save(bands, args.out / "sheet.png")
    write_video(args.out / "video.gif", np.stack(videos), fps=4, captions=list(questions))

    print(f"{args.out}/sheet.png: bands of truth, with yellow what was shown, above sampled worlds")
    print(f"{args.out}/video.gif: the same, every frame")
    print("Look at the first frames of the past. The last frame does not tell where the actor came")
    print(
        "from: it is smeared over where it may have been, and clear again at the first shape, which"
    )
    print("the actions name. Told both ends, the model knows where it began.")


if __name__ == "__main__":
    main()
