"""A distribution over plans, independent for each decision and each entry of an action."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from agents.actions import coloured_noise
from worldmodel.spec import ActionSpec


@dataclass(frozen=True)
class PlanDistribution:
    """For B scenes and D decisions, and every kind of action.

    Attributes:
        spec: the actions.
        centre: float32 (B, D, E, C), probabilities of C choices for each of E entries (bits have
            two); or (B, D, E), means of a box's numbers.
        spread: float32 (B, D, E), standard deviations of a box's numbers; None for choices.
    """

    spec: ActionSpec
    centre: Tensor
    spread: Tensor | None

    @property
    def _first(self) -> Tensor:
        return self.spec.first(self.centre.device)

    @classmethod
    def uniform(
        cls, spec: ActionSpec, batch: int, decisions: int, device: torch.device
    ) -> PlanDistribution:
        """Equal chances; of a box, the moments of the uniform distribution within its bounds."""
        if spec.kind == "box":
            low, high = _bounds(spec, device)
            shape = (batch, decisions, len(spec.low))
            centre, spread = (low + high) / 2, (high - low) / math.sqrt(12)
            return cls(spec, centre.expand(shape), spread.expand(shape))
        allowed = _allowed(spec, device)
        chances = allowed / allowed.sum(-1, keepdim=True)
        return cls(spec, chances.expand(batch, decisions, *chances.shape), None)

    def sample(self, plans: int, generator: torch.Generator, exponent: float = 0.0) -> Tensor:
        """Plans (B, N, D, \\*action), from a generator on the distribution's device.

        Numbers of a box are clipped to its bounds, those of an integer box rounded. The noise is
        ``agents.actions.coloured_noise`` of this exponent, along the decisions.
        """
        batch, decisions, entries = self.centre.shape[:3]
        noise = coloured_noise((batch, plans, decisions, entries), exponent, generator)
        if self.spread is not None:
            return self._numbers(self.centre[:, None] + self.spread[:, None] * noise)
        uniform = torch.special.ndtr(noise).unsqueeze(-1)
        return self._choices((uniform >= self.centre.cumsum(-1)[:, None]).sum(-1))

    def mode(self) -> Tensor:
        """The most likely plan, (B, 1, D, \\*action): the means of a box, rounded if it is an
        integer one, or of each entry the choice of the highest probability.
        """
        if self.spread is not None:
            return self._numbers(self.centre[:, None])
        return self._choices(self.centre[:, None].argmax(-1))

    def _numbers(self, numbers: Tensor) -> Tensor:
        """Numbers (B, N, D, E) of a box as plans within its bounds."""
        low, high = _bounds(self.spec, numbers.device)
        numbers = numbers.clamp(low, high)
        if self.spec.whole:
            numbers = numbers.round().clamp(low + 0.5, high - 0.5)
        return numbers.view(*numbers.shape[:3], *self.spec.shape)

    def _choices(self, chosen: Tensor) -> Tensor:
        """Choices (B, N, D, E), counted from 0, as plans."""
        last = (_allowed(self.spec, chosen.device).sum(-1) - 1).long()  # rounding may pass them
        chosen = chosen.minimum(last)
        if self.spec.categories:
            chosen = chosen + self._first
        plans = chosen.view(*chosen.shape[:3], *self.spec.shape)
        return plans.float() if self.spec.kind == "multi_binary" else plans

    def fitted(
        self, plans: Tensor, weights: Tensor, momentum: float, min_spread: float
    ) -> PlanDistribution:
        """The distribution of weighted plans, mixed with this one.

        Args:
            plans: (B, N, D, \\*action).
            weights: float32 (B, N), of sum 1 in each scene.
            momentum: share of this distribution in the result.
            min_spread: as a share of a uniform distribution: the smallest standard deviation of a
                number; for choices, the share of equal chances that is mixed in.
        """
        flat = plans.flatten(3) if plans.dim() > 3 else plans.unsqueeze(3)  # (B, N, D, E)
        share = weights[:, :, None, None]
        if self.spread is not None:
            mean = (share * flat).sum(1)
            spread = (share * (flat - mean[:, None]).square()).sum(1).sqrt()
            low, high = _bounds(self.spec, flat.device)
            centre = torch.lerp(mean, self.centre, momentum)
            spread = torch.lerp(spread, self.spread, momentum)
            return PlanDistribution(
                self.spec, centre, spread.maximum(min_spread * (high - low) / math.sqrt(12))
            )
        allowed = _allowed(self.spec, flat.device)
        numbers = flat.long() - self._first if self.spec.categories else flat.long()
        chosen = one_hot(numbers, allowed.shape[-1]).float()
        chances = torch.lerp((share.unsqueeze(-1) * chosen).sum(1), self.centre, momentum)
        equal = allowed / allowed.sum(-1, keepdim=True)
        return PlanDistribution(
            self.spec, torch.lerp(chances, equal.expand_as(chances), min_spread), None
        )


def _allowed(spec: ActionSpec, device: torch.device) -> Tensor:
    """float32 (E, C): 1 for the choices that each entry has."""
    counts = spec.categories or (2,) * spec.features
    count = torch.tensor(counts, device=device).unsqueeze(1)
    return (torch.arange(max(counts), device=device) < count).float()


def _bounds(spec: ActionSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of a box; half a number more for an integer one, so that its ends are as likely as others."""
    half = 0.5 * spec.whole
    low, high = torch.tensor(spec.low, device=device), torch.tensor(spec.high, device=device)
    return low - half, high + half
