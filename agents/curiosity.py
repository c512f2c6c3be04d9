"""How much the worlds of a plan disagree about what it would show, as a reason to try it.

Where rewards are rare, all plans look alike until the first one is met. One whose outcome a model
is unsure of teaches it something: plans are chosen for what is to be learned by them (MAX, Shyam et
al. 2019; Plan2Explore, Sekar et al. 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor


class PlanCuriosity:
    """Gathers the observations of plans, some plans at a time, and compares their worlds."""

    def __init__(self) -> None:
        self._within: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._count = 0

    def add(self, observations: Tensor, running: Tensor) -> None:
        """Take in some plans.

        Args:
            observations: (B, S, N, K, \\*observation), at K steps of N plans in S worlds.
            running: (B, S, N, K), the probability that an episode still ran before each step: what
                would follow an end counts for nothing.
        """
        values = observations.flatten(4).double()
        spread = values.std(1, correction=0) * running.mean(1)[..., None]
        self._within.append(spread.mean(2))
        self._sums.append(values.sum((1, 2, 3)))
        self._squares.append(values.square().sum((1, 2, 3)))
        self._count += values.shape[1] * values.shape[2] * values.shape[3]

    def disagreement(self) -> Tensor:
        """float32 (B, N): the standard deviation between a plan's worlds, mean over its steps and
        the numbers of an observation, each as a share of that between all plans, worlds and steps.
        Numbers that are always the same do not count.
        """
        mean = torch.stack(self._sums).sum(0) / self._count
        square = torch.stack(self._squares).sum(0) / self._count
        whole = (square - mean.square()).clamp_min(0).sqrt()[:, None]  # (B, 1, D)
        moves = whole > 1e-6 * (1 + mean.abs()[:, None])
        share = torch.where(moves, torch.cat(self._within, 1) / whole.clamp_min(1e-12), 0.0)
        return (share.sum(-1) / moves.sum(-1).clamp_min(1)).float()
