"""How the checks query a model, and how they report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.testing.noise import random_actions, random_context, random_poses
from worldmodel.types import Belief, Context, Prediction, Queries, Worlds


def generator(seed: int = 0) -> torch.Generator:
    """A generator of that seed."""
    return torch.Generator().manual_seed(seed)


def size_of(model: WorldModel, frames: int) -> int:
    """That many frames, or as many as the model takes."""
    return frames if model.max_context is None else min(frames, model.max_context)


def noise(model: WorldModel, frames: int) -> Context:
    """The first frames of two scenes of noise."""
    return random_context(model.spec, frames=size_of(model, frames))


def imagine(model: WorldModel, n: int, seed: int = 0) -> tuple[Belief, Worlds]:
    """A belief of two scenes given three frames of each, and n worlds of each."""
    with torch.no_grad():
        belief = model.observe(noise(model, 3))
        return belief, model.sample(belief, n, generator(seed))


def query(model: WorldModel, times: Tensor, actions: Tensor | None = None) -> Queries:
    """Queries at times (B, K), or of the views of these numbers where poses are the keys."""
    return Queries(times, actions, random_poses(model.spec, times))


def pairs_of(context: Context, which: slice | Sequence[int]) -> Context:
    """Some of a context's pairs (times, observations and poses), in another order perhaps."""
    poses = context.poses
    return replace(
        context,
        observations=context.observations[:, which],
        times=context.times[:, which],
        poses=None if poses is None else poses[:, which],
    )


def times_at(model: WorldModel, worlds: Worlds, steps: Sequence[int]) -> Tensor:
    """int64 (B, K): that many strides after each present, or as many as the model reaches."""
    ahead = model.stride * torch.tensor(steps)
    return worlds.present[:, None] + (ahead if model.horizon is None else ahead * 0)


def plans_of(model: WorldModel, batch: int, n: int) -> Tensor | None:
    """The first n of four plans of six strides."""
    actions = random_actions(model.spec, batch, 4, 6 * model.stride)
    return None if actions is None else actions[:, :n]


def predict_at(
    model: WorldModel, worlds: Worlds, steps: Sequence[int], plans: int | None = 3
) -> Prediction:
    """Predict all scenes some strides after their presents, along the first of some fixed plans."""
    times, actions = times_at(model, worlds, steps), None
    if plans is not None:  # of passive scenes only N counts
        actions = plans_of(model, worlds.shape[0], plans)
        actions = torch.zeros(worlds.shape[0], plans, 1) if actions is None else actions
    with torch.no_grad():
        return model.predict(worlds, query(model, times, actions))


def frames_of(prediction: Prediction) -> Tensor:
    """Its frames, which must be there."""
    assert prediction.observations is not None, "predict: expected observations, got None"
    return prediction.observations


def require(model: WorldModel, right: bool, message: str) -> None:
    """Raise AssertionError with the message unless it is right."""
    if not right:
        raise AssertionError(f"{model.name}: {message}")


def same(
    model: WorldModel,
    what: str,
    got: Tensor,
    expected: Tensor,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Raise AssertionError, which says what, unless both are equal up to rounding."""
    torch.testing.assert_close(
        got, expected, rtol=rtol, atol=atol, msg=lambda text: f"{model.name}: {what}\n{text}"
    )


def alike(model: WorldModel, what: str, got: Belief, expected: Belief, **tolerances: float) -> None:
    """As ``same``, for beliefs."""
    require(model, torch.equal(got.present, expected.present), f"{what}: its present")
    for name, value in expected.state.items():
        same(model, f"{what}: state[{name!r}]", got.state[name], value, **tolerances)


def refuses(
    model: WorldModel,
    kinds: type[Exception] | tuple[type[Exception], ...],
    act: Callable[[], object],
    what: str,
) -> None:
    """Raise AssertionError unless ``act`` raises an error of one of these kinds."""
    try:
        act()
    except kinds:
        return
    names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
    raise AssertionError(f"{model.name}: {what}: expected {' or '.join(names)}, got an answer")
