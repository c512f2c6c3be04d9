"""Random shooting: draw plans uniformly, score them all in the same worlds, take the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents import actions as action_border
from agents.imagination import Imagination
from agents.planners.base import Plan, Planner
from worldmodel.base import WorldModel


@dataclass(frozen=True)
class RandomShootingConfig:
    """How much is imagined at each decision.

    Attributes:
        plans: plans drawn per scene (N).
        worlds: sampled worlds that every plan is scored in (S).
        horizon: decisions that a plan looks ahead; what reaches beyond the model's window is cut.
        hold: steps that each decision's action is held.
        discount: per step, in (0, 1].
        seed: of plans and worlds.
    """

    plans: int = 256
    worlds: int = 4
    horizon: int = 4
    hold: int = 1
    discount: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("plans", "worlds", "horizon", "hold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount: expected above 0 and at most 1, got {self.discount}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")


class RandomShooting(Planner):
    """The simplest planner; with a jumpy model one call scores every plan to its end.

    Args:
        model: any world model that is given actions.
        config: see ``RandomShootingConfig``; None takes its defaults.

    Example::

        planner = RandomShooting(model, RandomShootingConfig(horizon=8, hold=5))
        evaluate_policy(planner, HoldAction(env, 5), n_eval_episodes=10)
    """

    def __init__(self, model: WorldModel, config: RandomShootingConfig | None = None) -> None:
        self.config = RandomShootingConfig() if config is None else config
        super().__init__(model, self.config.hold, self.config.seed)

    def plan(self, imagination: Imagination) -> Plan:
        """Draw, score, take the best; see ``Planner.plan``."""
        config, spec = self.config, self.model.spec.action
        left = int(imagination.left.max())
        decisions = min(config.horizon, max(1, -(-left // config.hold)))
        worlds = imagination.worlds(config.worlds)
        batch = worlds.shape[0]
        lead = (batch, config.plans, decisions)
        plans = action_border.draw_actions(spec, lead, imagination.generator)
        steps = plans.repeat_interleave(config.hold, 2)
        scores = imagination.score(worlds, steps, config.discount)
        best = scores.argmax(1)
        return Plan(
            action_border.to_numpy(spec, plans),
            np.asarray(scores.cpu().numpy(), np.float32),
            np.asarray(best.cpu().numpy(), np.int64),
            worlds,
        )
