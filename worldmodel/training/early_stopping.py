"""Stop training when the error on held-out scenes no longer falls, and take the best weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.types import RecordedSource, SceneBatch, SceneSource

IMPROVEMENT = 0.01
"""Share of its error by which some member must improve, for training to be worth going on."""
STEPS, BATCHES = 5000, 8
"""What is held out and recorded is measured on so many steps at most; of an endless source, so many
batches."""


class EarlyStopping:
    """Measures held-out errors, and remembers the best weights of each member of a model.

    As MBPO trains its ensemble (Janner et al. 2019; public code): training ends after ``patience``
    measurements in which no member improved by more than 1%. There the best weights of all members
    are taken when one improves; here each member has its own.

    Args:
        model: whose ``holdout_errors`` count.
        source: scenes that are not trained on.
        every: training steps between measurements.
        patience: measurements without an improvement after which training stops.
        seed: of the draws.

    Attributes:
        errors: float32 (E,), the lowest of each member; infinite before the first measurement.
        weights: of the model's parameters, for each member those with its lowest error.
        levels: float32 (E,), the errors that must be improved on by 1%.
        waited: measurements since then.

    Raises:
        ValueError: ``every`` or ``patience`` is below 1.
    """

    def __init__(
        self, model: WorldModel, source: SceneSource, every: int, patience: int, seed: int
    ) -> None:
        if every < 1 or patience < 1:
            raise ValueError(
                f"holdout_every, patience: expected at least 1, got {every} and {patience}"
            )
        self.model, self.source, self.seed = model, source, seed
        self.every, self.patience = every, patience
        self.errors = self.levels = torch.tensor([torch.inf])
        self.weights: list[Tensor] = []
        self.waited = 0

    def due(self, step: int, last: int) -> bool:
        """Whether to measure after that step, of ``last`` in all."""
        return step % self.every == 0 or step == last

    @torch.no_grad()
    def measure(self) -> float:
        """Measure, and remember what is better; the mean of the members' errors."""
        training = self.model.training
        self.model.eval()
        generator = torch.Generator(self.model.device).manual_seed(self.seed)
        errors, total = torch.tensor(0.0), 0
        for scenes in self._batches():
            count = int(scenes.lengths.sum())
            errors = errors + count * self.model.holdout_errors(scenes, generator).float().cpu()
            total += count
        errors = errors / max(total, 1)
        self.model.train(training)
        self._remember(errors)
        return float(errors.mean())

    @property
    def over(self) -> bool:
        """Whether training should stop."""
        return self.waited >= self.patience

    @torch.no_grad()
    def apply(self) -> None:
        """Give the model the best weights, and rank its members."""
        if not self.weights:
            return
        for parameter, weight in zip(self.model.parameters(), self.weights, strict=True):
            parameter.copy_(weight)
        self.model.rank_members(self.errors.to(self.model.device))

    def restore(
        self, weights: Sequence[Tensor], errors: Tensor, levels: Tensor, waited: int
    ) -> None:
        """Go on from there; the arguments are attributes of these names."""
        self.weights = [weight.to(self.model.device) for weight in weights]
        self.errors, self.levels, self.waited = errors, levels, waited

    def _batches(self) -> Iterable[SceneBatch]:
        if isinstance(self.source, RecordedSource):
            return self.source.sweep(STEPS)
        return map(self.source.batch, range(BATCHES))

    def _remember(self, errors: Tensor) -> None:
        if not self.weights:
            self.weights = [weight.detach().clone() for weight in self.model.parameters()]
            self.errors = self.levels = errors
            return
        better = errors < self.errors
        self.errors = torch.where(better, errors, self.errors)
        rows = better.nonzero().flatten().to(self.model.device)
        for best, weight in zip(self.weights, self.model.parameters(), strict=True):
            if len(errors) > 1:
                best[rows] = weight[rows]
            elif len(rows):
                best.copy_(weight)
        improved = errors < self.levels - IMPROVEMENT * self.levels.abs()
        self.levels = torch.where(improved, errors, self.levels)
        self.waited = 0 if bool(improved.any()) else self.waited + 1
