"""Rewards and continuations in training: their scale, their last layer and their loss."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from worldmodel.types import SceneBatch, SceneSource

LARGEST_REWARD = 1e36
"""Sums over a window, and errors of a network, stay within float32, which ends at 3.4e38."""
PREPARE_BATCHES = 32
"""Batches of the training source from which means and spreads are estimated."""


class RewardScale(nn.Module):
    """Standardises rewards, so that a network learns them at any scale.

    A squared error has its minimum at the mean, and standardising keeps the mean: what a network
    learns on this scale is, taken back, the expected reward. The scale is learned once, before the
    first training step, and is part of the checkpoint.

    Checkpoints from before there was a scale hold symlog(reward) = sign(r) log(1 + abs(r)), whose
    mean, taken back, lies below the expected reward if that varies by chance. They load and
    predict as they did; further training of them begins with a scale.

    Attributes:
        mean, spread: float32 (), of the rewards of single steps of the model.
        prepared: bool (), whether they have been learned.
        symlog: bool (), whether the model is such an older one.
    """

    mean: Tensor
    spread: Tensor
    prepared: Tensor
    symlog: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("spread", torch.tensor(1.0))
        self.register_buffer("prepared", torch.tensor(False))
        self.register_buffer("symlog", torch.tensor(False))

    @torch.no_grad()
    def prepare(self, source: SceneSource, stride: int) -> None:
        """Learn mean and spread from the recorded steps of a source, unless that was done.

        Args:
            source: of the training.
            stride: environment steps of one step of the model, whose rewards are summed.

        Raises:
            ValueError: rewards are beyond ``LARGEST_REWARD``.
        """
        if bool(self.prepared) and not bool(self.symlog):
            return
        if bool(self.symlog):
            warnings.warn(
                "model: its rewards are on the older symlog scale, which is biased; they are "
                "learned anew, standardised. Train for long enough, or make a new model",
                stacklevel=4,
            )
        self.learn(torch.cat([_sums(source.batch(i), stride) for i in range(PREPARE_BATCHES)]))

    @torch.no_grad()
    def learn(self, every: Tensor) -> None:
        """Take mean and spread of these rewards, float64 (n,).

        Raises:
            ValueError: rewards are beyond ``LARGEST_REWARD``.
        """
        if every.numel() and (largest := float(every.abs().max())) > LARGEST_REWARD:
            raise ValueError(
                f"rewards: up to {largest:.3g}, whose sums leave float32; scale them to at most "
                f"{LARGEST_REWARD:.0e}, as gymnasium.wrappers.TransformReward does"
            )
        spread, mean = torch.std_mean(every, correction=0)
        if spread <= 1e-7 * mean.abs():  # always the same, up to rounding
            spread = mean.abs() if mean else torch.ones_like(mean)
        self.mean.copy_(mean)
        self.spread.copy_(spread)
        self.prepared.fill_(True)
        self.symlog.fill_(False)

    def encode(self, rewards: Tensor) -> Tensor:
        """What a network learns for these rewards."""
        if bool(self.symlog):
            return rewards.sign() * rewards.abs().log1p()
        return (rewards - self.mean) / self.spread

    def decode(self, outputs: Tensor) -> Tensor:
        """The expected rewards of a network's outputs."""
        outputs = outputs.float()
        if bool(self.symlog):
            return outputs.sign() * outputs.abs().expm1()
        return outputs * self.spread + self.mean

    def loss(
        self,
        scenes: SceneBatch,
        reward: Tensor,
        logit: Tensor,
        variance: float,
        present: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Negative log likelihood of rewards and continuations, each (B,), over valid steps.

        Args:
            scenes: the truth; steps behind a scene's end do not count.
            reward: (B, L) of the first L steps, on this scale; a Gaussian (without its constant).
            logit: (B, L) of going on; a Bernoulli.
            variance: of the Gaussian.
            present: (B,), the latest time that the context shows. That the episode goes on until
                then is known, and would make ends seem rarer than they are: these steps count for
                the rewards only. None counts all.
        """
        steps = reward.shape[1]
        index = torch.arange(1, steps + 1, device=reward.device)
        valid = (index <= scenes.lengths[:, None]).float()
        rewards, ended = scenes.rewards[:, :steps], scenes.terminated[:, :steps]
        earned = self.nll(rewards, ended, valid, reward, logit, variance)[0]
        open_yet = valid if present is None else valid * (index > present[:, None])
        return earned, self.nll(rewards, ended, open_yet, reward, logit, variance)[1]

    def nll(
        self,
        rewards: Tensor,
        ended: Tensor,
        valid: Tensor,
        reward: Tensor,
        logit: Tensor,
        variance: float,
    ) -> tuple[Tensor, Tensor]:
        """As ``loss``, from rewards, bool ``ended`` and 0 or 1 ``valid``, all (B, L)."""
        reward, logit = reward.float(), logit.float()  # a network may compute in bf16
        error = (reward - self.encode(rewards)).square()
        crossed = binary_cross_entropy_with_logits(logit, 1.0 - ended.float(), reduction="none")
        return (0.5 * error / variance * valid).sum(1), (crossed * valid).sum(1)


def _sums(scenes: SceneBatch, stride: int) -> Tensor:
    """float64 (n,): the rewards of all steps of ``stride`` that lie within their scenes."""
    steps = scenes.rewards.shape[1] // stride * stride
    if not steps:
        return scenes.rewards.new_zeros(0, dtype=torch.float64)
    sums: Tensor = scenes.rewards[:, :steps].double().unflatten(1, (-1, stride)).sum(2)
    begun = stride * torch.arange(sums.shape[1], device=sums.device)
    return sums.masked_select(begun < scenes.lengths[:, None])


def older_scale(layout: set[str], expected: set[str]) -> dict[str, Tensor]:
    """The scales that a checkpoint from before there were any lacks, by name.

    Args:
        layout: names of the tensors in the file.
        expected: names of the model's.
    """
    known = {"mean": 0.0, "spread": 1.0, "prepared": True, "symlog": True}
    names = [f"reward_scale.{name}" for name in known]
    if not expected.issuperset(names) or layout.intersection(names):
        return {}
    return {name: torch.tensor(value) for name, value in zip(names, known.values(), strict=True)}


def reward_layer(inputs: int) -> nn.Linear:
    """To the reward on its scale and the logit of going on: (..., inputs) to (..., 2)."""
    last = nn.Linear(inputs, 2)
    with torch.no_grad():  # most steps do not end an episode: start from there
        last.bias[1] = 4.0
    return last
