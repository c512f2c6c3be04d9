"""Small worlds and models that the tests of this folder share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel import MODELS, ActionSpec, Context, Episode, Episodes, Spec, WorldModel, make
from worldmodel.jump import JumpConfig

WINDOW = 8
PASSIVE = Spec((3, 32, 32), ActionSpec("none"), WINDOW)
DISCRETE = Spec((3, 32, 32), ActionSpec("discrete", (), (3,)), WINDOW)
BOX = Spec((3, 32, 32), ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 4.0)), WINDOW)
MULTI = Spec((3, 32, 32), ActionSpec("multi_discrete", (2,), (3, 2)), WINDOW)
BINARY = Spec((3, 32, 32), ActionSpec("multi_binary", (4,)), WINDOW)
VECTOR = Spec((5,), DISCRETE.action, WINDOW, low=(-math.inf,) * 5, high=(math.inf,) * 5)
SPECS = {
    "passive": PASSIVE,
    "discrete": DISCRETE,
    "box": BOX,
    "multi_discrete": MULTI,
    "multi_binary": BINARY,
}

# name and config of everything that obeys the contract, at test size; the last is the paper's JUMP
# (replay must recognise its scenes: see test_baselines)
PAPER = JumpConfig(hidden=8, tower=8, canvas=8, canvas_in=8, kernel=3, scene=16, head=16)
SMALL: list[tuple[str, Any]] = [(name, "small") for name in sorted(MODELS) if name != "replay"]
SMALL.append(("jump", PAPER))
# every model with every spec that it takes: name, config, spec
CASES = [(*model, spec) for model in SMALL for spec in SPECS.values()]
CASES += [("jump", "jumpy", DISCRETE), ("jump", "vector", VECTOR), ("copy-last", "vector", VECTOR)]


def fresh(name: str, preset: Any, spec: Spec, seed: int = 0) -> WorldModel:
    """An untrained model in eval mode, the same for the same seed."""
    return make(name, spec, preset, seed).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_actions(spec: Spec, *lead: int, seed: int = 1) -> Tensor | None:
    """Actions (*lead, *action), or None for passive scenes."""
    if spec.action.kind == "none":
        return None
    space = spec.action.to_space()
    space.seed(seed)
    drawn = [space.sample() for _ in range(math.prod(lead))]  # none, where a length is 0
    return torch.from_numpy(np.array(drawn, space.dtype)).view(*lead, *spec.action.shape)


def context(spec: Spec, batch: int = 2, frames: int = 3, seed: int = 0) -> Context:
    """The frames 0 .. frames - 1 of random scenes."""
    times = torch.arange(frames).expand(batch, frames)
    pictures = torch.rand(batch, frames, *spec.observation, generator=generator(seed))
    return Context(pictures, times, random_actions(spec, batch, frames - 1))


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
