"""Scenes of noise for any spec, and a small spec for each kind of action."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import Context

WINDOW = 8
_IMAGE = (3, 32, 32)
SPECS: dict[str, Spec] = {
    "passive": Spec(_IMAGE, ActionSpec("none"), WINDOW),
    "discrete": Spec(_IMAGE, ActionSpec("discrete", (), (3,)), WINDOW),
    "box": Spec(_IMAGE, ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 4.0)), WINDOW),
    "multi_discrete": Spec(_IMAGE, ActionSpec("multi_discrete", (2,), (3, 2)), WINDOW),
    "multi_binary": Spec(_IMAGE, ActionSpec("multi_binary", (4,)), WINDOW),
    "vector": Spec(
        (5,), ActionSpec("discrete", (), (3,)), WINDOW, low=(-math.inf,) * 5, high=(math.inf,) * 5
    ),
}
"""A small spec for each kind of action, with images; and one with vectors."""


def random_actions(spec: Spec, *lead: int, seed: int = 1) -> Tensor | None:
    """Actions (\\*lead, \\*action), sampled from the spec's action space; None for passive scenes.

    Args:
        spec: whose actions they are.
        lead: the axes before an action's own, such as B, N, L.
        seed: of the samples.
    """
    if spec.passive:
        return None
    space = spec.action.to_space()
    space.seed(seed)
    samples = [space.sample() for _ in range(math.prod(lead))]  # none, where a length is 0
    return torch.from_numpy(np.array(samples, space.dtype)).view(*lead, *spec.action.shape)


def random_context(spec: Spec, batch: int = 2, frames: int = 3, seed: int = 0) -> Context:
    """The first frames of scenes of noise, and the actions between them.

    Args:
        spec: whose observations and actions they are.
        batch: scenes, B.
        frames: of each scene, M, at the times 0 .. M - 1.
        seed: of the noise.
    """
    times = torch.arange(frames).expand(batch, frames)
    shape = (batch, frames, *spec.observation)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return Context(noise, times, random_actions(spec, batch, frames - 1))


def random_episodes(spec: Spec, count: int = 4, seed: int = 0) -> Episodes:
    """Episodes of noise, as long as the window; every other one terminates.

    Args:
        spec: whose observations and actions they are.
        count: how many.
        seed: of the noise.
    """
    random = np.random.default_rng(seed)
    shape, dtype = spec.border
    actions = random_actions(spec, count, spec.window)
    taken = np.zeros((count, spec.window), np.int64) if actions is None else actions.numpy()
    recorded = []
    for number in range(count):
        if spec.parts:
            numbers = random.random((spec.window + 1, *spec.observation), np.float32)
            noise = spec.to_numpy(torch.from_numpy(numbers))
        else:
            noise = random.random((spec.window + 1, *shape), np.float32)
            noise = (255 * noise).astype(dtype) if spec.is_image else noise
        rewards = random.random(spec.window, np.float32)
        recorded.append(Episode(noise, taken[number], rewards, number % 2 == 0))
    return Episodes(recorded, spec.action, spec.observation_space())
