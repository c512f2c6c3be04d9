"""A world that can be computed by hand, as a model and as an environment.

The hidden state is a level; action a in 0..3 adds a to it. The frame's grey value is ``10 * level``
in every pixel. The reward of a step is 1 for the scene's wanted action and 0 otherwise. The wanted
action is written in the corner pixel of the frame where ``seen`` is True; else each sampled world
draws its own. The episode ends when the level reaches ``goal``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.base import Losses, WorldModel
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import Belief, Context, Queries, SceneBatch, StepPrediction, Worlds

SIZE = 32
SPEC = Spec((3, SIZE, SIZE), ActionSpec("discrete", (), (4,)), 12)


class FakeModel(WorldModel):
    name: ClassVar[str] = "fake"
    jumpy: ClassVar[bool] = True

    def __init__(self, spec: Spec = SPEC, goal: int = 100, seen: bool = True) -> None:
        super().__init__(spec, None)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.goal, self.seen = goal, seen
        self.contexts: list[Context] = []
        self.asked: list[tuple[Worlds, Queries, bool]] = []

    def loss(self, scenes: SceneBatch, progress: float, generator: Any) -> Losses:
        raise NotImplementedError

    def _observe(self, context: Context) -> Belief:
        self.contexts.append(context)
        latest = context.times.masked_fill(~context.full_mask(), -1).argmax(1)
        frame = context.observations[torch.arange(len(latest)), latest]
        level = (frame[:, 0, -1, -1] * 25.5).round()
        wanted = (frame[:, 0, 0, 0] * 255).round() % 10
        return Belief(context.present_times(), {"level": level, "wanted": wanted})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        state = {name: value[:, None].repeat(1, n) for name, value in belief.state.items()}
        if not self.seen:
            state["wanted"] = torch.randint(
                0, 4, state["wanted"].shape, generator=generator
            ).float()
        return Worlds(belief.present, state)

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        level = worlds.state["level"] + self._gain(actions).sum(1)[:, None]
        return Worlds(worlds.present + actions.shape[1], {**worlds.state, "level": level})

    def _gain(self, actions: Tensor) -> Tensor:
        shape = self.spec.action.shape
        return actions.float().flatten(-len(shape)).sum(-1) if shape else actions.float()

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        self.asked.append((worlds, queries, frames))
        plans = queries.actions
        if plans is None:
            ahead = queries.ahead(worlds.present)
            plans = torch.zeros(worlds.shape[0], 1, ahead, *self.spec.action.shape)
        gains = self._gain(plans)  # (B, N, L)
        wanted = worlds.state["wanted"][:, :, None, None]
        level = worlds.state["level"][:, :, None, None] + gains.cumsum(2)[:, None]  # (B, S, N, L)
        rewards = (gains[:, None] == wanted).float()
        continues = (level < self.goal).float()
        seen = None
        if frames:
            offset = (queries.times - worlds.present[:, None]).clamp_min(0)
            now = worlds.state["level"][:, :, None, None].expand(*level.shape[:3], 1)
            path = torch.cat([now, level], -1)
            index = offset[:, None, None].expand(*path.shape[:3], -1)
            grey = path.gather(-1, index) / 25.5
            shape = (*grey.shape, *self.spec.observation)
            seen = grey[..., None, None, None].expand(shape).clone()
            seen[..., 0, 0] = (wanted[..., None] / 255).expand_as(seen[..., 0, 0])
        whole = rewards.shape[-1] // self.stride
        rewards, continues = (
            value[..., : whole * self.stride].unflatten(-1, (whole, self.stride))
            for value in (rewards, continues)
        )
        running = torch.cat([torch.ones_like(continues[..., :1]), continues[..., :-1]], -1)
        rewards = (running.cumprod(-1) * rewards).sum(-1)
        return StepPrediction(rewards, continues.prod(-1).logit(), seen)


class FrameByFrameFake(FakeModel):
    jumpy: ClassVar[bool] = False
    gap = 1


def frame(wanted: int = 0, level: int = 0, size: int = SIZE, channels: int = 3) -> np.ndarray:
    image = np.full((size, size, channels), 10 * level, np.uint8)
    image[0, 0] = wanted
    return image


def frames(*wanted: int) -> np.ndarray:
    return np.stack([frame(w) for w in wanted])


class FakeEnv(gym.Env):
    """The same world as an environment; the seed draws the wanted action."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}

    def __init__(self, steps: int = 12, goal: int = 100, render_mode: str | None = None) -> None:
        self.observation_space = SPEC.observation_space()
        self.action_space = SPEC.action.to_space()
        self.steps, self.goal, self.render_mode = steps, goal, render_mode
        self.wanted = self.level = self.taken = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.wanted = int(self.np_random.integers(4))
        self.level = self.taken = 0
        return frame(self.wanted), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.level += int(action)
        self.taken += 1
        reward = float(int(action) == self.wanted)
        done = self.level >= self.goal
        image = frame(self.wanted, min(self.level, 25))
        return image, reward, done, self.taken >= self.steps and not done, {}

    def render(self) -> np.ndarray:
        return frame(self.wanted, min(self.level, 25))


class Scripted:
    """Plays one action and records its observations."""

    def __init__(self, action: int) -> None:
        self.action = action
        self.seen: list[np.ndarray] = []
        self.starts: list[np.ndarray] = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.append(observation.copy())
        self.starts.append(np.array(episode_start))
        return np.full(len(observation), self.action), state
