"""Losses on scenes that are not trained on, and the best weights by them."""

from __future__ import annotations

import torch

from worldmodel.base import WorldModel
from worldmodel.types import SceneSource

BATCHES = 8


class Validation:
    """Measures the loss that training ends with, always on the same draws.

    Args:
        source: scenes that training does not see; None never measures.
        every: steps between measurements.
        seed: of the draws.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, source: SceneSource | None, every: int, seed: int) -> None:
        if every < 1:
            raise ValueError(f"validate_every: expected at least 1, got {every}")
        self.source, self.every, self.seed = source, every, seed

    def due(self, step: int, last: int) -> bool:
        """Whether to measure after that step, of ``last`` in all."""
        return self.source is not None and (step % self.every == 0 or step == last)

    @torch.no_grad()
    def measure(self, model: WorldModel) -> dict[str, float]:
        """Mean loss parts over the first batches of the source; the model is left in eval mode."""
        assert self.source is not None
        model.eval()
        generator = torch.Generator(model.device).manual_seed(self.seed)
        found: dict[str, float] = {}
        for index in range(BATCHES):
            losses = model(self.source.batch(index), 1.0, generator)
            for name, value in losses.parts.items():
                found[name] = found.get(name, 0.0) + float(value) / BATCHES
        return found
