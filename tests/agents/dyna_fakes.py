"""A point on a line, as a vector environment and as a model that knows it exactly.

An action in [-2, 2] is added to the position. A step's reward is the position that it leads to.
The episode ends where the position leaves [-limit, limit], and is truncated after ``steps`` steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.base import Losses, WorldModel
from worldmodel.spec import Spec
from worldmodel.types import Belief, Context, Queries, SceneBatch, StepPrediction, Worlds

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACTIONS = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
LINE = Spec.from_spaces(OBSERVATIONS, ACTIONS, 12)


class LineEnv(gym.Env):
    """With ``reuse`` it shows the same array again and again, as some environments do."""

    def __init__(self, steps: int = 8, limit: float = 6.0, reuse: bool = False) -> None:
        self.observation_space, self.action_space = OBSERVATIONS, ACTIONS
        self.steps, self.limit, self.reuse = steps, limit, reuse
        self.place = np.zeros(1, np.float32)
        self.taken = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place[:] = self.np_random.uniform(-1, 1)
        self.taken = 0
        return self._shown(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.place += action
        self.taken += 1
        ended = bool(abs(self.place[0]) > self.limit)
        late = self.taken >= self.steps and not ended
        return self._shown(), float(self.place[0]), ended, late, {}

    def _shown(self) -> np.ndarray:
        return self.place if self.reuse else self.place.copy()


class CountedLine(LineEnv):
    """Its episodes are 8 steps long; all its steps are counted."""

    count = 0

    def __init__(self) -> None:
        super().__init__(limit=100.0)

    def step(self, action: np.ndarray) -> Any:
        CountedLine.count += 1
        return super().step(action)


@dataclass(frozen=True)
class LineConfig:
    """The only weight of ``LineModel`` is an offset of the imagined places."""

    limit: float = 6.0
    learning_rate: float = 1e-2
    learning_rate_end: float = 1e-2


class LineModel(WorldModel):
    """Exact where its one weight is 0; it learns that weight from one-step errors."""

    name: ClassVar[str] = "line"
    jumpy: ClassVar[bool] = True
    takes_vectors: ClassVar[bool] = True

    def __init__(self, offset: float = 0.0, config: LineConfig | None = None) -> None:
        super().__init__(LINE, LineConfig() if config is None else config)
        self.offset = torch.nn.Parameter(torch.tensor(offset))

    def loss(self, scenes: SceneBatch, progress: float, generator: Any) -> Losses:
        times = torch.arange(2).expand(len(scenes.lengths), -1)
        seen = scenes.observations(times)
        error = (seen[:, 0] + scenes.actions[:, 0] + self.offset - seen[:, 1]).square().mean()
        return Losses(error, {"loss": error.detach()})

    def _observe(self, context: Context) -> Belief:
        latest = context.times.masked_fill(~context.full_mask(), -1).argmax(1)
        place = context.observations[torch.arange(len(latest)), latest, 0]
        return Belief(context.present_times(), {"place": place})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        return Worlds(belief.present, {"place": belief.state["place"][:, None].repeat(1, n)})

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        place = worlds.state["place"] + (actions[..., 0] + self.offset).sum(1)[:, None]
        return Worlds(worlds.present + actions.shape[1], {"place": place})

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        assert queries.actions is not None
        steps = (queries.actions[..., 0] + self.offset).cumsum(2)[:, None]  # (B, 1, N, L)
        now = worlds.state["place"][:, :, None, None]
        place = now + steps  # (B, S, N, L)
        continues = (place.abs() <= self.config.limit).float()
        path = torch.cat([now.expand_as(place[..., :1]), place], -1)
        index = (queries.times - worlds.present[:, None]).clamp_min(0)[:, None, None]
        shown = path.gather(-1, index.expand(*path.shape[:3], -1))[..., None]
        return StepPrediction(place, continues.logit(), shown if frames else None)
