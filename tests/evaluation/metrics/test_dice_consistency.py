"""The test of the hidden face, with models whose score is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import worldmodel
from envs import sample_scenes
from envs.dice.scene import pool, visible_sides
from evaluation.metrics import dice_consistency as dice
from evaluation.metrics.digit_reader import train_reader
from evaluation.metrics.similarity import contradictions
from evaluation.metrics.story_consistency import order_entropy
from evaluation.runner.held_out_scenes import VIEWS
from worldmodel import ActionSpec, Context, Prediction, Queries, Spec, Worlds
from worldmodel.models.jumpy.jump import Jump
from worldmodel.types import State

SPEC = Spec((3, 16, 16), ActionSpec("none"), 9, pose=7)
SCENES, WORLDS = 6, 4


def settings(name: str = "jump", **changed: int) -> Any:
    small = worldmodel.preset(name, "views" if name == "jump" else "small")
    return replace(small, context_frames=10, **changed)


class Planted(Jump):
    """Writes a class into the first pixel of each view, and has a KL that is known."""

    def __init__(self, digits: Tensor, factored: bool) -> None:
        config = settings(context_max=5)
        super().__init__(SPEC, config)
        self.digits, self.factored = digits, factored  # (B, S, 3)

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        seen = torch.zeros(*worlds.shape, queries.times.shape[1], 3, 16, 16)
        if seen.shape[:3] == self.digits.shape:
            seen[..., 0, 0, 0] = self.digits / 10
        return Prediction(seen.unsqueeze(2), torch.zeros(1), torch.zeros(1))

    def _explain(
        self, context: State, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        nats = torch.full((len(keys),), float(keys.shape[1]) if self.factored else 1.0)
        return frames, nats, torch.zeros(len(keys), self.config.scene)


class FirstPixel:
    """Reads what ``Planted`` writes; of true frames, the sum of the first column's pixels."""

    def read(self, frames: Tensor) -> Tensor:
        return (frames[..., 0, 0, 0] * 10).round().long()


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(dice, "train_reader", lambda size, seed: FirstPixel())

    def measure(model: worldmodel.WorldModel) -> dict[str, float]:
        rows = dice.dice_consistency(model, SCENES, WORLDS)
        assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
        assert {row["env"] for row in rows} == {"dice/Views-v0"}
        return {row["metric"]: row["value"] for row in rows}

    return measure


def test_one_latent_for_the_scene_pays_once(values: Any) -> None:
    each_its_own = torch.arange(WORLDS)[None, :, None].expand(SCENES, -1, 3)
    found = values(Planted(each_its_own, factored=False))
    assert found["KL1"] == found["KL3"] == found["KL3 / KL1"] == 1.0
    assert found["same digit, one world"] == 1.0  # each world has its digit
    assert found["same digit, two worlds"] == 0.0


def test_a_latent_for_each_view_pays_three_times(values: Any) -> None:
    found = values(Planted(torch.arange(3).expand(SCENES, WORLDS, 3), factored=True))
    assert found["KL1"] == 1.0 and found["KL3"] == found["KL3 / KL1"] == 3.0
    assert found["same digit, one world"] == 0.0  # each view has its digit


def test_who_knows_the_digit(values: Any) -> None:
    faces = dice.HiddenFaces.sample(SCENES, 16)
    truth = pool().labels[faces.views.digit][:, None, None].expand(-1, WORLDS, 3)
    assert values(Planted(truth, factored=False))["right digit"] == 1.0
    assert values(Planted((truth + 1) % 10, factored=False))["right digit"] == 0.0
    assert faces.context.observations.shape == (SCENES, 5, 3, 16, 16)
    state = sample_scenes(VIEWS, SCENES, split="test", size=16).start()
    assert visible_sides(state, faces.views.context).any(1).sum(1).eq(3).all()


class Knowing(Planted):
    """Shows the rooms as they are, or all of them with the digits of the next room."""

    def __init__(self, off: int) -> None:
        super().__init__(torch.zeros(1), factored=False)
        self.rooms = dice.HiddenFaces.sample(SCENES, 16).state
        self.rooms = replace(self.rooms, faces=(self.rooms.faces + off) % 100)

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        assert queries.poses is not None
        camera = torch.atan2(queries.poses[..., 1], queries.poses[..., 0])
        frames = dice.to_float(dice.look(self.rooms, camera, 16))
        seen = frames[:, None].expand(-1, worlds.shape[1], -1, -1, -1, -1)
        return Prediction(seen.unsqueeze(2), torch.zeros(1), torch.zeros(1))


def test_digits_that_the_context_shows(values: Any) -> None:
    found = values(Knowing(0))
    assert found["seen digit, context view"] == found["seen digit, new view"] == 1.0
    assert found["squared error, new view"] < 1e-6
    found = values(Knowing(1))
    assert found["seen digit, context view"] == found["seen digit, new view"] == 0.0
    assert found["squared error, new view"] > 1e-4


def test_what_is_measured_of_other_models(values: Any) -> None:
    """Three latents, for real: BADJ. And one that has none."""
    badj = worldmodel.make("badj", SPEC, settings("badj", context_max=5))
    found = values(badj)
    assert found["KL3 / KL1"] == pytest.approx(3.0, rel=0.02)
    assert found["contradictions"] == 0.0


def test_only_models_of_the_dice() -> None:
    passive = Spec((3, 16, 16), ActionSpec("none"), 20)
    with pytest.raises(ValueError, match="poses of 7 numbers"):
        dice.dice_consistency(worldmodel.make("jump", passive, "views"))
    few = worldmodel.make("jump", SPEC, settings(context_max=4))
    with pytest.raises(ValueError, match="takes 5 views"):
        dice.dice_consistency(few)
    enough = worldmodel.make("jump", SPEC, settings(context_max=5))
    with pytest.raises(ValueError, match="worlds: expected at least 2"):
        dice.dice_consistency(enough, worlds=1)


def test_targets_without_gaps() -> None:
    model = worldmodel.make("jump", SPEC, "views").eval()
    views = Context.views(torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 7))
    belief = model.observe(views)
    assert isinstance(model, Jump)
    assert model.posterior_kl(belief, views).shape == (2,)
    gap = Context.views(
        views.observations, torch.rand(2, 3, 7), torch.tensor([[True, True, False]] * 2)
    )
    with pytest.raises(ValueError, match="all there"):
        model.posterior_kl(belief, gap)


def test_the_kl_of_times_is_that_of_training() -> None:
    """Keys of future times go along the targets' own actions."""
    spec = Spec((3, 16, 16), ActionSpec("discrete", (), (4,)), 8)
    model = worldmodel.make("jump", spec, "views").eval()
    assert isinstance(model, Jump)
    frames, actions = torch.rand(2, 1, 3, 16, 16), torch.randint(0, 4, (2, 8))
    belief = model.observe(Context(frames, torch.zeros(2, 1, dtype=torch.int64)))
    later = torch.full((2, 1), 5)
    kls = [
        model.posterior_kl(belief, Context(frames, later, plan), torch.Generator().manual_seed(0))
        for plan in (actions, (actions + 1) % 4)
    ]
    assert not torch.equal(*kls)


class Moody(Planted):
    """Answers differently whenever it is asked."""

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        seen = torch.rand(*worlds.shape, 1, queries.times.shape[1], 3, 16, 16)
        return Prediction(seen, torch.zeros(1), torch.zeros(1))


def test_contradictions_are_found() -> None:
    views = Context.views(torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 7))
    queries = Queries.views(torch.rand(2, 3, 7))
    for model, share in (
        (Moody(torch.zeros(1), False), 1.0),
        (Planted(torch.zeros(1), False), 0.0),
    ):
        worlds = model.sample(model.observe(views), 2)
        answer = model.predict(worlds, queries).observations
        assert answer is not None
        assert contradictions(model, worlds, queries, answer[:, :, 0]).tolist() == [share, share]


def test_the_entropy_of_orders() -> None:
    even = [Counter(dict.fromkeys(range(6), 50))] * 3
    interval = order_entropy(even)
    assert interval is not None and interval.value == pytest.approx(1.79, abs=0.03)
    assert interval.low <= interval.value <= interval.high
    always = order_entropy([Counter({0: 5}), Counter({1: 2})])
    assert always is not None and always.value == always.high == 0.0
    assert order_entropy([Counter({0: 1}), Counter()]) is None
    never = order_entropy([Counter({0: 1, 1: 1})] * 4)
    assert never is not None and never.value == pytest.approx(1.386, abs=1e-3)  # ln of four pairs


@pytest.mark.slow
def test_the_reader_reads() -> None:
    faces = dice.HiddenFaces.sample(60, 32)
    read = train_reader(32, steps=250).read(faces.targets.observations)
    assert (read == pool().labels[faces.views.digit][:, None]).float().mean() > 0.9
