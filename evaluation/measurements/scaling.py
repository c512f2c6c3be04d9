"""What a second worker or process brings: throughput, side by side in interleaved rounds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import worldmodel
from agents import RandomShooting, RandomShootingConfig
from evaluation.measurements.control import Contestant, control
from evaluation.metrics import statistics
from evaluation.runner.progress import shown
from worldmodel import collect
from worldmodel.common.cluster import connected
from worldmodel.common.timing import interleaved

EVERY = 50
"""Steps between ``fit``'s logs, whose times tell how fast it trains."""


def scaling(
    env: str,
    checkpoint: str,
    *,
    workers: tuple[int, ...] = (1, 2),
    episodes: int = 400,
    players: int = 4,
    played: int = 16,
    steps: int = 150,
    batch: int = 32,
    repeats: int = 6,
) -> list[dict[str, Any]]:
    """Rows ``kind, workers, unit, per_second, speedup, low, high, n, load``.

    ``kind`` is collection (random play), evaluation (planners that play) or training (``batch``
    scenes a step in all, over so many processes). ``speedup`` is the median of the ratios to the
    first number of workers, taken within the rounds; ``low`` and ``high`` are its interval.
    Starting processes does not count: they are there, and training is timed between its logs.
    ``load`` is how many processes wanted to run (mean of a minute) before anything was measured.

    Args:
        env: id of one of our environments with an agent.
        checkpoint: the world model of the planners, made for it.
        workers: numbers to compare, the first of which is the measure.
        episodes: recorded in each round of collection.
        players: planners, one for each item of work.
        played: episodes that each of them plays.
        steps: of training, a multiple of 50, at least 100.
        batch: scenes of a training step, a multiple of each number of workers.
        repeats: rounds, in which numbers of workers take turns.

    Raises:
        ValueError: ``steps`` or ``batch`` cannot be divided so.
    """
    if steps < 2 * EVERY or steps % EVERY or any(batch % count for count in workers):
        raise ValueError(
            f"steps, batch: expected a multiple of {EVERY} above it, and one of {workers}, got "
            f"{steps} and {batch}"
        )
    load = os.getloadavg()[0]
    model = worldmodel.load(checkpoint)
    size, hold = model.spec.observation[1], 5
    make = partial(gym.make, f"envs:{env}", size=size)
    config = RandomShootingConfig(plans=64, hold=hold, horizon=model.spec.window // hold)
    agents = {f"planner {i}": Contestant(RandomShooting(model, config)) for i in range(players)}
    settings: dict[str, Any] = {"size": size, "episodes": played, "hold": hold}
    jobs: dict[tuple[str, int], Callable[[], object]] = {}
    for count in workers:
        jobs["collection", count] = partial(collect, make, episodes, workers=count, progress=False)
        jobs["evaluation", count] = partial(control, env, agents, workers=count, **settings)
    with connected(max(workers)):
        seconds = interleaved(jobs, repeats)
    amounts = {"collection": episodes, "evaluation": players * played, "training": 1}
    for count in workers:
        seconds["training", count] = np.zeros(repeats)
    for turn in shown(range(repeats), "training", "round"):
        for count in workers:
            seconds["training", count][turn] = _seconds_per_scene(env, size, steps, batch, count)
    return [{**row, "load": load} for row in _rows(seconds, amounts, workers)]


def _rows(
    seconds: Mapping[tuple[str, int], NDArray[np.float64]],
    amounts: Mapping[str, int],
    workers: tuple[int, ...],
) -> list[dict[str, Any]]:
    rows = []
    for kind, amount in amounts.items():
        for count in workers:
            times = seconds[kind, count]
            value, low, high, n = statistics.median(seconds[kind, workers[0]] / times)
            row = {"kind": kind, "workers": count}
            row |= {"unit": "scenes" if kind == "training" else "episodes"}
            row |= {"per_second": amount / float(np.median(times)), "speedup": value}
            rows.append({**row, "low": low, "high": high, "n": n})
    return rows


def _seconds_per_scene(env: str, size: int, steps: int, batch: int, processes: int) -> float:
    """Of training in processes of its own, between the first log and the last."""
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
