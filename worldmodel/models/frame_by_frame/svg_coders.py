"""SVG's encoders and decoders: frames to features h and maps, features g and maps to frames.

Layers as tabulated in the reference notes from the public implementation; the paper's text names
none. Both halve a square frame down to 4x4: a stage of channels for each halving.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Backbone = Literal["dcgan", "vgg"]


class Encoder(nn.Module):
    """Enc: stages that end at 4x4 and all return their maps, then a convolution of the last."""

    def __init__(self, stages: Sequence[nn.Module], out: nn.Module) -> None:
        super().__init__()
        self.stages, self.out = nn.ModuleList(stages), out

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frames (P, C, H, W) to h (P, features) and each stage's map, from large to small."""
        skips: list[Tensor] = []
        x = frames
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return self.out(x).flatten(1), skips


class Decoder(nn.Module):
    """Dec: the encoder mirrored; each stage also reads the encoder's map of its size."""

    def __init__(self, enter: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.enter, self.stages = enter, nn.ModuleList(stages)

    def forward(self, g: Tensor, skips: list[Tensor]) -> Tensor:
        """Frames (P, C, H, W) in [0, 1] from g (P, features) and the encoder's maps."""
        x: Tensor = self.enter(g[..., None, None])
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(torch.cat([x, skip], 1))
        return x


def coders(
    backbone: Backbone, image_channels: int, channels: Sequence[int], features: int
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder.

    Args:
        backbone: "dcgan", strided 4x4 convolutions; or "vgg", stages of 3x3 convolutions with a
            pooling of maxima between them.
        image_channels: C.
        channels: of each stage, from large maps to small.
        features: of h and g, each in [-1, 1].
    """
    make = _dcgan if backbone == "dcgan" else _vgg
    return make(image_channels, channels, features)


def _dcgan(image: int, channels: Sequence[int], features: int) -> tuple[Encoder, Decoder]:
    down = [
        _normalised(nn.Conv2d(before, after, 4, 2, 1))
        for before, after in pairwise((image, *channels))
    ]
    encoder = Encoder(down, _to_features(channels[-1], features))
    enter = _normalised(nn.ConvTranspose2d(features, channels[-1], 4))
    up = [
        _normalised(nn.ConvTranspose2d(2 * before, after, 4, 2, 1))
        for before, after in pairwise(reversed(channels))
    ]
    last = nn.Sequential(nn.ConvTranspose2d(2 * channels[0], image, 4, 2, 1), nn.Sigmoid())
    return encoder, Decoder(enter, [*up, last])


def _vgg(image: int, channels: Sequence[int], features: int) -> tuple[Encoder, Decoder]:
    down: list[nn.Module] = []
    for stage, (before, after) in enumerate(pairwise((image, *channels))):
        convolutions = _convolutions([before] + [after] * _depth(stage))
        down.append(nn.Sequential(nn.MaxPool2d(2), convolutions) if stage else convolutions)
    out = nn.Sequential(nn.MaxPool2d(2), _to_features(channels[-1], features))
    enter = nn.Sequential(
        _normalised(nn.ConvTranspose2d(features, channels[-1], 4)), nn.Upsample(scale_factor=2)
    )
    up: list[nn.Module] = []
    for stage in reversed(range(1, len(channels))):
        inside = [channels[stage]] * (_depth(stage) - 1)
        convolutions = _convolutions([2 * channels[stage], *inside, channels[stage - 1]])
        up.append(nn.Sequential(convolutions, nn.Upsample(scale_factor=2)))
    last = nn.Sequential(
        _convolutions([2 * channels[0], channels[0]]),
        nn.ConvTranspose2d(channels[0], image, 3, 1, 1),
        nn.Sigmoid(),
    )
    return Encoder(down, out), Decoder(enter, [*up, last])


def _depth(stage: int) -> int:
    """Convolutions of a stage: the first two stages have fewer."""
    return 2 if stage < 2 else 3


def _convolutions(widths: Sequence[int]) -> nn.Sequential:
    convolutions = (nn.Conv2d(before, after, 3, 1, 1) for before, after in pairwise(widths))
    return nn.Sequential(*(layer for each in convolutions for layer in _normalised(each)))


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    norm = nn.BatchNorm2d(convolution.out_channels)
    return nn.Sequential(convolution, norm, nn.LeakyReLU(0.2))


def _to_features(channels: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, features, 4), nn.BatchNorm2d(features), nn.Tanh())
