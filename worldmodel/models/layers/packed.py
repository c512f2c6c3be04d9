"""Convolutions for inference: weights converted, and laid out for the processor, once."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_convolution_pointwise"
)
"""Whether torch has oneDNN's convolutions of weights that are laid out."""


LARGE = 2**16
"""Weights of a layer from which on it pays to lay them out: a call costs 20 us more than one of
torch's own convolution, laying out .7 ns for each weight (on one core of a CPU of 2023)."""


class PackedConv2d(nn.Conv2d):
    """A convolution without gradients whose weights were laid out beforehand.

    oneDNN, which convolves on CPUs, cuts weights into blocks at each call; for a single frame that
    takes about as long as the products. Here it is done at the first call. With fewer than
    ``LARGE`` weights, on other devices, and where torch lacks these functions, it is a convolution
    in the memory format channels_last.

    The output is channels_last and has the type of the weights.
    """

    _large: bool
    _laid_out: Tensor | None
    _parts: dict[tuple[int, int, bool], PackedConv2d]

    @classmethod
    def of(cls, layer: nn.Conv2d, dtype: torch.dtype) -> PackedConv2d:
        """The same function as ``layer``, with weights and bias of that type."""
        return cls.made(
            layer.weight, layer.bias, dtype, layer.stride, layer.padding, layer.dilation,
            layer.groups,
        )  # fmt: skip

    @classmethod
    def made(
        cls,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> PackedConv2d:
        """A convolution with such a weight (out, in / groups, h, w) and bias (out,)."""
        outputs, inputs, *kernel = weight.shape
        layer = cls(
            inputs * groups, outputs, (kernel[0], kernel[1]), stride, padding, dilation, groups,
            bias is not None, device="meta",
        )  # fmt: skip
        weight = weight.detach().to(dtype, memory_format=torch.channels_last, copy=True)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().to(dtype, copy=True), requires_grad=False)
        layer._large = _ONEDNN and weight.numel() >= LARGE
        layer._laid_out, layer._parts = None, {}
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """(P, in, h, w) of any float type to (P, out, h', w')."""
        x = x.to(self.weight.dtype, memory_format=torch.channels_last)
        if not (self._large and x.device.type == "cpu" and x.numel()):
            outputs: Tensor = self._conv_forward(x, self.weight, self.bias)
            return outputs
        how: tuple[Any, ...] = (self.padding, self.stride, self.dilation, self.groups)
        if self._laid_out is None:
            lay_out: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self._laid_out = lay_out(self.weight.detach().to_mkldnn(), *how, x.shape)
        outputs = torch.ops.mkldnn._convolution_pointwise(
            x, self._laid_out, self.bias, *how, "none", [], ""
        )
        return outputs

    def part(self, first: int, channels: int, bias: bool) -> PackedConv2d:
        """The convolution of these input channels alone, with or without the bias."""
        key = first, channels, bias
        if key not in self._parts:
            weight = self.weight[:, first : first + channels]
            self._parts[key] = PackedConv2d.made(
                weight, self.bias if bias else None, weight.dtype, self.stride, self.padding,
                self.dilation,
            )  # fmt: skip
        return self._parts[key]

    def _apply(self, *args: Any, **more: Any) -> Any:
        """Moved or converted, as by ``to``: lay the weights out anew."""
        self._laid_out, self._parts = None, {}
        return super()._apply(*args, **more)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **more: Any) -> None:
        self._laid_out, self._parts = None, {}
        super()._load_from_state_dict(*args, **more)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is laid out, which can be neither copied nor pickled."""
        return {**self.__dict__, "_laid_out": None, "_parts": {}}


def pack(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of all convolutions and linear layers in ``module``, in place; large
    convolutions become ``PackedConv2d``.

    Weights that are computed anew at each call (spectral norms) are computed for the last time.
    """
    for part in list(module.modules()):
        for name, child in part.named_children():
            kind: Any = parametrize.type_before_parametrizations(child)
            if kind is nn.Conv2d and _packable(child):
                setattr(part, name, PackedConv2d.of(cast(nn.Conv2d, child), dtype))
            elif kind in _CONVERTED:
                setattr(part, name, _plain(child).to(dtype))


def mean_weights(module: nn.Module) -> float:
    """Of the layers that ``pack`` converts: how many weights one has on average."""
    sizes = [
        layer.weight.numel()
        for layer in module.modules()
        if isinstance(layer, (*_CONVERTED, PackedConv2d))
    ]
    return sum(sizes) / max(len(sizes), 1)


def _packable(layer: Any) -> bool:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and layer.weight.numel() >= LARGE


_CONVERTED = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def _plain(layer: nn.Module) -> nn.Module:
    """The layer, with its weights as they are where they were computed (parametrised).

    ``remove_parametrizations`` would change the class, which a copied layer shares with the one
    that it was copied from.
    """
    if not parametrize.is_parametrized(layer):
        return layer
    computed: Any = layer.parametrizations
    weights = {name: nn.Parameter(getattr(layer, name).detach(), False) for name in computed}
    kind: Any = parametrize.type_before_parametrizations(layer)
    plain: nn.Module = kind.__new__(kind)
    plain.__dict__.update(layer.__dict__, _parameters={**layer._parameters, **weights}, _modules={})
    return plain
