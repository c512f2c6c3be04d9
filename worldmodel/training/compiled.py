"""``torch.compile`` for the parts of a model that do the arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn

from worldmodel.base import WorldModel
from worldmodel.models.layers.conv_lstm import ConvLSTMCell


def compile_parts(model: WorldModel, attempt: Callable[[], object]) -> bool:
    """Compile a model's blocks in place, and try them; go on uncompiled where that fails.

    The loss around them draws random numbers and lengths, at which a compiler would break anyway.
    Names of weights stay as they are.

    Args:
        model: its encoder, renderer, scene vector and heads, and all LSTM cells, are compiled.
        attempt: a training step's forward and backward pass.

    Returns:
        whether it worked; if not, a warning says why.
    """
    parts: list[nn.Module] = [m for m in model.modules() if isinstance(m, ConvLSTMCell)]
    named = (getattr(model, name, None) for name in ("encoder", "scene", "renderer", "heads"))
    parts += [part for part in named if isinstance(part, nn.Module)]
    buffers = [buffer.clone() for buffer in model.buffers()]  # batch norms count batches
    for part in parts:
        part.compile()
    try:
        attempt()
    except Exception as error:  # compilers fail in many ways, all of which leave the model whole
        for part in parts:
            part._compiled_call_impl = None
        torch.compiler.reset()
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            f"compile: torch.compile failed, training goes on without it: {reason[0]}", stacklevel=3
        )
        return False
    finally:
        model.zero_grad(set_to_none=True)
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return True
