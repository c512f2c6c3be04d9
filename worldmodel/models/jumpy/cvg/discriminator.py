"""Discriminators of CVG (seed 002, sections 6.A.1 and 6.A.2), and their hinge losses.

Shapes as in ``generator``: videos (B, T, C, H, W) in [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, avg_pool3d

from worldmodel.models.layers.spectral_norm import spectral

LAYERS_OVER_TIME = 2
"""Blocks of a temporal discriminator, its first ones, that convolve over frames as well."""


class DownBlock(nn.Module):
    """A residual block: ReLU, convolution, twice, and half the resolution if ``halve``.

    Args:
        inputs, outputs: channels.
        over_time: whether it convolves over three frames as well; it then takes (B, C, T, H, W).
        first: whether its input is pixels, which have no ReLU before them.
        halve: by averages over 2x2 pixels.
    """

    def __init__(
        self, inputs: int, outputs: int, over_time: bool, first: bool, halve: bool
    ) -> None:
        super().__init__()
        self.first, self.halve, self.over_time = first, halve, over_time
        conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv3d if over_time else nn.Conv2d
        self.layers = nn.ModuleList(
            spectral(conv(width, outputs, 3, padding=1)) for width in (inputs, outputs)
        )
        self.skip = spectral(conv(inputs, outputs, 1)) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, [T,] H, W) to (B, outputs, [T,] H', W')."""
        inner = self.layers[0](x if self.first else x.relu())
        inner = self.layers[1](inner.relu())
        sum_: Tensor = self.skip(x) + inner
        if not self.halve:
            return sum_
        return avg_pool3d(sum_, (1, 2, 2)) if self.over_time else avg_pool2d(sum_, 2)


class Discriminator(nn.Module):
    """One logit for each frame, above 0 for real ones.

    Args:
        colours: channels of its input.
        size: pixels on a side of its input.
        widths: channels of the blocks. All but the last halve the resolution, down to 2x2.
        over_time: how many of the blocks, the first ones, convolve over frames as well.
    """

    def __init__(self, colours: int, size: int, widths: tuple[int, ...], over_time: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        inputs = colours
        for index, outputs in enumerate(widths):
            halve = size > 2 and index < len(widths) - 1
            self.blocks.append(DownBlock(inputs, outputs, index < over_time, index == 0, halve))
            size, inputs = size // 2 if halve else size, outputs
        self.last = spectral(nn.Linear(inputs, 1))

    def forward(self, video: Tensor) -> Tensor:
        """Videos (B, T, C, H, W) to float32 logits (B, T)."""
        lead, x = video.shape[:2], video.transpose(1, 2)
        deep = True
        for block in self.blocks:
            if deep and not block.over_time:
                x, deep = x.transpose(1, 2).flatten(0, 1), False
            x = block(x)
        if deep:  # all blocks were over time
            x = x.transpose(1, 2).flatten(0, 1)
        logits: Tensor = self.last(x.relu().sum((2, 3)))
        return logits.float().view(lead)


class Discriminators(nn.Module):
    """The spatial, the temporal and, for a level that refines, the matching one.

    Args:
        colours: C.
        size: pixels on a side of the level's videos.
        widths: channels of the blocks of each.
        frames: how many of a video the spatial one judges.
        low: pixels on a side of the videos that are refined; 0 for no matching discriminator.
        time_scale: frames to one of theirs.
    """

    def __init__(
        self, colours: int, size: int, widths: tuple[int, ...], frames: int, low: int = 0,
        time_scale: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frames, self.low, self.time_scale = frames, low, time_scale
        self.spatial = Discriminator(colours, size, widths, 0)
        self.temporal = Discriminator(colours, size // 2, widths, LAYERS_OVER_TIME)
        self.matching = Discriminator(2 * colours, low, widths, LAYERS_OVER_TIME) if low else None

    def forward(
        self, video: Tensor, low: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """All logits of videos (B, T, C, H, W) side by side, (B, outputs).

        Args:
            video: what is judged.
            low: what it was made from, (B, T / time_scale, C, h, w); None in a first level.
            generator: of the frames that the spatial discriminator is given.
        """
        logits = [self.spatial(self._some_frames(video, generator))]
        logits.append(self.temporal(smaller(video, video.shape[-1] // 2)))
        if self.matching is not None:
            assert low is not None
            logits.append(self.matching(self.pairs(video, low)))
        return torch.cat(logits, 1)

    def pairs(self, video: Tensor, low: Tensor) -> Tensor:
        """What the matching discriminator sees: the video at the resolution of ``low``, and it."""
        return torch.cat([smaller(video[:, :: self.time_scale], self.low), low], 2)

    def _some_frames(self, video: Tensor, generator: torch.Generator | None) -> Tensor:
        if video.shape[1] <= self.frames:
            return video
        chance = torch.rand(video.shape[:2], generator=generator, device=video.device)
        chosen = chance.argsort(1)[:, : self.frames]
        return video[torch.arange(len(video), device=video.device)[:, None], chosen]


def smaller(video: Tensor, size: int) -> Tensor:
    """Frames (B, T, C, H, W) at size x size, by averages: halving bilinearly, again and again."""
    return adaptive_avg_pool2d(video.flatten(0, 1), size).view(*video.shape[:3], size, size)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss of logits, averaged over samples and outputs (Lim and Ye 2017)."""
    return (1 - real).relu().mean() + (1 + fake).relu().mean()


def generator_loss(fake: Tensor) -> Tensor:
    """The generator's part of the game: its samples' logits should be high."""
    return -fake.mean()
