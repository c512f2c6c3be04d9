"""Small worlds and models that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from worldmodel import MODELS, ActionSpec, Episode, Episodes, Spec, WorldModel, make
from worldmodel.models.jumpy.cvg import CvgConfig
from worldmodel.models.jumpy.jump import JumpConfig
from worldmodel.spec.parts import Part
from worldmodel.testing import SPECS as OFFERED
from worldmodel.testing import (
    VIEWS,
    random_actions,  # noqa: F401
)
from worldmodel.testing import random_context as context  # noqa: F401

BOUNDLESS = {"low": (-np.inf,) * 2, "high": (np.inf,) * 2}
GOALS = Spec.of_parts(
    (Part("goal", (2,), "float64", (-2.0,) * 2, (2.0,) * 2), Part("state", (2,), **BOUNDLESS)),
    ActionSpec("discrete", (), (3,)),
    8,
)
"""A Dict of vectors."""
CAMERA = Spec.of_parts(
    (Part("camera", (16, 16, 3), "uint8"), Part("state", (2,), **BOUNDLESS)),
    ActionSpec("discrete", (), (3,)),
    8,
)
"""A Dict of an image and a vector."""
PASSIVE, DISCRETE, BOX, MULTI, BINARY, VECTOR = OFFERED.values()
POSED, VIEWED = VIEWS.values()
"""Keys are poses: numbers of any meaning, and those of a known camera."""
SPECS = {name: spec for name, spec in OFFERED.items() if spec.is_image}
WINDOW = PASSIVE.window

# name and config of everything that obeys the contract, at test size; the last is the paper's JUMP
# (replay must recognise its scenes: see test_baselines; cvg takes no frames, no actions)
PAPER = JumpConfig(hidden=8, tower=8, canvas=8, canvas_in=8, kernel=3, scene=16, head=16)
SMALL: list[tuple[str, Any]] = [
    (name, "small") for name in sorted(MODELS) if name not in ("replay", "ensemble", "cvg")
]
SMALL.append(("jump", PAPER))
# every model with every spec that it takes: name, config, spec
CASES = [(*model, spec) for model in SMALL for spec in SPECS.values()]
CASES += [("jump", "jumpy", DISCRETE), ("jump", "views", DISCRETE), ("jump", "views", CAMERA)]
CASES += [("jump", "views", PASSIVE), ("jump", "vector", VECTOR), ("copy-last", "vector", VECTOR)]
CASES += [("ensemble", "vector", VECTOR), ("ensemble", "mbpo", GOALS)]
CASES += [("jump", "rays-small", VIEWED), ("jump", "views", POSED), ("inferno", "small", VIEWED)]
CVG = CvgConfig(
    noise=4, first_generator=(8, 8), first_discriminator=(8, 8), second_generator=(8, 8, 8),
    second_discriminator=(8, 8), scale=2, crop=2, statistics_passes=1, statistics_batch=4,
)  # fmt: skip
CASES += [("cvg", CVG, PASSIVE)]
CASES += [("jump", "vector", GOALS), ("jump", "small", CAMERA), ("copy-last", "small", CAMERA)]


def fresh(name: str, preset: Any, spec: Spec, seed: int = 0) -> WorldModel:
    """An untrained model in eval mode, the same for the same seed."""
    return make(name, spec, preset, seed).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ENDS = 0.1
"""Chance of an end after each step of ``ended_by_chance``."""


def ended_by_chance(episodes: int, seed: int = 0) -> Episodes:
    """Vectors that say nothing, rewards of 1; each step ends it with the chance ``ENDS``."""
    random = np.random.default_rng(seed)
    recorded = []
    for steps in random.geometric(ENDS, episodes):
        vectors = random.normal(size=(steps + 1, 1)).astype(np.float32)
        actions = random.integers(2, size=steps)
        recorded.append(Episode(vectors, actions, np.ones(steps, np.float32), terminated=True))
    return Episodes(recorded, ActionSpec("discrete", (), (2,)))


def moving_square(episodes: int = 12, steps: int = 8, seed: int = 0) -> Episodes:
    """A white square that action 0/1/2 moves left, not at all, right; reward: how far right."""
    random = np.random.default_rng(seed)
    recorded = []
    for number in range(episodes):
        actions = random.integers(3, size=steps)
        x, y = 12, int(random.integers(4, 24))
        frames = np.zeros((steps + 1, 32, 32, 3), np.uint8)
        rewards = np.zeros(steps, np.float32)
        frames[0, y : y + 6, x : x + 6] = 255
        for step, action in enumerate(actions):
            x = int(np.clip(x + 3 * (action - 1), 0, 26))
            frames[step + 1, y : y + 6, x : x + 6] = 255
            rewards[step] = x / 26
        recorded.append(Episode(frames, actions, rewards, terminated=number % 2 == 0))
    return Episodes(recorded, ActionSpec("discrete", (), (3,)))
