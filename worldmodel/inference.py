"""A copy of a model that answers fast, for who does not train it."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch

from worldmodel.base import WorldModel
from worldmodel.models.layers.packed import LARGE, mean_weights, pack
from worldmodel.training.precision import Precision, choose

Model = TypeVar("Model", bound=WorldModel)


def optimise_for_inference(model: Model, precision: Precision = "auto") -> Model:
    """A copy that answers the same, faster: for planners, imagined environments and evaluations.

    - The weights are converted, and on CPUs laid out for the processor, once.
    - What a model can compute with less work by the same arithmetic, it does: preset "narrative"
      of JUMP draws and renders with about half of its products.
    - In "bf16" convolutions and matrix products are of bfloat16, as in training: about twice as
      fast on processors and GPUs that have it. All that a caller sees stays float32.

    The copy is in evaluation mode, computes no gradients, and cannot be trained or saved: train and
    save the model that it was made from, which stays as it is, and make another copy when that has
    learned more. ``copy.deepcopy`` and ``pickle`` work, also between processes.

    In bf16 the verbs work (``observe`` to ``predict`` and ``step``), and no other methods of a
    model, such as ``Vim.track`` or ``Cvg.levels``.

    Frames are equal to the model's within 1e-4 in float32. In bf16 each number has 8 significant
    bits: frames of pixels in [0, 1] differ by .01 or less for nearly all pixels, and where a model
    compares or feeds back what it computed, more.

    Args:
        model: any world model.
        precision: "float32", "bf16", or "auto". That takes bf16 for observations with an image
            where its products are clearly faster, as in ``fit``, if layers are large (65,536
            weights on average, such as those of the papers' JUMP, GQN and SVG-LP). In smaller ones
            rounding costs as much as it saves, unless 16 scenes or more are computed together.

    Raises:
        TypeError: ``model`` is no ``WorldModel``.
        ValueError: it is such a copy already; or there is no such precision.

    Example::

        fast = optimise_for_inference(load("traveling-salesman"))
        venv = ImaginedVecEnv(fast, frames, num_envs=16)
    """
    if not isinstance(model, WorldModel):
        raise TypeError(f"model: expected a WorldModel, got {type(model).__name__}")
    model.check_not_optimised("be optimised once more")
    name = choose(precision, model.spec, model.device.type).name
    if precision == "auto" and mean_weights(model) < LARGE:
        name = "float32"
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    copy = deepcopy(model).eval().requires_grad_(False)
    copy._fuse(dtype)
    pack(copy, dtype)
    copy.precision = name
    return copy
