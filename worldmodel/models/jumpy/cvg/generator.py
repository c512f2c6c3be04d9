"""Generators of CVG (seed 002, sections 6.A.1 and 6.A.2).

Shapes: B videos of T frames of C colours, H x W pixels, in [-1, 1]; z of D numbers. All weights are
orthogonal at first and spectrally normalised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils import parametrize

from worldmodel.models.layers.frame_norm import FrameNorm
from worldmodel.models.layers.spectral_norm import spectral

GRID = 4
"""Pixels on a side that z is mapped to."""


class ConvGru(nn.Module):
    """A convolutional GRU over the frames of a video (Ballas et al. 2015), of ReLU candidates.

    Args:
        channels: of its input and of its state.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = spectral(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1))
        self.candidate = spectral(nn.Conv2d(2 * channels, channels, 3, padding=1))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x (B, T, C, H, W) to the states (B, T, C, H, W); z is not read."""
        states, state = [], torch.zeros_like(x[:, 0])
        with parametrize.cached():  # one division of the weights for all steps
            for frame in x.unbind(1):
                gates = self.gates(torch.cat([frame, state], 1)).sigmoid()
                reset, update = gates.chunk(2, 1)
                candidate = self.candidate(torch.cat([frame, reset * state], 1)).relu()
                state = update * state + (1 - update) * candidate
                states.append(state)
        return torch.stack(states, 1)


class SeparableBlock(nn.Module):
    """A residual block that convolves over three frames, then over 3x3 pixels.

    Args:
        channels: of input and output.
        frames: T of the recorded statistics.
        noise: D.
    """

    def __init__(self, channels: int, frames: int, noise: int) -> None:
        super().__init__()
        self.first = FrameNorm(channels, frames, noise)
        self.time = spectral(nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0)))
        self.second = FrameNorm(channels, frames, noise)
        self.space = spectral(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x (B, T, C, H, W) and z (B, D) to (B, T, C, H, W)."""
        inner = self.first(x, z).relu().transpose(1, 2)
        inner = self.second(self.time(inner).transpose(1, 2), z).relu()
        return x + each_frame(self.space, inner)


class UpBlock(nn.Module):
    """A residual block on single frames: norm, ReLU, convolution, twice.

    Args:
        inputs, outputs: channels.
        frames: T of the recorded statistics.
        noise: D.
        double: whether it doubles the resolution, by repeating pixels before the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, frames: int, noise: int, double: bool) -> None:
        super().__init__()
        self.doubles = double
        self.first = FrameNorm(inputs, frames, noise)
        self.second = FrameNorm(outputs, frames, noise)
        self.layers = nn.ModuleList(
            spectral(nn.Conv2d(width, outputs, 3, padding=1)) for width in (inputs, outputs)
        )
        self.skip = spectral(nn.Conv2d(inputs, outputs, 1)) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x (B, T, C, h, w) and z (B, D) to (B, T, outputs, H, W)."""
        inner = self.first(x, z).relu()
        past = each_frame(self.skip, x)
        if self.doubles:
            inner, past = doubled(inner), doubled(past)
        inner = self.second(each_frame(self.layers[0], inner), z).relu()
        return past + each_frame(self.layers[1], inner)


class Unit(nn.Module):
    """A layer over time and two residual blocks, the second of which may double the resolution.

    Args:
        inputs, outputs: channels.
        frames: T of the recorded statistics.
        noise: D.
        double: see above.
        colours: of the video that is refined; 0 in the first level, whose layer over time is a
            ConvGRU. If not 0, each block's output is increased by a projection of that video.
        size: pixels on a side of what comes in.
        low: of the video that is refined.
    """

    def __init__(
        self, inputs: int, outputs: int, frames: int, noise: int, double: bool, colours: int,
        size: int, low: int,
    ) -> None:  # fmt: skip
        super().__init__()
        over_time = SeparableBlock(inputs, frames, noise) if colours else ConvGru(inputs)
        blocks = [
            over_time,
            UpBlock(inputs, outputs, frames, noise, False),
            UpBlock(outputs, outputs, frames, noise, double),
        ]
        sizes, widths = (size, size, size * (2 if double else 1)), (inputs, outputs, outputs)
        self.blocks = nn.ModuleList(blocks)
        self.projections = nn.ModuleDict(
            {
                str(index): spectral(nn.Conv2d(colours, width, 1))
                for index, (side, width) in enumerate(zip(sizes, widths, strict=True))
                if colours and side <= low
            }
        )

    def forward(self, x: Tensor, z: Tensor, low: Tensor | None) -> Tensor:
        """x (B, T, C, h, w), z (B, D), and perhaps the video that is refined (B, T', C, h', w')."""
        for index, block in enumerate(self.blocks):
            x = block(x, z)
            if low is not None and str(index) in self.projections:
                resized = nearest(low, x.shape[1], x.shape[-1])
                x = x + each_frame(self.projections[str(index)], resized)
        return x


class Generator(nn.Module):
    """z to a video, or z and a video to one of more frames and pixels.

    Args:
        colours: C.
        size: pixels on a side of its frames, 4 times a power of two.
        widths: channels of its units, the first of which double the resolution until ``size``.
        frames: T of the recorded statistics.
        noise: D.
        low: pixels on a side of the video that it refines; 0 for a first level.

    Raises:
        ValueError: there are fewer units than doublings.
    """

    def __init__(
        self,
        colours: int,
        size: int,
        widths: tuple[int, ...],
        frames: int,
        noise: int,
        low: int = 0,
    ) -> None:
        super().__init__()
        doublings = (size // GRID).bit_length() - 1
        if len(widths) < doublings:
            raise ValueError(
                f"config: a generator of {len(widths)} units ({widths}) reaches {GRID} * 2 ** "
                f"{len(widths)} pixels, fewer than {size}; give it {doublings} units"
            )
        self.start = spectral(nn.Linear(noise, widths[0] * GRID**2))
        self.units = nn.ModuleList()
        side, inputs = GRID, widths[0]
        for index, outputs in enumerate(widths):
            double = index < doublings
            self.units.append(
                Unit(inputs, outputs, frames, noise, double, colours if low else 0, side, low)
            )
            side, inputs = side * (2 if double else 1), outputs
        self.norm = FrameNorm(inputs, frames, noise)
        self.last = spectral(nn.Conv2d(inputs, colours, 3, padding=1))

    def forward(self, z: Tensor, frames: int, low: Tensor | None = None) -> Tensor:
        """z (B, D), and perhaps a video (B, T', C, h, w), to one of T frames (B, T, C, H, W)."""
        x = self.start(z).unflatten(1, (-1, GRID, GRID)).unsqueeze(1).expand(-1, frames, -1, -1, -1)
        for unit in self.units:
            x = unit(x, z, low)
        return each_frame(self.last, self.norm(x, z).relu()).float().tanh()


def each_frame(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer on each frame of x (B, T, C, H, W)."""
    outputs: Tensor = layer(x.flatten(0, 1))
    return outputs.view(*x.shape[:2], *outputs.shape[1:])


def doubled(x: Tensor) -> Tensor:
    """x (B, T, C, h, w) with each pixel four times."""
    (batch, frames), (height, width) = x.shape[:2], x.shape[-2:]
    larger = interpolate(x.flatten(0, 1), size=(2 * height, 2 * width))
    return larger.view(batch, frames, -1, 2 * height, 2 * width)


def nearest(x: Tensor, frames: int, size: int) -> Tensor:
    """The nearest frames and pixels of x (B, T', C, h, w): (B, frames, C, size, size)."""
    return interpolate(x.transpose(1, 2), size=(frames, size, size)).transpose(1, 2)
