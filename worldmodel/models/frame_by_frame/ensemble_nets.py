"""Perceptrons of all members of an ensemble at once, and the numbers that take few values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus


class MemberNets(nn.Module):
    """One perceptron for each member, with SiLU between its layers, as batched products.

    Weights are drawn from a normal distribution cut at twice its spread, which is 1 / sqrt(inputs),
    of the output layer half of that. (PETS's public code has half of it everywhere: such members
    begin slowly.)

    Args:
        members: E.
        sizes: of the inputs, the hidden layers and the outputs.

    Attributes:
        weights, biases: (E, inputs, outputs) and (E, 1, outputs) of each layer.
    """

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            weight, spread = torch.empty(members, inputs, outputs), max(inputs, 1) ** -0.5
            spread = spread / 2 if len(self.weights) == len(sizes) - 2 else spread
            nn.init.trunc_normal_(weight, 0.0, spread, -2 * spread, 2 * spread)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, outputs)))

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """(E, n, inputs) to (E, n, outputs), each member its own rows; the first, or all."""
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for layer, offset in hidden:
            x = silu(torch.baddbmm(offset, x, layer))
        return torch.baddbmm(bias[..., :outputs], x, weight[..., :outputs])

    def decay(self, factors: Sequence[float]) -> Tensor:
        """Half the squared weights, summed, each layer times its factor."""
        each = [
            factor * weight.square().sum()
            for factor, weight in zip(factors, self.weights, strict=True)
        ]
        return 0.5 * torch.stack(each).sum()

    @torch.no_grad()
    def shift_inputs(
        self, first: int, shift: Tensor, scale: Tensor, new_shift: Tensor, new_scale: Tensor
    ) -> None:
        """Compute the same, when inputs from ``first`` on are no longer (x - shift) / scale, but
        (x - new_shift) / new_scale.
        """
        weight, bias = self.weights[0], self.biases[0]
        rows = slice(first, first + len(shift))
        bias += (((new_shift - shift) / scale)[:, None] * weight[:, rows]).sum(1, keepdim=True)
        weight[:, rows] *= (new_scale / scale)[:, None]

    @torch.no_grad()
    def shift_outputs(self, columns: slice, ratio: Tensor, moved: Tensor) -> None:
        """These outputs y become ratio * y + moved."""
        self.weights[-1][..., columns] *= ratio
        self.biases[-1][..., columns] = self.biases[-1][..., columns] * ratio + moved

    @torch.no_grad()
    def blank_outputs(self, columns: slice | Tensor) -> None:
        """These outputs become 0."""
        self.weights[-1][..., columns] = 0.0
        self.biases[-1][..., columns] = 0.0


class DynamicsNets(MemberNets):
    """The perceptrons of the dynamics, and the bounds between which they put a log-variance.

    Args:
        members, sizes: as of ``MemberNets``.
        numbers: D.
        limits: where the bounds begin.

    Attributes:
        logvar_min, logvar_max: (E, 1, D).
    """

    def __init__(
        self, members: int, sizes: Sequence[int], numbers: int, limits: tuple[float, float]
    ) -> None:
        super().__init__(members, sizes)
        self.logvar_min, self.logvar_max = (
            nn.Parameter(torch.full((members, 1, numbers), limit)) for limit in limits
        )


def soft_clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x between low and high, smoothly (PETS, appendix A.1)."""
    return low + softplus(high - softplus(high - x) - low)


@dataclass(frozen=True)
class Group:
    """What is drawn as one: a one-hot group of numbers, or one number that takes few values.

    Attributes:
        numbers: of each slot, the number that it sets.
        levels: of each slot, the value that this number then has.
    """

    numbers: tuple[int, ...]
    levels: tuple[float, ...]


class Categories(nn.Module):
    """Numbers of a vector that take few values: what happens to them is one of these values.

    They are in groups (``Group``), and a group has slots, of which one is drawn: the numbers of a
    one-hot group, or the recorded values of one number. The slots of a group are neighbours.

    Args:
        numbers: D.
        slots: P; the first of them are in use.

    Attributes:
        group: int64 (P,), the group of each slot; -1 for slots that are not in use.
        number, level: int64 and float32 (P,), the number that a slot sets, and to which value.
        source: int64 (P,), the number whose noise draws a slot's group.
        categorical: bool (D,), numbers that belong to a group.
    """

    group: Tensor
    number: Tensor
    level: Tensor
    source: Tensor
    categorical: Tensor

    def __init__(self, numbers: int, slots: int) -> None:
        super().__init__()
        self.register_buffer("group", torch.full((slots,), -1))
        self.register_buffer("number", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("level", torch.zeros(slots))
        self.register_buffer("source", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("categorical", torch.zeros(numbers, dtype=torch.bool))

    @property
    def used(self) -> int:
        """How many slots are in use."""
        return int((self.group >= 0).sum())

    def set(self, groups: Sequence[Group]) -> bool:
        """Use these groups from now on; whether they differ from those before."""
        parts: list[tuple[int, int, float, int]] = [
            (index, number, level, group.numbers[0])
            for index, group in enumerate(groups)
            for number, level in zip(group.numbers, group.levels, strict=True)
        ]
        before = [buffer.clone() for buffer in (self.group, self.number, self.level)]
        for buffer, column, blank in (
            (self.group, 0, -1), (self.number, 1, 0), (self.level, 2, 0), (self.source, 3, 0)
        ):  # fmt: skip
            buffer.fill_(blank)
            buffer[: len(parts)] = torch.tensor([part[column] for part in parts]).to(buffer)
        self.categorical.fill_(False)
        self.categorical[self.number[: len(parts)]] = True
        now = self.group, self.number, self.level
        return not all(map(torch.equal, before, now))

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Of the slots in use, (..., used), each group for itself, from logits (..., used)."""
        index = self.group[: logits.shape[-1]].expand(logits.shape)
        highest = self._of_groups(logits.detach(), -math.inf).scatter_reduce(
            -1, index, logits.detach(), "amax"
        )
        shifted = logits - highest.gather(-1, index)
        sums = torch.zeros_like(highest).scatter_add(-1, index, shifted.exp())
        return shifted - sums.log().gather(-1, index)

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Numbers (n, D) of which each group has the levels of one slot; others are 0.

        Args:
            logits: (n, used).
            noise: standard normal (n, D); that of a group's ``source`` decides.
        """
        used = logits.shape[-1]
        group = self.group[:used]
        # each group before it sums to 1, up to rounding: its first slot begins and its last ends
        # wherever they must
        upper = self.log_probabilities(logits).exp().cumsum(-1) - group
        last = torch.ones_like(group, dtype=torch.bool)
        last[:-1] = group[1:] != group[:-1]
        upper = torch.where(last, torch.inf, upper)
        lower = torch.where(last.roll(1), -torch.inf, upper.roll(1, -1))
        uniform = torch.special.ndtr(noise)[:, self.source[:used]]
        chosen = (lower <= uniform) & (uniform < upper)
        blank = torch.zeros_like(noise)
        return blank.index_add(1, self.number[:used], chosen.float() * self.level[:used])

    def mean(self, logits: Tensor) -> Tensor:
        """The expected values (..., D) of numbers that belong to a group; others are 0."""
        used = logits.shape[-1]
        chance = self.log_probabilities(logits).exp()
        blank = logits.new_zeros(*logits.shape[:-1], len(self.categorical))
        number = self.number[:used].expand(logits.shape)
        return blank.scatter_add(-1, number, chance * self.level[:used])

    def nll(self, logits: Tensor, observations: Tensor) -> Tensor:
        """Negative log probability of observations (n, D), summed over groups: (..., n).

        A value that is none of its group's counts as the nearest.
        """
        used = logits.shape[-1]
        distance = (observations[:, self.number[:used]] - self.level[:used]).abs()
        index = self.group[:used].expand_as(distance)
        nearest = self._of_groups(distance, math.inf).scatter_reduce(-1, index, distance, "amin")
        hit = (distance == nearest.gather(-1, index)).float()
        return -(self.log_probabilities(logits) * hit).sum(-1)

    def _of_groups(self, values: Tensor, blank: float) -> Tensor:
        """(..., groups) of ``blank`` for values (..., used)."""
        groups = int(self.group[values.shape[-1] - 1]) + 1
        return values.new_full((*values.shape[:-1], groups), blank)
