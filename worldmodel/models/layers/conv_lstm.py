"""A convolutional LSTM cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from worldmodel.models.layers.packed import PackedConv2d

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

    def constant(self, x: Tensor) -> Tensor:
        """What the first channels of the inputs, x (B, n, h, w), add to the gates: (B, 4 * hidden,
        h, w).

        A convolution of several inputs is the sum of one for each. Of those that are the same at
        every step it is computed once.
        """
        return self._convolve(x, 0, bias=True)

    def forward(self, x: Tensor, state: State | None, constant: Tensor | None = None) -> State:
        """One step: x (B, in, h, w) -> (h, c), each (B, hidden, h, w).

        Args:
            x: the inputs; with ``constant`` those channels that are not in it.
            state: None for zeros, at a first step whose x, beside what is ``constant``, is 0, too:
                it is not looked at then.
            constant: what ``constant`` returned.
        """
        if state is None:
            assert constant is not None
            i, _, o, g = self.norm(constant).chunk(4, 1)
            c = i.sigmoid() * g.tanh()
            return o.sigmoid() * c.tanh(), c
        h, c = state
        inputs = torch.cat([x, h], 1)
        if constant is None:
            gates = self.gates(inputs)
        else:
            first = self.gates.in_channels - inputs.shape[1]
            gates = constant + self._convolve(inputs, first, bias=False)
        i, f, o, g = self.norm(gates).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def _convolve(self, x: Tensor, first: int, bias: bool) -> Tensor:
        """The gates' convolution of x alone, the input channels from ``first`` on."""
        channels = x.shape[1]
        if isinstance(self.gates, PackedConv2d):
            gates: Tensor = self.gates.part(first, channels, bias)(x)
            return gates
        weight = self.gates.weight[:, first : first + channels]
        return conv2d(x, weight, self.gates.bias if bias else None, padding=self.gates.padding)
