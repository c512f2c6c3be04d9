"""Networks of VIM (seed 002, tables 8.2 and 8.3): the decoder, and modules that compete for slots.

Shapes: P pictures or rollouts, K slots of D numbers, M modules, A action features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from worldmodel.models.layers.slot_attention import GridPosition
from worldmodel.rewards import reward_layer

LEAST_SPREAD = 0.01
"""Of z: keeps the divergence finite."""


class BroadcastDecoder(nn.Module):
    """A slot on every place, positions, four convolutions; slots are mixed by a softmax of masks.

    (Thesis, table 8.2, without the ReLU after its last layer, which slot attention has not either:
    with it no mask could have a negative logit.)

    Args:
        image: colour channels.
        height, width: of the pictures, multiples of ``coarse``.
        size: D.
        channels: of the inner layers.
        kernel: odd.
        coarse: pixels on a side of the places that slots are broadcast to: 1, 2 or 4. The layers
            before the last then double the resolution.
    """

    def __init__(
        self, image: int, height: int, width: int, size: int, channels: int, kernel: int,
        coarse: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.grid = (height // coarse, width // coarse)
        self.position = GridPosition(*self.grid, size)
        doubled = (False, coarse > 2, coarse > 1, False)
        widths = (size, channels, channels, channels, image + 1)
        layers: list[nn.Module] = []
        for inputs, outputs, double in zip(widths[:-1], widths[1:], doubled, strict=True):
            layers.append(
                nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, 1)
                if double
                else nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2)
            )
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Slots (P, K, D) to colours (P, K, C, H, W) and masks (P, K, 1, H, W), sum 1 over K."""
        spread = slots.flatten(0, 1)[:, :, None, None].expand(-1, -1, *self.grid)
        painted = self.layers(self.position(spread)).float().unflatten(0, slots.shape[:2])
        return painted[:, :, :-1], painted[:, :, -1:].softmax(1)


def compose(colours: Tensor, masks: Tensor) -> Tensor:
    """The picture (P, C, H, W): the mean of the slots' colours, weighted by masks."""
    return (colours * masks).sum(1)


class ParallelLinear(nn.Module):
    """M linear layers of one shape, each with weights of its own."""

    def __init__(self, modules: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(modules, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(modules, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(R, M, inputs), or (R, inputs) for all alike, to (R, M, outputs)."""
        rows = x.transpose(0, 1) if x.dim() == 3 else x.expand(len(self.weight), -1, -1)
        outputs: Tensor = torch.baddbmm(self.bias[:, None].to(rows.dtype), rows, self.weight)
        return outputs.transpose(0, 1)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers with a ReLU between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Candidates(NamedTuple):
    """What all modules propose for all slots.

    Attributes:
        features: (P, K, M, candidate), which keys are made of.
        updates: (P, K, M, D).
    """

    features: Tensor
    updates: Tensor


class Modules(nn.Module):
    """M perceptrons that propose what becomes of a slot, and who chooses among them (table 8.3).

    Args:
        count: M.
        size: D.
        hidden: units of the modules' first and third layers.
        candidate: numbers of a candidate, the output of their second layer.
        width: units of the perceptrons of keys and queries (8.A.1), and D' of their outputs.
        actions: A.
    """

    def __init__(
        self, count: int, size: int, hidden: int, candidate: int, width: int, actions: int
    ) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.first = ParallelLinear(count, size + actions, hidden)
        self.second = ParallelLinear(count, hidden, candidate)
        self.norm = nn.LayerNorm(candidate)
        self.third = ParallelLinear(count, candidate, hidden)
        self.fourth = ParallelLinear(count, hidden, size)
        self.key = perceptron(candidate, width, width)
        self.query = perceptron(size + actions, width, width)
        self.target_query = perceptron(size, width, width)

    def propose(self, slots: Tensor, actions: Tensor) -> Candidates:
        """Candidates for slots (P, K, D) under actions (P, A)."""
        rows = with_actions(slots, actions).flatten(0, 1)
        features = self.norm(self.second(self.first(rows).relu()))
        updates = self.fourth(self.third(features).relu())
        lead = slots.shape[:2]
        return Candidates(features.unflatten(0, lead), updates.unflatten(0, lead))

    def prior(self, candidates: Candidates, slots: Tensor, actions: Tensor) -> Tensor:
        """Logits (P, K, M) of the selection, from the slots alone."""
        return self._score(candidates, self.query(with_actions(slots, actions)))

    def posterior(self, candidates: Candidates, grouped: Tensor) -> Tensor:
        """Logits (P, K, M) of the selection that explains the groupings (P, K, D) of a frame."""
        return self._score(candidates, self.target_query(grouped))

    def _score(self, candidates: Candidates, query: Tensor) -> Tensor:
        keys = self.key(candidates.features)
        scores: Tensor = (keys * query.unsqueeze(2)).float().sum(-1) * self.scale
        return scores


class Update(nn.Module):
    """The Gaussian of z: a perceptron to means and standard deviations (table 8.3).

    Args:
        inputs: D, or 2 D with a grouping.
        size: D.
        hidden: units.
    """

    def __init__(self, inputs: int, size: int, hidden: int) -> None:
        super().__init__()
        self.net = perceptron(inputs, hidden, 2 * size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(P, K, inputs) to the mean and the log-variance of z, both float32 (P, K, D)."""
        mean, spread = self.net(x).float().chunk(2, -1)
        return mean, 2 * (softplus(spread) + LEAST_SPREAD).log()


class SlotReadout(nn.Module):
    """The reward on its scale and the logit of going on, from a set of slots.

    Args:
        size: D.
        hidden: units of the perceptron of each slot, whose outputs are averaged.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.each = nn.Sequential(perceptron(size, hidden, hidden), nn.ReLU())
        self.last = reward_layer(hidden)

    def forward(self, slots: Tensor) -> Tensor:
        """Slots (..., K, D) to (..., 2)."""
        readouts: Tensor = self.last(self.each(slots).mean(-2))
        return readouts


def with_actions(slots: Tensor, actions: Tensor) -> Tensor:
    """Slots (P, K, D) and, with each of them, the actions (P, A): (P, K, D + A)."""
    return torch.cat([slots, actions.unsqueeze(1).expand(-1, slots.shape[1], -1)], -1)


def gumbel(noise: Tensor) -> Tensor:
    """Standard normal noise as noise of a Gumbel distribution: -log(-log u), u = Phi(noise)."""
    log_u = torch.special.log_ndtr(noise.clamp(-5, 5))
    samples: Tensor = -(-log_u).clamp_min(math.exp(-20)).log()
    return samples


def one_hot(logits: Tensor) -> Tensor:
    """1 where logits (..., M) are highest, else 0."""
    return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
