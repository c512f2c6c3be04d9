"""CEM and MPPI: they draw plans several times, each time nearer to those that were good."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.imagination import Imagination
from agents.planners.base import Before, Plan, Planner, PlannerConfig
from agents.planners.distribution import PlanDistribution
from agents.values import Value
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import above_zero, at_least, share


@dataclass(frozen=True)
class RefiningConfig(PlannerConfig):
    """What CEM and MPPI share.

    Attributes:
        iterations: times that plans are drawn, ``plans`` each; the first are uniform.
        keep: share of the distribution before in the next one, in [0, 1).
        least: spread that is kept, as a share of a uniform distribution's, in [0, 1].
        warm_start: whether what is left of the plan of the decision before is among the first.
    """

    plans: int = 64
    iterations: int = 4
    keep: float = 0.1
    least: float = 0.05
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "iterations")
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep: expected in [0, 1), got {self.keep}")
        if not 0 <= self.least <= 1:
            raise ValueError(f"least: expected in [0, 1], got {self.least}")


class Refining(Planner):
    """Draw, score, fit a distribution to the weighted plans, draw from that; all in one set of
    worlds. The best plan ever drawn is done.
    """

    config: RefiningConfig

    @abstractmethod
    def weights(self, scores: Tensor) -> Tensor:
        """What scores (B, N) say of how much each plan counts: (B, N), of sum 1 in each scene."""

    def plan(self, imagination: Imagination, before: Before = ()) -> Plan:
        """See ``Planner.plan``; all plans of all iterations are told of."""
        config, spec = self.config, self.model.spec.action
        worlds = imagination.worlds(config.worlds)
        plans = self.first(imagination, worlds, before)
        batch, _, decisions = plans.shape[:3]
        told = PlanDistribution.uniform(spec, batch, decisions, plans.device)
        drawn, scored = [plans], [self.score(imagination, worlds, plans)]
        for _ in range(config.iterations - 1):
            told = told.fitted(drawn[-1], self.weights(scored[-1]), config.keep, config.least)
            drawn.append(told.sample(config.plans, imagination.generator))
            scored.append(self.score(imagination, worlds, drawn[-1]))
        return self.told(torch.cat(drawn, 1), torch.cat(scored, 1), worlds)


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
    """The cross-entropy method: the best plans count alike, the others not at all.

    Args:
        model: any world model that is given actions, of whatever kind.
        config: see ``CemConfig``; None takes its defaults.
        value: what the future is worth beyond a plan's end; see ``Planner``.
    """

    config: CemConfig

    def __init__(
        self,
        model: WorldModel,
        config: CemConfig | None = None,
        value: Value | None = None,
    ) -> None:
        super().__init__(model, CemConfig() if config is None else config, value)

    def weights(self, scores: Tensor) -> Tensor:
        """1 / elites for the best, 0 for the others."""
        count = max(1, round(self.config.elites * scores.shape[1]))
        best = scores.topk(count, 1).indices
        return torch.zeros_like(scores).scatter(1, best, 1.0 / count)


@dataclass(frozen=True)
class MppiConfig(RefiningConfig):
    """Model-predictive path integral control (Williams et al. 2017).

    Attributes:
        temperature: above 0, in standard deviations of the scores of a population: the lower, the
            fewer plans count.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero(self, "temperature")


class Mppi(Refining):
    """MPPI: plans count by the exponential of their score.

    Args:
        model: any world model that is given actions, of whatever kind.
        config: see ``MppiConfig``; None takes its defaults.
        value: what the future is worth beyond a plan's end; see ``Planner``.
    """

    config: MppiConfig

    def __init__(
        self,
        model: WorldModel,
        config: MppiConfig | None = None,
        value: Value | None = None,
    ) -> None:
        super().__init__(model, MppiConfig() if config is None else config, value)

    def weights(self, scores: Tensor) -> Tensor:
        """softmax(score / (temperature * spread of the scores))."""
        spread = scores.std(1, correction=0, keepdim=True).clamp_min(1e-6)
        return (scores / (self.config.temperature * spread)).softmax(1)
