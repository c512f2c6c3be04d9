"""How fast are models, and how far from what the machine can do?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from worldmodel.base import WorldModel
from worldmodel.registry import make
from worldmodel.spec import ActionSpec, Spec
from worldmodel.timing import interleaved
from worldmodel.types import Context, Queries, Worlds

ACTION = ActionSpec("discrete", (), (4,))
WINDOW = 40
PLANS, WORLDS = 1000, 16
RENDERED = 1000
"""Worlds x plans that are rendered at once: their frames must fit into memory."""


@dataclass(frozen=True)
class RandomScenes:
    """A batch of noise: speed does not depend on what is seen."""

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    lengths: Tensor

    @classmethod
    def draw(cls, spec: Spec, batch: int, device: torch.device) -> RandomScenes:
        """``batch`` scenes that fill the window."""
        steps, shape = spec.window, (batch, spec.window)
        high, width, channels = spec.border[0]
        size = (batch, steps + 1, high, width, channels)
        frames = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
        actions = torch.randint(0, 4, shape, device=device)
        rewards = torch.zeros(shape, device=device)
        ends = torch.zeros(shape, dtype=torch.bool, device=device)
        lengths = torch.full((batch,), steps, device=device)
        return cls(frames, actions, rewards, ends, lengths)

    def observations(self, times: Tensor) -> Tensor:
        """uint8 (B, n, H, W, C)."""
        return self.frames[torch.arange(len(times), device=times.device)[:, None], times]

    def poses(self, times: Tensor) -> None:
        """None: there is no camera."""


def bench(
    models: Sequence[tuple[str, str]], size: int, batch: int, repeats: int, device: str
) -> list[dict[str, Any]]:
    """Rows of four kinds, told apart by ``kind``.

    - ``ceiling``: ``name`` (matmul, convolution), ``flops_per_second`` in float32.
    - ``training``: ``steps_per_second``, ``flops`` of a step (forward and backward; a multiply-add
      counts two) and ``utilisation``, the share of the higher ceiling.
    - ``imagination``: ``batch`` scenes from a context to one far frame: ``frames_per_second``.
    - ``plans``: 1,000 plans of 40 steps in 16 worlds of one scene: ``seconds`` to score them, to
      render each plan's last frame (jumpy models), and the ``ratio``.

    Args:
        models: (name, preset) of the registry; weights are fresh.
        size: frame height and width in pixels.
        batch: training batch.
        repeats: timed rounds of each kind, after one that is not; medians are reported.
        device: torch device.

    Raises:
        ValueError: an unknown model or preset, or a number below 1.
    """
    if min(size, batch, repeats) < 1:
        raise ValueError(f"size, batch, repeats: expected at least 1, got {size}, {batch}, "
                         f"{repeats}")  # fmt: skip
    spec = Spec((3, size, size), ACTION, WINDOW)
    made = {key: make(key[0], spec, key[1]).to(device) for key in models}
    rows = _ceilings(torch.device(device), repeats)
    ceiling = max(row["flops_per_second"] for row in rows)
    common = {"size": size, "device": device}
    for row in [*_training(made, batch, repeats, ceiling), *_imagination(made, repeats)]:
        rows.append({**row, **common})
    for key, model in made.items():
        if model.jumpy:
            rows.append({**_name(key), **_plans(model.eval(), repeats), **common})
    return rows


def _name(key: tuple[str, str]) -> dict[str, Any]:
    return {"model": key[0], "preset": key[1]}


def _ceilings(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """The most that large operations reach here."""
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
    return [
        {"kind": "ceiling", "name": name, "flops_per_second": flops[name] / seconds[name]}
        for name in jobs
    ]


def _training(
    models: dict[tuple[str, str], WorldModel], batch: int, repeats: int, ceiling: float
) -> list[dict[str, Any]]:
    jobs, flops = {}, {}
    for key, model in models.items():
        if not model.trainable:
            continue
        scenes = RandomScenes.draw(model.spec, batch, model.device)
        jobs[key] = _training_step(model.train(), scenes)
        with FlopCounterMode(display=False) as counter:
            jobs[key]()
        flops[key] = counter.get_total_flops()
    return [
        {
            "kind": "training", **_name(key), "batch": batch, "steps_per_second": 1 / seconds,
            "flops": flops[key], "flops_per_second": flops[key] / seconds,
            "utilisation": flops[key] / seconds / ceiling,
        }
        for key, seconds in interleaved(jobs, repeats).items()
    ]  # fmt: skip


def _training_step(model: WorldModel, scenes: RandomScenes) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)
    generator = torch.Generator(model.device).manual_seed(0)

    def job() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(scenes, 0.5, generator).total.backward()
        optimizer.step()

    return job


def _imagination(models: dict[tuple[str, str], WorldModel], repeats: int) -> list[dict[str, Any]]:
    jobs: dict[tuple[tuple[str, str], int], Callable[[], object]] = {
        (key, batch): _far_frame(model.eval(), batch)
        for key, model in models.items()
        for batch in (1, 64)
    }
    return [
        {"kind": "imagination", **_name(key), "batch": batch, "frames_per_second": batch / seconds}
        for (key, batch), seconds in interleaved(jobs, repeats).items()
    ]


def _first_frames(model: WorldModel, batch: int) -> Context:
    frames = torch.rand(batch, 1, *model.spec.observation, device=model.device)
    return Context(frames, torch.zeros(batch, 1, dtype=torch.int64, device=model.device))


def _far_frame(model: WorldModel, batch: int) -> Callable[[], object]:
    """From one frame and a plan to the frame at the window's end."""
    context, device = _first_frames(model, batch), model.device
    plan = torch.randint(0, 4, (batch, 1, WINDOW), device=device)
    query = Queries(torch.full((batch, 1), WINDOW, device=device), plan)
    generator = torch.Generator(device).manual_seed(0)

    def job() -> object:
        with torch.inference_mode():
            worlds = model.sample(model.observe(context), 1, generator)
            return model.predict(worlds, query).observations

    return job


def _plans(model: WorldModel, repeats: int) -> dict[str, Any]:
    """Scoring all steps of all plans against rendering the last frame of each."""
    device = model.device
    generator = torch.Generator(device).manual_seed(0)
    with torch.inference_mode():
        worlds = model.sample(model.observe(_first_frames(model, 1)), WORLDS, generator)
    plans = torch.randint(0, 4, (1, PLANS, WINDOW), device=device)
    steps = torch.arange(1, WINDOW + 1, device=device).unsqueeze(0)
    jobs: dict[str, Callable[[], object]] = {
        "score": _look(model, worlds, plans, steps, frames=False),
        "render": _look(model, worlds, plans, steps[:, -1:], frames=True),
    }
    seconds = interleaved(jobs, repeats)
    return {
        "kind": "plans", "plans": PLANS, "worlds": WORLDS, "steps": WINDOW,
        "score_seconds": seconds["score"], "render_seconds": seconds["render"],
        "ratio": seconds["render"] / seconds["score"],
    }  # fmt: skip


def _look(
    model: WorldModel, worlds: Worlds, plans: Tensor, times: Tensor, frames: bool
) -> Callable[[], object]:
    share = RENDERED // WORLDS

    def job() -> None:
        with torch.inference_mode():
            for part in plans.split(share, 1):
                model.predict(worlds, Queries(times, part), frames)

    return job
