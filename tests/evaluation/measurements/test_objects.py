"""Objects and modules, judged with a VIM that follows balls perfectly, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from envs import sample_scenes
from envs.balls import moves_of, segments
from evaluation.measurements.objects import (
    ATOMIC,
    COMPOSED,
    Objects,
    _owners,
    module_accuracy,
    true_segments,
)
from worldmodel import ActionSpec, Spec, make, preset, to_float
from worldmodel.common.camera import Cameras
from worldmodel.models.frame_by_frame.vim import Track, Vim
from worldmodel.models.jumpy.inferno import Inferno, Scene, View

BALLS = Spec((3, 32, 32), ActionSpec("none"), 14)
TINY = replace(preset("vim", "small"), channels=4, size=8, hidden=8, candidate=8, width=8, kernel=1)
STORY = "narratives/TravelingSalesmanNature-v0"
SCENES = 6


class Oracle(Vim):
    """Knows each scene: slot i + 1 holds ball i, and module 3 - m makes move m."""

    @torch.no_grad()
    def track(
        self, frames: Tensor, actions: Tensor | None = None, selections: int | None = None
    ) -> Track:
        env = ATOMIC if selections is None else COMPOSED
        scenes = sample_scenes(env, SCENES, split="test", size=32)
        times = torch.arange(15).expand(SCENES, -1)
        moments = scenes.moments(times)
        assert torch.equal(frames, to_float(scenes.observations(times)))
        segment = segments(moments, 32).unflatten(0, (SCENES, 15))
        masks = (segment[:, :, None] == torch.arange(4)[:, None, None]).float()
        masks[:, :, 1:] += 1e-6  # a ball that is covered is somewhere
        moves = moves_of(moments.cells.unflatten(0, (SCENES, 15))).clamp_min(0)
        modules = torch.cat([torch.zeros_like(moves[..., :1]), 3 - moves], -1)[:, :, None]
        colours = torch.ones(SCENES, 15, 4, 3, 32, 32)
        return Track(frames, colours, masks, modules)


def measured(model: Vim, **settings: int) -> dict[tuple[str, str], float]:
    rows = Objects(env=ATOMIC, scenes=SCENES, worlds=2, **settings).of_model(model)
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == SCENES for row in rows)
    return {(row["env"], row["metric"]): row["value"] for row in rows}


def test_an_oracle() -> None:
    torch.manual_seed(0)
    values = measured(Oracle(BALLS, TINY).eval())
    assert values[ATOMIC, "foreground ARI"] == values[ATOMIC, "ARI"] == 1.0
    assert values[ATOMIC, "module accuracy"] > 0.9  # two balls in one place have one slot
    assert 0.2 < values[ATOMIC, "commonest move"] < 0.4
    assert values[ATOMIC, "reconstruction, mse"] == 0.0
    counts = (1, 2, 4, 8)
    errors = {(COMPOSED, f"position error, k = {k}") for k in counts} | {(ATOMIC, "position error")}
    for env, error in errors:  # what is covered in part lies a little aside
        nothing = values[env, "position error, if nothing moved"]
        assert 0.0 < values[env, error] < 0.1 * nothing
    for k in counts:
        gap = values[COMPOSED, f"position error, k = {k}"] - values[ATOMIC, "position error"]
        assert values[COMPOSED, f"compositional gap, k = {k}"] == pytest.approx(gap)


def test_an_untrained_model() -> None:
    values = measured(make("vim", BALLS, TINY).eval(), context=3, ahead=4)
    assert values[ATOMIC, "foreground ARI"] < 0.7
    assert values[ATOMIC, "module accuracy"] < 0.5
    assert values[ATOMIC, "mse, min-of-n"] <= values[ATOMIC, "mse, mean-of-n"]


def test_models_without_slots_have_errors_only() -> None:
    rows = Objects(env=ATOMIC, scenes=4, worlds=2).of_model(make("copy-last", BALLS))
    values = {row["metric"]: row["value"] for row in rows}
    assert set(values) == {"mse, min-of-n", "mse, mean-of-n", "mse, copy-last"}
    assert values["mse, min-of-n"] == pytest.approx(values["mse, copy-last"])


class Segmenter(Inferno):
    """Knows each story: mask i + 1 is shape i."""

    def infer(
        self, frames: Tensor, poses: Tensor | None = None, noise: Tensor | None = None
    ) -> Scene:
        self.frames = frames
        return super().infer(frames)

    def render(self, scene: Scene, cameras: Cameras | None = None) -> View:
        scenes = sample_scenes(STORY, SCENES, split="test", size=32)
        times = torch.arange(21).expand(SCENES, -1)
        every = to_float(scenes.observations(times)).flatten(0, 1)
        away = (every[:, None] - self.frames[None]).abs().flatten(2).amax(2)
        segment = true_segments(scenes, times, 32).flatten(0, 1)[away.argmin(0)]
        return View(self.frames, (segment[:, None] == torch.arange(6)[:, None, None]).float())


def test_masks_of_single_frames() -> None:
    story = Spec((3, 32, 32), ActionSpec("none"), 20)
    config = replace(preset("inferno", "small"), channels=4, coarse=4, upscaling=0.0)
    rows = Objects(env=STORY, scenes=SCENES).of_model(Segmenter(story, config).eval())
    values = {row["metric"]: row["value"] for row in rows}
    assert values == {"foreground ARI": 1.0, "ARI": 1.0, "reconstruction, mse": 0.0}
    plain = make("inferno", BALLS, config).eval()
    values = {row["metric"]: row["value"] for row in Objects(env=ATOMIC, scenes=4).of_model(plain)}
    assert set(values) == {"foreground ARI", "ARI", "reconstruction, mse"}
    assert values["foreground ARI"] < 0.7 and values["reconstruction, mse"] > 0
    digits = "digits/StochasticMovingDigits-v0"
    with pytest.raises(ValueError, match="expected balls, or a story"):
        Objects(env=digits, scenes=4).of_model(plain)


def test_modules_are_judged_by_other_scenes() -> None:
    moves = torch.tensor([[[0], [1], [1]], [[1], [0], [1]]])
    right, guessed = module_accuracy(moves + 2, moves)
    assert right.tolist() == [1.0, 1.0]
    assert guessed.tolist() == pytest.approx([2 / 3, 2 / 3])
    one, _ = module_accuracy(torch.zeros_like(moves), moves)
    assert one.tolist() == pytest.approx([2 / 3, 2 / 3])
    swapped = torch.stack([moves[0], 1 - moves[1]])  # what a module does differs between scenes
    assert module_accuracy(swapped, moves)[0].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="at least 2 scenes"):
        module_accuracy(moves[:1], moves[:1])
    with pytest.raises(ValueError, match="from 0 on"):
        module_accuracy(moves, moves - 1)


def test_bad_numbers() -> None:
    model = make("copy-last", BALLS)
    with pytest.raises(ValueError, match="expected 'balls/RandomWalk-v0', whose balls are known"):
        Objects(env=COMPOSED).of_model(model)
    with pytest.raises(ValueError, match="scenes: expected at least 4"):
        Objects(env=ATOMIC, scenes=1).of_model(model)
    with pytest.raises(ValueError, match="context, ahead: expected at most 15 frames"):
        Objects(env=ATOMIC, scenes=4, ahead=30).of_model(model)


def test_a_ball_belongs_to_the_slot_that_has_most_of_it() -> None:
    segment = torch.tensor([[[0, 1, 1], [2, 2, 0], [3, 0, 0]]])
    masks = torch.zeros(1, 4, 3, 3)
    masks[0, 0] = 0.6  # mostly background: its centre is nearest to ball 2
    masks[0, 2, 0, 1:] = 1.0
    masks[0, 1, 1, 0] = 1.0
    masks[0, 1, 1, 1] = 0.3
    masks[0, 3, 2, 0] = 0.9
    assert _owners(masks, segment).tolist() == [[2, 1, 3]]
