"""Models without parameters; copy-last, the stationary baseline that every model must beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from worldmodel.base import Losses, WorldModel
from worldmodel.spec import Spec
from worldmodel.types import Belief, Context, Queries, SceneBatch, StepPrediction, Worlds


class Untrained(WorldModel):
    """Moves to a device and is saved like any other model, but ``fit`` refuses it."""

    here: Tensor

    def __init__(self, spec: Spec, config: Any) -> None:
        super().__init__(spec, config)
        self.register_buffer("here", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where answers are made."""
        return self.here.device

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """Raises ValueError: there is nothing to learn."""
        raise ValueError(f"model: {self.name} has nothing to learn; use it as it is")

    def _check_queries(self, worlds: Worlds, queries: Queries) -> None:
        super()._check_queries(worlds, queries)
        if queries.actions is not None:  # other models check actions where they encode them
            self.spec.action.encode(queries.actions)


@dataclass(frozen=True)
class CopyLastConfig:
    """There is nothing to set."""


PRESETS = {"small": CopyLastConfig(), "vector": CopyLastConfig()}


class CopyLast(Untrained):
    """Predicts the latest observation of the context at every time and from every pose.

    (Of views without times: the last one.) Rewards are 0, and the episode goes on.
    """

    name: ClassVar[str] = "copy-last"
    jumpy: ClassVar[bool] = True
    takes_vectors: ClassVar[bool] = True
    takes_image_parts: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def _observe(self, context: Context) -> Belief:
        mask, times = context.full_mask(), context.times
        order = torch.arange(times.shape[1], device=times.device)
        rank = order if self.spec.pose else times * times.shape[1] + order
        latest = torch.where(mask, rank, -1).argmax(1)
        rows = torch.arange(len(times), device=times.device)
        return Belief(context.present_times(), {"last": context.observations[rows, latest]})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        last = belief.state["last"].unsqueeze(1)
        return Worlds(belief.present, {"last": last.expand(-1, n, *last.shape[2:])})

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        return Worlds(worlds.present + actions.shape[1], worlds.state)

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        last = worlds.state["last"]
        rewards = last.new_zeros(*worlds.shape, 1, queries.ahead(worlds.present))
        observations = last[:, :, None, None].expand(
            -1, -1, 1, queries.times.shape[1], *last.shape[2:]
        )
        return StepPrediction(rewards, rewards + math.inf, observations if frames else None)
