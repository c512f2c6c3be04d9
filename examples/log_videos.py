"""Videos in TensorBoard that one can see: by hand, while PPO learns, while a world model learns.

With moviepy 2, ``SummaryWriter.add_video`` loses the video without an error. ``add_video`` of this
library does not, and the callbacks for SB3's algorithms and for ``worldmodel.fit`` use it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

import worldmodel
from agents import ImaginationVideo, compare, train_in_imagination
from envs import SceneStream, sample_scenes
from worldmodel.common.tensorboard import add_video
from worldmodel.common.video import write_video
from worldmodel.imagine import ImaginedVideo, imagine, video

ENV = "narratives/TravelingSalesman-v0"


@dataclass(frozen=True)
class Settings:
    """How much of everything; the default takes about a minute on one CPU thread."""

    ppo_steps: int = 3072
    fit_steps: int = 100
    out: Path = Path("outputs/log_videos")
    """Each run gets a folder of its own in there."""


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    logs = args.out / time.strftime("%Y%m%d-%H%M%S")
    model = worldmodel.load("traveling-salesman")
    env = gym.make(f"envs:{ENV}", size=32)
    scenes = sample_scenes(ENV, 3, split="test", size=32)

    # By hand: any clip (T, H, W, C), or several (N, T, H, W, C), which are laid out side by side.
    futures = video(imagine(model, scenes, [0], range(21), worlds=3))
    with SummaryWriter(str(logs)) as writer:
        add_video(writer, "truth above three worlds", futures, step=0, fps=4)
        clip = compare(model, env, hold=5, worlds=1).side_by_side()
        add_video(writer, "real beside imagined", clip, step=0, fps=4)
    gif = write_video(logs / "futures.gif", futures, fps=4)  # or .mp4

    # While PPO learns in imagination: what it does for real, beside what the model expects of it.
    watch = ImaginationVideo(env, model, every=max(1, args.ppo_steps // 3), hold=5)
    train_in_imagination(
        model, env, args.ppo_steps, hold=5, num_envs=16, frame_stack=4, callback=watch,
        tensorboard_log=str(logs), progress_bar=True,
    )  # fmt: skip

    # While a world model learns: truth above what it imagines by then.
    fresh = worldmodel.make("jump", model.spec)
    watch = ImaginedVideo(scenes, every=max(1, args.fit_steps // 2))
    source = SceneStream(ENV, batch_size=16, size=32)
    worldmodel.fit(fresh, source, args.fit_steps, folder=logs / "fit", callbacks=[watch])

    print("Clips, in the tab Images of TensorBoard:")
    for file in sorted(logs.rglob("events.out*")):
        events = EventAccumulator(str(file), {"images": 0}).Reload()
        for tag in events.Tags()["images"]:
            print(f"{len(events.Images(tag)):>4} x {tag}, {file.parent}")
    print(f"See them: tensorboard --logdir {logs} --samples_per_plugin images=100\nA file: {gif}")


if __name__ == "__main__":
    main()
