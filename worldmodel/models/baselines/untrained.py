"""A world model without parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodel.base import Losses, WorldModel
from worldmodel.spec import Spec
from worldmodel.types import Queries, SceneBatch, Worlds


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
        if queries.actions is not None:  # others find impossible actions where they read them
            self.spec.action.encode(queries.actions)
