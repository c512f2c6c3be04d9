"""Training steps per second in each precision, and their share of what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from worldmodel.base import WorldModel
from worldmodel.common.timing import interleaved
from worldmodel.data.episode import Episode
from worldmodel.data.windows import WindowBatch
from worldmodel.registry import make
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import SceneBatch

ACTION = ActionSpec("discrete", (), (4,))
WINDOW = 40
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
PRECISIONS = tuple(DTYPES)


def bench(
    models: Sequence[tuple[str, str]],
    size: int,
    batch: int,
    repeats: int,
    device: str,
    precisions: Sequence[str] = PRECISIONS,
) -> list[dict[str, Any]]:
    """Rows of two kinds, as ``kind`` says.

    - ``ceiling``: ``name`` (matmul, convolution), ``precision``, ``flops_per_second``.
    - ``training``: ``precision``, ``steps_per_second``, ``speedup`` over float32 (the median of the
      rounds' ratios; None without float32), ``flops`` of a step (forward and backward; a
      multiply-add counts two) and ``utilisation``, the share of the precision's higher ceiling.

    Args:
        models: (name, preset) of the registry; weights are fresh.
        size: frame height and width in pixels.
        batch: training batch.
        repeats: timed rounds of each kind, after a warm-up; medians are reported.
        device: torch device.
        precisions: of float32 and bf16, as in ``fit``.

    Raises:
        ValueError: an unknown model, preset or precision, or a number below 1.
    """
    if not precisions or not set(precisions) <= set(PRECISIONS):
        raise ValueError(f"precisions: expected some of {PRECISIONS}, got {[*precisions]}")
    if min(size, batch, repeats) < 1:
        got = f"{size}, {batch}, {repeats}"
        raise ValueError(f"size, batch, repeats: expected at least 1, got {got}")
    spec = Spec((3, size, size), ACTION, WINDOW)
    made = {key: make(key[0], spec, key[1]).to(device) for key in models}
    rows = _ceilings(torch.device(device), repeats, precisions)
    ceilings = {
        precision: max(r["flops_per_second"] for r in rows if r["precision"] == precision)
        for precision in precisions
    }
    common = {"size": size, "device": device}
    return rows + [{**row, **common} for row in _training(made, batch, repeats, ceilings)]


def _ceilings(
    device: torch.device, repeats: int, precisions: Sequence[str]
) -> list[dict[str, Any]]:
    """Speed of large operations on this machine, the most that models can reach."""
    square = torch.rand(1024, 1024, device=device)
    images = torch.rand(32, 64, 32, 32, device=device)
    weights = torch.rand(64, 64, 3, 3, device=device)
    flops = {"matmul": 2 * 1024**3, "convolution": 2 * 32 * 64 * 32 * 32 * 64 * 9}
    jobs: dict[tuple[str, str], Callable[[], object]] = {}
    for precision in precisions:
        dtype = DTYPES[precision]
        left, maps, kernel = (tensor.to(dtype) for tensor in (square, images, weights))
        jobs["matmul", precision] = partial(torch.matmul, left, left)
        jobs["convolution", precision] = partial(conv2d, maps, kernel, padding=1)
    with torch.inference_mode():
        seconds = interleaved(jobs, max(repeats, 5))
    return [
        {
            "kind": "ceiling", "name": name, "precision": precision,
            "flops_per_second": flops[name] / float(np.median(rounds)),
        }
        for (name, precision), rounds in seconds.items()
    ]  # fmt: skip


def _training(
    models: dict[tuple[str, str], WorldModel],
    batch: int,
    repeats: int,
    ceilings: dict[str, float],
) -> list[dict[str, Any]]:
    """Rows of each model in each precision, whose ``ceilings`` are in FLOPs per second."""
    jobs, flops = {}, {}
    for (name, preset), model in models.items():
        if not model.trainable:
            continue
        scenes = _noise(model.spec, batch, model.device)
        for precision in ceilings:
            jobs[name, preset, precision] = _training_step(model.train(), scenes, precision)
        with FlopCounterMode(display=False) as counter:
            jobs[name, preset, precision]()
        flops[name, preset] = counter.get_total_flops()
    seconds = interleaved(jobs, repeats)
    rows = []
    for (name, preset, precision), rounds in seconds.items():
        count, each = flops[name, preset], float(np.median(rounds))
        plain = seconds.get((name, preset, "float32"))
        rows.append({
            "kind": "training", "model": name, "preset": preset, "precision": precision,
            "batch": batch, "steps_per_second": 1 / each,
            "speedup": None if plain is None else float(np.median(plain / rounds)),
            "flops": count, "flops_per_second": count / each,
            "utilisation": count / each / ceilings[precision],
        })  # fmt: skip
    return rows


def _noise(spec: Spec, batch: int, device: torch.device) -> WindowBatch:
    """Scenes of one noisy episode that fills the window: speed does not depend on the frames."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (spec.window + 1, *spec.border[0]), np.uint8)
    actions, rewards = random.integers(0, 4, spec.window), np.zeros(spec.window, np.float32)
    episode = Episode(frames, actions, rewards, terminated=False)
    return WindowBatch([(episode, 0)] * batch, spec.window, device)


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
