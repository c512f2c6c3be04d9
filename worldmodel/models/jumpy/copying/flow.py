"""The prior of z given the context: a conditional rectified flow (Liu et al., 2023).

It is trained on samples of the posterior, without a gradient into them, in the same training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from worldmodel.models.jumpy.copying.cells import Grid
from worldmodel.models.jumpy.copying.config import CopyingConfig
from worldmodel.models.layers.positions import cell_positions
from worldmodel.models.layers.transformer import ModulatedBlock, perceptron


class FlowPrior(nn.Module):
    """dx/ds = v(x, s, context) from noise at s = 0 to z, standardised, at s = 1.

    ``standard`` holds mean and variance of z, running over the training.
    """

    positions: Tensor
    frequencies: Tensor

    def __init__(self, grid: Grid, config: CopyingConfig) -> None:
        super().__init__()
        width, self.grid, self.config = config.flow_width, grid, config
        self.shape = (grid.tokens, config.latent)
        positions = cell_positions(grid.rows // 2, grid.columns // 2)
        self.register_buffer("positions", positions, persistent=False)
        frequencies = torch.exp(torch.linspace(0, math.log(1000), 16))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.standard = nn.BatchNorm1d(config.latent, affine=False, momentum=0.01)
        self.from_cells = nn.Sequential(
            nn.LayerNorm(4 * config.width), perceptron(4 * config.width, 2 * width, width)
        )
        self.from_position = nn.Linear(positions.shape[1], width)
        self.from_mean = nn.Linear(width, width)
        self.from_time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(config.latent, width)
        self.blocks = nn.ModuleList(
            ModulatedBlock(width, config.heads) for _ in range(config.flow_blocks)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.latent))

    def loss(
        self, z: Tensor, cells: Tensor, draws: int, generator: torch.Generator | None
    ) -> Tensor:
        """Mean squared error of the velocity, at random noise and times.

        Args:
            z: (B, tokens, latent), samples of the posterior.
            cells: (B, cells, width), of the contexts.
            draws: pairs of noise and time for each latent.
            generator: of noise and times.
        """
        target = self.standard(z.detach().float().flatten(0, 1)).unflatten(0, z.shape[:2])
        target = target.repeat(draws, 1, 1)
        noise = torch.randn(target.shape, generator=generator, device=z.device)
        time = torch.randn(len(target), generator=generator, device=z.device).sigmoid()
        condition = self.condition(cells.detach()).repeat(draws, 1, 1)
        x = torch.lerp(noise, target, time[:, None, None])
        return mse_loss(self.velocity(x, time, condition), target - noise)

    def condition(self, cells: Tensor) -> Tensor:
        """What the flow knows of contexts, (B, tokens, flow_width)."""
        known: Tensor = self.from_cells(self.grid.group(cells))
        whole: Tensor = known + self.from_position(self.positions)
        return whole

    def velocity(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """float32 (P, tokens, latent), of x at times (P,) in [0, 1]."""
        angle = time[:, None] * self.frequencies
        now = self.from_time(torch.cat([angle.sin(), angle.cos()], -1))
        now = now + self.from_mean(condition.mean(1))
        h = self.enter(x) + condition
        for block in self.blocks:
            h = block(h, now)
        velocity: Tensor = self.out(h)
        return velocity.float()

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
        count = len(condition)
        x = torch.randn(count, *self.shape, generator=generator, device=cells.device)
        times = torch.linspace(0, 1, steps + 1, device=cells.device)
        for step in range(steps):
            start, end = times[step].expand(count), times[step + 1].expand(count)
            length = 1 / steps
            velocity = self.velocity(x, start, condition)
            if self.config.flow_solver == "heun":
                ahead = self.velocity(x + length * velocity, end, condition)
                velocity = (velocity + ahead) / 2
            x = x + length * velocity
        mean, variance = self.standard.running_mean, self.standard.running_var
        assert mean is not None and variance is not None
        return x * (variance + self.standard.eps).sqrt() + mean
