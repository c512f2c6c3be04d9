"""M_theta: from a (key, frame) pair to what it adds to the scene's representation r."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class TiledKeyEncoder(nn.Module):
    """The paper's M_theta(v, x): the key is tiled onto the image (seed 001, appendix B).

    Attributes:
        channels: of r.
        content: channels of what ``read`` returns; 0 where a key reads nothing.
    """

    channels: int = 32
    content: ClassVar[int] = 0

    def __init__(self, channels: int, key: int, image: bool = True) -> None:
        super().__init__()
        self.net = _coder(image, channels + key, self.channels)

    def forward(self, frames: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """r (B, 32, H/4, W/4): the sum over pairs (B, M, C, H, W), (B, M, key), mask (B, M)."""
        tiled = keys[..., None, None].expand(-1, -1, -1, *frames.shape[-2:])
        encoded = self.net(torch.cat([frames, tiled], 2).flatten(0, 1))
        encoded = encoded.unflatten(0, frames.shape[:2])
        summed: Tensor = (encoded * mask[..., None, None, None]).sum(1)
        return summed

    def read(self, r: Tensor, keys: Tensor) -> Tensor | None:
        """None: no key can be looked up in a sum of tiled keys."""
        return None


class ProductKeyEncoder(nn.Module):
    """M_theta(v, x) = k(v) (outer) phi(x): a sum over pairs stays addressable by key.

    It is a linear-attention memory (ours, beyond the paper): ``read`` answers a key with
    q(v) . r. Still a sum over the context: a set, and O(1) to extend.
    """

    content: ClassVar[int] = 16

    def __init__(self, channels: int, key: int, features: int, image: bool = True) -> None:
        super().__init__()
        self.features = features
        self.channels = features * self.content
        self.net = _coder(image, channels, self.content)
        self.write_key = _key_net(key, features)
        self.read_key = _key_net(key, features)

    def forward(self, frames: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """r (B, features * 16, H/4, W/4) of pairs (B, M, C, H, W), (B, M, key), mask (B, M).

        The outer products are summed by one matrix product, without holding each in memory.
        """
        content = self.net(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        address = self.write_key(keys) * mask.unsqueeze(-1)  # (B, M, features)
        r = address.transpose(1, 2) @ content.flatten(2)
        summed: Tensor = r.view(len(r), self.channels, *content.shape[-2:])
        return summed

    def read(self, r: Tensor, keys: Tensor) -> Tensor | None:
        """What r (P, channels, h, w) answers Q keys (P, Q, key): (P, Q, 16, h, w)."""
        memory = r.reshape(len(r), self.features, -1)
        answer: Tensor = self.read_key(keys) @ memory
        return answer.view(*keys.shape[:2], self.content, *r.shape[-2:])


Encoder = TiledKeyEncoder | ProductKeyEncoder


def _coder(image: bool, in_channels: int, out_channels: int) -> nn.Sequential:
    """The paper's encoder: 8 2x2/2, 16 2x2/2, 32 3x3, ``out`` 3x3; no ReLU after the last.

    Vectors are images of one pixel: for them it is a perceptron.
    """
    if not image:
        return nn.Sequential(
            nn.Conv2d(in_channels, 128, 1), nn.ReLU(), nn.Conv2d(128, 128, 1), nn.ReLU(),
            nn.Conv2d(128, out_channels, 1),
        )  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 2, 2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, out_channels, 3, padding=1),
    )


def _key_net(key: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(key, 64), nn.ReLU(), nn.Linear(64, features))
