"""What every registered model promises: see design, section 1."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from scenes import CASES, SMALL, SPECS, WINDOW, context, fresh, generator, random_actions

from worldmodel import MODELS as REGISTERED
from worldmodel import Belief, Context, Prediction, Queries, UnsupportedQuery, WorldModel, Worlds
from worldmodel.spec import Spec

MODELS = pytest.mark.parametrize(("name", "preset"), SMALL)
EVERY = pytest.mark.parametrize(("name", "preset", "spec"), CASES)


def imagine(model: WorldModel, worlds: int = 3, seed: int = 0) -> Worlds:
    with torch.no_grad():
        return model.sample(model.observe(context(model.spec)), worlds, generator(seed))


def ask(model: WorldModel, worlds: Worlds, times: list[int], plans: int | None) -> Prediction:
    """All scenes at the same times, along the first ``plans`` of some fixed plans."""
    batch = worlds.shape[0]
    actions = random_actions(model.spec, batch, 4, WINDOW)
    actions = None if plans is None or actions is None else actions[:, :plans]
    with torch.no_grad():
        return model.predict(worlds, Queries(torch.tensor(times).expand(batch, -1), actions))


@EVERY
def test_shapes(name: str, preset: Any, spec: Spec) -> None:
    model = fresh(name, preset, spec)
    answer = ask(model, imagine(model), [4, 6, 8], plans=2)
    axes = (2, 3, 3) if spec.action.kind == "none" else (2, 3, 2, 3)
    assert answer.rewards.shape == answer.alive.shape == axes
    assert answer.observations is not None
    assert answer.observations.shape == (*axes, *spec.observation)
    assert ((answer.alive >= 0) & (answer.alive <= 1)).all()


@EVERY
def test_a_world_is_one_world(name: str, preset: Any, spec: Spec) -> None:
    """Together, one by one, in another order, with other plans beside: the same answer."""
    model = fresh(name, preset, spec)
    worlds = imagine(model)
    together = ask(model, worlds, [3, 5, 8], plans=3)
    again = ask(model, worlds, [8, 3, 5], plans=3)
    assert together.observations is not None and again.observations is not None
    frames = together.observations
    axis = together.alive.dim() - 1
    torch.testing.assert_close(frames.index_select(axis, torch.tensor([2, 0, 1])),
                               again.observations, rtol=1e-4, atol=1e-5)  # fmt: skip
    torch.testing.assert_close(
        together.rewards[..., [2, 0, 1]], again.rewards, rtol=1e-4, atol=1e-5
    )
    for place, time in enumerate([3, 5, 8]):
        alone = ask(model, worlds, [time], plans=1)
        assert alone.observations is not None
        plan = frames if spec.action.kind == "none" else frames[:, :, :1]
        torch.testing.assert_close(plan.select(axis, place), alone.observations.select(axis, 0),
                                   rtol=1e-4, atol=1e-5)  # fmt: skip
        alive = together.alive if spec.action.kind == "none" else together.alive[:, :, :1]
        torch.testing.assert_close(alive[..., place], alone.alive[..., 0], rtol=1e-4, atol=1e-5)


@EVERY
def test_rewards_of_intervals_add_up(name: str, preset: Any, spec: Spec) -> None:
    """sum_k alive_(k-1) rewards_k does not depend on where the intervals are cut."""
    model = fresh(name, preset, spec)
    worlds = imagine(model)
    whole = ask(model, worlds, [8], plans=2)
    cut = ask(model, worlds, [3, 4, 7, 8], plans=2)
    before = torch.cat([torch.ones_like(cut.alive[..., :1]), cut.alive[..., :-1]], -1)
    torch.testing.assert_close((before * cut.rewards).sum(-1), whole.rewards[..., 0])
    torch.testing.assert_close(cut.alive[..., -1], whole.alive[..., 0])


@EVERY
def test_the_seed_is_the_only_randomness(name: str, preset: Any, spec: Spec) -> None:
    model = fresh(name, preset, spec)
    one, same, other = (ask(model, imagine(model, seed=seed), [8], 1) for seed in (0, 0, 1))
    assert one.observations is not None and same.observations is not None
    assert torch.equal(one.observations, same.observations)
    assert other.observations is not None
    assert torch.equal(one.observations, other.observations) != model.stochastic


@EVERY
def test_scoring_needs_no_frames(
    name: str, preset: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(name, preset, spec)
    worlds = imagine(model)
    times = torch.tensor([[5, 8]]).expand(2, -1)
    queries = Queries(times, random_actions(spec, 2, 3, WINDOW))
    with torch.no_grad():
        expected = model.predict(worlds, queries)
        if hasattr(model, "renderer"):

            def fail(*args: object) -> None:
                raise AssertionError("rendered")

            monkeypatch.setattr(model.renderer, "forward", fail)
        scored = model.predict(worlds, queries, frames=False)
    assert scored.observations is None
    torch.testing.assert_close(scored.rewards, expected.rewards)
    torch.testing.assert_close(scored.alive, expected.alive)


@EVERY
def test_advance_commits_a_plan(name: str, preset: Any, spec: Spec) -> None:
    """Stepping along a plan shows what looking ahead along it shows."""
    model = fresh(name, preset, spec)
    worlds = imagine(model)
    ahead = ask(model, worlds, [4, 7], plans=1)
    plan = random_actions(spec, 2, 4, WINDOW)
    plan = torch.zeros(2, 4, WINDOW) if plan is None else plan
    with torch.no_grad():
        moved = model.advance(worlds, plan[:, 0, :2])
        assert moved.present.tolist() == [4, 4]
        rest = None if spec.action.kind == "none" else plan[:, :1, 2:]
        there = model.predict(moved, Queries(torch.tensor([[4, 7]]).expand(2, -1), rest))
    assert there.observations is not None and ahead.observations is not None
    torch.testing.assert_close(there.observations, ahead.observations, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(there.rewards[..., 1], ahead.rewards[..., 1], rtol=1e-3, atol=1e-5)


@EVERY
def test_rows_are_independent(name: str, preset: Any, spec: Spec) -> None:
    """Scenes of different presents in one padded batch are answered as if alone."""
    model = fresh(name, preset, spec)
    long = context(spec, batch=2, frames=4)
    counts = torch.tensor([2, 4])
    mask = torch.arange(4) < counts[:, None]
    ragged = replace(long, mask=mask, present=counts - 1)
    ragged.observations[0, 2:] = float("nan")  # what is masked must not be read
    times = torch.tensor([[5, 6], [7, 8]])
    plans = random_actions(spec, 2, 2, WINDOW)
    with torch.no_grad():
        worlds = model.sample(model.observe(ragged), 2, generator())
        both = model.predict(worlds, Queries(times, plans))
        for row in range(2):
            part = worlds.index(torch.tensor([row]))
            mine = Queries(times[row : row + 1], None if plans is None else plans[row : row + 1])
            alone = model.predict(part, mine)
            assert alone.observations is not None and both.observations is not None
            torch.testing.assert_close(
                alone.observations[0], both.observations[row], rtol=1e-4, atol=1e-5
            )
        short = Context(
            long.observations[:1, :2],
            long.times[:1, :2],
            None if long.actions is None else long.actions[:1, :1],
        )
        belief, padded = model.observe(short), model.observe(ragged)
        for key, value in belief.state.items():
            torch.testing.assert_close(value[0], padded.state[key][0], rtol=1e-4, atol=1e-5)


@MODELS
def test_put_replaces_scenes(name: str, preset: Any) -> None:
    model = fresh(name, preset, SPECS["discrete"])
    old, new = imagine(model, seed=0), imagine(model, seed=5)
    mixed = old.put(torch.tensor([1]), new.index(torch.tensor([0])))
    for key, value in mixed.state.items():
        assert torch.equal(value[0], old.state[key][0])
        assert torch.equal(value[1], new.state[key][0])


@MODELS
def test_context_is_a_set(name: str, preset: Any) -> None:
    model = fresh(name, preset, SPECS["discrete"])
    given = context(model.spec, frames=4)
    order = torch.tensor([2, 0, 3, 1])
    mixed = replace(given, observations=given.observations[:, order], times=given.times[:, order])
    with torch.no_grad():
        one, other = model.observe(given), model.observe(mixed)
    for key in one.state:
        torch.testing.assert_close(one.state[key], other.state[key], rtol=1e-4, atol=1e-5)


@EVERY
def test_a_belief_grows_and_shrinks_or_refuses(name: str, preset: Any, spec: Spec) -> None:
    """``update`` is as good as having seen all pairs at once, ``forget`` as never having."""
    model, whole = fresh(name, preset, spec), context(spec)

    def pairs(which: slice) -> Context:
        seen, times = whole.observations[:, which], whole.times[:, which]
        return replace(whole, observations=seen, times=times, mask=None)

    def near(one: Belief, other: Belief) -> None:
        assert torch.equal(one.present, other.present)
        for key, value in one.state.items():
            torch.testing.assert_close(value, other.state[key], rtol=1e-3, atol=1e-4)

    first = pairs(slice(0, 1))
    with torch.no_grad():
        if not model.extends:
            for verb in (model.update, model.forget):
                with pytest.raises(UnsupportedQuery, match="observe all pairs anew"):
                    verb(model.observe(whole), first)
            return
        longer = model.update(model.observe(first), pairs(slice(1, None)))
        near(longer, model.observe(replace(whole, mask=None)))
        near(model.forget(longer, first), model.observe(pairs(slice(1, None))))
        with pytest.raises(ValueError, match="NaN"):
            model.update(longer, replace(first, observations=first.observations * torch.nan))


@MODELS
def test_past_is_reached_or_refused(name: str, preset: Any) -> None:
    model = fresh(name, preset, SPECS["discrete"])
    worlds = imagine(model)
    if model.jumpy:
        answer = ask(model, worlds, [0, 2], plans=None)
        assert answer.rewards.abs().sum() == 0 and (answer.alive == 1).all()
    else:
        with pytest.raises(UnsupportedQuery):
            ask(model, worlds, [0, 2], plans=None)


@MODELS
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
def test_bad_context(name: str, preset: Any, change: dict[str, torch.Tensor], message: str) -> None:
    model = fresh(name, preset, SPECS["discrete"])
    with pytest.raises((ValueError, TypeError), match=message):
        model.observe(replace(context(model.spec), **change))


@MODELS
def test_bad_queries(name: str, preset: Any) -> None:
    model = fresh(name, preset, SPECS["discrete"])
    worlds = imagine(model)
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
        model.sample(model.observe(context(model.spec)), 0)


@pytest.mark.parametrize(
    ("name", "preset"), [(name, one) for name, known in REGISTERED.items() for one in known.presets]
)
def test_settings_survive_json(name: str, preset: str) -> None:
    config = REGISTERED[name].presets[preset]
    assert type(config)(**json.loads(json.dumps(asdict(config)))) == config
