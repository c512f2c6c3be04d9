"""Networks of VIM (seed 002, tables 8.2 and 8.3): the decoder, and modules that compete for slots.

Shapes: P pictures or rollouts, K slots of D numbers, M modules, A action features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from worldmodel.models.frame_by_frame.base import State
from worldmodel.models.layers.gaussian import at_least_float32
from worldmodel.models.layers.slot_attention import Focus, GridPosition, near
from worldmodel.rewards import reward_layer

LEAST_SPREAD = 0.01
"""Of z: keeps the divergence finite."""
CALM = 0.1
"""What the weights of changes are multiplied by before the training."""
QUIET = -3.0
"""Where the spread of z begins, before the softplus: noise that moves slots as far as balls go
drowns what there is to learn."""


class Slots(NamedTuple):
    """P times K slots.

    Attributes:
        content: (P, K, D).
        place: (P, K - 1, 2), where in the picture they are, x and y from -1 to 1; the last is the
            background's and everywhere. None where slots have no places.
    """

    content: Tensor
    place: Tensor | None

    def every_place(self) -> Tensor | None:
        """(P, K, 2), 0 for the background."""
        return None if self.place is None else pad(self.place, (0, 0, 0, 1))

    def state(self) -> State:
        """As entries of a state."""
        return {"slots": self.content} | ({} if self.place is None else {"place": self.place})

    @classmethod
    def of(cls, state: State) -> Slots:
        """Those of a state."""
        return cls(state["slots"], state.get("place"))


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
        focus: where slots have places, how far from there a slot paints, in half sides; else 0.
    """

    def __init__(
        self, image: int, height: int, width: int, size: int, channels: int, kernel: int,
        coarse: int, focus: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.grid = (height // coarse, width // coarse)
        self.focus = Focus(height, width, focus) if focus else None
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

    def forward(self, slots: Slots, wider: float = 1.0) -> tuple[Tensor, Tensor]:
        """P times K slots to colours (P, K, C, H, W) and masks (P, K, 1, H, W), sum 1 over K.

        ``wider``: how many times as far as usual they paint.
        """
        lead = slots.content.shape[:2]
        spread = slots.content.flatten(0, 1)[:, :, None, None].expand(-1, -1, *self.grid)
        middle = slots.every_place()
        placed = self.position(spread, None if middle is None else middle.flatten(0, 1))
        painted = self.layers(placed).float().unflatten(0, lead)
        logits = painted[:, :, -1:]
        closer = near(self.focus, slots.place, wider=wider)
        if closer is not None:
            logits = logits + closer.view_as(logits)
        return painted[:, :, :-1], logits.softmax(1)


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


def calm(weights: Tensor) -> None:
    """Begin with small changes: slots stay what they are until more is learned."""
    with torch.no_grad():
        weights.mul_(CALM)


class Candidates(NamedTuple):
    """What all modules propose for all slots.

    Attributes:
        features: (P, K, M, candidate), which keys are made of.
        updates: (P, K, M, D).
    """

    features: Tensor
    updates: Tensor

    def chosen(self, choice: Tensor) -> Tensor:
        """The updates (P, K, D) that weights (P, K, M) choose."""
        return (choice.unsqueeze(-1) * at_least_float32(self.updates)).sum(2)


class Modules(nn.Module):
    """M perceptrons that propose what becomes of a slot, and who chooses among them (table 8.3).

    Args:
        count: M.
        size: D.
        hidden: units of the modules' first and third layers.
        candidate: numbers of a candidate, the output of their second layer.
        width: units of the perceptrons of keys and queries (8.A.1), and D' of their outputs.
        inputs: of the modules and of the prior's query; see ``with_actions``.
        grouped: numbers of what is known of the frame to be explained.
    """

    def __init__(
        self, count: int, size: int, hidden: int, candidate: int, width: int, inputs: int,
        grouped: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale = width**-0.5
        self.first = ParallelLinear(count, inputs, hidden)
        self.second = ParallelLinear(count, hidden, candidate)
        self.norm = nn.LayerNorm(candidate)
        self.third = ParallelLinear(count, candidate, hidden)
        self.fourth = ParallelLinear(count, hidden, size)
        calm(self.fourth.weight)
        self.key = perceptron(candidate, width, width)
        self.query = perceptron(inputs, width, width)
        self.target_query = perceptron(grouped, width, width)

    def propose(self, inputs: Tensor) -> Candidates:
        """Candidates for slots, from inputs (P, K, inputs)."""
        features = self.norm(self.second(self.first(inputs.flatten(0, 1)).relu()))
        updates = self.fourth(self.third(features).relu())
        lead = inputs.shape[:2]
        return Candidates(features.unflatten(0, lead), updates.unflatten(0, lead))

    def prior(self, candidates: Candidates, inputs: Tensor) -> Tensor:
        """Logits (P, K, M) of the selection, from the inputs of ``propose`` alone."""
        return self._score(candidates, self.query(inputs))

    def posterior(self, candidates: Candidates, grouped: Tensor) -> Tensor:
        """Logits (P, K, M) of the selection that explains (P, K, grouped) of a frame."""
        return self._score(candidates, self.target_query(grouped))

    def _score(self, candidates: Candidates, query: Tensor) -> Tensor:
        keys = self.key(candidates.features)
        scores: Tensor = (keys * query.unsqueeze(2)).float().sum(-1) * self.scale
        return scores


class Update(nn.Module):
    """The Gaussian of z: a perceptron to means and standard deviations (table 8.3).

    Args:
        inputs: D, more with what is known of a frame.
        size: D.
        hidden: units.
    """

    def __init__(self, inputs: int, size: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, 2 * size)
        calm(last.weight[:size])
        nn.init.constant_(last.bias[size:], QUIET)
        self.net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), last)

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


def with_actions(slots: Slots, actions: Tensor) -> Tensor:
    """Slots, their places, and with each of them the actions (P, A): (P, K, D + A), or 2 more."""
    content, place = slots.content, slots.every_place()
    given = actions.unsqueeze(1).expand(-1, content.shape[1], -1)
    return torch.cat([content, given] if place is None else [content, given, place], -1)


def gumbel(noise: Tensor) -> Tensor:
    """Standard normal noise as noise of a Gumbel distribution: -log(-log u), u = Phi(noise)."""
    log_u = torch.special.log_ndtr(noise.clamp(-5, 5))
    samples: Tensor = -(-log_u).clamp_min(math.exp(-20)).log()
    return samples


def one_hot(logits: Tensor) -> Tensor:
    """1 where logits (..., M) are highest, else 0."""
    return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)


def categorical_kl(logits_q: Tensor, logits_p: Tensor) -> Tensor:
    """KL(q || p) in nats (..., ) of categorical distributions by logits (..., M)."""
    log_q, log_p = logits_q.log_softmax(-1), logits_p.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)
