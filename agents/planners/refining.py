"""CEM and MPPI: draw plans several times, from a distribution fitted to the good ones before."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from agents.imagination import Imagination
from agents.planners.base import Before, Plan, Planner, PlannerConfig
from agents.planners.distribution import PlanDistribution
from worldmodel.common.config_checks import above_zero, at_least, share


@dataclass(frozen=True)
class RefiningConfig(PlannerConfig):
    """Settings that CEM and MPPI share.

    Attributes:
        iterations: times that plans are drawn, ``plans`` each; the first are uniform.
        momentum: share of the previous distribution in the next one, in [0, 1).
        min_spread: the smallest spread, as a share of a uniform distribution's, in [0, 1].
        warm_start: whether the rest of the previous decision's plan is among the first.
    """

    plans: int = 64
    iterations: int = 4
    momentum: float = 0.1
    min_spread: float = 0.05
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "iterations")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected in [0, 1), got {self.momentum}")
        if not 0 <= self.min_spread <= 1:
            raise ValueError(f"min_spread: expected in [0, 1], got {self.min_spread}")


class Refining(Planner):
    """Draw plans, score them, fit a distribution to the weighted plans, draw from it; all in the
    same worlds. The best plan of all iterations is chosen.
    """

    config: RefiningConfig

    @abstractmethod
    def weights(self, scores: Tensor) -> Tensor:
        """The weight of each plan by its score: (B, N) to (B, N), of sum 1 in each scene."""

    def plan(
        self, imagination: Imagination, before: Before = (), masks: Tensor | None = None
    ) -> Plan:
        """See ``Planner.plan``; the result holds the plans of all iterations."""
        config, spec = self.config, self.model.spec.action
        worlds = imagination.worlds(config.worlds)
        plans = [self.initial_plans(imagination, worlds, before, masks)]
        batch, _, decisions = plans[0].shape[:3]
        scores = [self.score(imagination, worlds, plans[0])]
        fitted = PlanDistribution.uniform(spec, batch, decisions, plans[0].device)
        for _ in range(config.iterations - 1):
            weights = self.weights(scores[-1])
            fitted = fitted.fitted(plans[-1], weights, config.momentum, config.min_spread)
            fresh = fitted.sample(config.plans, imagination.generator)
            plans.append(self.legal(imagination, worlds, fresh, masks)[0])
            scores.append(self.score(imagination, worlds, plans[-1]))
        return self.make_plan(torch.cat(plans, 1), torch.cat(scores, 1), worlds)


@dataclass(frozen=True)
class CemConfig(RefiningConfig):
    """The cross-entropy method (Rubinstein 1999).

    Attributes:
        elites: share of the plans that the next ones are fitted to, above 0 and at most 1.
    """

    elites: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "elites")


class Cem(Refining):
    """The cross-entropy method: the best plans have equal weights, the others none.

    Actions may be of any kind. See ``Planner`` for the arguments.
    """

    config: CemConfig
    config_type: ClassVar[type[PlannerConfig]] = CemConfig

    def weights(self, scores: Tensor) -> Tensor:
        """1 / elites for the best, 0 for the others."""
        count = max(1, round(self.config.elites * scores.shape[1]))
        best = scores.topk(count, 1).indices
        return torch.zeros_like(scores).scatter(1, best, 1.0 / count)


@dataclass(frozen=True)
class MppiConfig(RefiningConfig):
    """Model-predictive path integral control (Williams et al. 2017).

    Attributes:
        temperature: above 0, in standard deviations of the scores; the lower, the fewer plans have
            weight.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero(self, "temperature")


class Mppi(Refining):
    """MPPI: plans are weighted by the exponential of their score.

    Actions may be of any kind. See ``Planner`` for the arguments.
    """

    config: MppiConfig
    config_type: ClassVar[type[PlannerConfig]] = MppiConfig

    def weights(self, scores: Tensor) -> Tensor:
        """softmax(score / (temperature * spread of the scores))."""
        spread = scores.std(1, correction=0, keepdim=True).clamp_min(1e-6)
        return (scores / (self.config.temperature * spread)).softmax(1)
