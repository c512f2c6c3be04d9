"""Coarse to fine: score all plans cheaply, and only the best of them in full."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def coarse_to_fine(
    plans: Tensor, cheap: Tensor, share: float, full: Callable[[Tensor], Tensor]
) -> Tensor:
    """Score only the best plans in full; the others keep their order, below all of those.

    So the best plan, elites or a softmax may be taken of the result as it is: a plan that was not
    scored in full never wins.

    Args:
        plans: (B, N, ...).
        cheap: float32 (B, N), their first scores.
        share: of the plans, the best by their first score, that are scored in full; at least one.
        full: function of plans (B, n, ...) that returns their full scores (B, n).

    Returns:
        float32 (B, N).
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
