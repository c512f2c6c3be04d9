"""Stop training when the error on held-out scenes no longer falls, and take the best weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.common.safe_files import layout
from worldmodel.types import RecordedSource, SceneBatch, SceneSource

IMPROVEMENT = 0.01
"""Share of its error by which some member must improve, for training to be worth going on."""
STEPS, BATCHES = 5000, 8
"""What is held out and recorded is measured on so many steps at most; of an endless source, so many
batches."""


class EarlyStopping:
    """Measures held-out errors, and remembers the best weights of each member and part of a model.

    As MBPO trains its ensemble (Janner et al. 2019; public code): training ends after ``patience``
    measurements in which nothing improved by more than 1%. There the best weights of all members
    are taken when one improves; here each member has its own.

    Args:
        model: whose ``holdout_errors`` count.
        source: scenes that are not trained on.
        every: training steps between measurements.
        patience: measurements without an improvement after which training stops.
        seed: of the draws.

    Attributes:
        errors: float32 (E,) by part, the lowest of each member.
        weights: of the model's parameters, those with the lowest error; empty before the first
            measurement.
        levels: float32 (E,) by part, the errors that must be improved on by 1%.
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
        self.errors: dict[str, Tensor] = {}
        self.levels: dict[str, Tensor] = {}
        self.weights: list[Tensor] = []
        self.waited = 0

    def due(self, step: int, last: int) -> bool:
        """Whether to measure after that step, of ``last`` in all."""
        return step % self.every == 0 or step == last

    @torch.no_grad()
    def measure(self) -> float:
        """Measure, and remember what is better; the members' mean of the sum of all parts."""
        training = self.model.training
        self.model.eval()
        generator = torch.Generator(self.model.device).manual_seed(self.seed)
        sums: dict[str, Tensor] = {}
        total = 0
        for scenes in self._batches():
            count = int(scenes.lengths.sum())
            for part, errors in self.model.holdout_errors(scenes, generator).items():
                sums[part] = sums.get(part, 0.0) + count * errors.float().cpu()
            total += count
        measured = {part: errors / max(total, 1) for part, errors in sums.items()}
        self.model.train(training)
        self._remember(measured)
        return float(sum(errors.mean() for errors in measured.values()))

    @property
    def lowest(self) -> float:
        """What ``measure`` would return with the best weights."""
        return float(sum(errors.mean() for errors in self.errors.values()))

    @property
    def over(self) -> bool:
        """Whether training should stop."""
        return self.waited >= self.patience

    @torch.no_grad()
    def apply(self) -> None:
        """Give the model the best weights, and calibrate it."""
        if not self.weights:
            return
        for parameter, weight in zip(self.model.parameters(), self.weights, strict=True):
            parameter.copy_(weight)
        errors = {part: each.to(self.model.device) for part, each in self.errors.items()}
        self.model.calibrate(errors, self._batches())

    def restore(
        self,
        weights: Sequence[Tensor],
        errors: dict[str, Tensor],
        levels: dict[str, Tensor],
        waited: int,
    ) -> None:
        """Go on from there; the arguments are attributes of these names.

        Raises:
            ValueError: errors and levels are not of the same parts and members.
        """
        if layout(errors) != layout(levels):
            raise ValueError(f"holdout: errors {layout(errors)} and levels {layout(levels)} differ")
        self.weights = [weight.to(self.model.device) for weight in weights]
        self.errors, self.levels, self.waited = errors, levels, waited

    def _batches(self) -> Iterable[SceneBatch]:
        if isinstance(self.source, RecordedSource):
            return self.source.sweep(STEPS)
        return map(self.source.batch, range(BATCHES))

    def _remember(self, measured: dict[str, Tensor]) -> None:
        if not self.weights:
            self.weights = [weight.detach().clone() for weight in self.model.parameters()]
            self.errors = measured
            self.levels = {part: errors.clone() for part, errors in measured.items()}
            return
        if layout(measured) != layout(self.errors):  # of a file that was resumed from
            raise ValueError(
                f"holdout: expected errors {layout(measured)}, the training state has "
                f"{layout(self.errors)}"
            )
        improved = False
        for part, errors in measured.items():
            better = errors < self.errors[part]
            self.errors[part] = torch.where(better, errors, self.errors[part])
            rows = better.nonzero().flatten().to(self.model.device)
            for best, (name, weight) in zip(
                self.weights, self.model.named_parameters(), strict=True
            ):
                if not name.startswith(part) or not len(rows):
                    continue
                if len(errors) > 1:
                    best[rows] = weight[rows]
                else:
                    best.copy_(weight)
            level = self.levels[part]
            enough = errors < level - IMPROVEMENT * level.abs()
            self.levels[part] = torch.where(enough, errors, level)
            improved |= bool(enough.any())
        self.waited = 0 if improved else self.waited + 1
