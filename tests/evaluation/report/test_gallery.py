"""The gallery shows every released model and every environment, as their cards describe them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import worldmodel
from envs import ENV_IDS
from evaluation.report.clips import PAUSE, env_clip, model_clip
from evaluation.report.gallery import PAGE, Card, Gallery, clip_name, page, summary
from worldmodel.imagine import BORDER, CONTEXT_COLOUR
from worldmodel.resolve import shipped

COMMITTED = Path(__file__).parents[3] / "docs" / "gallery"
MEGABYTES = 4


def test_the_committed_gallery_is_that_of_today() -> None:
    text = (COMMITTED / PAGE).read_text()
    assert text == page(shipped(), ENV_IDS), "run `python -m evaluation gallery`"
    pictures = set(re.findall(r"!\[[^]]*\]\(([^)]*)\)", text))
    assert pictures == {clip_name(name) for name in (*shipped(), *ENV_IDS)}
    assert {path.name for path in COMMITTED.iterdir()} == {PAGE, *pictures}
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) <= MEGABYTES * 10**6


def test_a_small_gallery(tmp_path: Path) -> None:
    gallery = Gallery(
        tmp_path, ("traveling-salesman",), ("balls/RandomWalk-v0",), scenes=1, worlds=1, scale=1
    )
    printed = list(gallery.run())
    assert printed[-1] == f"gallery: {tmp_path / PAGE}"
    text = (tmp_path / PAGE).read_text()
    assert "python -m worldmodel train --env envs:narratives/TravelingSalesman-v0" in text
    assert "| tours shown in the order of the plan, from one frame | 0.951 |" in text
    for name, size in (("traveling-salesman", 32 + 2 * BORDER), ("RandomWalk-v0", 128)):
        with Image.open(tmp_path / f"{name}.gif") as clip:
            assert clip.height >= size and sum(1 for _ in ImageSequence.Iterator(clip)) > 10
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".gif"}


@pytest.mark.parametrize(
    ("name", "given", "length"),
    [
        ("dice-views", 5, 10), ("traveling-salesman-jumpy", 1, 21),
        ("traveling-salesman-nature", 6, 21), ("traveling-salesman-nature-sssm", 2, 5),
    ],
)  # fmt: skip
def test_context_is_framed(name: str, given: int, length: int) -> None:
    frames = model_clip(worldmodel.load(name), scenes=1, worlds=1, scale=1).frames
    assert len(frames) == length + PAUSE and frames.dtype == np.uint8
    yellow = (frames == CONTEXT_COLOUR).all(-1).any((1, 2))
    assert yellow.tolist() == [time < given for time in range(length + PAUSE)]


def test_both_columns_share_the_context() -> None:
    frames = model_clip(worldmodel.load("traveling-salesman"), 1, 1, scale=2).frames
    (left, *_), (right, *_) = np.hsplit(
        (frames[0] == CONTEXT_COLOUR).all(-1).any(0).nonzero()[0], 2
    )
    side = 64 + 2 * BORDER
    truth, world = frames[..., left : left + side, :], frames[..., right : right + side, :]
    below = truth.shape[1] - side  # the captions, which differ, are above
    assert np.array_equal(truth[0, below:], world[0, below:])
    assert not np.array_equal(truth[10, below:], world[10, below:])


def test_env_clip() -> None:
    clip = env_clip("dice/Views-v0", side=64, length=16)
    assert clip.frames.shape == (2 * (10 + PAUSE), 64, 64, 3)
    assert np.array_equal(clip.frames[9], clip.frames[9 + PAUSE])
    assert not np.array_equal(clip.frames[0], clip.frames[10 + PAUSE])  # another episode


def test_summaries() -> None:
    assert summary("dice/FindDigit-v0").startswith("Find a digit on the cube;")
    assert all(summary(env_id).endswith(".") and "\n" not in summary(env_id) for env_id in ENV_IDS)


CARD = """# mine: a model

About it.

- data: none
- commands: `python -m
  worldmodel train`
- seed 0

| a | b |
|---|---|
| c | 1 |

Limits: many.
"""


def test_card() -> None:
    card = Card.parse(CARD, "mine")
    assert card.command == "`python -m worldmodel train`"
    assert card.tables == ("| a | b |\n|---|---|\n| c | 1 |",)
    assert (card.title, card.about, card.limits) == ("a model", "About it.", "Limits: many.")
    with pytest.raises(ValueError, match="models: the card of other lacks title"):
        Card.parse(CARD, "other")
    without = CARD.replace("- commands", "- by").replace("|", "")
    with pytest.raises(ValueError, match="models: the card of mine lacks command, tables"):
        Card.parse(without, "mine")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("mine",)}, "models: expected some of .* got 'mine'"),
        ({"envs": ("CartPole-v1",)}, "envs: expected some of .* got .'CartPole-v1'"),
        ({"worlds": 0}, "worlds: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected from 0"),
    ],
)
def test_mistakes(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        list(Gallery(tmp_path, **settings).run())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_models_without_a_context_or_a_future() -> None:
    spec = worldmodel.Spec((3, 32, 32), worldmodel.ActionSpec("none"), 7)
    drawn = worldmodel.make(
        "cvg", spec, replace(worldmodel.preset("cvg", "small"), statistics_passes=1)
    )
    drawn.env_id = "digits/StochasticMovingDigits-v0"
    frames = model_clip(drawn, scenes=1, worlds=2, scale=1).frames
    assert len(frames) == 8 + PAUSE and not (frames == CONTEXT_COLOUR).all(-1).any()
    objects = worldmodel.make("inferno", spec, "small").eval()
    objects.env_id = "balls/RandomWalk-v0"
    frames = model_clip(objects, scenes=2, scale=1).frames
    assert len(frames) == 8 + PAUSE and frames.shape[2] >= 3 * (32 + 2 * BORDER)


def test_mistakes_of_clips() -> None:
    model = worldmodel.load("traveling-salesman")
    with pytest.raises(ValueError, match="scenes: expected at most 32, got 33"):
        model_clip(model, scenes=33)
    with pytest.raises(ValueError, match="scale: expected at least 1, got 0"):
        model_clip(model, scale=0)
    model.env_id = None
    with pytest.raises(ValueError, match="model: expected one that knows its environment"):
        model_clip(model)
    with pytest.raises(ValueError, match="side: expected a multiple of 64, got 100"):
        env_clip("dice/Views-v0", side=100)
    with pytest.raises(ValueError, match="length: expected at least 1, got 0"):
        env_clip("dice/Views-v0", length=0)


def test_an_interrupted_gallery_keeps_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is written last, whole."""
    (tmp_path / PAGE).write_text("before")
    monkeypatch.setattr("evaluation.report.gallery.env_clip", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(Gallery(tmp_path, ("traveling-salesman",), scenes=1, worlds=1, scale=1).run())
    assert (tmp_path / PAGE).read_text() == "before"
