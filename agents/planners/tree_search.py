"""Tree search: plans grow action by action; only the beginnings that went well go on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents import actions as action_border
from agents.imagination import Imagination
from agents.planners.base import Before, Plan, Planner, PlannerConfig
from agents.values import Value
from worldmodel.base import WorldModel


@dataclass(frozen=True)
class TreeSearchConfig(PlannerConfig):
    """How much is imagined at each decision; see ``PlannerConfig``.

    Attributes:
        plans: plans scored per scene, at most, on all levels of the tree together.
    """


class TreeSearch(Planner):
    """A beam search over the tree of held actions, for actions that can be counted.

    On each level every beginning that was kept is continued by every action and completed up to the
    horizon as in the best plan that was found with it; where the level's share of the plans allows
    more, also at random. One call scores them all. A beginning is worth its best completion, and as
    many of the best go on as the next level's share allows. As soon as the budget allows all that
    is left of the tree, all of it is scored: at once with A^D plans, for A actions and D decisions,
    and then the best plan of all is found.

    Args:
        model: any world model whose actions are discrete, multi-discrete or bits.
        config: see ``TreeSearchConfig``; None takes its defaults.
        value: what the future is worth beyond a plan's end; see ``Planner``.

    Raises:
        ValueError: actions are numbers of a box, or too few plans for every action on each level.
    """

    config: TreeSearchConfig

    def __init__(
        self,
        model: WorldModel,
        config: TreeSearchConfig | None = None,
        value: Value | None = None,
    ) -> None:
        config = TreeSearchConfig() if config is None else config
        super().__init__(model, config, value)
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

    def plan(self, imagination: Imagination, before: Before = ()) -> Plan:
        """See ``Planner.plan``; all plans of all levels are told of."""
        config, count = self.config, len(self.choices)
        worlds = imagination.worlds(config.worlds)
        best = self._numbers(self.first(imagination, worlds, before)[:, :1])
        levels, budget = best.shape[2], config.plans
        drawn, scored = list[Tensor](), list[Tensor]()
        for level in range(levels):
            below = levels - level - 1
            whole = best.shape[1] * count ** (below + 1) <= budget
            if whole:
                tails = _every(count, below, best.device)
                tails = tails.expand(len(best), best.shape[1], count, -1, -1)
            else:
                share = budget // (below + 1) // (best.shape[1] * count)
                tails = _some(best, level, count, share, imagination.generator)
            grown = _grown(best, level, tails)
            drawn.append(grown.flatten(1, 3))
            scored.append(self.score(imagination, worlds, self.choices[drawn[-1]]))
            if whole:
                break
            budget -= drawn[-1].shape[1]
            best = _best(grown, scored[-1], budget // below // count)
        return self.told(self.choices[torch.cat(drawn, 1)], torch.cat(scored, 1), worlds)

    def _numbers(self, plans: Tensor) -> Tensor:
        """Plans (B, N, D, \\*action) by the numbers (B, N, D) of their actions in ``choices``."""
        flat = plans.reshape(*plans.shape[:3], 1, -1)
        return (flat == self.choices.reshape(len(self.choices), -1)).all(-1).int().argmax(-1)


def _every(count: int, length: int, device: torch.device) -> Tensor:
    """All tails of that length: (count^length, length)."""
    numbers = torch.arange(count**length, device=device).unsqueeze(1)
    place = torch.arange(length - 1, -1, -1, device=device)
    return numbers // count**place % count


def _some(best: Tensor, level: int, count: int, share: int, generator: torch.Generator) -> Tensor:
    """``share`` tails behind each child: that of its parent's best plan, and random ones.

    Returns:
        int64 (B, K, count, share, D - level - 1), for plans ``best`` (B, K, D).
    """
    tail = best[:, :, None, None, level + 1 :].expand(-1, -1, count, 1, -1)
    shape = (*tail.shape[:3], share - 1, tail.shape[-1])
    drawn = torch.randint(count, shape, generator=generator, device=best.device)
    return torch.cat([tail, drawn], 3)


def _grown(best: Tensor, level: int, tails: Tensor) -> Tensor:
    """Plans (B, K, A, T, D): the beginnings of ``best`` (B, K, D), each action, each tail."""
    shape = tails.shape[:4]
    begun = best[:, :, None, None, :level].expand(*shape, -1)
    action = torch.arange(shape[2], device=best.device).view(-1, 1, 1).expand(*shape, 1)
    return torch.cat([begun, action, tails], -1)


def _best(grown: Tensor, scores: Tensor, kept: int) -> Tensor:
    """Of the best children, at most ``kept``, the best plan of each: (B, <= kept, D)."""
    batch, parents, count, tails, decisions = grown.shape
    worth, which = scores.view(batch, parents * count, tails).max(2)
    chosen = worth.topk(min(kept, parents * count), 1).indices
    plan = chosen * tails + which.gather(1, chosen)
    return grown.flatten(1, 3).gather(1, plan.unsqueeze(-1).expand(-1, -1, decisions))
