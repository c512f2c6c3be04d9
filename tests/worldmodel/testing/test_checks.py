"""The checks find what is broken; models of one's own have a name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scenes import DISCRETE, VECTOR
from torch import Tensor

import worldmodel
from worldmodel import (
    Belief,
    Context,
    Losses,
    Prediction,
    Queries,
    Spec,
    WorldModel,
    Worlds,
    registry,
    testing,
)
from worldmodel.models.baselines import CopyLast
from worldmodel.models.baselines.copy_last import CopyLastConfig


class Proud(CopyLast):
    """A copy of the last frame, to be broken in one way each."""

    name = "proud"


class WrongShape(Proud):
    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        answer = super().predict(worlds, queries, frames)
        return replace(answer, rewards=answer.rewards[..., :1])


class Forgetful(Proud):
    """Draws when it is asked, not when the world is sampled."""

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        answer = super().predict(worlds, queries, frames)
        return replace(answer, rewards=answer.rewards + torch.rand_like(answer.rewards))


class Averaging(Proud):
    """What one row shows depends on its neighbours."""

    def _observe(self, context: Context) -> Belief:
        belief = super()._observe(context)
        return replace(
            belief, state={"last": belief.state["last"] * 0 + belief.state["last"].mean()}
        )


class InOrder(Proud):
    """Takes the last pair for the latest."""

    def _observe(self, context: Context) -> Belief:
        return Belief(context.present_times(), {"last": context.observations[:, -1]})


class Still(Proud):
    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        return worlds


class Boastful(Proud):
    stochastic = True


class Modest(Proud):
    jumpy = False


class Endless(Proud):
    extends = True

    def _update(self, belief: Belief, context: Context) -> Belief:
        return belief


class Greedy(Proud):
    """A reward for the past."""

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        answer = super().predict(worlds, queries, frames)
        return replace(answer, rewards=answer.rewards + 1)


class Trusting(Proud):
    def observe(self, context: Context) -> Belief:
        return self._observe(context)


class Idle(Proud):
    """One weight that the loss does not know."""

    def __init__(self, spec: Spec, config: Any) -> None:
        super().__init__(spec, config)
        self.used = torch.nn.Parameter(torch.zeros(()))
        self.lost = torch.nn.Parameter(torch.zeros(()))

    def loss(self, scenes: Any, progress: float, generator: Any) -> Losses:
        return Losses(self.used.square(), {"loss": self.used.square().detach()})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (WrongShape, r"rewards: expected float32 \(2, 3, 2, 3\), got torch.float32 \(2, 3, 2, 1"),
        (Forgetful, "the order of queries changes the rewards"),
        (Averaging, "differs from it in a batch|changes the belief"),
        (InOrder, "the order of the context's pairs|a scene alone differs"),
        (Still, "advance: present is not"),
        (Boastful, "stochastic is True, but worlds of two seeds differ: False"),
        (Modest, "the past: expected UnsupportedQuery, got an answer"),
        (Endless, "update differs from seeing all at once"),
        (Greedy, "rewards of four intervals|rewards of 0"),
        (Trusting, "uint8 observations: expected ValueError or TypeError, got an answer|NaN"),
        (Idle, r"the loss does not depend on the weights \['lost'\]"),
    ],
)
def test_a_broken_promise_is_found(model: type[WorldModel], message: str) -> None:
    testing.check_world_model(lambda spec: Proud(spec, CopyLastConfig()), VECTOR)
    with pytest.raises(AssertionError, match=message):
        testing.check_world_model(lambda spec: model(spec, CopyLastConfig()), VECTOR)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    known = dict(registry.MODELS)
    yield
    registry.MODELS.clear()
    registry.MODELS.update(known)


def test_register(tmp_path: Path) -> None:
    presets = {"small": CopyLastConfig()}
    worldmodel.register(Proud, presets)
    worldmodel.register(Proud, presets)  # a notebook's cell, run twice
    model = worldmodel.make("proud", DISCRETE, "small")
    assert isinstance(worldmodel.load(worldmodel.save(model, tmp_path)), Proud)
    testing.check_world_model(lambda spec: worldmodel.make("proud", spec, "small"), VECTOR)
    with pytest.raises(ValueError, match="'proud' is taken"):
        worldmodel.register(Still, presets)
    with pytest.raises(ValueError, match="at least one"):
        worldmodel.register(Proud, {})
    with pytest.raises(TypeError, match="expected a subclass of WorldModel, got"):
        worldmodel.register(model, presets)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"presets\['small'\]: expected an instance"):
        worldmodel.register(Proud, {"small": CopyLastConfig})


def test_a_module_is_imported_by_name_but_never_by_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
import worldmodel
from worldmodel.models.baselines import CopyLast
from worldmodel.models.baselines.copy_last import CopyLastConfig
class Elsewhere(CopyLast):
    name = "elsewhere"
worldmodel.register(Elsewhere, {"small": CopyLastConfig()})
"""
    (tmp_path / "their_module.py").write_text(source)
    (tmp_path / "broken_module.py").write_text("import a_module_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    model = worldmodel.make("their_module:elsewhere", DISCRETE)
    worldmodel.save(model, "kept")
    del registry.MODELS["elsewhere"]
    del sys.modules["their_module"]
    with pytest.raises(ValueError, match="no model 'elsewhere'; .* import its module first"):
        worldmodel.load("kept")
    assert worldmodel.load("their_module:kept").name == "elsewhere"
    settings = Path("kept/config.json")
    settings.write_text(settings.read_text().replace('"elsewhere"', '"their_module:elsewhere"'))
    del registry.MODELS["elsewhere"]
    del sys.modules["their_module"]
    with pytest.raises(ValueError, match="no model 'their_module:elsewhere'"):
        worldmodel.load("kept")
    assert "their_module" not in sys.modules
    with pytest.raises(ValueError, match="begins with no module"):
        worldmodel.make("nowhere_at_all:mine", DISCRETE)
    with pytest.raises(ValueError, match="expected module:name"):
        worldmodel.make("./nowhere:mine", DISCRETE)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        worldmodel.make("broken_module:mine", DISCRETE)
