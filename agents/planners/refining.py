"""CEM and MPPI: draw plans several times, from a distribution fitted to the good ones before."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

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
        retained: share of an iteration's plans, the best by their score, that stay candidates of
            the next one (iCEM, Pinneri et al. 2020, section 3.3); they are not scored again, since
            all iterations share their worlds.
        choose: "mean": the plan that is carried out is the mean of the last iteration's plans by
            their weights, or of choices the most frequent ones, as in PETS: the single best plan is
            often one whose score the model errs about. "best": the best plan of all iterations,
            right with an exact model.
        warm_start: whether the rest of the previous decision's plan is among the first.
    """

    plans: int = 64
    iterations: int = 4
    momentum: float = 0.1
    min_spread: float = 0.05
    retained: float = 0.0
    choose: Literal["mean", "best"] = "mean"
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "iterations")
        for name in ("momentum", "retained"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.min_spread <= 1:
            raise ValueError(f"min_spread: expected in [0, 1], got {self.min_spread}")
        if self.choose not in ("mean", "best"):
            raise ValueError(f"choose: expected 'mean' or 'best', got {self.choose!r}")


class Refining(Planner):
    """Draw plans, score them, fit a distribution to the weighted plans, draw from it; all in the
    same worlds. See ``RefiningConfig.choose`` for the plan that is carried out.
    """

    config: RefiningConfig

    @abstractmethod
    def weights(self, scores: Tensor) -> Tensor:
        """The weight of each plan by its score: (B, N) to (B, N), of sum 1 in each scene."""

    def plan(
        self, imagination: Imagination, before: Before = (), masks: Tensor | None = None
    ) -> Plan:
        """See ``Planner.plan``; the result holds the plans of all iterations.

        Where the mean is chosen it is the last of the plans; its score is the weighted mean of
        those that it is the mean of.
        """
        config, spec = self.config, self.model.spec.action
        worlds = imagination.worlds(config.worlds)
        plans = self.initial_plans(imagination, worlds, before, masks)
        scores = self.score(imagination, worlds, plans)
        scored = [(plans, scores)]
        fitted = PlanDistribution.uniform(spec, plans.shape[0], plans.shape[2], plans.device)
        for _ in range(config.iterations - 1):
            weights = self.weights(scores)
            fitted = fitted.fitted(plans, weights, config.momentum, config.min_spread)
            fresh = fitted.sample(config.plans, imagination.generator, config.noise_exponent)
            fresh = self.legal(imagination, worlds, fresh, masks)[0]
            scored.append((fresh, self.score(imagination, worlds, fresh)))
            plans, scores = self._candidates(plans, scores, *scored[-1])
        if config.choose == "mean":
            weights = self.weights(scores)
            mean = fitted.fitted(plans, weights, momentum=0.0, min_spread=0.0).mode()
            mean = self.legal(imagination, worlds, mean, masks)[0]
            scored.append((mean, (weights * scores).sum(1, keepdim=True)))
        every, of_every = (torch.cat(parts, 1) for parts in zip(*scored, strict=True))
        best = torch.full_like(of_every[:, 0], every.shape[1] - 1, dtype=torch.long)
        return self.make_plan(
            every, of_every, worlds, best if config.choose == "mean" else of_every.argmax(1)
        )

    def _candidates(
        self, plans: Tensor, scores: Tensor, fresh: Tensor, fresh_scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The plans that the next distribution is fitted to, with their scores: the fresh ones and
        the retained of those before.
        """
        count = round(self.config.retained * self.config.plans)
        if count == 0:
            return fresh, fresh_scores
        best = scores.topk(count, 1)
        rows = torch.arange(len(plans), device=plans.device)[:, None]
        retained = plans[rows, best.indices]
        return torch.cat([fresh, retained], 1), torch.cat([fresh_scores, best.values], 1)


@dataclass(frozen=True)
class CemConfig(RefiningConfig):
    """The cross-entropy method (Rubinstein 1999), for numbers and for choices.

    Attributes:
        elites: share of the candidates that the next plans are fitted to, above 0 and at most 1.
    """

    elites: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "elites")


class Cem(Refining):
    """The cross-entropy method: the best plans, the elites, have equal weights, the others none.

    Actions may be of any kind. See ``Planner`` for the arguments.
    """

    config: CemConfig
    config_type: ClassVar[type[PlannerConfig]] = CemConfig

    def weights(self, scores: Tensor) -> Tensor:
        """Equal for the elites, 0 for the others.

        Plans as good as the last elite are elites, too. Where every plan survives to its end, all
        count, and the mean does what most of those that survive do, instead of what a few chosen
        by their number do.
        """
        count = max(1, round(self.config.elites * scores.shape[1]))
        last = scores.topk(count, 1).values[:, -1:]
        elite = (scores >= last).float()
        return elite / elite.sum(1, keepdim=True)


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
