"""Layers that several models share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from worldmodel.models.layers import attention as module
from worldmodel.models.layers import packed
from worldmodel.models.layers.attention import attention
from worldmodel.models.layers.conv_lstm import ConvLSTMCell
from worldmodel.models.layers.gaussian import draw, kl_divergence, standard_normal
from worldmodel.models.layers.packed import PackedConv2d, pack


def test_attention_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out in training, fused else: one value, one gradient."""
    torch.manual_seed(0)
    query, key = torch.randn(3, 2, 5, 8), torch.randn(3, 2, 7, 8)
    value = torch.randn(3, 2, 7, 4)
    answers: list[Tensor] = []
    for function in (attention, scaled_dot_product_attention):
        parts = [x.clone().requires_grad_() for x in (query, key, value)]
        answer = function(*parts)
        answer.square().sum().backward()
        answers.append(torch.cat([answer.detach().flatten(), *(x.grad.flatten() for x in parts)]))
    torch.testing.assert_close(*answers)

    def fused(*parts: Tensor) -> Tensor:
        raise AssertionError("fused")

    monkeypatch.setattr(module, "scaled_dot_product_attention", fused)
    attention(query.requires_grad_(), key, value)
    with torch.no_grad(), pytest.raises(AssertionError, match="fused"):
        attention(query, key, value)


def test_gaussians_of_bf16_are_float32() -> None:
    """A KL of two near Gaussians, computed in bf16, would be noise around 0."""
    torch.manual_seed(0)
    q = torch.randn(4, 50), torch.randn(4, 50)
    p = tuple(x + 0.02 * torch.randn(4, 50) for x in q)
    half = [x.bfloat16() for x in (*q, *p)]
    divergence = kl_divergence(*half)
    assert divergence.dtype == torch.float32 and bool((divergence > 0).all())
    torch.testing.assert_close(divergence, kl_divergence(*(x.float() for x in half)))
    noise = standard_normal(half[0], torch.Generator().manual_seed(0))
    assert noise.dtype == draw(half[0], half[1], noise).dtype == torch.float32
    assert kl_divergence(*(x.double() for x in half)).dtype == torch.float64


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("groups", [0, 2])
def test_constant_inputs_of_an_lstm_are_convolved_once(groups: int, packed: bool) -> None:
    """Part by part, or all inputs at every step: the same states."""
    torch.manual_seed(0)
    cell = ConvLSTMCell(5, 4, 3, groups)
    still, moving = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 4, 4)
    expected = cell(torch.cat([still, 0 * moving], 1), cell.start(still))
    then = cell(torch.cat([still, moving], 1), expected)
    if packed:
        pack(cell, torch.float32)
    constant = cell.constant(still)
    state = cell(0 * moving, None, constant)
    torch.testing.assert_close(state, expected)
    torch.testing.assert_close(cell(moving, state, constant), then)


@pytest.mark.parametrize("change", [{}, {"stride": 2}, {"dilation": 2}, {"groups": 2}])
def test_packed_convolutions(change: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 6, 3, padding=1, **change)
    packed, x = PackedConv2d.of(layer, torch.float32), torch.randn(2, 4, 8, 8)
    for batch in (x, x[:1], torch.randn(5, 4, 12, 12)):  # laid out for the first
        torch.testing.assert_close(packed(batch), layer(batch))
    half = PackedConv2d.of(layer, torch.bfloat16)(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(x), rtol=0.02, atol=0.02)
    assert layer.weight.requires_grad and not packed.weight.requires_grad


def test_other_weights_of_packed_convolutions_are_laid_out_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed, "LARGE", 1)
    first, second = (torch.nn.Conv2d(4, 6, 3) for _ in range(2))
    x = torch.randn(2, 4, 8, 8)
    layer = PackedConv2d.of(first, torch.float32)
    layer(x), layer.part(0, 2, bias=True)(x[:, :2])
    layer.load_state_dict(second.state_dict())
    torch.testing.assert_close(layer(x), second(x))
    assert torch.equal(layer.part(0, 2, bias=True).weight, second.weight[:, :2])
    layer.to(torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
