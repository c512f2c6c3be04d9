"""Rewards and continuations in training: their scale, their last layer and their loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from worldmodel.types import SceneBatch


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): brings large rewards into range, is the identity near 0."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of ``symlog``."""
    return x.sign() * x.abs().expm1()


def reward_layer(inputs: int) -> nn.Linear:
    """To the reward in symlog space and the logit of going on: (..., inputs) to (..., 2)."""
    last = nn.Linear(inputs, 2)
    with torch.no_grad():  # most steps do not end an episode: start from there
        last.bias[1] = 4.0
    return last


def loss(
    scenes: SceneBatch, reward: Tensor, logit: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Negative log likelihood of rewards and continuations, each (B,), summed over valid steps.

    Args:
        scenes: the truth; steps behind a scene's end do not count.
        reward: (B, L) of the first L steps, in symlog space; a Gaussian (without its constant).
        logit: (B, L) of going on; a Bernoulli.
        variance: of the Gaussian.
    """
    steps = reward.shape[1]
    valid = (torch.arange(1, steps + 1, device=reward.device) <= scenes.lengths[:, None]).float()
    rewards, ended = scenes.rewards[:, :steps], scenes.terminated[:, :steps]
    return nll(rewards, ended, valid, reward, logit, variance)


def nll(
    rewards: Tensor, ended: Tensor, valid: Tensor, reward: Tensor, logit: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """As ``loss``, from what happened: rewards, bool ``ended``, 0 or 1 ``valid``; all (B, L)."""
    error = (reward - symlog(rewards)).square()
    crossed = binary_cross_entropy_with_logits(logit, 1.0 - ended.float(), reduction="none")
    return (0.5 * error / variance * valid).sum(1), (crossed * valid).sum(1)
