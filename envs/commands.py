"""Verbs of ``python -m envs``: list, record and time the environments."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import torch
import tyro
from PIL import Image

from envs import ENV_IDS
from envs.bench import bench, yardstick
from envs.video import contact_sheet, mosaic, random_videos, videos_of_all
from worldmodel.common import results
from worldmodel.common.files import check_suffix, check_writable
from worldmodel.common.video import write_video


@dataclass(frozen=True)
class List:
    """Show every environment with its spaces."""

    def run(self) -> None:
        for env_id in ENV_IDS:
            env = gym.make(env_id)
            print(f"envs:{env_id:40} {env.action_space!s:34} {env.observation_space}")


@dataclass(frozen=True)
class Record:
    """Record videos of random play.

    Args:
        env_id: id of the environment.
        out: where the video goes, .mp4 or .gif.
        episodes: how many.
        seed: of scenes and actions.
        hold: steps for which a random action is held; None for the simulator's own.
        size: height and width of a frame in pixels, a multiple of 8.
    """

    env_id: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ID")]]
    out: Path
    episodes: int = 3
    seed: int = 0
    hold: int | None = None
    size: int = 256

    def run(self) -> None:
        check_suffix(self.out, ".mp4", ".gif", name="out")
        videos = random_videos(
            self.env_id, episodes=self.episodes, seed=self.seed, hold=self.hold, size=self.size
        )
        frames = np.concatenate(videos)
        fps = gym.make(self.env_id).metadata["render_fps"]
        write_video(self.out, frames, fps)
        print(f"{self.episodes} episodes, {len(frames)} frames: {self.out}")


@dataclass(frozen=True)
class Sheet:
    """Show random play of all environments: a .png, .gif or .mp4.

    Args:
        out: where it goes.
        side: height and width of one picture in pixels, a multiple of 64; frames are enlarged.
        seed: of scenes and actions.
        length: frames of a .gif or .mp4.
        fps: its speed, frames per second.
    """

    out: Path
    side: int = 128
    seed: int = 0
    length: int = 48
    fps: int = 5

    def run(self) -> None:
        check_suffix(self.out, ".png", ".gif", ".mp4", name="out")
        videos = videos_of_all(ENV_IDS, self.side, self.seed)
        if self.out.suffix == ".png":
            self.out.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(contact_sheet(videos)).save(self.out, optimize=True)
        else:
            write_video(self.out, mosaic(videos, self.length), self.fps)
        print(f"{len(videos)} environments: {self.out}")


@dataclass(frozen=True)
class Bench:
    """Measure frames per second, single and vector.

    With ale-py installed, ALE/Pong-v5 is measured in the same run, as a yardstick.

    Args:
        json: file for the numbers.
        envs: ids to measure; all of ours by default.
        batches: sizes of the vector environment.
        size: height and width of a frame in pixels, a multiple of 8.
        seconds: how long to measure each.
        seed: of scenes and actions.
        num_threads: threads that torch may use.
    """

    json: Path | None = None
    envs: tuple[str, ...] = ENV_IDS
    batches: tuple[int, ...] = (1, 16, 256)
    size: int = 64
    seconds: float = 2.0
    seed: int = 0
    num_threads: int = 1

    def run(self) -> None:
        torch.set_num_threads(self.num_threads)
        if self.json is not None:
            check_writable(self.json)
        atari = yardstick()
        if atari is None:
            print("no yardstick: install ale-py to measure ALE/Pong-v5 with ours")
        ids = [*self.envs, *([atari] if atari else [])]
        rows = bench(ids, self.batches, self.size, self.seconds, self.seed)
        for row in rows:
            print(
                "{env:36} {mode:7} batch {batch:4} {frames_per_second:9.0f} frames/s".format(**row)
            )
        if self.json is not None:
            settings = {k: v for k, v in asdict(self).items() if k != "json"}
            packages = ["torch", "gymnasium", "numpy", *(["ale-py"] if atari else [])]
            result = results.envelope("envs", settings, rows, packages)
            print(f"{len(rows)} rows: {results.write(self.json, result)}")
