"""Transformer blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.models.layers.attention import attention


class Attention(nn.Module):
    """Multi-head attention of x to a memory.

    Args:
        width: features of both; a multiple of ``heads``.
        heads: of which each has ``width / heads`` features.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (P, L, width) attends to all of memory (P, n, width)."""
        return self.attend(x, *self.keys(memory))

    def queries(self, x: Tensor) -> Tensor:
        """(P, L, width) to (P, heads, L, width / heads)."""
        return self._split(self.query(x))

    def keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a memory (P, n, width), each (P, heads, n, width / heads)."""
        keys, values = self.key_value(memory).chunk(2, -1)
        return self._split(keys), self._split(values)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """x (P, L, width) attends to what ``keys`` returned."""
        return self.join(attention(self.queries(x), keys, values))

    def join(self, values: Tensor) -> Tensor:
        """(P, heads, L, width / heads) to (P, L, width)."""
        joined: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads


class Block(nn.Module):
    """Self-attention and a perceptron, each added to its normalised input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.perceptron = perceptron(width, 3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(P, n, width) to the same shape."""
        normal = self.norm_attention(x)
        x = x + self.attention(normal, normal)
        added: Tensor = x + self.perceptron(self.norm_perceptron(x))
        return added


class ModulatedBlock(nn.Module):
    """A ``Block`` that a condition scales, shifts and gates; at first it is the identity.

    (adaLN-zero of Peebles and Xie, 2023, section 3.2.)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = Attention(width, heads)
        self.perceptron = perceptron(width, 2 * width, width)
        last = nn.Linear(width, 6 * width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.modulate = nn.Sequential(nn.SiLU(), last)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x (P, n, width), and what ``modulate`` returned for P conditions (P, width), to (P, n,
        width).
        """
        scale, shift, gate, *others = modulation[:, None].chunk(6, -1)
        normal = self.norms[0](x) * (1 + scale) + shift
        x = x + gate * self.attention(normal, normal)
        scale, shift, gate = others
        changed: Tensor = x + gate * self.perceptron(self.norms[1](x) * (1 + scale) + shift)
        return changed


def perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    """Two linear layers, a GELU between them."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


def causal_mask(steps: int, device: torch.device) -> Tensor:
    """0 where step i (row) may attend to step j (column), j <= i, else -infinity."""
    return torch.full((steps, steps), -torch.inf, device=device).triu(1)
