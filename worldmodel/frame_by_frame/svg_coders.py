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


def coders(
    backbone: Backbone, image_channels: int, channels: Sequence[int], features: int
) -> tuple[DcganEncoder | VggEncoder, DcganDecoder | VggDecoder]:
    """Encoder: frames (P, C, H, W) to h (P, features) and each stage's map, from large to small.
    Decoder: g (P, features) and those maps to frames (P, C, H, W) in [0, 1].

    Args:
        backbone: "dcgan" or "vgg".
        image_channels: C.
        channels: of each stage, from large maps to small.
        features: of h and g, each in [-1, 1].
    """
    if backbone == "dcgan":
        return (
            DcganEncoder(image_channels, channels, features),
            DcganDecoder(image_channels, channels, features),
        )
    return (
        VggEncoder(image_channels, channels, features),
        VggDecoder(image_channels, channels, features),
    )


class DcganEncoder(nn.Module):
    """Enc: strided 4x4 convolutions down to 4x4, then one that sees all of it."""

    def __init__(self, image_channels: int, channels: Sequence[int], features: int) -> None:
        super().__init__()
        widths = (image_channels, *channels)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)
            )
            for before, after in pairwise(widths)
        )
        self.out = _to_features(channels[-1], features)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frames (P, C, H, W) to h (P, features) and each stage's map, from large to small."""
        skips: list[Tensor] = []
        x = frames
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return self.out(x).flatten(1), skips


class DcganDecoder(nn.Module):
    """Dec: the encoder mirrored; each stage also reads the skip of its size."""

    def __init__(self, image_channels: int, channels: Sequence[int], features: int) -> None:
        super().__init__()
        self.enter = _from_features(features, channels[-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(2 * before, after, 4, 2, 1),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            )
            for before, after in pairwise(reversed(channels))
        )
        self.stages.append(
            nn.Sequential(
                nn.ConvTranspose2d(2 * channels[0], image_channels, 4, 2, 1), nn.Sigmoid()
            )
        )

    def forward(self, g: Tensor, skips: list[Tensor]) -> Tensor:
        """Frames (P, C, H, W) in [0, 1] from g (P, features) and the encoder's maps."""
        x: Tensor = self.enter(g[..., None, None])
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(torch.cat([x, skip], 1))
        return x


class VggEncoder(nn.Module):
    """Enc: stages of 3x3 convolutions, each halved by a pooling of maxima."""

    def __init__(self, image_channels: int, channels: Sequence[int], features: int) -> None:
        super().__init__()
        widths = (image_channels, *channels)
        self.stages = nn.ModuleList(
            _vgg([before] + [after] * _depth(stage))
            for stage, (before, after) in enumerate(pairwise(widths))
        )
        self.out = _to_features(channels[-1], features)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frames (P, C, H, W) to h (P, features) and each stage's map, from large to small."""
        skips: list[Tensor] = []
        x = frames
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        return self.out(x).flatten(1), skips


class VggDecoder(nn.Module):
    """Dec: the encoder mirrored; each stage enlarges and also reads the map of its size."""

    def __init__(self, image_channels: int, channels: Sequence[int], features: int) -> None:
        super().__init__()
        self.enter = _from_features(features, channels[-1])
        self.stages = nn.ModuleList()
        for stage in reversed(range(1, len(channels))):
            inside = [channels[stage]] * (_depth(stage) - 1)
            self.stages.append(_vgg([2 * channels[stage], *inside, channels[stage - 1]]))
        self.stages.append(
            nn.Sequential(
                _vgg([2 * channels[0], channels[0]]),
                nn.ConvTranspose2d(channels[0], image_channels, 3, 1, 1),
                nn.Sigmoid(),
            )
        )

    def forward(self, g: Tensor, skips: list[Tensor]) -> Tensor:
        """Frames (P, C, H, W) in [0, 1] from g (P, features) and the encoder's maps."""
        x: Tensor = self.enter(g[..., None, None])
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            large = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = stage(torch.cat([large, skip], 1))
        return x


def _depth(stage: int) -> int:
    """Convolutions of a stage: the first two stages have fewer."""
    return 2 if stage < 2 else 3


def _vgg(widths: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions, each with batch normalisation and a leaky ReLU."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def _to_features(channels: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, features, 4), nn.BatchNorm2d(features), nn.Tanh())


def _from_features(features: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(features, channels, 4), nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)
    )
