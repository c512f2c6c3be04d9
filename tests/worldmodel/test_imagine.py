"""Pictures of what a model imagines, at times in any order."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from scenes import DISCRETE, PASSIVE, VECTOR, fresh, moving_square
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import worldmodel
from worldmodel import UnsupportedQuery, fit, make, preset
from worldmodel.__main__ import main
from worldmodel.imagine import ImaginedVideo, imagine, sheet, video, write

ENV = "envs:narratives/TravelingSalesmanNature-v0"


@pytest.mark.parametrize("seen", [(0,), (6, 7, 8), (0, 8), (4,)])
def test_any_times_may_be_shown_and_asked(seen: tuple[int, ...]) -> None:
    scenes = moving_square().windows(8, 4, whole=True).batch(0)
    imagined = imagine(fresh("jump", "small", DISCRETE), scenes, seen, (8, 0, 3), worlds=2)
    assert imagined.truth.shape == (4, 3, 32, 32, 3)
    assert imagined.worlds.shape == (4, 2, 3, 32, 32, 3)
    assert imagined.worlds.dtype == imagined.truth.dtype == torch.uint8
    assert imagined.in_context.tolist() == [8 in seen, 0 in seen, 3 in seen]
    assert torch.equal(imagined.truth, scenes.observations(torch.tensor([[8, 0, 3]] * 4)))
    again = imagine(fresh("jump", "small", DISCRETE), scenes, seen, (0,), worlds=2)
    difference = again.worlds[:, :, 0].int() - imagined.worlds[:, :, 1].int()
    assert difference.abs().max() <= 1


def test_frame_by_frame_models_look_forwards_only() -> None:
    scenes = moving_square().windows(8, 2, whole=True).batch(0)
    model = fresh("svg-lp", "small", DISCRETE)
    assert imagine(model, scenes, (0, 1, 2), (3, 8)).worlds.shape[2] == 2
    with pytest.raises(UnsupportedQuery):
        imagine(model, scenes, (0, 1, 2), (1,))


def test_films_show_what_a_stride_reaches(tmp_path: Path) -> None:
    source = moving_square().windows(8, 2, whole=True)
    model = make("sssm", DISCRETE, replace(preset("sssm", "small"), jump=3))
    video = ImaginedVideo(source.batch(0), every=1)
    fit(model, source, 1, folder=tmp_path, callbacks=[video], progress=False)
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == ["videos/real_imagined"]


def test_pictures(tmp_path: Path) -> None:
    scenes = moving_square().windows(8, 2, whole=True).batch(0)
    imagined = imagine(fresh("jump", "small", DISCRETE), scenes, (0,), (0, 4, 8), worlds=3)
    drawn = sheet(imagined, scale=1)
    assert drawn.shape == (2 * 4 * 36, 3 * 36, 3)
    assert (drawn[0, 0] == (255, 200, 0)).all()  # the frame that was shown
    assert (drawn[0, 40] == (40, 40, 40)).all() and (drawn[36, 0] == (40, 40, 40)).all()
    assert (drawn[2:34, 2:34] == imagined.truth[0, 0].numpy()).all()
    assert (drawn[38:70, 38:70] == imagined.worlds[0, 0, 1].numpy()).all()
    frames = video(imagined, scale=2)
    assert frames.shape == (3, 4 * 68, 2 * 68, 3)
    assert (frames[1, 2:66, 70:134] == imagined.truth[1, 1].numpy().repeat(2, 0).repeat(2, 1)).all()
    write(imagined, tmp_path / "new" / "film.gif")
    with Image.open(tmp_path / "new" / "film.gif") as picture:
        assert getattr(picture, "n_frames", 1) == 3
    with pytest.raises(ValueError, match="out"):
        write(imagined, tmp_path / "film.mp4")


@pytest.mark.parametrize(("seen", "asked"), [((), (0,)), ((0,), ()), ((9,), (0,)), ((0,), (-1,))])
def test_times_outside_of_the_scene(seen: Any, asked: Any) -> None:
    scenes = moving_square().windows(8, 2, whole=True).batch(0)
    with pytest.raises(ValueError, match="context|queries"):
        imagine(fresh("jump", "small", DISCRETE), scenes, seen, asked)


def test_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worldmodel.save(fresh("jump", "small", PASSIVE), tmp_path / "model")
    out = tmp_path / "imagined.png"
    command = ["imagine", tmp_path / "model", "--env", ENV, "--out", out, "--context", 8, 7]
    monkeypatch.setattr(sys, "argv", ["worldmodel", *map(str, command), "--queries", "0", "4", "8"])
    main()
    assert str(out) in capsys.readouterr().out and out.is_file()
    monkeypatch.setattr(sys, "argv", ["worldmodel", *map(str, command), "--queries", "30"])
    with pytest.raises(SystemExit, match="queries"):
        main()


def test_command_line_on_recorded_episodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worldmodel.save(fresh("jump", "small", DISCRETE), tmp_path / "model")
    worldmodel.save(fresh("jump", "vector", VECTOR), tmp_path / "vectors")
    moving_square(4).save(tmp_path / "episodes")
    out = tmp_path / "imagined.gif"

    def run(model: str, *more: str) -> None:
        command = ["imagine", str(tmp_path / model), "--out", str(out), *more]
        monkeypatch.setattr(sys, "argv", ["worldmodel", *command])
        main()

    episodes = ("--episodes", str(tmp_path / "episodes"))
    run("model", *episodes, "--context", "0", "8", "--queries", "4")
    assert out.is_file()
    for model, more, message in [
        ("model", (), "exactly one"),
        ("model", (*episodes, "--env", ENV), "exactly one"),
        ("vectors", episodes, "source: its observations are uint8"),
    ]:
        with pytest.raises(SystemExit, match=message):
            run(model, *more)
    with pytest.raises(ValueError, match="model: it sees vectors"):
        imagine(
            fresh("jump", "vector", VECTOR),
            moving_square().windows(8, 2, whole=True).batch(0),
            [0],
            [1],
        )
