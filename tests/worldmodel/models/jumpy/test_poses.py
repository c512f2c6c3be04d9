"""Scenes that stand still: camera poses are the keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scenes import PASSIVE, fresh, generator
from torch import Tensor

import worldmodel
from worldmodel import ActionSpec, Context, Queries, Spec, fit
from worldmodel.models.jumpy.badj import BadjConfig
from worldmodel.models.jumpy.gqn import GqnConfig
from worldmodel.models.jumpy.jump import JumpConfig

POSED = Spec((3, 32, 32), ActionSpec("none"), 9, pose=7)
TINY = JumpConfig(steps=2, hidden=8, tower=8, canvas=8, canvas_in=8, kernel=3, scene=16, head=16)
MODELS: list[tuple[str, Any]] = [
    ("jump", TINY),
    ("jump", replace(TINY, key_features=4, renderer="film", film=8)),
    ("badj", BadjConfig(steps=2, hidden=8, tower=8, canvas=8, canvas_in=8, kernel=3)),
    ("gqn", GqnConfig(steps=2, hidden=8, canvas=8, kernel=3)),
]
EVERY = pytest.mark.parametrize(("name", "config"), MODELS)


def views(batch: int = 2, count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    frames = torch.rand(batch, count, 3, 32, 32, generator=generator(seed))
    return frames, torch.randn(batch, count, 7, generator=generator(seed + 1))


@EVERY
def test_a_world_looks_the_same_in_any_order(name: str, config: Any) -> None:
    model = fresh(name, config, POSED)
    poses = torch.randn(2, 4, 7, generator=generator(5))
    with torch.no_grad():
        worlds = model.sample(model.observe(Context.views(*views())), 3, generator())
        together = model.predict(worlds, Queries.views(poses))
        backwards = model.predict(worlds, Queries.views(poses.flip(1)))
        alone = model.predict(worlds, Queries.views(poses[:, 2:3]))
    assert together.observations is not None
    assert backwards.observations is not None and alone.observations is not None
    assert together.observations.shape == (2, 3, 1, 4, 3, 32, 32)
    assert (together.rewards == 0).all() and (together.alive == 1).all()
    torch.testing.assert_close(together.observations.flip(3), backwards.observations)
    torch.testing.assert_close(together.observations[:, :, :, 2:3], alone.observations)


@EVERY
def test_the_context_is_a_set(name: str, config: Any) -> None:
    model = fresh(name, config, POSED)
    frames, poses = views(count=4)
    order = torch.tensor([2, 0, 3, 1])
    mask = torch.tensor([[True, True, True, False]]).expand(2, -1)
    with torch.no_grad():
        one = model.observe(Context.views(frames, poses, mask)).state["r"]
        same = model.observe(Context.views(frames[:, order], poses[:, order], mask[:, order]))
        fewer = model.observe(Context.views(frames[:, :3], poses[:, :3]))
        moved = model.observe(Context.views(frames[:, :3], poses[:, :3] + 1))
    torch.testing.assert_close(one, same.state["r"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one, fewer.state["r"], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(one, moved.state["r"], atol=1e-3)


class StillScenes:
    """A source of one batch: a picture whose brightness follows the pose."""

    def __init__(self, numbers: int = 7) -> None:
        self.numbers = numbers
        self.action_space = PASSIVE.action.to_space()
        self.actions = torch.zeros(8, 9, dtype=torch.int64)
        self.rewards = torch.zeros(8, 9)
        self.terminated = torch.zeros(8, 9, dtype=torch.bool)
        self.lengths = torch.full((8,), 9)

    def batch(self, index: int) -> StillScenes:
        return self

    def poses(self, times: Tensor) -> Tensor | None:
        if not self.numbers:
            return None
        steps = torch.arange(self.numbers) + 1
        return ((times[..., None] + torch.arange(8)[:, None, None]) / steps).sin()

    def observations(self, times: Tensor) -> Tensor:
        level = ((times + torch.arange(8)[:, None]).float().sin() + 1) * 100
        return level[..., None, None, None].expand(-1, -1, 32, 32, 3).to(torch.uint8)


@EVERY
def test_it_trains(name: str, config: Any) -> None:
    model = fresh(name, replace(config, learning_rate=5e-3), POSED)
    before = float(model(StillScenes(), 0.0, generator()).parts["mse"])
    fit(model, StillScenes(), steps=60, progress=False)
    with torch.no_grad():
        losses = model(StillScenes(), 0.0, generator())
    assert float(losses.parts["mse"]) < 0.5 * before
    assert float(losses.parts["reward"]) == float(losses.parts["continue"]) == 0.0
    assert torch.isfinite(losses.total)


def test_sources_and_specs_must_fit(tmp_path: Any) -> None:
    model = fresh("jump", TINY, POSED)
    for numbers in (0, 5):
        with pytest.raises(ValueError, match=f"poses have {numbers} numbers"):
            fit(model, StillScenes(numbers), steps=1, progress=False)
    with pytest.raises(ValueError, match="takes no actions"):
        Spec((3, 32, 32), ActionSpec("discrete", (), (3,)), 9, pose=7)
    with pytest.raises(ValueError, match="pose"):
        Spec((3, 32, 32), ActionSpec("none"), 9, pose=-1)
    with pytest.raises(ValueError, match="steps through time"):
        fresh("svg-lp", "small", POSED)
    assert Spec.from_dict(POSED.to_dict()) == POSED
    older = {key: value for key, value in PASSIVE.to_dict().items() if key != "pose"}
    assert Spec.from_dict(older) == PASSIVE
    worldmodel.save(model, tmp_path / "posed")
    assert worldmodel.load(tmp_path / "posed").spec == POSED


def test_missing_or_misshapen_poses_are_refused() -> None:
    posed, timed = fresh("jump", TINY, POSED), fresh("jump", TINY, PASSIVE)
    frames, poses = views()
    times = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"context\.poses"):
        posed.observe(Context(frames, times))
    with pytest.raises(ValueError, match=r"context\.poses"):
        timed.observe(Context.views(frames, poses))
    with pytest.raises(ValueError, match="NaN"):
        posed.observe(Context.views(frames, poses * torch.nan))
    worlds = posed.sample(posed.observe(Context.views(frames, poses)), 1)
    with pytest.raises(ValueError, match=r"queries\.poses"):
        posed.predict(worlds, Queries(times))
    with pytest.raises(ValueError, match=r"queries\.poses"):
        posed.predict(worlds, Queries.views(poses[..., :5]))
