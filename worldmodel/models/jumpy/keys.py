"""Keys of frames: time, and the actions up to it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from worldmodel.spec import ActionSpec


class TimeFeatures(nn.Module):
    """Steps from the window's origin to features.

    ``bands = 0`` is the paper's scalar t / W. Otherwise sines and cosines are added whose periods
    run geometrically from twice the window down to two steps.
    """

    frequencies: Tensor

    def __init__(self, window: int, bands: int) -> None:
        super().__init__()
        self.window = window
        periods = torch.logspace(math.log2(2 * window), 1, bands, base=2)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)
        self.features = 1 + 2 * bands

    def forward(self, times: Tensor) -> Tensor:
        """int64 (...) to float32 (..., features)."""
        t = times.unsqueeze(-1).float()
        angle = t * self.frequencies
        return torch.cat([t / self.window, angle.sin(), angle.cos()], -1)


class ActionPath(nn.Module):
    """One causal summary h_t of the actions a_0 .. a_{t-1}, with h_0 = 0.

    A GRU: the parallel form runs over all plans and times in one call, the step form moves one
    state on by one action; both are the same function.
    """

    def __init__(self, action: ActionSpec, features: int) -> None:
        super().__init__()
        self.action = action
        self.features = features
        self.gru = nn.GRU(action.features, features, batch_first=True)

    def start(self, batch: int) -> Tensor:
        """h_0: zeros (batch, features)."""
        return torch.zeros(batch, self.features, device=next(self.parameters()).device)

    def forward(self, actions: Tensor, start: Tensor) -> Tensor:
        """Actions (P, L, \\*action) from state ``start`` (P, features) to h (P, L, features)."""
        if actions.shape[1] == 0:
            return start.new_zeros(start.shape[0], 0, self.features)
        states, _ = self.gru(self.action.encode(actions), start.unsqueeze(0).contiguous())
        return torch.as_tensor(states)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """One action (P, \\*action): h_t to h_{t+1}, both (P, features)."""
        return self.forward(action.unsqueeze(1), state)[:, 0]
