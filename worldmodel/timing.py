"""Timing that can be compared: interleaved repeats, warm-up, medians, device synchronisation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

import torch
from tqdm import tqdm

Key = TypeVar("Key")


def interleaved(
    jobs: Mapping[Key, Callable[[], object]], repeats: int, warmup: int = 1
) -> dict[Key, float]:
    """Median seconds of each job; all jobs run once in every round, so that drift hits all alike.

    Raises:
        ValueError: ``repeats`` is below 1 or ``warmup`` below 0.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats, warmup: expected >= 1 and >= 0, got {repeats} and {warmup}")
    seconds: dict[Key, list[float]] = {key: [] for key in jobs}
    rounds = tqdm(range(warmup + repeats), "rounds", leave=False, disable=None)  # on terminals
    for turn in rounds:
        for key, job in jobs.items():
            _synchronise()
            begin = time.perf_counter()
            job()
            _synchronise()
            if turn >= warmup:
                seconds[key].append(time.perf_counter() - begin)
    return {key: median(values) for key, values in seconds.items()}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
