"""copy-last: nothing changes. The stationary baseline that every model must beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from worldmodel.models.baselines.untrained import Untrained
from worldmodel.types import Belief, Context, Queries, StepPrediction, Worlds


@dataclass(frozen=True)
class CopyLastConfig:
    """There is nothing to set."""


PRESETS = {"small": CopyLastConfig(), "vector": CopyLastConfig()}


class CopyLast(Untrained):
    """Shows the latest observation of the context at every time and from every pose.

    (Of views without times: the last one.) Rewards are 0, and the episode goes on.
    """

    name: ClassVar[str] = "copy-last"
    jumpy: ClassVar[bool] = True
    takes_vectors: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def _observe(self, context: Context) -> Belief:
        mask, times = context.full_mask(), context.times
        place = torch.arange(times.shape[1], device=times.device)
        rank = place if self.spec.pose else times * times.shape[1] + place
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
