"""A running average of the weights, often better than the last weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a module's parameters; its buffers stay as they are.

    Early on the decay is (1 + n) / (10 + n) after n updates, so that the first weights soon
    count no more.

    Args:
        module: whose weights are averaged; they are read at each ``update``.
        decay: in [0, 1); 0 keeps no average, and ``swapped`` changes nothing.

    Raises:
        ValueError: the decay lies outside.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema: expected a decay of at least 0 and below 1, got {decay}")
        self.module, self.decay, self.updates = module, decay, 0
        self.weights: list[Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's present weights."""
        if not self.decay:
            return
        now = list(self.module.parameters())
        if not self.weights:
            self.weights = [p.detach().clone() for p in now]
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.weights, [p.detach() for p in now], 1 - decay)
        self.updates += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within it, the module has the average as its weights."""
        own = [p.detach().clone() for p in self.module.parameters()] if self.weights else []
        self.apply()
        try:
            yield
        finally:
            _copy(self.module, own)

    def apply(self) -> None:
        """Make the average the module's weights."""
        _copy(self.module, self.weights)

    def restore(self, weights: list[Tensor], updates: int) -> None:
        """Go on from these ``weights``, after that many updates."""
        device = next(self.module.parameters()).device
        self.weights, self.updates = [w.to(device) for w in weights], updates


@torch.no_grad()
def _copy(module: nn.Module, weights: list[Tensor]) -> None:
    for parameter, weight in zip(module.parameters(), weights, strict=bool(weights)):
        parameter.copy_(weight)
