"""Look at the environments: ``python -m envs list | record ID --out clip.mp4 | bench``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from PIL import Image
from tqdm import tqdm

from envs import ENV_IDS


@dataclass(frozen=True)
class List:
    """Show every environment with its spaces."""

    def run(self) -> None:
        """Print one line for each id."""
        for env_id in ENV_IDS:
            env = gym.make(env_id)
            print(f"envs:{env_id:40} {env.action_space!s:14} {env.observation_space}")


@dataclass(frozen=True)
class Record:
    """Film an agent that acts at random.

    Args:
        env_id: id of the environment.
        out: where the film goes, .mp4 or .gif.
        episodes: how many.
        seed: of scenes and actions.
        hold: steps for which a random action is kept.
        size: height and width of a frame in pixels, a multiple of 8.
    """

    env_id: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ID")]]
    out: Path
    episodes: int = 3
    seed: int = 0
    hold: int = 5
    size: int = 256

    def run(self) -> None:
        """Play, film and say where the film is."""
        if self.out.suffix not in (".mp4", ".gif"):
            raise ValueError(f"out must end in .mp4 or .gif, got {self.out}")
        if self.episodes < 1 or self.hold < 1:
            raise ValueError("episodes and hold must be at least 1")
        env = gym.make(self.env_id, size=self.size, render_mode="rgb_array")
        env.action_space.seed(self.seed)
        frames: list[Any] = []
        for episode in tqdm(range(self.episodes), unit="episode"):
            env.reset(seed=self.seed if episode == 0 else None)
            frames.append(env.render())
            over, step, action = False, 0, None
            while not over:
                if step % self.hold == 0:
                    action = env.action_space.sample()
                _, _, terminated, truncated, _ = env.step(action)
                frames.append(env.render())
                over, step = terminated or truncated, step + 1
        _write_film(self.out, frames, env.metadata["render_fps"])
        print(f"{self.episodes} episodes, {len(frames)} frames: {self.out}")


@dataclass(frozen=True)
class Bench:
    """Measure frames per second of the single and the vector environment.

    Args:
        json: file for the numbers.
        batches: sizes of the vector environment.
        size: height and width of a frame in pixels, a multiple of 8.
        seconds: how long to measure each.
        seed: of scenes and actions.
        num_threads: threads that torch may use.
    """

    json: Path | None = None
    batches: tuple[int, ...] = (1, 16, 256)
    size: int = 64
    seconds: float = 2.0
    seed: int = 0
    num_threads: int = 1

    def run(self) -> None:
        """Measure, print and write."""
        torch.set_num_threads(self.num_threads)
        modes = [("single", 1), *(("vector", batch) for batch in self.batches)]
        jobs = [(env_id, mode, batch) for env_id in ENV_IDS for mode, batch in modes]
        rows = []
        for env_id, mode, batch in tqdm(jobs, unit="row"):
            speed = self._measure(env_id, mode, batch)
            rows.append({"env": env_id, "mode": mode, "batch": batch, "frames_per_second": speed})
        for row in rows:
            print(
                "{env:40} {mode:7} batch {batch:4} {frames_per_second:9.0f} frames/s".format(**row)
            )
        if self.json is not None:
            report = _envelope({k: v for k, v in asdict(self).items() if k != "json"}, rows)
            self.json.write_text(json.dumps(report, indent=2) + "\n")
            print(f"{len(rows)} rows: {self.json}")

    def _measure(self, env_id: str, mode: str, batch: int) -> float:
        env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]
        if mode == "single":
            env = gym.make(env_id, size=self.size)
        else:
            env = gym.make_vec(env_id, num_envs=batch, size=self.size)
        env.reset(seed=self.seed)
        env.action_space.seed(self.seed)
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < self.seconds:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if mode == "single" and (terminated or truncated):
                env.reset()
            steps += 1
        return steps * batch / (time.perf_counter() - start)


def _write_film(out: Path, frames: list[Any], fps: int) -> None:
    """Encode frames, uint8 (H, W, 3) each."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".gif":  # Pillow keeps every frame; moviepy's encoder drops some
        first, *rest = [Image.fromarray(np.asarray(frame)) for frame in frames]
        first.save(out, save_all=True, append_images=rest, duration=1000 // fps, loop=0)
        return
    from moviepy import ImageSequenceClip

    clip = ImageSequenceClip([np.asarray(frame) for frame in frames], fps=fps)
    clip.write_videofile(str(out), fps=fps, codec="libx264", audio=False, logger=None)


def _envelope(settings: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The envelope of ``evaluation.results``, which this package may not import."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "benchmark": "envs",
        "command": " ".join(["python -m envs", *sys.argv[1:]]),
        "commit": commit or None,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "accelerator": None,
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in ("torch", "gymnasium", "numpy")},
        "settings": settings,
        "rows": rows,
    }


def main() -> None:
    """Run the verb that the command line names."""
    verb = tyro.extras.subcommand_cli_from_dict(
        {"list": List, "record": Record, "bench": Bench},
        description=__doc__,
        prog="python -m envs",
    )
    try:
        verb.run()
    except (ValueError, gym.error.Error) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
