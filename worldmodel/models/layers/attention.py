"""Scaled dot-product attention, at the best speed for training and for inference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(depth)) value (Vaswani et al. 2017, equation 1).

    On CPUs the backward pass of torch's fused kernel is slower than that of its parts, several
    times in bf16; so it is written out where a gradient is needed there.

    Args:
        query: (..., heads, Q, depth).
        key: (..., heads, M, depth).
        value: (..., heads, M, values).

    Returns:
        (..., heads, Q, values).
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        attended: Tensor = scores.softmax(-1) @ value
        return attended
    return scaled_dot_product_attention(query, key, value)
