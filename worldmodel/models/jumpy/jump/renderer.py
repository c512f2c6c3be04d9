"""M_gamma(z, v): deterministic renderers. The output is linear; callers clamp it for display.

Each takes P worlds with Q keys each and renders all P x Q frames in one batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.jumpy.jump.encoder import Encoder
from worldmodel.models.layers.attention import attention
from worldmodel.models.layers.conv_lstm import ConvLSTMCell
from worldmodel.models.layers.positions import coordinate_waves


class LatentWorlds(NamedTuple):
    """P worlds as renderers read them; vectors are images of one pixel.

    Attributes:
        z: (P, nt, latent, h, w), H/8 x W/8 of images.
        r: (P, channels, h, w), the context's representation, H/4 x W/4 of images.
        vector: (P, scene), of ``SceneVector``.
        latest: (P, D), the latest vector of the context; None for images.
    """

    z: Tensor
    r: Tensor
    vector: Tensor
    latest: Tensor | None = None


class Renderer(nn.Module, ABC):
    """What ``JumpConfig.renderer`` names.

    Each is made of the shape of an observation, the number of a key's features, the encoder, of
    which it reads the sizes only, and the settings.
    """

    @abstractmethod
    def forward(self, worlds: LatentWorlds, keys: Tensor, content: Tensor | None) -> Tensor:
        """Observations (P, Q, \\*observation).

        Args:
            worlds: P of them.
            keys: (P, Q, key).
            content: (P, Q, content, h, w), what the encoder reads from r for the keys, or None.
        """


class DrawRenderer(Renderer):
    """The paper's: nt LSTM steps add to a canvas at H/4, then one transposed convolution."""

    def __init__(
        self, observation: tuple[int, ...], key: int, encoder: Encoder, config: JumpConfig
    ) -> None:
        super().__init__()
        self.canvas = config.canvas
        self.from_canvas = nn.Conv2d(config.canvas, config.canvas_in, 2, 2)
        self.lstm = ConvLSTMCell(
            config.canvas_in + config.latent + key, config.hidden, config.kernel
        )
        self.to_canvas = nn.ConvTranspose2d(config.hidden, config.canvas, 2, 2)
        self.to_image = nn.ConvTranspose2d(config.canvas, observation[0], 4, 4)

    def forward(self, worlds: LatentWorlds, keys: Tensor, content: Tensor | None) -> Tensor:
        """Frames (P, Q, C, H, W), from z and keys alone."""
        count, queries = keys.shape[:2]
        height, width = worlds.z.shape[-2:]
        z = worlds.z.repeat_interleave(queries, 0)
        tiled = keys.flatten(0, 1)[..., None, None].expand(-1, -1, height, width)
        canvas = z.new_zeros(count * queries, self.canvas, 2 * height, 2 * width)
        state = self.lstm.start(z[:, 0])
        for step in range(z.shape[1]):
            state = self.lstm(torch.cat([self.from_canvas(canvas), z[:, step], tiled], 1), state)
            canvas = canvas + self.to_canvas(state[0])
        frames: Tensor = self.to_image(canvas)
        return frames.view(count, queries, *frames.shape[1:])


class FilmRenderer(Renderer):
    """Feed-forward (ours): a grid made once per world, modulated by key and scene vector (FiLM).

    The grid carries coordinate waves: scaling and adding them places things anywhere, so that a
    key can move a shape without a convolution having to carry it across the grid.
    """

    coordinates: Tensor
    blocks = 3

    def __init__(
        self, observation: tuple[int, ...], key: int, encoder: Encoder, config: JumpConfig
    ) -> None:
        super().__init__()
        (channels, height, side), width = observation, config.film
        waves = coordinate_waves(height // 4, side // 4)
        self.register_buffer("coordinates", waves, persistent=False)
        self.from_latent = nn.ConvTranspose2d(config.steps * config.latent, width, 2, 2)
        self.from_memory = nn.Conv2d(encoder.channels, width, 3, padding=1)
        self.from_read = None
        if encoder.content:
            self.from_read = nn.Conv2d(encoder.content, width, 3, padding=1)
        wide = width + waves.shape[0]
        conditioning, hidden = key + config.scene, [128]
        self.attention: SpatialAttention | None = None
        if config.attention_heads:
            self.attention = SpatialAttention(wide, conditioning, config.attention_heads)
            conditioning, hidden = conditioning + self.attention.features, [256, 256]
        self.splits = [2 * wide] + [2 * width] * (self.blocks - 1)
        self.modulate = perceptron(conditioning, *hidden, sum(self.splits))
        self.enter = nn.Conv2d(wide, width, 3, padding=1)
        self.convolve = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in range(self.blocks - 1)
        )
        self.upsample = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, 4 * 32, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(32, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, worlds: LatentWorlds, keys: Tensor, content: Tensor | None) -> Tensor:
        """Frames (P, Q, C, H, W)."""
        count, queries = keys.shape[:2]
        grid = self.from_latent(worlds.z.flatten(1, 2)) + self.from_memory(worlds.r)
        x = grid.repeat_interleave(queries, 0)
        if self.from_read is not None and content is not None:
            x = x + self.from_read(content.flatten(0, 1))
        x = torch.cat([x, self.coordinates.expand(len(x), -1, -1, -1)], 1)
        conditioning = torch.cat([keys, worlds.vector.unsqueeze(1).expand(-1, queries, -1)], -1)
        if self.attention is not None:
            placed = torch.cat([grid, self.coordinates.expand(count, -1, -1, -1)], 1)
            conditioning = torch.cat([conditioning, self.attention(placed, conditioning)], -1)
        modulation = self.modulate(conditioning.flatten(0, 1))[..., None, None]
        first, *others = modulation.split(self.splits, 1)
        x = self.enter(_modulated(x, first))
        for convolution, other in zip(self.convolve, others, strict=True):
            x = x + convolution(_modulated(x, other).relu())
        frames: Tensor = self.upsample(x)
        return frames.view(count, queries, *frames.shape[1:])


class VectorRenderer(Renderer):
    """For vectors (ours): a perceptron of key, scene vector, their product and the content.

    The scene vector knows z. The product lets the key scale what the scene says, as time scales a
    velocity. The output is a change of the latest vector.
    """

    def __init__(
        self, observation: tuple[int, ...], key: int, encoder: Encoder, config: JumpConfig
    ) -> None:
        super().__init__()
        width = config.mlp
        self.from_key = perceptron(key + encoder.content, width, 2 * width)
        self.from_scene = nn.Linear(config.scene, 2 * width)
        self.out = nn.Sequential(nn.ReLU(), perceptron(width, width, width, *observation))

    def forward(self, worlds: LatentWorlds, keys: Tensor, content: Tensor | None) -> Tensor:
        """Vectors (P, Q, D)."""
        assert worlds.latest is not None
        conditioning = keys if content is None else torch.cat([keys, content.flatten(2)], -1)
        k_add, k_gate = self.from_key(conditioning).chunk(2, -1)
        s_add, s_gate = self.from_scene(worlds.vector).unsqueeze(1).chunk(2, -1)
        change: Tensor = self.out(k_add + s_add + k_gate * s_gate)
        return worlds.latest.unsqueeze(1) + change


RENDERERS: dict[str, Callable[[tuple[int, ...], int, Encoder, JumpConfig], Renderer]] = {
    "draw": DrawRenderer,
    "film": FilmRenderer,
    "mlp": VectorRenderer,
}
"""By ``JumpConfig.renderer``."""


class SpatialAttention(nn.Module):
    """Attention from each key to the cells of a scene's grid.

    A latent can mark a cell (the third visit is here), and a time can attend to the cell that is
    marked for it, whose coordinates are among its channels. The scene vector alone would have to
    hold all positions at once.
    """

    depth = 32  # of each head

    def __init__(self, channels: int, conditioning: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.features = heads * self.depth
        self.query = perceptron(conditioning, 128, self.features)
        self.key_value = perceptron(channels, 64, 2 * self.features)

    def forward(self, grid: Tensor, conditioning: Tensor) -> Tensor:
        """grid (P, channels, h, w) and conditioning (P, Q, conditioning) to (P, Q, features)."""
        query = self.query(conditioning).unflatten(-1, (self.heads, self.depth)).transpose(1, 2)
        cells = self.key_value(grid.flatten(2).transpose(1, 2))
        cells = cells.unflatten(-1, (2 * self.heads, self.depth)).transpose(1, 2)
        values = attention(query, *cells.chunk(2, 1))  # (P, heads, Q, depth)
        return values.transpose(1, 2).flatten(2)


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, ReLUs between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.ReLU()] * bool(layers) + [nn.Linear(before, after)]
    return nn.Sequential(*layers)


def _modulated(x: Tensor, modulation: Tensor) -> Tensor:
    scale, shift = modulation.chunk(2, 1)
    return x * (1 + scale) + shift
