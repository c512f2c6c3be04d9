"""A convolutional LSTM cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class ConvLSTMCell(nn.Module):
    """LSTM whose gates are one convolution over (input, hidden); no peepholes.

    (Shi et al. 2015; JUMP's towers and renderer are made of it, seed 001 appendix B.)

    Args:
        in_channels, hidden: of the input and of the state.
        kernel: size of the convolution, odd.
        groups: of a GroupNorm of the gates, before their nonlinearities; 0 for none.
        forget_bias: added to the initial bias of the forget gate: 1 remembers more at first.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        kernel: int,
        groups: int = 0,
        forget_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(in_channels + hidden, 4 * hidden, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(groups, 4 * hidden) if groups else nn.Identity()
        if forget_bias and self.gates.bias is not None:
            with torch.no_grad():
                self.gates.bias[hidden : 2 * hidden] += forget_bias

    def start(self, like: Tensor) -> State:
        """Zero state (B, hidden, h, w) for inputs of the batch and grid of ``like``."""
        zeros = like.new_zeros(like.shape[0], self.hidden, *like.shape[-2:])
        return zeros, zeros

    def forward(self, x: Tensor, state: State) -> State:
        """One step: x (B, in, h, w) -> (h, c), each (B, hidden, h, w)."""
        h, c = state
        i, f, o, g = self.norm(self.gates(torch.cat([x, h], 1))).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
