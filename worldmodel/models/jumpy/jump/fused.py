"""The "draw" renderer for inference: the same function, multiplied out, with less work.

Its canvas is a sum over steps of what the LSTM's states add, and the LSTM reads it by a linear map
of the same 2 x 2 squares. So each step reads a linear map of the summed states, which is multiplied
into the gates' convolution, and the canvas is no more than a step on the way to the frame. What
keys and biases add to the gates is the same at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pixel_shuffle

from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.jumpy.jump.renderer import DrawRenderer, LatentWorlds, Renderer
from worldmodel.models.layers.packed import PackedConv2d


class FusedDrawRenderer(Renderer):
    """What ``DrawRenderer`` computes.

    Args:
        renderer: of which it is made.
        grid: height and width of z.
        config: of the model.
        dtype: of the convolutions at each step; all else is float32. In bf16 a time would be
            rounded to one of its neighbours, and a pixel to 8 bits.
    """

    bias: Tensor
    bias_of_step: Tensor
    of_key: Tensor

    def __init__(
        self,
        renderer: DrawRenderer,
        grid: tuple[int, int],
        config: JumpConfig,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        read, write, gates = renderer.from_canvas, renderer.to_canvas, renderer.lstm.gates
        assert read.bias is not None and write.bias is not None and gates.bias is not None
        padding = gates.padding
        keys = gates.in_channels - config.canvas_in - config.latent - config.hidden
        of_canvas, of_z, of_key, of_state = gates.weight.split(
            [config.canvas_in, config.latent, keys, config.hidden], 1
        )

        def everywhere(values: Tensor, weight: Tensor) -> Tensor:
            """What inputs (n, in) that are the same in each cell add to the gates, (n, out, h, w):
            less at the border.
            """
            inputs = values[..., None, None].expand(-1, -1, *grid)
            return conv2d(inputs, weight, padding=padding)

        bias = everywhere(read.bias[None], of_canvas) + gates.bias[:, None, None]
        of_write = torch.einsum("okij,k->o", read.weight, write.bias)
        by_key = everywhere(torch.eye(keys, device=of_key.device), of_key)
        self.register_buffer("bias", bias)
        self.register_buffer("bias_of_step", everywhere(of_write[None], of_canvas))
        self.register_buffer("of_key", by_key.permute(0, 2, 3, 1).flatten(1))  # (key, h * w * out)
        through_canvas = torch.einsum("okij,hkij->oh", read.weight, write.weight)
        of_sum = torch.einsum("goxy,oh->ghxy", of_canvas, through_canvas)
        of_states = torch.cat([of_sum, of_state], 1)
        self.from_states = PackedConv2d.made(of_states, None, dtype, padding=padding)
        self.from_z = PackedConv2d.made(of_z, None, dtype, padding=padding)
        self.side = write.stride[0] * renderer.to_image.stride[0]  # pixels of a cell of z
        self.to_pixels = _to_pixels(renderer, config.steps)

    @torch.no_grad()
    def forward(self, worlds: LatentWorlds, keys: Tensor, content: Tensor | None) -> Tensor:
        """Frames (P, Q, C, H, W), from z and keys alone."""
        with torch.autocast(keys.device.type, enabled=False):
            return self._frames(worlds.z.float(), keys.float())

    def _frames(self, z: Tensor, keys: Tensor) -> Tensor:
        (count, steps), (height, width) = z.shape[:2], z.shape[-2:]
        queries = keys.shape[1]
        of_z = self.from_z(z.flatten(0, 1)).float().unflatten(0, (count, steps))
        of_key = (keys.flatten(0, 1) @ self.of_key).unflatten(1, (height, width, -1))
        constant = of_key.permute(0, 3, 1, 2) + self.bias  # (P * Q, 4 * hidden, h, w)
        gates = constant + of_z[:, 0].repeat_interleave(queries, 0)
        i, _, o, g = gates.chunk(4, 1)
        c = i.sigmoid() * g.tanh()
        states = h = o.sigmoid() * c.tanh()
        for step in range(1, steps):
            constant = constant + self.bias_of_step
            gates = constant + of_z[:, step].repeat_interleave(queries, 0)
            gates += self.from_states(torch.cat([states, h], 1))
            i, f, o, g = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states = states + h
        frames: Tensor = pixel_shuffle(self.to_pixels(states), self.side)
        return frames.view(count, queries, *frames.shape[1:])


def _to_pixels(renderer: DrawRenderer, steps: int) -> PackedConv2d:
    """From the summed states (P, hidden, h, w) to the pixels of each cell, (P, C * side^2, h, w),
    through the canvas and both transposed convolutions.
    """
    write, image = renderer.to_canvas, renderer.to_image
    assert write.bias is not None and image.bias is not None
    # canvas pixel (i, j) of a cell, frame pixel (a, b) of a canvas pixel
    weight = torch.einsum("hkij,kcab->ciajbh", write.weight, image.weight)
    bias = torch.einsum("k,kcab->cab", steps * write.bias, image.weight) + image.bias[:, None, None]
    bias = bias.repeat(1, write.stride[0], write.stride[1])
    return PackedConv2d.made(weight.flatten(0, 4)[..., None, None], bias.flatten(), torch.float32)
