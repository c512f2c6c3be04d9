"""What a second worker or process brings: throughput, side by side in interleaved rounds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import worldmodel
from agents import RandomShooting, RandomShootingConfig
from evaluation.measurements.control import Control
from evaluation.metrics import statistics
from evaluation.runner.measurement import OfCheckpoint, Row
from evaluation.runner.partial_results import PartialResults
from evaluation.runner.trained_agents import Contestant
from worldmodel import collect
from worldmodel.common.cluster import connected
from worldmodel.common.progress import progress
from worldmodel.common.timing import interleaved

EVERY = 50
"""Steps between ``fit``'s logs, whose times give the speed of training."""


@dataclass(frozen=True)
class Scaling(OfCheckpoint):
    """Throughput of collection, evaluation and training with one worker and with two."""

    name = "scaling"
    workers: tuple[int, ...] = (1, 2)
    """Numbers of Ray's workers, and of training processes; the first is the measure."""
    episodes: int = 400
    """Recorded in each round."""
    players: int = 4
    """Planners, one for each item of work."""
    played: int = 16
    """Episodes that each planner plays in a round."""
    steps: int = 150
    """Of training, in each round; a multiple of 50, at least 100."""
    batch: int = 32
    """Scenes of a training step over all processes, a multiple of each number of workers."""
    repeats: int = 6
    """Rounds, in which the numbers of workers take turns; from 6 on their intervals are of 95%."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``kind, workers, unit, per_second, speedup, low, high, n, load``.

        ``kind`` is collection (random play), evaluation (planners that play) or training.
        ``speedup`` is the median of the ratios to the first number of workers, taken within the
        rounds; ``low`` and ``high`` are its interval. Starting processes does not count: they are
        there, and training is timed between its logs. ``load`` is how many processes wanted to run
        (mean of a minute) before anything was measured.

        Raises:
            ValueError: ``steps`` or ``batch`` cannot be divided so.
        """
        if (
            self.steps < 2 * EVERY
            or self.steps % EVERY
            or any(self.batch % count for count in self.workers)
        ):
            raise ValueError(
                f"steps, batch: expected a multiple of {EVERY} above it, and one of "
                f"{self.workers}, got {self.steps} and {self.batch}"
            )
        load = os.getloadavg()[0]
        model = worldmodel.load(self.checkpoint)
        env, size, hold = self.environment(), model.spec.observation[1], 5
        make = partial(gym.make, f"envs:{env}", size=size)
        config = RandomShootingConfig(plans=64, hold=hold, horizon=model.spec.window // hold)
        agents = {
            f"planner {i}": Contestant(RandomShooting(model, config)) for i in range(self.players)
        }
        jobs: dict[tuple[str, int], Callable[[], object]] = {}
        for count in self.workers:
            jobs["collection", count] = partial(
                collect, make, self.episodes, workers=count, progress=False
            )
            control = Control(env=env, episodes=self.played, hold=hold, workers=count)
            jobs["evaluation", count] = partial(control.play, agents, size)
        with connected(max(self.workers)):
            seconds = interleaved(jobs, self.repeats)
        amounts = {
            "collection": self.episodes, "evaluation": self.players * self.played, "training": 1,
        }  # fmt: skip
        for count in self.workers:
            seconds["training", count] = np.zeros(self.repeats)
        for turn in progress(range(self.repeats), "training", "round"):
            for count in self.workers:
                taken = _seconds_per_scene(env, size, self.steps, self.batch, count)
                seconds["training", count][turn] = taken
        return [{**row, "load": load} for row in _rows(seconds, amounts, self.workers)]


def _rows(
    seconds: Mapping[tuple[str, int], NDArray[np.float64]],
    amounts: Mapping[str, int],
    workers: tuple[int, ...],
) -> list[Row]:
    rows = []
    for kind, amount in amounts.items():
        for count in workers:
            times = seconds[kind, count]
            speedup = statistics.median(seconds[kind, workers[0]] / times)
            row = {"kind": kind, "workers": count}
            row |= {"unit": "scenes" if kind == "training" else "episodes"}
            row |= {"per_second": amount / float(np.median(times))}
            rows.append({**row, **speedup.columns("speedup")})
    return rows


def _seconds_per_scene(env: str, size: int, steps: int, batch: int, processes: int) -> float:
    """Of training in separate processes, between the first log and the last."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "worldmodel", "train", "--env", f"envs:{env}", "--size", str(size)]
        words += ["--steps", str(steps), "--batch-size", str(batch // processes)]
        words += ["--devices", str(processes), "--device", "cpu", "--video-every", "0"]
        done = subprocess.run(
            [sys.executable, *words, "--out", folder], check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise ChildProcessError(f"training: exit status {done.returncode}: {done.stderr}")
        log = EventAccumulator(str(Path(folder))).Reload().Scalars("world_model/loss")
    seconds = float(log[-1].wall_time - log[0].wall_time)
    return seconds / (int(log[-1].step - log[0].step) * batch)
