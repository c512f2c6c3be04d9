"""Steps that look at the scene: one transformer over actions serves rewards, ends and pictures."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.models.jumpy.copying.config import CopyingConfig
from worldmodel.models.jumpy.keys import TimeFeatures
from worldmodel.models.layers.transformer import Attention, causal_mask, perceptron
from worldmodel.rewards import reward_layer

KeysValues = tuple[Tensor, Tensor]


class Past(NamedTuple):
    """The steps up to the present of P worlds, as later steps attend to them.

    Attributes:
        features: (P, 1, steps, width).
        keys: of each block, keys and values (P, heads, steps, width / heads).
    """

    features: Tensor
    keys: list[KeysValues]


class PlanTransformer(nn.Module):
    """Features of the moments of P worlds, along any actions.

    A moment is a token of its time and of the action that led to it. It attends to the cells of its
    world and, causally, to the moments before; where nothing is decided, to the cells only, so that
    a far moment costs as much as a near one.
    """

    def __init__(self, actions: int, window: int, config: CopyingConfig) -> None:
        super().__init__()
        width, self.window = config.width, window
        self.time = TimeFeatures(window, config.time_bands)
        self.from_time = perceptron(self.time.features, width, width)
        self.from_action = nn.Linear(actions, width) if actions else None
        self.blocks = nn.ModuleList(
            _PlanBlock(width, config.heads, causal=bool(actions)) for _ in range(config.plan_blocks)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), reward_layer(width))

    def outcomes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reward, standardised, and logit of going on of the steps that end at some moments."""
        reward, logit = self.out(features).float().unbind(-1)
        return reward, logit

    def past(self, cells: Tensor, times: Tensor, actions: Tensor | None) -> Past:
        """Moments one after another, of P worlds.

        Args:
            cells: (P, cells, width).
            times: (P, T), of the moments; with actions from 0 on.
            actions: (P, T - 1, features), those between the moments; None where nothing is decided.
        """
        x = self.from_time(self.time(times))
        if self.from_action is not None and actions is not None:
            x = x + torch.cat([torch.zeros_like(x[:, :1]), self.from_action(actions)], 1)
        x, keys = x.unsqueeze(1), []
        for block in self.blocks:
            x, own = block(x, cells)
            keys.append(own)
        return Past(x, keys)

    def ahead(
        self, cells: Tensor, past: Past, present: Tensor, times: Tensor, actions: Tensor
    ) -> Tensor:
        """Moments of N plans that go on from the present: (P, N, L, width).

        Args:
            cells: (P, cells, width).
            past: of the same worlds; what lies behind a present does not count.
            present: int64 (P,).
            times: (P, L), of the moments.
            actions: (P, N, L, features), which lead to them.
        """
        assert self.from_action is not None
        x = self.from_time(self.time(times)).unsqueeze(1) + self.from_action(actions)
        steps = torch.arange(past.features.shape[2], device=present.device)
        over = steps > present[:, None]
        for block, keys in zip(self.blocks, past.keys, strict=True):
            x, _ = block(x, cells, keys, over)
        moments: Tensor = x
        return moments


class _PlanBlock(nn.Module):
    """Attention to the cells, causal attention to moments, a perceptron."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm_cells, self.norm_look = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = Attention(width, heads)
        self.norm_attention = nn.LayerNorm(width) if causal else None
        self.attention = Attention(width, heads) if causal else None
        self.norm_perceptron = nn.LayerNorm(width)
        self.perceptron = perceptron(width, 3 * width, width)

    def forward(
        self, x: Tensor, cells: Tensor, past: KeysValues | None = None, over: Tensor | None = None
    ) -> tuple[Tensor, KeysValues]:
        """x (P, N, L, width), and keys and values of its moments for those that follow.

        Args:
            x: moments of N plans.
            cells: (P, cells, width).
            past: keys and values (P, heads, steps, width / heads) of the moments before all plans.
            over: bool (P, steps), True for those of them that do not count.
        """
        plans = x.shape[1:3]
        looked = self.look(self.norm_look(x).flatten(1, 2), self.norm_cells(cells))
        x = x + looked.unflatten(1, plans)
        own: KeysValues = (x, x)  # of no use where moments do not see each other
        if self.attention is not None and self.norm_attention is not None:
            normal = self.norm_attention(x).flatten(0, 1)
            own = self.attention.keys(normal)
            attended = self._attend(self.attention, normal, own, plans, past, over)
            x = x + attended.unflatten(0, (-1, plans[0]))
        changed: Tensor = x + self.perceptron(self.norm_perceptron(x))
        return changed, own

    @staticmethod
    def _attend(
        attention: Attention,
        x: Tensor,
        own: KeysValues,
        plans: torch.Size,
        past: KeysValues | None,
        over: Tensor | None,
    ) -> Tensor:
        """Of x (P * N, L, width): the same shape."""
        count, steps = plans
        keys, values = own
        queries = attention.queries(x) * keys.shape[-1] ** -0.5
        scores = queries @ keys.transpose(-1, -2) + causal_mask(steps, x.device)
        if past is None or over is None:
            attended = scores.softmax(-1).to(values.dtype) @ values
            return attention.join(attended)
        together = queries.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)  # (P, h, N L, d)
        earlier = together @ past[0].transpose(-1, -2)
        earlier = earlier.masked_fill(over[:, None, None], -torch.inf)
        earlier = earlier.unflatten(2, plans).transpose(1, 2).flatten(0, 1)  # (P N, h, L, steps)
        before = earlier.shape[-1]
        share = torch.cat([earlier, scores], -1).softmax(-1).to(values.dtype)
        answer = share[..., before:] @ values
        shared = share[..., :before].unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)
        from_past = (shared @ past[1]).unflatten(2, plans).transpose(1, 2).flatten(0, 1)
        return attention.join(answer + from_past)
