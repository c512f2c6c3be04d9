"""Training steps per second in each precision, and their share of what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from worldmodel.base import WorldModel
from worldmodel.common.timing import interleaved
from worldmodel.data.episode import Episode
from worldmodel.data.windows import WindowBatch
from worldmodel.registry import entry, make
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import SceneBatch

ACTION = ActionSpec("discrete", (), (4,))
WINDOW = 40
NUMBERS = 8
"""Of a vector."""
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
PRECISIONS = tuple(DTYPES)
Mode = tuple[str, int]
"""Precision, and threads of the CPU."""


def bench(
    models: Sequence[tuple[str, str]],
    size: int,
    batch: int | None,
    repeats: int,
    device: str,
    precisions: Sequence[str] = PRECISIONS,
    threads: Sequence[int] = (1,),
) -> list[dict[str, Any]]:
    """Rows of two kinds, as ``kind`` says, each with its ``threads``.

    - ``ceiling``: ``name`` (matmul, convolution), ``precision``, ``flops_per_second``.
    - ``training``: ``precision``, ``steps_per_second``, ``speedup`` over float32 with as many
      threads (the median of the rounds' ratios; None without float32), ``flops`` of a step (forward
      and backward; a multiply-add counts two) and ``utilisation``, the share of the higher ceiling
      of that precision and number of threads.

    Args:
        models: (name, preset) of the registry; weights are fresh.
        size: frame height and width in pixels; models that take no images train on vectors of 8
            numbers.
        batch: training batch; None: each model's own, as in ``fit``.
        repeats: timed rounds of each kind, after a warm-up; medians are reported.
        device: torch device.
        precisions: of float32 and bf16, as in ``fit``.
        threads: of the CPU; all numbers of them take turns, and the first is set at the end.

    Raises:
        ValueError: an unknown model, preset or precision, or a number below 1.
    """
    if not precisions or not set(precisions) <= set(PRECISIONS):
        raise ValueError(f"precisions: expected some of {PRECISIONS}, got {[*precisions]}")
    if min(size, 1 if batch is None else batch, repeats, *threads) < 1 or not threads:
        got = f"{size}, {batch}, {repeats}, {[*threads]}"
        raise ValueError(f"size, batch, repeats, threads: expected at least 1, got {got}")
    made = {
        (name, preset): make(name, _spec(name, size), preset).to(device) for name, preset in models
    }
    modes = list(product(precisions, threads))
    try:
        rows = _ceilings(torch.device(device), repeats, modes)
        ceilings = {
            mode: max(r["flops_per_second"] for r in rows if (r["precision"], r["threads"]) == mode)
            for mode in modes
        }
        rows += _training(made, batch, repeats, ceilings)
    finally:
        torch.set_num_threads(threads[0])
    return [row if row["kind"] == "ceiling" else {**row, "device": device} for row in rows]


def _spec(name: str, size: int) -> Spec:
    if entry(name).model.takes_images:
        return Spec((3, size, size), ACTION, WINDOW)
    return Spec((NUMBERS,), ACTION, WINDOW, low=(-1.0,) * NUMBERS, high=(1.0,) * NUMBERS)


def _with_threads(count: int, job: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
        return job()

    return run


def _ceilings(device: torch.device, repeats: int, modes: Sequence[Mode]) -> list[dict[str, Any]]:
    """Speed of large operations on this machine, the most that models can reach."""
    square = torch.rand(1024, 1024, device=device)
    images = torch.rand(32, 64, 32, 32, device=device)
    weights = torch.rand(64, 64, 3, 3, device=device)
    flops = {"matmul": 2 * 1024**3, "convolution": 2 * 32 * 64 * 32 * 32 * 64 * 9}
    jobs: dict[tuple[str, str, int], Callable[[], object]] = {}
    for precision, count in modes:
        dtype = DTYPES[precision]
        left, maps, kernel = (tensor.to(dtype) for tensor in (square, images, weights))
        for name, job in {
            "matmul": partial(torch.matmul, left, left),
            "convolution": partial(conv2d, maps, kernel, padding=1),
        }.items():
            jobs[name, precision, count] = _with_threads(count, job)
    with torch.inference_mode():
        seconds = interleaved(jobs, max(repeats, 5))
    return [
        {
            "kind": "ceiling", "name": name, "precision": precision, "threads": count,
            "flops_per_second": flops[name] / float(np.median(rounds)),
        }
        for (name, precision, count), rounds in seconds.items()
    ]  # fmt: skip


def _training(
    models: dict[tuple[str, str], WorldModel],
    batch: int | None,
    repeats: int,
    ceilings: dict[Mode, float],
) -> list[dict[str, Any]]:
    """Rows of each model in each mode, whose ``ceilings`` are in FLOPs per second."""
    jobs, flops = {}, {}
    for (name, preset), model in models.items():
        if not model.trainable:
            continue
        scenes = _noise(model, batch or model.training_batch)
        for precision, count in ceilings:
            step = _training_step(model.train(), scenes, precision)
            jobs[name, preset, precision, count] = _with_threads(count, step)
        with FlopCounterMode(display=False) as counter:
            step()
        flops[name, preset] = counter.get_total_flops()
    seconds = interleaved(jobs, repeats)
    rows = []
    for (name, preset, precision, threads), rounds in seconds.items():
        count, each = flops[name, preset], float(np.median(rounds))
        plain, spec = seconds.get((name, preset, "float32", threads)), models[name, preset].spec
        size = spec.observation[int(spec.is_image)]
        rows.append({
            "kind": "training", "model": name, "preset": preset, "precision": precision,
            "threads": threads, "batch": batch or models[name, preset].training_batch,
            "size": size, "steps_per_second": 1 / each,
            "speedup": None if plain is None else float(np.median(plain / rounds)),
            "flops": count, "flops_per_second": count / each,
            "utilisation": count / each / ceilings[precision, threads],
        })  # fmt: skip
    return rows


def _noise(model: WorldModel, batch: int) -> WindowBatch:
    """Windows of one noisy episode, as long as in ``fit``: speed does not depend on the frames."""
    random, spec = np.random.default_rng(0), model.spec
    window = model.training_window or spec.window
    shape, dtype = (window + 1, *spec.border[0]), spec.border[1]
    frames: NDArray[Any] = (
        random.integers(0, 256, shape, np.uint8) if spec.is_image else random.random(shape, dtype)
    )
    actions, rewards = random.integers(0, 4, window), np.zeros(window, np.float32)
    episode = Episode(frames, actions, rewards, terminated=False)
    return WindowBatch([(episode, 0)] * batch, window, model.device)


def _training_step(model: WorldModel, scenes: SceneBatch, precision: str) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)
    generator = torch.Generator(model.device).manual_seed(0)

    def job() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            total = model(scenes, 0.5, generator).total
        total.backward()
        optimizer.step()

    return job
