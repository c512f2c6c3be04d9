"""Random shooting: draw plans uniformly, score them all in the same worlds, take the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from agents.imagination import Imagination
from agents.planners.base import Before, Plan, Planner, PlannerConfig


@dataclass(frozen=True)
class RandomShootingConfig(PlannerConfig):
    """Settings of ``RandomShooting``; see ``PlannerConfig``."""


class RandomShooting(Planner):
    """The simplest planner; with a jumpy model one call scores every plan to its end.

    See ``Planner`` for its arguments.

    Example::

        planner = RandomShooting(model, RandomShootingConfig(horizon=8, hold=5))
        evaluate_policy(planner, HoldAction(env, 5), n_eval_episodes=10)
    """

    config_type: ClassVar[type[PlannerConfig]] = RandomShootingConfig

    def plan(
        self, imagination: Imagination, before: Before = (), masks: Tensor | None = None
    ) -> Plan:
        """Draw plans, score them, choose the best; see ``Planner.plan``."""
        worlds = imagination.worlds(self.config.worlds)
        plans = self.initial_plans(imagination, worlds, before, masks)
        return self.make_plan(plans, self.score(imagination, worlds, plans), worlds)
