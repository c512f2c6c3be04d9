"""Coarse to fine: a cheap look at all plans, a full one at the best of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def coarse_to_fine(
    plans: Tensor, cheap: Tensor, share: float, full: Callable[[Tensor], Tensor]
) -> Tensor:
    """Score only the best plans in full. The others keep their order, below all of those.

    So whatever ranks plans by score, be it the best one, elites or a softmax, may take the result
    as it is: a plan that was not scored in full never wins.

    Args:
        plans: (B, N, ...).
        cheap: float32 (B, N), their first scores.
        share: of the plans that are scored in full, in each scene the best by the first score;
            at least one is.
        full: scores of plans (B, n, ...): (B, n).

    Returns:
        float32 (B, N): the full scores; for the others their first ones, of each scene lowered
        alike until they lie below.
    """
    count = max(1, round(share * cheap.shape[1]))
    chosen = cheap.topk(count, 1).indices
    rows = torch.arange(len(plans), device=plans.device).unsqueeze(1)
    fine = full(plans[rows, chosen])
    worst = fine.amin(1, keepdim=True)
    others = cheap.scatter(1, chosen, -math.inf)
    excess = (others.amax(1, keepdim=True) - worst).clamp_min(0)
    below = torch.nextafter(worst, torch.full_like(worst, -math.inf))
    return torch.minimum(cheap - excess, below).scatter(1, chosen, fine)
