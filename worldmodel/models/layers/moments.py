"""Mean and spread of recorded observations, by which models standardise vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.rewards import PREPARE_BATCHES
from worldmodel.spec import Spec
from worldmodel.types import SceneBatch, SceneSource


def every_frame(scenes: SceneBatch, spec: Spec) -> tuple[Tensor, Tensor]:
    """All observations of B scenes of at most T steps.

    Returns:
        them as models take them, (B, T + 1, \\*observation), and bool (B, T + 1): which are there.
    """
    times = torch.arange(scenes.actions.shape[1] + 1, device=scenes.lengths.device)
    frames = spec.to_model(scenes.observations(times.expand(len(scenes.lengths), -1)))
    return frames, times <= scenes.lengths[:, None]


def vector_moments(source: SceneSource, spec: Spec, first: int) -> tuple[Tensor, Tensor]:
    """Mean and spread of an observation's numbers from ``first`` on, which are vectors.

    Args:
        source: whose first ``PREPARE_BATCHES`` batches are read.
        spec: of observations in one axis: vectors, or Dicts of an image and vectors.
        first: numbers of the image, which come first in a Dict.

    Returns:
        float64 (numbers,) each; the spread of a number that never changes is 1.
    """
    recorded = []
    for index in range(PREPARE_BATCHES):
        frames, there = every_frame(source.batch(index), spec)
        recorded.append(frames[there][:, first:].double())
    spread, mean = torch.std_mean(torch.cat(recorded), 0)
    return mean, torch.where(spread > 1e-6, spread, 1.0)
