"""Neural radiance fields of a given shape and appearance, as in GRAF (seed 002, table 10.8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, softplus

DENSITY = 10.0
"""Density of a logit of 1, about. Half a unit of the scene is then opaque, and perceptrons as they
are initialised begin with things that can be seen through in part."""


FAINT = 0.1
"""Factor of the initial weights of colours: an object of a wrong colour would first learn to be
small and thin."""


class Code(NamedTuple):
    """What a shape and an appearance add to the layers of a field, each (..., width).

    Attributes:
        enter, again: of the shape, in the first layer and in the one that skips to it.
        colour: of the appearance, before the colours.
    """

    enter: Tensor
    again: Tensor
    colour: Tensor

    def select(self, rows: Tensor) -> Code:
        """Of (M, width) those of int64 rows (N,): (N, width)."""
        return Code(*(part.index_select(0, rows) for part in self))


class Field(nn.Module):
    """Density and features of points, by a perceptron with ReLUs.

    The density depends on the shape alone, the features on the appearance, too (equation 10.3).

    Args:
        latent: numbers of a shape, and of an appearance.
        layers, width: of the perceptron.
        skip: the layer that reads position and shape again; 0 for none.
        features: channels of what is rendered.
        point_waves, direction_waves: frequencies; 0 of the latter: directions do not count.
        logit: of densities, as training begins.
    """

    def __init__(
        self, latent: int, layers: int, width: int, skip: int, features: int, point_waves: int,
        direction_waves: int, logit: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.waves, self.direction_waves, self.skip = point_waves, direction_waves, skip
        point = 3 + 6 * point_waves
        self.enter = nn.Linear(point, width)
        self.enter_shape = nn.Linear(latent, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.again = nn.Linear(point, width) if skip else None
        self.again_shape = nn.Linear(latent, width) if skip else None
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.appearance = nn.Linear(latent, width)
        self.direction = nn.Linear(3 + 6 * direction_waves, width) if direction_waves else None
        self.colour = nn.Linear(width, features)
        nn.init.constant_(self.density.bias, logit)
        nn.init.zeros_(self.colour.bias)
        with torch.no_grad():
            self.colour.weight.mul_(FAINT)

    def code(self, shape: Tensor, appearance: Tensor) -> Code:
        """Of shapes and appearances (..., latent)."""
        enter = self.enter_shape(shape)
        again = enter if self.again_shape is None else self.again_shape(shape)
        return Code(enter, again, self.appearance(appearance))

    def forward(self, points: Tensor, directions: Tensor, code: Code) -> tuple[Tensor, Tensor]:
        """Densities (...), at least 0, and hidden features (..., width), both float32.

        ``to_features`` makes features of the latter: it is linear, so that what is rendered can be
        summed up before.

        Args:
            points, directions: (..., 3); directions are of any length.
            code: of the same lead, or one that broadcasts to it.
        """
        place = waves(points, self.waves)
        x = (self.enter(place) + code.enter).relu()
        for number, layer in enumerate(self.layers, 1):
            x = layer(x)
            if self.again is not None and number == self.skip:
                x = x + self.again(place) + code.again
            x = x.relu()
        density = DENSITY * softplus(self.density(x).float().squeeze(-1))
        hidden = self.feature(x) + code.colour
        if self.direction is not None:
            hidden = hidden + self.direction(
                waves(normalize(directions, dim=-1), self.direction_waves)
            )
        return density, hidden.relu().float()

    def to_features(self, hidden: Tensor, mass: Tensor) -> Tensor:
        """Features (..., F) of hidden ones (..., width) that were summed with weights, whose sum is
        ``mass`` (...).
        """
        bias = mass.unsqueeze(-1) * self.colour.bias
        return linear(hidden, self.colour.weight).float() + bias


def waves(x: Tensor, count: int) -> Tensor:
    """x (..., n) with sines and cosines of half a period per unit, and of ``count - 1`` octaves
    above: (..., n + 2 n count).
    """
    octaves = math.pi * 2.0 ** torch.arange(count, device=x.device)
    angles = (x.unsqueeze(-1) * octaves).flatten(-2)
    return torch.cat([x, angles.sin(), angles.cos()], -1)
