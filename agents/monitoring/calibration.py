"""Whether a model is as sure as it may be: does the real outcome hide among the imagined ones?"""

from __future__ import annotations

import torch
from torch import Tensor

TIE = 1e-9
"""Squared distances that differ by less, for values around 1, are equal: no more than rounding."""


def hidden(real: Tensor, imagined: Tensor) -> Tensor:
    """Whether the real outcome is NOT the odd one out among itself and S imagined ones.

    Each of the S + 1 outcomes is compared with the mean of the other S; the odd one out has the
    largest mean squared distance. Of a calibrated model, the real outcome and the sampled ones are
    draws from the same distribution, so each is the odd one equally often: **the mean of this is
    then S / (S + 1), exactly, whatever the distribution**. Lower: the model is too sure, or off.
    Higher: too unsure.

    Args:
        real: (K, *) outcomes of K cases.
        imagined: (S, K, *) sampled outcomes of the same cases, S >= 2.

    Returns:
        float64 (K,): 1 where another is the odd one, 0 where the real one is; outcomes that tie for
        it share it, so a perfect model without any noise gets S / (S + 1), too.

    Raises:
        ValueError: shapes do not fit, or S is below 2.
    """
    if imagined.shape[1:] != real.shape or real.dim() < 1 or len(imagined) < 2:
        raise ValueError(
            f"imagined: expected (S, *{tuple(real.shape)}) with S >= 2, got {tuple(imagined.shape)}"
        )
    outcomes = torch.cat([real[None], imagined]).double()
    outcomes = outcomes.reshape(*outcomes.shape[:2], -1)  # (S + 1, K, D)
    others = (outcomes.sum(0) - outcomes) / len(imagined)
    distance = (outcomes - others).square().mean(-1)  # (S + 1, K)
    tie = TIE * (1 + outcomes[0].square().mean(-1))
    odd = (distance >= distance.amax(0) - tie).double()
    return 1 - odd[0] / odd.sum(0)
