"""Layers that several models share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from worldmodel.models.layers import attention as module
from worldmodel.models.layers.attention import attention
from worldmodel.models.layers.gaussian import draw, kl_divergence, standard_normal


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
