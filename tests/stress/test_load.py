"""Load: long soaks with flat memory, many environments at once, more episodes than memory holds.

Memory is the resident size that Linux tells of this process, sampled every few steps after what
was freed is given back. Its slope is that of a least-squares line through the samples after a
warm-up (caches, thread pools). Bounds are what one object that is kept by mistake would take.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from agents import ImaginedVecEnv, RandomShooting, RandomShootingConfig
from tests.stress.load_jobs import ACTION, CONFIG, status
from worldmodel import Spec, make, unpack
from worldmodel.common.tensorboard import add_video
from worldmodel.common.video import write_video

PROC = Path("/proc/self")
LIBC = ctypes.CDLL(None) if PROC.exists() else None
pytestmark = pytest.mark.skipif(
    not hasattr(LIBC, "malloc_trim"),
    reason="memory is read from Linux's /proc, and trimmed by glibc",
)

Size = Callable[[int, int], int]
WARM_UP, SAMPLES = 0.3, 25


@dataclass
class Soak:
    """Samples of this process along some steps."""

    steps: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    def sample(self, step: int) -> None:
        gc.collect()
        LIBC.malloc_trim(0)
        self.steps.append(step)
        self.bytes.append(status("VmRSS"))
        self.threads.append(len(os.listdir(PROC / "task")))
        self.handles.append(len(os.listdir(PROC / "fd")))

    def check(self, tally, name: str, bound: float) -> None:
        """Flat after the warm-up: at most ``bound`` bytes more per step, no thread, no handle."""
        warm = int(WARM_UP * len(self.steps))
        slope = float(np.polyfit(self.steps[warm:], self.bytes[warm:], 1)[0])
        tally.put("load", f"{name}: steps", self.steps[-1])
        tally.put("load", f"{name}: bytes per step", round(slope, 3))
        for kind, counts in (("threads", self.threads), ("handles", self.handles)):
            tally.put("load", f"{name}: {kind} more", counts[-1] - counts[warm])
            assert counts[-1] <= counts[warm], (kind, counts)
        assert slope < bound, (slope, self.bytes[warm:])


def tiny_jump():
    model = make("jump", Spec((1, 16, 16), ACTION, 8), CONFIG, seed=0)
    torch.nn.init.constant_(model.heads.out[-1].bias, 2.0)  # some episodes end, most go on
    return model


# -- soaks -----------------------------------------------------------------------------------------


def test_imagined_environments_run_for_long(size: Size, tally) -> None:
    """1,024 at a time. An observation has 256 bytes, and a number that is kept more than 16.

    Episodes end together: convolutions keep a plan for each size of batch that they met (oneDNN's
    cache of 1,024), some 30 MiB in the first hundreds of steps where they end by chance.
    """
    envs, decisions = 1024, size(10, 1000)
    starts = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), np.uint8)
    model = tiny_jump()
    torch.nn.init.constant_(model.heads.out[-1].bias, 100.0)  # only the horizon ends episodes
    venv = ImaginedVecEnv(model, starts, envs, hold=2)
    observations, soak, random, ended = venv.reset(), Soak(), np.random.default_rng(1), 0
    for decision in range(decisions):
        observations, rewards, dones, infos = venv.step(random.integers(4, size=envs))
        ended += int(dones.sum())
        if decision % max(1, decisions // SAMPLES) == 0:
            soak.sample(decision * envs)
    assert observations.shape == (envs, 16, 16, 1) and len(infos) == envs
    assert np.isfinite(rewards).all() and ended > envs
    tally.put("load", "imagined environments: at once", envs)
    tally.put("load", "imagined environments: episodes", ended)
    soak.sample(decisions * envs)
    soak.check(tally, "imagined environments", size(256, 16))


def test_a_planner_decides_for_long(size: Size, tally) -> None:
    """A frame kept for each decision would be 256 bytes; the long run sees less."""
    decisions = size(60, 10_000)
    planner = RandomShooting(tiny_jump(), RandomShootingConfig(plans=8, worlds=2, horizon=3))
    random, state, soak = np.random.default_rng(0), None, Soak()
    for decision in range(decisions):
        frame = random.integers(0, 256, (1, 16, 16, 1), np.uint8)
        begun = np.array([decision % 50 == 0])
        actions, state = planner.predict(frame, state, begun)
        assert ACTION.to_space().contains(int(actions[0]))
        if decision % max(1, decisions // SAMPLES) == 0:
            soak.sample(decision)
    soak.check(tally, "planner", size(4096, 64))


def test_many_videos_in_tensorboard(size: Size, tally, tmp_path: Path) -> None:
    """A clip of ten frames has 480 KiB when it is laid out: a hundredth kept would be seen.

    Samples are taken where a run has ended: enough of them, that there is a warm-up, and that some
    pages of the allocator are not taken for clips.
    """
    clips = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    videos, soak = size(200, 2000), Soak()
    for number in range(videos):
        if number % 20 == 0:  # runs begin and end
            writer = SummaryWriter(tmp_path / str(number))
        add_video(writer, "clip", clips, number)
        if number % 20 == 19:
            writer.close()
            if number % (videos // 20) == videos // 20 - 1:
                soak.sample(number + 1)
    soak.check(tally, "videos in TensorBoard", size(4800, 1024))


def test_many_films(size: Size, tally, tmp_path: Path) -> None:
    """MP4 goes through a process of ffmpeg: pipes, threads and children must end with it."""
    clips = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    films, soak = size(6, 200), Soak()
    for number in range(films):
        write_video(tmp_path / "film.mp4", clips, fps=8)
        write_video(tmp_path / "film.gif", clips, fps=8)
        soak.sample(number + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.gif", "film.mp4"]
    soak.check(tally, "films", size(480 * 1024, 4096))


# -- more episodes than memory ---------------------------------------------------------------------

MARGIN = 64 * 2**20
"""Beside the shards: a batch, code that is first run, an optimizer; the same for any number of
episodes."""
MARGIN_OF_PAGES = 64 * 2**10
"""A file's last page counts whole."""


def test_episodes_that_do_not_fit_into_memory(size: Size, tally, tmp_path: Path) -> None:
    count, memory = size(1500, 100_000), size(5, 40) * 2**20
    run("write", tmp_path / "packed", count)
    folder = unpack(tmp_path / "packed", tmp_path / "episodes")
    told = json.loads(run("stream", folder, memory, size(20, 400)))
    for name, value in told.items():
        tally.put("load", f"episodes on disk: {name}", value)
    tally.put("load", "episodes on disk: ceiling", memory)
    assert told["episodes"] == count and told["bytes"] > 4 * memory
    assert 0 < told["mapped"] <= memory + MARGIN_OF_PAGES
    assert told["grown"] <= memory + MARGIN


def run(*words: object) -> str:
    job = [sys.executable, str(Path(__file__).with_name("load_jobs.py")), *map(str, words)]
    done = subprocess.run(job, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""
