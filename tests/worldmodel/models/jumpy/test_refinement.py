"""Worlds that are drawn again from what they show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scenes import DISCRETE, PASSIVE, VECTOR, context, fresh, generator, random_actions
from torch import Tensor

from worldmodel import Context, Queries, Spec, Worlds, load, make, preset, save
from worldmodel.models.jumpy.jump import Jump, set_refinements


def drawn(spec: Spec, name: str = "small", plans: int = 0) -> tuple[Jump, Worlds, Queries]:
    """A fresh model, 3 worlds of each of its scenes, and queries behind their present."""
    model = fresh("jump", name, spec)
    assert isinstance(model, Jump)
    seen = context(spec, frames=2)
    with torch.no_grad():
        worlds = model.sample(model.observe(seen), 3, generator())
    batch = worlds.shape[0]
    times = (worlds.present[:, None] + 1 + torch.arange(3)).clamp_max(spec.window)
    actions = None
    if plans:
        taken = random_actions(spec, batch * plans, spec.window)
        assert taken is not None
        actions = taken.unflatten(0, (batch, plans))
    return model, worlds, Queries(times, actions)


@torch.no_grad()
def from_posterior(model: Jump, worlds: Worlds, queries: Queries, seed: int) -> Tensor:
    """z given what the worlds show, by way of the public verbs."""
    frames = model.predict(worlds, queries).observations
    assert frames is not None
    flat = frames.flatten(0, 2).clamp(0, 1)
    times = queries.times.repeat_interleave(worlds.shape[1], 0)
    told = model.observe(Context(flat, times)).state["r"]
    z, _ = model.latent.infer(
        worlds.scene["r"].repeat_interleave(worlds.shape[1], 0), told, generator(seed)
    )
    return z.unflatten(0, worlds.shape)


def test_the_posterior_is_told_what_the_world_shows() -> None:
    model, worlds, queries = drawn(PASSIVE)
    again = model.refine(worlds, queries, generator=generator(1))
    torch.testing.assert_close(again.state["z"], from_posterior(model, worlds, queries, 1))
    torch.testing.assert_close(again.scene["r"], worlds.scene["r"])
    assert again.present.equal(worlds.present)
    random = generator(1)
    twice = model.refine(model.refine(worlds, queries, 1, random), queries, 1, random)
    both = model.refine(worlds, queries, 2, generator(1))
    torch.testing.assert_close(both.state["z"], twice.state["z"])
    torch.testing.assert_close(both.state["vector"], twice.state["vector"])


def test_worlds_of_a_plan_and_of_vectors() -> None:
    model, worlds, queries = drawn(DISCRETE, plans=1)
    again = model.refine(worlds, queries, generator=generator(1))
    assert again.shape == worlds.shape
    assert not again.state["z"].equal(worlds.state["z"])
    model, worlds, queries = drawn(VECTOR, "vector", plans=1)
    assert model.refine(worlds, queries, generator=generator(1)).shape == worlds.shape


def test_what_is_refused() -> None:
    model, worlds, queries = drawn(DISCRETE, plans=2)
    with pytest.raises(ValueError, match="a single plan"):
        model.refine(worlds, queries)
    model, worlds, queries = drawn(PASSIVE)
    with pytest.raises(ValueError, match="rounds: expected at least 1"):
        model.refine(worlds, queries, 0)
    with pytest.raises(ValueError, match="empty"):
        model.refine(worlds, Queries(queries.times[:, :0]))
    with pytest.raises(ValueError, match="refinements"):
        replace(preset("jump", "small"), refinements=-1)
    with pytest.raises(ValueError, match="only of passive scenes"):
        make("jump", DISCRETE, replace(preset("jump", "small"), refinements=1))
    with pytest.raises(ValueError, match="only of passive scenes"):
        set_refinements(fresh("jump", "small", DISCRETE), 2)
    with pytest.raises(ValueError, match="svg-lp cannot"):
        set_refinements(fresh("svg-lp", "small", PASSIVE), 1)


def test_a_setting_makes_sample_refine(tmp_path: Path) -> None:
    model, _, _ = drawn(PASSIVE)
    belief = model.observe(context(PASSIVE, frames=2))
    random = generator(3)
    with torch.no_grad():
        by_prior = model.sample(belief, 2, random)
        span = torch.linspace(0, PASSIVE.window, model.config.targets).round().long()
        by_hand = model.refine(by_prior, Queries(span.expand(len(belief.present), -1)), 2, random)
        set_refinements(model, 2)
        refined = model.sample(belief, 2, generator(3))
    torch.testing.assert_close(refined.state["z"], by_hand.state["z"])
    save(model, tmp_path)
    kept = load(tmp_path)
    set_refinements(kept, None)
    assert isinstance(kept, Jump) and kept.refinements == 2
