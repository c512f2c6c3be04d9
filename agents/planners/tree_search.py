"""Tree search: plans grow action by action; only the best beginnings are continued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from agents import actions as action_border
from agents.imagination import Imagination
from agents.known_functions import KnownFunctions
from agents.planners.base import Before, Plan, Planner, PlannerConfig
from agents.values import Value
from worldmodel.base import WorldModel


@dataclass(frozen=True)
class TreeSearchConfig(PlannerConfig):
    """Settings of ``TreeSearch``; see ``PlannerConfig``.

    Attributes:
        plans: plans scored for each scene, at most, on all levels of the tree together.
    """


class TreeSearch(Planner):
    """A beam search over the tree of held actions, for actions that can be counted.

    On each level, every beginning in the beam is continued by every action and completed to the
    horizon like its best plan so far; as far as the level's share of the plans allows, also at
    random. One call scores them all. The value of a beginning is that of its best completion, and
    the beam of the next level is as wide as its share allows. As soon as the rest of the tree fits
    the budget, all of it is scored: at once with A^D plans, for A actions and D decisions, which
    finds the best plan of all.

    Args:
        model: any world model whose actions are discrete, multi-discrete or bits.
        config: see ``TreeSearchConfig``; None takes its defaults.
        value: estimate of the return after a plan's end; see ``Planner``.
        known: functions in place of the model's heads; see ``Planner``.

    Raises:
        ValueError: actions are numbers of a box, or too few plans for every action on each level.
    """

    config: TreeSearchConfig
    config_type: ClassVar[type[PlannerConfig]] = TreeSearchConfig

    def __init__(
        self,
        model: WorldModel,
        config: PlannerConfig | None = None,
        value: Value | None = None,
        known: KnownFunctions | None = None,
    ) -> None:
        super().__init__(model, config, value, known)
        config = self.config
        spec = model.spec.action
        choices = action_border.count_choices(spec)
        if choices is None:
            raise ValueError(
                "model: its actions are numbers of a box, of which there is no end; plan with Cem "
                "or Mppi"
            )
        if config.plans < choices * config.horizon:
            raise ValueError(
                f"plans: expected at least {choices * config.horizon}, one for each of {choices} "
                f"actions on {config.horizon} levels, got {config.plans}; or plan with Cem or Mppi"
            )
        self.choices = action_border.all_choices(spec, model.device)

    def plan(
        self, imagination: Imagination, before: Before = (), masks: Tensor | None = None
    ) -> Plan:
        """See ``Planner.plan``; the result holds the plans of all levels."""
        config, count = self.config, len(self.choices)
        worlds = imagination.worlds(config.worlds)
        beam = self._numbers(self.initial_plans(imagination, worlds, before, masks)[:, :1])
        levels, budget = beam.shape[2], config.plans
        plans, scores = list[Tensor](), list[Tensor]()
        for level in range(levels):
            below = levels - level - 1
            whole = beam.shape[1] * count ** (below + 1) <= budget
            if whole:
                tails = action_border.all_sequences(count, below, beam.device)
                tails = tails.expand(len(beam), beam.shape[1], count, -1, -1)
            else:
                share = budget // (below + 1) // (beam.shape[1] * count)
                tails = _some_tails(beam, level, count, share, imagination.generator)
            children = _children(beam, level, tails)
            fixed = levels if whole else level + 1
            actions, legal = self.legal(
                imagination, worlds, self.choices[children.flatten(1, 3)], masks, fixed
            )
            children = self._numbers(actions).view(children.shape)
            plans.append(children.flatten(1, 3))
            score = self.score(imagination, worlds, actions)
            scores.append(score.masked_fill(~legal, -torch.inf))
            if whole:
                break
            budget -= plans[-1].shape[1]
            beam = _best(children, scores[-1], budget // below // count)
        return self.make_plan(self.choices[torch.cat(plans, 1)], torch.cat(scores, 1), worlds)

    def _numbers(self, plans: Tensor) -> Tensor:
        """Plans (B, N, D, \\*action) by the numbers (B, N, D) of their actions in ``choices``."""
        flat = plans.reshape(*plans.shape[:3], 1, -1)
        return (flat == self.choices.reshape(len(self.choices), -1)).all(-1).int().argmax(-1)


def _some_tails(
    beam: Tensor, level: int, count: int, share: int, generator: torch.Generator
) -> Tensor:
    """``share`` tails for each child: that of its parent's best plan, and random ones.

    Returns:
        int64 (B, K, count, share, D - level - 1), for plans ``beam`` (B, K, D).
    """
    tail = beam[:, :, None, None, level + 1 :].expand(-1, -1, count, 1, -1)
    shape = (*tail.shape[:3], share - 1, tail.shape[-1])
    random = torch.randint(count, shape, generator=generator, device=beam.device)
    return torch.cat([tail, random], 3)


def _children(beam: Tensor, level: int, tails: Tensor) -> Tensor:
    """Plans (B, K, A, T, D): the beginnings of ``beam`` (B, K, D), each action, each tail."""
    shape = tails.shape[:4]
    begun = beam[:, :, None, None, :level].expand(*shape, -1)
    action = torch.arange(shape[2], device=beam.device).view(-1, 1, 1).expand(*shape, 1)
    return torch.cat([begun, action, tails], -1)


def _best(children: Tensor, scores: Tensor, width: int) -> Tensor:
    """The best plan of each of the best children, at most ``width``: (B, <= width, D)."""
    batch, parents, count, tails, decisions = children.shape
    value, tail = scores.view(batch, parents * count, tails).max(2)
    chosen = value.topk(min(width, parents * count), 1).indices
    plan = chosen * tails + tail.gather(1, chosen)
    return children.flatten(1, 3).gather(1, plan.unsqueeze(-1).expand(-1, -1, decisions))
