"""What ``optimise_for_inference`` chooses and refuses; that it answers right is in the contract."""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from scenes import DISCRETE, PASSIVE, VECTOR, context, fresh, moving_square

from worldmodel import fit, make, optimise_for_inference
from worldmodel.models.jumpy.jump.fused import FusedDrawRenderer
from worldmodel.models.layers.packed import PackedConv2d
from worldmodel.spec import Spec
from worldmodel.training.precision import Precision


@pytest.mark.parametrize(
    ("name", "preset", "spec", "expected"),
    [
        ("jump", "narrative", PASSIVE, "bf16"),
        ("jump", "small", PASSIVE, "float32"),  # its layers are small
        ("ensemble", "vector", VECTOR, "float32"),
    ],
)
def test_auto(
    name: str, preset: str, spec: Spec, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(name, preset, spec)
    assert optimise_for_inference(model).precision == "float32"  # tests say bf16 is no faster
    monkeypatch.setattr("worldmodel.training.precision.bf16_speedup", lambda threads: 2.0)
    copy = optimise_for_inference(model)
    assert copy.precision == expected and model.precision is None
    assert not copy.trainable and model.trainable and not copy.training


def test_the_papers_jump_is_fused_and_packed() -> None:
    fast = optimise_for_inference(make("jump", PASSIVE, "narrative"), "bf16")
    assert isinstance(fast.renderer, FusedDrawRenderer)  # type: ignore[attr-defined]
    packed = [part for part in fast.modules() if isinstance(part, PackedConv2d)]
    assert packed and fast.renderer.from_states in packed  # type: ignore[attr-defined]
    belief = fast.observe(context(PASSIVE))
    assert belief.state["r"].dtype == torch.float32  # though it was computed in bf16
    assert not belief.state["r"].requires_grad


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_may_be_pickled(precision: Precision) -> None:
    fast = optimise_for_inference(make("jump", PASSIVE, "narrative"), precision)
    before = fast.observe(context(PASSIVE)).state["r"]
    again = pickle.loads(pickle.dumps(fast))
    torch.testing.assert_close(again.observe(context(PASSIVE)).state["r"], before, rtol=0, atol=0)


def test_refusals() -> None:
    model = fresh("jump", "small", DISCRETE)
    with pytest.raises(TypeError, match="model: expected a WorldModel, got Spec"):
        optimise_for_inference(DISCRETE)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="precision: expected one of"):
        optimise_for_inference(model, "fp8")  # type: ignore[arg-type]
    fast = optimise_for_inference(model, "float32")
    with pytest.raises(ValueError, match="cannot be optimised once more"):
        optimise_for_inference(deepcopy(fast))
    with pytest.raises(ValueError, match="cannot be trained.*take the model that was given"):
        fit(fast, moving_square(), 1, progress=False)
