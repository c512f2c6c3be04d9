"""The convolutional blocks of the state-space models (Buesing et al. 2018, arXiv 1802.03006).

Layers follow the table of our reference notes, section 4, which is second-hand: it keeps what two
public readings of the paper's figures 6 to 9 agree on. The code is our own. Widths are in units of
C, the channels of a state; the table's 16, 32 and 64 are C/4, C/2 and C. All maps below the frames
are (P, C, H/8, W/8).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, softplus

from worldmodel.models.layers.gaussian import at_least_float32
from worldmodel.rewards import reward_layer

Layer = tuple[int, int]  # kernel and channels of a convolution


def convolution(inputs: int, layer: Layer) -> nn.Conv2d:
    """Stride 1, to a map of the same size."""
    kernel, outputs = layer
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class ConvStack(nn.Module):
    """The paper's conv_stack: u = relu(conv1 x), conv3 relu(u + conv2 u)."""

    def __init__(self, inputs: int, first: Layer, second: Layer, third: Layer) -> None:
        super().__init__()
        self.first = convolution(inputs, first)
        self.second = convolution(first[1], second)
        self.third = convolution(second[1], third)

    def forward(self, x: Tensor) -> Tensor:
        """(P, inputs, h, w) to (P, channels of the third, h, w)."""
        u = self.first(x).relu()
        out: Tensor = self.third((u + self.second(u)).relu())
        return out


class ResConv(nn.Module):
    """The paper's res_conv: 3x3 C/2, 5x5 C/2, 3x3 C, added to a base of C channels."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.first = convolution(inputs, (3, channels // 2))
        self.second = convolution(channels // 2, (5, channels // 2))
        self.last = convolution(channels // 2, (3, channels))

    def forward(self, x: Tensor, base: Tensor) -> Tensor:
        """x (P, inputs, h, w) and base (P, C, h, w) to (P, C, h, w)."""
        return torch.add(base, self.last(self.second(self.first(x).relu()).relu()))


class Encoder(nn.Module):
    """e(o): space to depth by 4, a stack, space to depth by 2, a stack, ReLU."""

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.fine = ConvStack(16 * image_channels, (3, quarter), (5, quarter), (3, channels))
        self.coarse = ConvStack(4 * channels, (3, half), (5, half), (3, channels))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (P, image channels, H, W) to (P, C, H/8, W/8)."""
        x = self.fine(pixel_unshuffle(frames, 4))
        return torch.relu(self.coarse(pixel_unshuffle(x, 2)))


class Decoder(nn.Module):
    """s, or s and z, to a frame's logits: a stack, depth to space by 2, a stack, by 4."""

    def __init__(self, inputs: int, channels: int, image_channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.coarse = ConvStack(inputs, (1, half), (5, half), (3, channels))
        self.fine = ConvStack(channels // 4, (3, channels), (3, channels), (1, 16 * image_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(P, inputs, H/8, W/8) to logits (P, image channels, H, W)."""
        return pixel_shuffle(self.fine(pixel_shuffle(self.coarse(x), 2)), 4)


class Gaussian(nn.Module):
    """Mean and standard deviation, each from a stack of its own, of maps of C channels.

    sigma = softplus(x - 0.1) + 0.1: the floor bounds the KL where a prior becomes certain.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.mean, self.spread = (
            ConvStack(inputs, (1, half), (3, half), (3, channels)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(P, inputs, h, w) to mean and sigma, each (P, C, h, w)."""
        mean, spread = (at_least_float32(part(x)) for part in (self.mean, self.spread))
        return mean, softplus(spread - 0.1) + 0.1


class Transition(nn.Module):
    """g: res_conv, ReLU, pool & inject, res_conv. Both residuals are added to s_{t-1}.

    Pool & inject reads the whole map at once: a convolution and its maximum over the map, joined to
    every position. The table leaves open what a residual is added to where channels differ; s_{t-1}
    needs no weights, and what is learned is its change.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.enter = ResConv(inputs, channels)
        self.pool = convolution(channels, (3, channels // 2))
        self.leave = ResConv(channels + channels // 2, channels)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """All inputs (P, inputs, h, w) and s_{t-1} (P, C, h, w) to s_t (P, C, h, w)."""
        u = self.enter(x, before).relu()
        pooled = self.pool(u).amax((2, 3), keepdim=True).expand(-1, -1, *u.shape[2:])
        after: Tensor = self.leave(torch.cat([u, pooled], 1), before)
        return after


def initialise(module: nn.Module) -> None:
    """For ``apply``, which visits children first: He's weights, no biases, small last layers.

    Twenty convolutions lie between two frames; PyTorch's weights, which shrink a signal from layer
    to layer, would lose most of a frame. The layers that add to a state or parametrise a
    distribution begin at a tenth, so that s_t begins near s_{t-1} in rollouts of any length.
    """
    small: list[nn.Conv2d] = []
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Transition):
        small = [module.enter.last, module.leave.last]
    elif isinstance(module, Gaussian):
        small = [module.mean.third, module.spread.third]
    elif isinstance(module, Decoder):
        small = [module.fine.third]
    with torch.no_grad():
        for layer in small:
            layer.weight.mul_(0.1)


class Readout(nn.Module):
    """s_t to the reward on its scale and the continuation logit: the paper's head, our sizes.

    Args:
        channels, cells: C, and the positions of the map.
        width: channels of its convolution.
    """

    def __init__(self, channels: int, width: int, cells: int) -> None:
        super().__init__()
        last = reward_layer(width * cells)
        self.out = nn.Sequential(convolution(channels, (3, width)), nn.ReLU(), nn.Flatten(), last)

    def forward(self, s: Tensor) -> Tensor:
        """s (P, C, h, w) to (P, 2)."""
        readouts: Tensor = self.out(s)
        return readouts
