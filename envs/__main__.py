"""Look at the environments: ``python -m envs list | record ID --out clip.mp4 | sheet | bench``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import torch
import tyro
from PIL import Image

from envs import ENV_IDS
from envs.bench import bench, envelope, yardstick
from envs.video import check_suffix, contact_sheet, everything, film, mosaic, write_film
from worldmodel.common import cli


@dataclass(frozen=True)
class List:
    """Show every environment with its spaces."""

    def run(self) -> None:
        """Print one line for each id."""
        for env_id in ENV_IDS:
            env = gym.make(env_id)
            print(f"envs:{env_id:40} {env.action_space!s:34} {env.observation_space}")


@dataclass(frozen=True)
class Record:
    """Film an agent that acts at random.

    Args:
        env_id: id of the environment.
        out: where the film goes, .mp4 or .gif.
        episodes: how many.
        seed: of scenes and actions.
        hold: steps for which a random action is kept; None for what the scene suggests.
        size: height and width of a frame in pixels, a multiple of 8.
    """

    env_id: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ID")]]
    out: Path
    episodes: int = 3
    seed: int = 0
    hold: int | None = None
    size: int = 256

    def run(self) -> None:
        """Play, film and say where the film is."""
        check_suffix(self.out, ".mp4", ".gif")
        films = film(
            self.env_id, episodes=self.episodes, seed=self.seed, hold=self.hold, size=self.size
        )
        frames = np.concatenate(films)
        fps = gym.make(self.env_id).metadata["render_fps"]
        write_film(self.out, frames, fps)
        print(f"{self.episodes} episodes, {len(frames)} frames: {self.out}")


@dataclass(frozen=True)
class Sheet:
    """Show random play of all environments: a .png, .gif or .mp4.

    Args:
        out: where it goes.
        side: height and width of one picture in pixels, a multiple of 64; frames are enlarged.
        seed: of scenes and actions.
        length: frames of the film.
        fps: its speed, frames per second.
    """

    out: Path
    side: int = 128
    seed: int = 0
    length: int = 48
    fps: int = 5

    def run(self) -> None:
        """Play, draw and say where the picture is."""
        check_suffix(self.out, ".png", ".gif", ".mp4")
        films = everything(ENV_IDS, self.side, self.seed)
        if self.out.suffix == ".png":
            self.out.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(contact_sheet(films)).save(self.out, optimize=True)
        else:
            write_film(self.out, mosaic(films, self.length), self.fps)
        print(f"{len(films)} environments: {self.out}")


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
        """Measure, print and write."""
        torch.set_num_threads(self.num_threads)
        atari = yardstick()
        if atari is None:
            print("no yardstick: install ale-py to measure ALE/Pong-v5 beside ours")
        ids = [*self.envs, *([atari] if atari else [])]
        rows = bench(ids, self.batches, self.size, self.seconds, self.seed)
        for row in rows:
            print(
                "{env:36} {mode:7} batch {batch:4} {frames_per_second:9.0f} frames/s".format(**row)
            )
        if self.json is not None:
            report = envelope({k: v for k, v in asdict(self).items() if k != "json"}, rows)
            self.json.write_text(json.dumps(report, indent=1) + "\n")
            print(f"{len(rows)} rows: {self.json}")


VERBS = {"list": List, "record": Record, "sheet": Sheet, "bench": Bench}


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("envs", VERBS, "Look at the environments: list, film and time them.")


if __name__ == "__main__":
    main()
