"""Teacher forcing: what frame-by-frame models are trained on, the settings and the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.base import Losses
from worldmodel.common.config_checks import above_zero, at_least
from worldmodel.models.frame_by_frame.base import at_times, broadcast
from worldmodel.models.layers.presents import draw_present
from worldmodel.rewards import RewardScale
from worldmodel.spec import Spec
from worldmodel.types import SceneBatch


@dataclass(frozen=True)
class TrainingConfig:
    """Training settings of every frame-by-frame model of this folder.

    Attributes:
        frames: frames 0 .. frames - 1 of each window are trained on; fewer where the window is
            shorter.
        reward_variance: variance of the reward read-out's Gaussian, where rewards have variance 1.
        learning_rate, learning_rate_end: Adam (0.9, 0.999), linear in between.
    """

    frames: int = 21
    reward_variance: float = 0.02
    learning_rate: float = 2e-3
    learning_rate_end: float = 2e-3

    def __post_init__(self) -> None:
        at_least(1, self, "frames")
        above_zero(self, "reward_variance", "learning_rate", "learning_rate_end")


@dataclass(frozen=True)
class PastConfig(TrainingConfig):
    """Training settings of models that tell the context's frames from those after it.

    Attributes:
        past: frames that are context in training; 0 draws the last context frame of each scene at
            random, half of the time it is the first.
    """

    past: int = 6

    def __post_init__(self) -> None:
        if not 0 <= self.past < self.frames or self.frames < 2:
            raise ValueError(
                "past, frames: expected 0 <= past < frames and at least 2 frames, got "
                f"{self.past}, {self.frames}"
            )
        super().__post_init__()

    def draw_last(
        self, lengths: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """int64 (B,), the last context frame of scenes of ``lengths`` (B,) steps, and float32 (B,),
        what each scene counts in the loss; see ``draw_present``.
        """
        if self.past:
            return lengths.clamp_max(self.past - 1), torch.ones(len(lengths), device=lengths.device)
        return draw_present(lengths, self.frames - 1, generator)


class Segment(NamedTuple):
    """L steps of B scenes, each ``stride`` steps of time long.

    Attributes:
        observations: float32 (B, L + 1, C, H, W) in [0, 1] or (B, L + 1, D), at the beginning and
            after each step. After its end a scene repeats its last observation, so that padding
            does not enter batch statistics.
        actions: float32 (B, L, stride * action features). Zeros for steps that begin after the
            end. A step that contains the end repeats the scene's actions from time 0: plans hold
            actions there too, so actions must not reveal that the episode is over.
        rewards: float32 (B, L), summed over a step.
        ended: bool (B, L), whether the episode terminated within the step.
        valid: float32 (B, L), 1 for steps that begin before the end, lie wholly in the window, and
            reach their own end or the episode's. A recording that stops within a step does not say
            where the step leads.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    ended: Tensor
    valid: Tensor

    @property
    def steps(self) -> int:
        """L."""
        return self.actions.shape[1]


def take_segment(
    scenes: SceneBatch, spec: Spec, longest: int, first: Tensor | None = None, stride: int = 1
) -> Segment:
    """The steps of each scene from the time ``first`` int64 (B,) on; None is time 0.

    From time 0 they reach the end of the longest scene; there are at most ``longest``, at least 1.
    """
    lengths, action = scenes.lengths, spec.action
    steps = max(1, min(longest, -(-int(lengths.max()) // stride)))
    first = torch.zeros_like(lengths) if first is None else first
    edges = first[:, None] + stride * torch.arange(steps + 1, device=lengths.device)
    observations = spec.to_model(scenes.observations(torch.minimum(edges, lengths[:, None])))
    times = edges[:, :-1, None] + torch.arange(stride, device=lengths.device)  # (B, L, stride)
    inside = times < lengths[:, None, None]
    times = times % lengths.clamp_min(1)[:, None, None]

    rewards = at_times(scenes.rewards, times).masked_fill(~inside, 0.0).sum(2)
    ended = (at_times(scenes.terminated, times) & inside).any(2)
    begun = inside[..., 0]
    # past the window's edge only ends would be seen: going on would not count, ending would
    known = edges[:, 1:] <= scenes.actions.shape[1]
    valid = begun & known & (ended | (edges[:, 1:] <= lengths[:, None]))
    if spec.passive:
        actions = rewards.new_zeros(*rewards.shape, 0)
    else:
        taken = at_times(scenes.actions, times)
        encoded = action.encode(action.cleared(taken, ~begun))
        actions = encoded.masked_fill(~broadcast(begun, encoded), 0.0).flatten(2)
    return Segment(observations, actions, rewards, ended, valid.float())


def per_step(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The output (B, T, ...) of a network for x (B, T, ...), with all steps in one batch."""
    return torch.as_tensor(network(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def squared_error(predicted: Tensor, segment: Segment) -> Tensor:
    """(B, L), mean squared error of the observations (B, L, \\*obs) after each step."""
    return (predicted - segment.observations[:, 1:]).square().flatten(2).mean(2)


def losses(
    segment: Segment,
    predicted: Tensor,
    kl: Tensor,
    readouts: tuple[Tensor, ...],
    scale: RewardScale,
    variance: float,
    *,
    scenes: Tensor | None = None,
    weight: float = 1.0,
    pixels: float = 1.0,
    nll: Tensor | None = None,
    beta: float = 1.0,
) -> Losses:
    """The mean over (weighted) scenes of the sum over valid steps of

        pixels * MSE + weight * (beta * KL + reward + continue)

    Args:
        segment: the truth.
        predicted: (B, L, \\*obs), the observation after each step.
        kl: (B, L), nats of each step; or (B,), of the whole video.
        readouts: the predicted reward on its scale and continuation logit, each (B, L).
        scale: of the rewards.
        variance: of the reward's Gaussian.
        scenes: (B,), what each scene counts in the loss (the parts are plain means); None for 1.
        weight: of what is in nats.
        pixels: weight of the squared error.
        nll: (B, L), the cost of each step's observation in nats, in place of pixels * MSE.
        beta: weight of the KL among the nats.

    Returns:
        ``mse``, the mean over valid observations, teacher-forced; ``kl``, ``reward``, ``continue``
        and, where it was given, ``nll`` in nats per scene; and the curves ``mse`` and ``kl`` (the
        latter where it has steps), means over scenes, NaN for a step that no scene has.
    """
    valid, error = segment.valid, squared_error(predicted, segment)
    truth = (segment.rewards, segment.ended, valid)
    reward, ending = scale.nll(*truth, readouts[0], readouts[1], variance)
    nats = (kl * valid).sum(1) if kl.dim() == 2 else kl
    observed = ((pixels * error if nll is None else nll) * valid).sum(1)
    each = observed + weight * (beta * nats + reward + ending)
    total = (each if scenes is None else scenes * each).mean()
    with torch.no_grad():
        parts = {
            "loss": total.detach(),
            "kl": nats.mean(),
            "mse": (error * valid).sum() / valid.sum().clamp_min(1),
            "reward": reward.mean(),
            "continue": ending.mean(),
        }
        if nll is not None:
            parts["nll"] = observed.mean()
        curves = {"mse": (error * valid).sum(0) / valid.sum(0)}
        if kl.dim() == 2:
            curves["kl"] = (kl * valid).sum(0) / valid.sum(0)
    return Losses(total, parts, curves)
