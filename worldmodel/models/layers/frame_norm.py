"""Batch normalisation of each frame by itself, conditioned on noise, with recomputed statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from worldmodel.models.layers.spectral_norm import spectral

EPSILON = 1e-5
Mode = Literal["batch", "record", "recorded"]
"""Normalise by the batch; by the batch, and record its statistics; or by what was recorded."""


class FrameNorm(nn.Module):
    """Conditional batch normalisation with a mean and a deviation for each frame and channel.

    There are no running statistics: those of a training's early weights would be in them, and a
    longer video has frames that no training has. ``recording`` makes them afresh.

    Args:
        channels: C.
        frames: T of the videos that statistics are recorded of; batches may have any other.
        condition: numbers that gain and bias are linear functions of.
    """

    mean: Tensor
    variance: Tensor
    passes: Tensor

    def __init__(self, channels: int, frames: int, condition: int) -> None:
        super().__init__()
        self.mode: Mode = "batch"
        self.gain = spectral(nn.Linear(condition, channels))
        self.bias = spectral(nn.Linear(condition, channels))
        self.register_buffer("mean", torch.zeros(frames, channels))
        self.register_buffer("variance", torch.ones(frames, channels))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, C, H, W) and the condition (B, D) to (B, T, C, H, W)."""
        if self.mode == "recorded":
            mean, variance = self.mean, self.variance
        else:
            variance, mean = torch.var_mean(x.float(), (0, 3, 4), correction=0)
            if self.mode == "record":
                self._record(mean, variance)
        gain = (1 + self.gain(condition).float())[:, None] * (variance + EPSILON).rsqrt()
        bias = self.bias(condition).float()[:, None] - mean * gain
        outputs: Tensor = x * gain[..., None, None].to(x.dtype) + bias[..., None, None].to(x.dtype)
        return outputs

    def forget(self) -> None:
        """Begin with the statistics anew."""
        self.mean.zero_()
        self.variance.zero_()
        self.passes.zero_()

    def _record(self, mean: Tensor, variance: Tensor) -> None:
        """Take the batch's statistics into the means over all passes."""
        self.passes += 1
        self.mean += (mean.detach() - self.mean) / self.passes
        self.variance += (variance.detach() - self.variance) / self.passes


@contextmanager
def recorded_statistics(module: nn.Module) -> Iterator[None]:
    """Within it, all ``FrameNorm`` of ``module`` normalise by what was recorded."""
    with _mode(module, "recorded"):
        yield


@contextmanager
def recording(module: nn.Module) -> Iterator[None]:
    """Within it, they normalise by the batch, and record the means of all passes' statistics."""
    for norm in _norms(module):
        norm.forget()
    with _mode(module, "record"):
        yield


def is_statistic(name: str) -> bool:
    """Whether an entry of a state dict is a statistic of a ``FrameNorm``, one for each frame."""
    return name.endswith((".mean", ".variance", ".passes"))


def _norms(module: nn.Module) -> list[FrameNorm]:
    return [part for part in module.modules() if isinstance(part, FrameNorm)]


@contextmanager
def _mode(module: nn.Module, mode: Mode) -> Iterator[None]:
    norms = _norms(module)
    for norm in norms:
        norm.mode = mode
    try:
        yield
    finally:
        for norm in norms:
            norm.mode = "batch"
