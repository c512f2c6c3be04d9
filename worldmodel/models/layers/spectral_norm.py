"""Spectral normalisation (Miyato et al. 2018) whose power iterations are steps of their own.

torch's iterates in every forward pass of the training, so that a loss differs from the same loss a
moment before. Here a loss is a function of weights and batch: ``power_iteration`` is called when
the weights have changed.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 15
"""Of fresh weights."""
Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d | nn.Conv3d)


class SpectralNorm(nn.Module):
    """A weight over its largest singular value, as a matrix of its outputs and all the rest.

    Args:
        weight: (outputs, ...), what it is for.
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        for name, size in zip(("left", "right"), matrix.shape, strict=True):
            vector = torch.randn(size, dtype=matrix.dtype, device=matrix.device)
            self.register_buffer(name, normalize(vector, dim=0))
        self.iterate(weight, FIRST_ITERATIONS)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, normalised; gradients know that its largest singular value depends on it."""
        # elementwise: autocast would round the matrix products
        largest = (weight.flatten(1) * self.left[:, None] * self.right).sum()
        return weight / largest

    @torch.no_grad()
    def iterate(self, weight: Tensor, steps: int = 1) -> None:
        """Bring the estimate of the first singular vectors nearer to those of ``weight``."""
        if weight.is_meta:  # shapes alone, as in loading: each product there takes milliseconds
            return
        matrix = weight.detach().flatten(1)
        for _ in range(steps):
            self.right.copy_(normalize(matrix.T @ self.left, dim=0))
            self.left.copy_(normalize(matrix @ self.right, dim=0))


def spectral(layer: Layer) -> Layer:
    """The layer with orthogonal weights, spectrally normalised, and biases of 0."""
    nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


def power_iteration(module: nn.Module, steps: int = 1) -> None:
    """Follow the weights of all spectrally normalised layers in ``module``.

    Args:
        module: after its weights were changed.
        steps: iterations; one is enough where weights change little (Miyato et al., section 2.2).
    """
    for part in module.modules():
        if isinstance(part, parametrize.ParametrizationList):
            for norm in part:
                if isinstance(norm, SpectralNorm):
                    norm.iterate(part.original, steps)
