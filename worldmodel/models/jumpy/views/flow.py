"""The prior of z: all anchors are drawn together, given what the context alone shows from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.rectified_flow import RectifiedFlow
from worldmodel.models.jumpy.views.anchors import KNOWN
from worldmodel.models.jumpy.views.config import ViewsConfig
from worldmodel.models.jumpy.views.geometry import Space
from worldmodel.models.layers.positions import cell_positions
from worldmodel.models.layers.transformer import perceptron


class AnchorPrior(RectifiedFlow):
    """p(z | context): tokens are the squares of all anchors.

    Args:
        space: of the camera.
        grid: rows and columns of an anchor's squares.
        config: of the model.
    """

    positions: Tensor

    def __init__(self, space: Space, grid: tuple[int, int], config: ViewsConfig) -> None:
        width, squares = config.flow_width, grid[0] * grid[1]
        super().__init__(
            config.anchors * squares, config.latent, width, config.heads, config.flow_blocks
        )
        self.space, self.grid, self.config = space, grid, config
        self.register_buffer("positions", cell_positions(*grid), persistent=False)
        self.from_known = nn.Conv2d(KNOWN, width, 2, 2)
        self.from_position = nn.Linear(self.positions.shape[1], width)
        self.from_camera = perceptron(7, width, width)
        self.join = perceptron(width, 2 * width, width)

    def facts(self, anchors: Cameras, context: Cameras, mask: Tensor) -> Tensor:
        """Where the anchors stand and look, and how near the nearest view of a context is: (B, A,
        7).

        Args:
            anchors: (B, A) of them.
            context: (B, M), of the contexts.
            mask: bool (B, M), True where a view of a context is there.
        """
        apart = self.space.distance(anchors, context).masked_fill(~mask[:, None], torch.inf)
        place = (anchors.position - self.space.middle) / self.space.unit
        return torch.cat([place, anchors.forward, apart.amin(-1, keepdim=True)], -1)

    def condition(self, known: Tensor, facts: Tensor) -> Tensor:
        """What the flow knows of contexts, (B, tokens, flow_width).

        Args:
            known: (B, A, KNOWN, 2 rows, 2 columns), what the contexts show from the anchors.
            facts: (B, A, 7), of ``facts``.
        """
        h = self.from_known(known.flatten(0, 1)).flatten(2).transpose(1, 2)
        h = h + self.from_position(self.positions) + self.from_camera(facts).flatten(0, 1)[:, None]
        h = h + self.join(h)
        condition: Tensor = h.unflatten(0, known.shape[:2]).flatten(1, 2)
        return condition

    def sample(
        self, condition: Tensor, n: int, steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """n latents of each context: (B * n, A, latent, rows, columns).

        Args:
            condition: (B, tokens, flow_width).
            n: how many.
            steps: of ``config.flow_solver``.
            generator: of the noise at the start.
        """
        wide = condition.repeat_interleave(n, 0)
        x = self.integrate(wide, steps, self.config.flow_solver, generator)
        z: Tensor = x.unflatten(1, (self.config.anchors, *self.grid)).movedim(-1, 2)
        return z

    @staticmethod
    def tokens(z: Tensor) -> Tensor:
        """(B, A, latent, rows, columns) to (B, A * rows * columns, latent)."""
        return z.movedim(2, -1).flatten(1, 3)
