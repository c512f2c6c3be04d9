"""Slot attention (Locatello et al. 2020): slots compete for the places of a picture.

Sources: seed 002 (thesis), equation 8.4, table 8.1 and section 10.4; what it leaves open (sizes of
the residual perceptron, epsilon, three iterations) is as in the public reference implementation,
see our reference notes, section 9; the positions are ours. Shapes: P pictures, K slots of D
numbers, n places of F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from worldmodel.models.layers.positions import cell_positions, with_waves

EPSILON = 1e-8
"""Added to attention weights before they are normalised over places."""

LOG_SPREAD = -2.0
"""Of random slots, as training begins: about as much as their mean. (There it begins at 0; slots
that are mostly noise learn more slowly.)"""

EVEN = (0.7548776662466927, 0.5698402909980532)
"""1 / g and 1 / g^2 of the g with g^3 = g + 1: multiples of both, without their whole parts, fill a
square evenly."""


def warmed_up(first: float, last: float, warm_up: float, done: int, steps: int) -> float:
    """A learning rate after ``done`` of ``steps`` steps, as slot attention is usually trained.

    Args:
        first, last: above 0. It rises to ``first``, then goes by a constant factor per step to
            ``last``.
        warm_up: share of the steps, below 1, in which it rises.
    """
    share = done / steps
    if share < warm_up:
        return first * min(1, max(share, 1 / steps) / warm_up)
    return float(first * (last / first) ** ((share - warm_up) / (1 - warm_up)))


class GridPosition(nn.Module):
    """Scales and shifts a picture of features by linear maps of positions and their waves.

    Usual is the shift alone. In one trial on single frames of balls the scale helped (3x3 kernels,
    squared error after 800 steps .024 instead of .030), in another it made no difference (5x5).

    Args:
        height, width: of the picture.
        channels: F.
    """

    grid: Tensor

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        grid = cell_positions(height, width).unflatten(0, (height, width))
        self.register_buffer("grid", grid, persistent=False)
        self.shift = nn.Linear(grid.shape[-1], channels)
        self.scale = nn.Linear(grid.shape[-1], channels)

    def forward(self, features: Tensor, middle: Tensor | None = None) -> Tensor:
        """(P, F, height, width) to the same shape.

        Args:
            features: of the pictures.
            middle: (P, 2), x and y from -1 to 1, the place that positions are relative to; None
                for the middle of the picture.
        """
        grid = self.grid
        if middle is not None:
            grid = with_waves(grid[..., :2] - middle[:, None, None] / 2)
        shift, scale = (layer(grid).movedim(-1, -3) for layer in (self.shift, self.scale))
        placed: Tensor = features * (1 + scale) + shift
        return placed


class Focus(nn.Module):
    """Where slots of objects are in a picture, and that they look around there.

    Args:
        height, width: of the picture, in places.
        reach: how far they look, in half sides of the picture.
        first: how far in the first iteration; from there it narrows evenly. None for ``reach``. Two
            slots that see the same share it, until they look no further than the nearer one.
    """

    grid: Tensor

    def __init__(self, height: int, width: int, reach: float, first: float | None = None) -> None:
        super().__init__()
        self.reach = reach
        self.first = reach if first is None else first
        grid = 2 * cell_positions(height, width)[:, :2] - 1
        self.register_buffer("grid", grid, persistent=False)

    def near(self, middle: Tensor, progress: float = 1.0, wider: float = 1.0) -> Tensor:
        """What is added to logits (P, K, n) of slots at ``middle`` (P, K, 2), at a ``progress``
        from 0, in the first iteration, to 1, where they look ``wider`` times as far as usual.
        """
        reach = self.first + progress * (wider * self.reach - self.first)
        away = (middle.unsqueeze(2) - self.grid).square().sum(-1)
        return 1 - away / (2 * reach**2)

    def middle(self, won: Tensor) -> Tensor:
        """The middle (P, K, 2) of what slots win by their attention (P, K, n)."""
        middle = (won.unsqueeze(-1) * self.grid).sum(2)  # in float32: no matrix product
        return middle / (won.sum(2, keepdim=True) + EPSILON)


class PictureEncoder(nn.Module):
    """Four convolutions, positions, and a perceptron at each place (thesis, table 8.1).

    Args:
        image: colour channels.
        height, width: of the pictures, multiples of ``coarse``.
        channels: F.
        kernel: of the convolutions, odd.
        coarse: pixels on a side of a place: 1, 2 or 4. The second convolution, and for 4 the third,
            then has stride 2.
    """

    def __init__(
        self, image: int, height: int, width: int, channels: int, kernel: int, coarse: int
    ) -> None:
        super().__init__()
        strides = (1, 2 if coarse > 1 else 1, 2 if coarse > 2 else 1, 1)
        inputs = (image, channels, channels, channels)
        layers: list[nn.Module] = []
        for count, stride in zip(inputs, strides, strict=True):
            layers += [nn.Conv2d(count, channels, kernel, stride, kernel // 2), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.position = GridPosition(height // coarse, width // coarse, channels)
        self.mix = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (P, C, H, W) in [0, 1] to features (P, n, F), row by row."""
        features = self.position(self.convolutions(frames))
        mixed: Tensor = self.mix(features.flatten(2).transpose(1, 2))
        return mixed


def random_places(noise: Tensor) -> Tensor:
    """Places (P, K, 2), x and y from -1 to 1, each as likely, of normal noise (P, K, D)."""
    return torch.erf(noise[..., :2] * 0.5**0.5)


def even_places(noise: Tensor) -> Tensor:
    """As ``random_places``, but no two of a picture are near each other.

    They are the first K of a sequence that fills a square evenly, all moved alike, around its
    edges, by the first slot's noise.
    """
    steps = torch.arange(noise.shape[1], device=noise.device).unsqueeze(1)
    shift: Tensor = torch.special.ndtr(noise[:, :1, :2])
    return 2 * (steps * noise.new_tensor(EVEN) + shift).frac() - 1


class SlotAttention(nn.Module):
    """Slots are queries, places are keys; each place divides its attention among the slots.

    Args:
        features: F.
        size: D.
        hidden: units of the residual perceptron after the GRU.
        iterations: of ``forward``.
    """

    def __init__(self, features: int, size: int, hidden: int, iterations: int = 3) -> None:
        super().__init__()
        self.size, self.iterations = size, iterations
        self.mean = nn.Parameter(torch.randn(size) * size**-0.5)
        self.log_spread = nn.Parameter(torch.randn(size) * size**-0.5 + LOG_SPREAD)
        self.norm_inputs = nn.LayerNorm(features)
        self.norm_slots = nn.LayerNorm(size)
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(features, size, bias=False)
        self.value = nn.Linear(features, size, bias=False)
        self.gru = nn.GRUCell(size, size)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, size)
        )

    def project(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., n, D) of places (..., n, F)."""
        normed = self.norm_inputs(features)
        return self.key(normed), self.value(normed)

    def group(
        self, slots: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What each slot gets: the mean value of the places that it wins (equation 8.4).

        Args:
            slots: (P, K, D).
            keys, values: (P, n, D).
            bias: (P, K, n), added to the logits of the attention; None for 0.

        Returns:
            groupings (P, K, D), and attention (P, K, n), which sums to 1 over the slots.
        """
        query = self.query(self.norm_slots(slots)) * self.size**-0.5
        logits = (query @ keys.transpose(1, 2)).float()
        attention = (logits if bias is None else logits + bias).softmax(1)
        weights = attention + EPSILON
        weights = weights / weights.sum(2, keepdim=True)
        return weights.to(values.dtype) @ values, attention

    def initial(self, noise: Tensor) -> Tensor:
        """Slots before the first iteration, from standard normal noise (P, K, D)."""
        return self.mean + self.log_spread.exp() * noise

    def refine(
        self, slots: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Slots (P, K, D) after one iteration, and the attention (P, K, n) of it; see ``group``."""
        grouped, attention = self.group(slots, keys, values, bias)
        after = self.gru(grouped.flatten(0, 1), slots.flatten(0, 1).to(grouped.dtype))
        after = after.view_as(slots)
        return after + self.mlp(after), attention

    def forward(
        self, keys: Tensor, values: Tensor, slots: Tensor, focus: Focus | None,
        place: Tensor | None, wider: float = 1.0,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Slots after all iterations on a frame, and where those of objects are.

        Args:
            keys, values: (P, n, D), of the frame's places.
            slots: (P, K, D), to begin with.
            focus: None lets slots look everywhere.
            place: (P, K - 1, 2), where slots are at first, with a ``focus``: all but the last,
                which is the background's and looks everywhere.
            wider: how many times as far as usual they look in the end.

        Returns:
            slots (P, K, D) and places (P, K - 1, 2), with a ``focus``, else None.
        """
        for index in range(self.iterations):
            closer = near(focus, place, index / max(1, self.iterations - 1), wider)
            slots, attention = self.refine(slots, keys, values, closer)
            if focus is not None:
                place = focus.middle(attention[:, :-1])
        return slots, place


def near(
    focus: Focus | None, place: Tensor | None, progress: float = 1.0, wider: float = 1.0
) -> Tensor | None:
    """What is added to logits (P, K, n) of slots, of which all but the last are at places
    (P, K - 1, 2); None where slots have no places.
    """
    if focus is None or place is None:
        return None
    return pad(focus.near(place, progress, wider), (0, 0, 0, 1))
