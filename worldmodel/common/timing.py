"""Comparable timing: interleaved rounds, warm-up, device synchronisation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.common.progress import progress

Key = TypeVar("Key")


def interleaved(
    jobs: Mapping[Key, Callable[[], object]], repeats: int, warmup: int = 1
) -> dict[Key, NDArray[np.float64]]:
    """Seconds of each job, (repeats,); all run once in every round, so that drift hits all alike.

    Within a round jobs are paired: compare two by the ratios of their rounds. CUDA devices that
    hold tensors of this process from the beginning are idle when a job's clock starts, and again
    before it stops.

    Raises:
        ValueError: ``repeats`` is below 1 or ``warmup`` below 0.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats, warmup: expected >= 1 and >= 0, got {repeats} and {warmup}")
    seconds: dict[Key, list[float]] = {key: [] for key in jobs}
    used = [n for n in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(n)]
    for turn in progress(range(warmup + repeats), "rounds", "round"):
        for key, job in jobs.items():
            _synchronise(used)
            begin = time.perf_counter()
            job()
            _synchronise(used)
            if turn >= warmup:
                seconds[key].append(time.perf_counter() - begin)
    return {key: np.array(values) for key, values in seconds.items()}


def _synchronise(devices: Iterable[int]) -> None:
    for device in devices:
        torch.cuda.synchronize(device)
