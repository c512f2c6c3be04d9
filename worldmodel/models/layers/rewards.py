"""Rewards and continuations: their scale in training, and what a ``Prediction`` says of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from worldmodel.types import SceneBatch


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): keeps large rewards in range, is the identity near 0."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of ``symlog``."""
    return x.sign() * x.abs().expm1()


def at_queries(
    rewards: Tensor, continues: Tensor, present: Tensor, times: Tensor
) -> tuple[Tensor, Tensor]:
    """Gather expected rewards and survival at the query times.

    Args:
        rewards: float32 (B, S, N, L), reward of the steps present + 1 .. present + L.
        continues: float32 (B, S, N, L), probability that the step does not end the episode.
        present: int64 (B,).
        times: int64 (B, K), at most present + L.

    Returns:
        rewards and alive, (B, S, N, K), as ``Prediction`` defines them: a step counts with the
        probability that the episode still ran before it, so the step that ends an episode counts.
    """
    now = rewards.new_zeros(*rewards.shape[:3], 1)
    alive = torch.cat([now + 1, continues.cumprod(-1)], -1)  # (B, S, N, L + 1)
    earned = torch.cat([now, (alive[..., :-1] * rewards).cumsum(-1)], -1)

    offset = (times - present.unsqueeze(1)).clamp_min(0)  # (B, K)
    order = offset.argsort(dim=1, stable=True)
    in_order = offset.gather(1, order)
    before = torch.cat([torch.zeros_like(in_order[:, :1]), in_order[:, :-1]], 1)
    previous = torch.empty_like(before).scatter_(1, order, before)

    def pick(values: Tensor, index: Tensor) -> Tensor:
        shape = (*values.shape[:3], index.shape[1])
        return values.gather(-1, index[:, None, None].expand(shape))

    survived = pick(alive, previous).clamp_min(1e-6)
    return (pick(earned, offset) - pick(earned, previous)) / survived, pick(alive, offset)


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
