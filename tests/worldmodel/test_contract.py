"""What every registered model promises: see design, section 1, and worldmodel/testing.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from scenes import CAMERA, CASES, DISCRETE, GOALS, POSED, VECTOR, VIEWED, context, fresh, generator

from worldmodel import MODELS, Queries, Spec, WorldModel, make, testing
from worldmodel.testing import checks

LONG = replace(DISCRETE, window=32)
"""Room for six strides of five steps."""


def title(value: Any) -> str:
    kind = getattr(value, "__name__", None)
    if isinstance(value, Spec):
        kind = "camera" if value.camera else "poses" if value.pose else value.action.kind
    return kind or (value if isinstance(value, str) else "own")


ALL = [*CASES, ("sssm", "jumpy", LONG)]
ONCE = (  # what no kind of action changes
    checks.check_put,
    checks.check_context_is_a_set,
    checks.check_past,
    checks.check_refusals,
    checks.check_training,
    checks.check_inference,
    checks.check_checkpoint,
)
PAIRS = [
    pytest.param(check, *case, id="-".join(map(title, (check, *case))))
    for check in testing.CHECKS
    for case in ALL
    if check not in ONCE
    or case[0] == "cvg"  # passive only
    or case[2] in (DISCRETE, VECTOR, LONG, GOALS, CAMERA, POSED, VIEWED)
]


@pytest.mark.parametrize(("check", "name", "preset", "spec"), PAIRS)
def test_promise(check: Callable[[WorldModel], None], name: str, preset: Any, spec: Spec) -> None:
    check(fresh(name, preset, spec))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": torch.zeros(2, 3, 3, 32, 32, dtype=torch.uint8)}, "to_float"),
        ({"observations": torch.zeros(2, 3, 3, 16, 32)}, "= \\(3, 32, 32\\), got"),
        ({"observations": torch.full((2, 3, 3, 32, 32), float("nan"))}, "NaN"),
        ({"observations": torch.full((2, 3, 3, 32, 32), 255.0)}, "expected \\[0, 1\\]"),
        ({"times": torch.tensor([[0, 1, 99]] * 2)}, "leave the window"),
        ({"times": torch.tensor([[0.0, 1, 2]] * 2)}, "expected integers"),
        ({"mask": torch.zeros(2, 3, dtype=torch.bool)}, "empty"),
        ({"actions": None}, "context.actions"),
        ({"actions": torch.zeros(2, 1).long()}, "do not reach"),
        ({"actions": torch.zeros(2, 3, 2).long()}, "expected shape"),
        ({"present": torch.tensor([1, 1])}, "before an observation"),
    ],
)
def test_bad_context_is_explained(change: dict[str, torch.Tensor], message: str) -> None:
    model = fresh("jump", "small", DISCRETE)
    with pytest.raises((ValueError, TypeError), match=message):
        model.observe(replace(context(DISCRETE), **change))


def test_bad_queries_are_explained() -> None:
    model = fresh("jump", "small", DISCRETE)
    worlds = model.sample(model.observe(context(DISCRETE)), 2, generator())
    plan = torch.zeros(2, 1, 2).long()
    for times, actions, message in [
        (torch.tensor([[9], [9]]), torch.zeros(2, 1, 8).long(), "leave the window"),
        (torch.tensor([[3]]), plan, "expected integers of shape"),
        (torch.zeros(2, 0).long(), plan, "empty"),
        (torch.tensor([[8], [8]]), plan, "the plans have 2"),
        (torch.tensor([[3], [3]]), None, "the plans have 0"),
        (torch.tensor([[3], [3]]), torch.zeros(2, 2).long(), "expected \\(B, N, L"),
        (torch.tensor([[3], [3]]), torch.full((2, 1, 1), 7), "entries must lie"),
        (torch.tensor([[3], [3]]), torch.full((2, 1, 1), float("nan")), "holds NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.predict(worlds, Queries(times, actions))
    with pytest.raises(ValueError, match="beyond the window"):
        model.advance(worlds, torch.zeros(2, 7).long())
    with pytest.raises(ValueError, match="at least 1 world"):
        model.sample(model.observe(context(DISCRETE)), 0)


@pytest.mark.parametrize(
    ("name", "preset"), [(name, one) for name, known in MODELS.items() for one in known.presets]
)
def test_settings_survive_json(name: str, preset: str) -> None:
    config = MODELS[name].presets[preset]
    assert type(config)(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    ("name", "preset", "layers"),
    [
        ("jump", "small", "plan_blocks"), ("jump", "small", "flow_blocks"),
        ("jump", "rays-small", "flow_blocks"), ("inferno", "small", "object_layers"),
        ("inferno", "small", "background_layers"), ("svg-lp", "small", "prior_layers"),
    ],
)  # fmt: skip
def test_a_file_cannot_name_endless_layers(name: str, preset: str, layers: str) -> None:
    config = MODELS[name].presets[preset]
    with pytest.raises(ValueError, match=f"{layers}: expected at most 256, got 1000000000"):
        replace(config, **{layers: 10**9})


def test_all_checks_at_once() -> None:
    testing.check_world_model(lambda spec: make("copy-last", spec, "vector"), VECTOR)
    with pytest.raises(ValueError, match="a window of at least 8 steps, got 4"):
        testing.check_world_model(lambda spec: make("copy-last", spec), replace(VECTOR, window=4))
    with pytest.raises(TypeError, match="expected a WorldModel, got Spec"):
        testing.check_world_model(lambda spec: spec, VECTOR)  # type: ignore[arg-type, return-value]
