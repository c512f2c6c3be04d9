"""Tiny CVGs, and videos of squares for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scenes import generator

from worldmodel import ActionSpec, Episode, Episodes, Spec, make
from worldmodel.data.windows import WindowSource
from worldmodel.models.jumpy.cvg import Cvg, CvgConfig

SPEC = Spec((1, 16, 16), ActionSpec("none"), 7)
TINY = CvgConfig(
    noise=4, first_generator=(8, 8), first_discriminator=(8, 8), second_generator=(8, 8),
    second_discriminator=(8, 8), scale=2, crop=2, statistics_passes=1, statistics_batch=4,
)  # fmt: skip


def squares(episodes: int = 8, steps: int = 7) -> Episodes:
    """A bright square that crosses a frame, each episode on a way of its own; nobody acts."""
    recorded = []
    for number in range(episodes):
        frames = np.zeros((steps + 1, 16, 16, 1), np.uint8)
        for time in range(steps + 1):
            x = time if number % 2 else steps - time
            y = 3 * (number // 2)
            frames[time, y : y + 5, x : x + 5] = 255
        none = np.zeros(steps, np.int64)
        recorded.append(Episode(frames, none, np.zeros(steps, np.float32), False))
    return Episodes(recorded, ActionSpec("none"))


def source() -> WindowSource:
    return squares().windows(7, batch_size=4)


def tiny(seed: int = 0, spec: Spec = SPEC, **settings: Any) -> Cvg:
    model = make("cvg", spec, replace(TINY, **settings), seed)
    assert isinstance(model, Cvg)
    return model


def steps_of(model: Cvg, progress: float, count: int) -> list[float]:
    """Losses of so many steps of a training at one point of its schedule."""
    optimizer, losses = model.make_optimizer(), []
    for step in range(count):
        optimizer.zero_grad(set_to_none=True)
        total = model(source().batch(step), progress, generator(step)).total
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    return losses
