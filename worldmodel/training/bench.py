"""Training steps per second, and their share of what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def bench(
    models: Sequence[tuple[str, str]], size: int, batch: int, repeats: int, device: str
) -> list[dict[str, Any]]:
    """Rows of two kinds, as ``kind`` says.

    - ``ceiling``: ``name`` (matmul, convolution), ``flops_per_second`` in float32.
    - ``training``: ``steps_per_second``, ``flops`` of a step (forward and backward; a multiply-add
      counts two) and ``utilisation``, the share of the higher ceiling.

    Args:
        models: (name, preset) of the registry; weights are fresh.
        size: frame height and width in pixels.
        batch: training batch.
        repeats: timed rounds of each kind, after a warm-up; medians are reported.
        device: torch device.

    Raises:
        ValueError: an unknown model or preset, or a number below 1.
    """
    if min(size, batch, repeats) < 1:
        got = f"{size}, {batch}, {repeats}"
        raise ValueError(f"size, batch, repeats: expected at least 1, got {got}")
    spec = Spec((3, size, size), ACTION, WINDOW)
    made = {key: make(key[0], spec, key[1]).to(device) for key in models}
    rows = _ceilings(torch.device(device), repeats)
    ceiling = max(row["flops_per_second"] for row in rows)
    common = {"size": size, "device": device}
    return rows + [{**row, **common} for row in _training(made, batch, repeats, ceiling)]


def _ceilings(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Speed of large operations on this machine, the most that models can reach."""
    square = torch.rand(1024, 1024, device=device)
    images = torch.rand(32, 64, 32, 32, device=device)
    weights = torch.rand(64, 64, 3, 3, device=device)
    flops = {"matmul": 2 * 1024**3, "convolution": 2 * 32 * 64 * 32 * 32 * 64 * 9}
    jobs: dict[str, Callable[[], object]] = {
        "matmul": lambda: square @ square,
        "convolution": lambda: conv2d(images, weights, padding=1),
    }
    with torch.inference_mode():
        seconds = interleaved(jobs, max(repeats, 5))
    speeds = {name: flops[name] / float(np.median(rounds)) for name, rounds in seconds.items()}
    return [{"kind": "ceiling", "name": k, "flops_per_second": v} for k, v in speeds.items()]


def _training(
    models: dict[tuple[str, str], WorldModel], batch: int, repeats: int, ceiling: float
) -> list[dict[str, Any]]:
    jobs, flops = {}, {}
    for key, model in models.items():
        if not model.trainable:
            continue
        jobs[key] = _training_step(model.train(), _noise(model.spec, batch, model.device))
        with FlopCounterMode(display=False) as counter:
            jobs[key]()
        flops[key] = counter.get_total_flops()
    rows = []
    for (name, preset), rounds in interleaved(jobs, repeats).items():
        count, seconds = flops[name, preset], float(np.median(rounds))
        rows.append({
            "kind": "training", "model": name, "preset": preset, "batch": batch,
            "steps_per_second": 1 / seconds, "flops": count, "flops_per_second": count / seconds,
            "utilisation": count / seconds / ceiling,
        })  # fmt: skip
    return rows


def _noise(spec: Spec, batch: int, device: torch.device) -> WindowBatch:
    """Scenes of one noisy episode that fills the window: speed does not depend on the frames."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (spec.window + 1, *spec.border[0]), np.uint8)
    actions, rewards = random.integers(0, 4, spec.window), np.zeros(spec.window, np.float32)
    episode = Episode(frames, actions, rewards, terminated=False)
    return WindowBatch([(episode, 0)] * batch, spec.window, device)


def _training_step(model: WorldModel, scenes: SceneBatch) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)
    generator = torch.Generator(model.device).manual_seed(0)

    def job() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(scenes, 0.5, generator).total.backward()
        optimizer.step()

    return job
