"""Random shooting: draw plans uniformly, score them all in the same worlds, take the best."""

from __future__ import annotations

from dataclasses import dataclass

from agents.imagination import Imagination
from agents.planners.base import Before, Plan, Planner, PlannerConfig
from agents.values import Value
from worldmodel.base import WorldModel


@dataclass(frozen=True)
class RandomShootingConfig(PlannerConfig):
    """How much is imagined at each decision; see ``PlannerConfig``."""


class RandomShooting(Planner):
    """The simplest planner; with a jumpy model one call scores every plan to its end.

    Args:
        model: any world model that is given actions.
        config: see ``PlannerConfig``; None takes its defaults.
        value: what the future is worth beyond a plan's end; see ``Planner``.

    Example::

        planner = RandomShooting(model, RandomShootingConfig(horizon=8, hold=5))
        evaluate_policy(planner, HoldAction(env, 5), n_eval_episodes=10)
    """

    def __init__(
        self,
        model: WorldModel,
        config: RandomShootingConfig | None = None,
        value: Value | None = None,
    ) -> None:
        super().__init__(model, RandomShootingConfig() if config is None else config, value)

    def plan(self, imagination: Imagination, before: Before = ()) -> Plan:
        """Draw, score, take the best; see ``Planner.plan``."""
        worlds = imagination.worlds(self.config.worlds)
        plans = self.first(imagination, worlds, before)
        return self.told(plans, self.score(imagination, worlds, plans), worlds)
