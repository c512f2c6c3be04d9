"""Teacher forcing: what a frame-by-frame model is trained on, and what it says of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.base import Losses
from worldmodel.models.layers import rewards as outcomes
from worldmodel.spec import ActionSpec, to_float
from worldmodel.types import SceneBatch


class Clip(NamedTuple):
    """L steps of B scenes, each ``stride`` steps of time long.

    Attributes:
        frames: float32 (B, L + 1, C, H, W) in [0, 1], at the beginning and after each step. Behind
            its end a scene repeats its last frame: padding must not enter batch statistics.
        actions: float32 (B, L, stride * action features). Zeros for steps that begin behind the
            end; where the end comes within a step, the scene's actions come round again: a plan
            holds actions there too, so nothing in them may tell that the episode is over.
        rewards: float32 (B, L), summed over a step.
        ended: bool (B, L), whether the episode terminated within the step.
        valid: float32 (B, L), 1 for steps that begin before the end and reach their own end or the
            episode's. A recording that stops within a step does not say where the step leads.
    """

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    ended: Tensor
    valid: Tensor

    @property
    def steps(self) -> int:
        """L."""
        return self.actions.shape[1]


def cut(
    scenes: SceneBatch,
    action: ActionSpec,
    steps: int,
    first: Tensor | None = None,
    stride: int = 1,
) -> Clip:
    """``steps`` steps of each scene from the time ``first`` int64 (B,) on; None is time 0."""
    lengths = scenes.lengths
    first = torch.zeros_like(lengths) if first is None else first
    edges = first[:, None] + stride * torch.arange(steps + 1, device=lengths.device)
    frames = to_float(scenes.observations(torch.minimum(edges, lengths[:, None])))
    times = edges[:, :-1, None] + torch.arange(stride, device=lengths.device)  # (B, L, stride)
    inside = times < lengths[:, None, None]
    rows = torch.arange(len(lengths), device=lengths.device)[:, None, None]
    times = times % lengths.clamp_min(1)[:, None, None]

    rewards = scenes.rewards[rows, times].masked_fill(~inside, 0.0).sum(2)
    ended = (scenes.terminated[rows, times] & inside).any(2)
    begun = inside[..., 0]
    valid = begun & (ended | (edges[:, 1:] <= lengths[:, None]))
    if action.kind == "none":
        actions = rewards.new_zeros(*rewards.shape, 0)
    else:
        taken = scenes.actions[rows, times]
        shut = (~begun).reshape(*begun.shape, 1, *[1] * len(action.shape))
        encoded = action.encode(taken.masked_fill(shut, 0))
        actions = encoded.masked_fill(~begun[..., None, None], 0.0).flatten(2)
    return Clip(frames, actions, rewards, ended, valid.float())


def whole(scenes: SceneBatch, longest: int, stride: int = 1) -> int:
    """Steps that reach the end of the longest scene, at least 1 and at most ``longest``."""
    return max(1, min(longest, -(-int(scenes.lengths.max()) // stride)))


def check_past(past: int, frames: int) -> None:
    """Raise ValueError unless ``past`` context frames (see ``draw_last``) fit into ``frames``."""
    if not 0 <= past < frames or frames < 2:
        raise ValueError(
            f"past, frames: expected 0 <= past < frames and at least 2 frames, got {past}, {frames}"
        )


def draw_last(lengths: Tensor, past: int, generator: torch.Generator | None) -> Tensor:
    """int64 (B,): the last frame of each scene that is context in training.

    Args:
        lengths: int64 (B,), steps of each scene; no frame behind them is drawn.
        past: frames that are context; 0 draws a random last one, half of the time the first.
        generator: of the draws.
    """
    if past:
        return lengths.clamp_max(past - 1)
    chance = torch.rand(2, len(lengths), generator=generator, device=lengths.device)
    return torch.where(chance[0] < 0.5, 0, (chance[1] * lengths).long())


def squared_error(frames: Tensor, clip: Clip) -> Tensor:
    """(B, L), mean squared error of the frames (B, L, C, H, W) after each step."""
    return (frames - clip.frames[:, 1:]).square().flatten(2).mean(2)


def losses(
    clip: Clip,
    error: Tensor,
    kl: Tensor,
    told: tuple[Tensor, Tensor],
    *,
    weight: float,
    variance: float,
    pixels: float = 1.0,
    nll: Tensor | None = None,
    beta: float = 1.0,
) -> Losses:
    """The mean over scenes of the sum over valid steps of

        pixels * MSE + weight * (beta * KL + reward + continue)

    Args:
        clip: the truth.
        error: (B, L), mean squared error of each step's frame.
        kl: (B, L), nats of each step; or (B,), of the whole video.
        told: the reward in symlog space and the logit of going on, each (B, L).
        weight: of what is in nats.
        variance: of the reward's Gaussian.
        pixels: weight of the squared error.
        nll: (B, L), what each step's frame costs instead of pixels * MSE, in nats.
        beta: weight of the KL among the nats.

    Returns:
        ``mse``, the mean over valid frames, teacher-forced; ``kl``, ``reward``, ``continue`` and,
        where it was given, ``nll`` in nats per scene; and the curves ``mse`` and ``kl`` (the latter
        where it has steps), means over scenes, NaN for a step that no scene has.
    """
    valid = clip.valid
    reward, ending = outcomes.nll(clip.rewards, clip.ended, valid, *told, variance)
    nats = (kl * valid).sum(1) if kl.dim() == 2 else kl
    frames = ((pixels * error if nll is None else nll) * valid).sum(1)
    total = (frames + weight * (beta * nats + reward + ending)).mean()
    count = valid.sum(0)
    curves = {"mse": (error * valid).sum(0) / count}
    if kl.dim() == 2:
        curves["kl"] = (kl * valid).sum(0) / count
    parts = {
        "loss": total,
        "kl": nats.mean(),
        "mse": (error * valid).sum() / valid.sum().clamp_min(1),
        "reward": reward.mean(),
        "continue": ending.mean(),
    }
    if nll is not None:
        parts["nll"] = frames.mean()
    return Losses(
        total,
        {name: value.detach() for name, value in parts.items()},
        {name: value.detach() for name, value in curves.items()},
    )
