"""The prior of z given the context: a rectified flow whose tokens are aligned with the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.models.jumpy.copying.cells import Grid
from worldmodel.models.jumpy.copying.config import CopyingConfig
from worldmodel.models.jumpy.rectified_flow import RectifiedFlow
from worldmodel.models.layers.positions import cell_positions
from worldmodel.models.layers.transformer import perceptron


class FlowPrior(RectifiedFlow):
    """p(z | context): a token of z for each square of 2 x 2 cells."""

    positions: Tensor

    def __init__(self, grid: Grid, config: CopyingConfig) -> None:
        width = config.flow_width
        super().__init__(grid.tokens, config.latent, width, config.heads, config.flow_blocks)
        self.grid, self.config = grid, config
        positions = cell_positions(grid.rows // 2, grid.columns // 2)
        self.register_buffer("positions", positions, persistent=False)
        self.from_cells = nn.Sequential(
            nn.LayerNorm(4 * config.width), perceptron(4 * config.width, 2 * width, width)
        )
        self.from_position = nn.Linear(positions.shape[1], width)

    def condition(self, cells: Tensor) -> Tensor:
        """What the flow knows of contexts, (B, tokens, flow_width).

        Args:
            cells: (B, cells, width), of the contexts.
        """
        known: Tensor = self.from_cells(self.grid.group(cells))
        whole: Tensor = known + self.from_position(self.positions)
        return whole

    def sample(
        self, cells: Tensor, n: int, steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """n latents of each context (B, cells, width): (B * n, tokens, latent).

        Args:
            cells: (B, cells, width), of the contexts.
            n: how many.
            steps: of ``config.flow_solver``.
            generator: of the noise at the start.
        """
        condition = self.condition(cells).repeat_interleave(n, 0)
        return self.integrate(condition, steps, self.config.flow_solver, generator)
