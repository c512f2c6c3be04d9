"""The posterior of z, and how z completes the memory.

z has some numbers for each square of 2 x 2 cells, aligned with the picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.models.jumpy.copying.cells import Grid
from worldmodel.models.jumpy.copying.config import CopyingConfig
from worldmodel.models.jumpy.copying.memory import per_cell
from worldmodel.models.layers.positions import cell_positions
from worldmodel.models.layers.transformer import Block, perceptron


class Posterior(nn.Module):
    """q(z | context, more frames), a Gaussian."""

    positions: Tensor

    def __init__(self, grid: Grid, config: CopyingConfig) -> None:
        super().__init__()
        width, self.grid = config.width, grid
        self.register_buffer("positions", cell_positions(grid.rows, grid.columns), persistent=False)
        self.from_memory = nn.Linear(config.key_features * config.content, width)
        self.from_position = nn.Linear(self.positions.shape[1], width)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), perceptron(width, 2 * width, width))
        self.look, self.compare = Block(width, config.heads), Block(width, config.heads)
        self.join = nn.Linear(2 * width, width)
        self.shrink = nn.Sequential(
            nn.LayerNorm(4 * width), perceptron(4 * width, width, 2 * config.latent)
        )

    def forward(self, cells: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each float32 (B, tokens, latent).

        Args:
            cells: (B, cells, width), of the context.
            r: (B, features, cells, content), of the context and of the other frames.
        """
        x = self.from_memory(per_cell(r)) + self.from_position(self.positions)
        x = self.look(x + self.perceptron(x))
        x = self.compare(self.join(torch.cat([cells, x], -1)))
        mean, logvar = self.shrink(self.grid.group(x)).float().chunk(2, -1)
        return mean, logvar.clamp(-8, 4)


class Completion(nn.Module):
    """z, decoded together with the context's cells, is added to r: then all times read alike."""

    positions: Tensor

    def __init__(self, grid: Grid, config: CopyingConfig) -> None:
        super().__init__()
        width, self.grid = config.width, grid
        self.register_buffer("positions", cell_positions(grid.rows, grid.columns), persistent=False)
        self.from_position = nn.Linear(self.positions.shape[1], width)
        self.from_latent = nn.Linear(config.latent, 4 * width) if config.latent else None
        self.blocks = nn.Sequential(*(Block(width, config.heads) for _ in range(2)))
        self.to_memory = nn.Linear(width, config.key_features * config.content)

    def forward(
        self, r: Tensor, cells: Tensor, z: Tensor, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The memory of P worlds, and features of their cells (P, cells, width).

        Args:
            r: (P, features, cells, content), of the context.
            cells: (P, cells, width), of the context.
            z: (P, tokens, latent); of no account without a latent.
            given: (P,), 0 where z is left out, else 1; None for 1.
        """
        x = cells + self.from_position(self.positions)
        if self.from_latent is not None:
            latent = self.grid.ungroup(self.from_latent(z))
            x = x + (latent if given is None else latent * given[:, None, None])
        x = self.blocks(x)
        added = self.to_memory(x).unflatten(2, (r.shape[1], r.shape[3])).transpose(1, 2)
        return r + added, x
