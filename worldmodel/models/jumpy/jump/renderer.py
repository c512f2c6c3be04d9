"""M_gamma(z, v): deterministic renderers. The output is linear; callers clamp when they show it.

Both take P worlds with Q keys each and render all P x Q frames in one batch.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.layers.conv_lstm import ConvLSTMCell


class DrawRenderer(nn.Module):
    """The paper's: nt LSTM steps add to a canvas at H/4, then one transposed convolution."""

    def __init__(self, image_channels: int, key: int, config: JumpConfig) -> None:
        super().__init__()
        self.canvas = config.canvas
        self.from_canvas = nn.Conv2d(config.canvas, config.canvas_in, 2, 2)
        self.lstm = ConvLSTMCell(
            config.canvas_in + config.latent + key, config.hidden, config.kernel
        )
        self.to_canvas = nn.ConvTranspose2d(config.hidden, config.canvas, 2, 2)
        self.to_image = nn.ConvTranspose2d(config.canvas, image_channels, 4, 4)

    def forward(self, z: Tensor, keys: Tensor) -> Tensor:
        """z (P, nt, latent, h, w), keys (P, Q, key): frames (P, Q, C, 8h, 8w)."""
        worlds, queries = keys.shape[:2]
        height, width = z.shape[-2:]
        z = z.repeat_interleave(queries, 0)
        tiled = keys.flatten(0, 1)[..., None, None].expand(-1, -1, height, width)
        canvas = z.new_zeros(worlds * queries, self.canvas, 2 * height, 2 * width)
        state = self.lstm.start(z[:, 0])
        for step in range(z.shape[1]):
            state = self.lstm(torch.cat([self.from_canvas(canvas), z[:, step], tiled], 1), state)
            canvas = canvas + self.to_canvas(state[0])
        frames: Tensor = self.to_image(canvas)
        return frames.view(worlds, queries, *frames.shape[1:])


class FilmRenderer(nn.Module):
    """Feed-forward (ours): a grid made once per world, modulated by key and scene vector.

    The grid carries coordinate waves: scaling and adding them places things anywhere, so that a
    key can move a shape without a convolution having to carry it across the grid.
    """

    coordinates: Tensor
    blocks = 3

    def __init__(
        self,
        image: tuple[int, ...],
        key: int,
        memory: int,
        read: int,
        config: JumpConfig,
    ) -> None:
        super().__init__()
        channels, width = image[0], config.film
        waves = coordinate_waves(image[1] // 4, image[2] // 4)
        self.register_buffer("coordinates", waves, persistent=False)
        self.from_latent = nn.ConvTranspose2d(config.steps * config.latent, width, 2, 2)
        self.from_memory = nn.Conv2d(memory, width, 3, padding=1)
        self.from_read = nn.Conv2d(read, width, 3, padding=1) if read else None
        wide = width + waves.shape[0]
        films = 2 * (wide + (self.blocks - 1) * width)
        told = key + config.scene
        hidden = [128]
        self.glance: Glance | None = None
        if config.glances:
            self.glance = Glance(wide, told, config.glances)
            told, hidden = told + self.glance.features, [256, 256]
        self.modulate = perceptron(told, *hidden, films)
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

    def forward(
        self, z: Tensor, r: Tensor, scene: Tensor, keys: Tensor, read: Tensor | None
    ) -> Tensor:
        """Frames (P, Q, C, H, W).

        Args:
            z: (P, nt, latent, H/8, W/8).
            r: (P, memory, H/4, W/4).
            scene: (P, scene).
            keys: (P, Q, key).
            read: (P, Q, read, H/4, W/4), what the memory answers the keys; None without one.
        """
        worlds, queries = keys.shape[:2]
        grid = self.from_latent(z.flatten(1, 2)) + self.from_memory(r)
        x = grid.repeat_interleave(queries, 0)
        if self.from_read is not None and read is not None:
            x = x + self.from_read(read.flatten(0, 1))
        waves = self.coordinates.expand(x.shape[0], -1, -1, -1)
        x = torch.cat([x, waves], 1)
        told = torch.cat([keys, scene.unsqueeze(1).expand(-1, queries, -1)], -1)
        if self.glance is not None:
            places = torch.cat([grid, self.coordinates.expand(worlds, -1, -1, -1)], 1)
            told = torch.cat([told, self.glance(places, told)], -1)
        width = self.enter.out_channels
        sizes = [2 * x.shape[1]] + [2 * width] * (self.blocks - 1)
        films = self.modulate(told.flatten(0, 1))[..., None, None].split(sizes, 1)
        x = self.enter(_film(x, films[0]))
        for convolution, film in zip(self.convolve, films[1:], strict=True):
            x = x + convolution(_film(x, film).relu())
        frames: Tensor = self.upsample(x)
        return frames.view(worlds, queries, *frames.shape[1:])


class VectorRenderer(nn.Module):
    """For vectors (ours): a perceptron of key, scene vector, their product and what memory answers.

    The scene vector knows z. The product lets the key scale what the scene says, as time scales a
    velocity.
    """

    def __init__(self, numbers: int, key: int, read: int, config: JumpConfig) -> None:
        super().__init__()
        width = config.mlp
        self.from_key = perceptron(key + read, width, 2 * width)
        self.from_scene = nn.Linear(config.scene, 2 * width)
        self.out = nn.Sequential(nn.ReLU(), perceptron(width, width, width, numbers))

    def forward(self, latest: Tensor, scene: Tensor, keys: Tensor, read: Tensor | None) -> Tensor:
        """Vectors (P, Q, numbers).

        Args:
            latest: (P, numbers), the last one seen; the output is a change of it.
            scene: (P, scene).
            keys: (P, Q, key).
            read: (P, Q, read, 1, 1), what the memory answers the keys; None without one.
        """
        told = keys if read is None else torch.cat([keys, read.flatten(2)], -1)
        k_add, k_gate = self.from_key(told).chunk(2, -1)
        s_add, s_gate = self.from_scene(scene).unsqueeze(1).chunk(2, -1)
        change: Tensor = self.out(k_add + s_add + k_gate * s_gate)
        return latest.unsqueeze(1) + change


class Glance(nn.Module):
    """Looks at places of a scene's grid: attention of S heads from each key.

    A latent can mark places (the third visit is here), and a time can ask for the place that is
    marked for it; what it gets holds the place's coordinates. One vector for the scene would have
    to say all places at once.
    """

    depth = 32  # of each head

    def __init__(self, channels: int, told: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.features = heads * self.depth
        self.ask = perceptron(told, 128, self.features)
        self.places = perceptron(channels, 64, 2 * self.features)

    def forward(self, grid: Tensor, told: Tensor) -> Tensor:
        """grid (P, channels, h, w) and told (P, Q, told) to (P, Q, features)."""
        ask = self.ask(told).unflatten(-1, (self.heads, self.depth)).transpose(1, 2)
        places = self.places(grid.flatten(2).transpose(1, 2))
        places = places.unflatten(-1, (2 * self.heads, self.depth)).transpose(1, 2)
        found = scaled_dot_product_attention(ask, *places.chunk(2, 1))  # (P, heads, Q, depth)
        return found.transpose(1, 2).flatten(2)


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, ReLUs between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.ReLU()] * bool(layers) + [nn.Linear(before, after)]
    return nn.Sequential(*layers)


def _film(x: Tensor, film: Tensor) -> Tensor:
    scale, shift = film.chunk(2, 1)
    return x * (1 + scale) + shift


def coordinate_waves(height: int, width: int) -> Tensor:
    """Sines and cosines of half to four periods along each axis: (16, height, width)."""
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    waves = []
    for period in (0.5, 1.0, 2.0, 4.0):
        for axis in (y[:, None].expand(height, width), x[None].expand(height, width)):
            angle = 2 * math.pi * period * axis
            waves += [angle.sin(), angle.cos()]
    return torch.stack(waves)
