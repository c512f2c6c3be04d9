"""The command line: each verb once, small."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

import envs
from envs.__main__ import main
from envs.bench import YARDSTICK


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["envs", *map(str, arguments)])
    main()


def test_list(monkeypatch, capsys):
    run(monkeypatch, "list")
    out = capsys.readouterr().out
    assert all(env_id in out for env_id in envs.ENV_IDS)


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_record(monkeypatch, tmp_path, suffix):
    film = tmp_path / f"film.{suffix}"
    run(monkeypatch, "record", envs.ENV_IDS[1], "--out", film, "--episodes", 1, "--size", 32)
    head = film.read_bytes()[:8]
    assert head.startswith(b"GIF8") if suffix == "gif" else head[4:] == b"ftyp"
    if suffix == "mp4":
        from moviepy import VideoFileClip

        with VideoFileClip(str(film)) as clip:
            assert sum(1 for _ in clip.iter_frames()) == 21  # none lost, none twice
            assert clip.size == [32, 32]


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_sheet(monkeypatch, tmp_path, suffix):
    sheet = tmp_path / f"sheet.{suffix}"
    run(monkeypatch, "sheet", "--out", sheet, "--side", 64, "--length", 12)
    with Image.open(sheet) as picture:
        assert picture.width > 4 * 64 and picture.height > 3 * 64
        assert getattr(picture, "n_frames", 1) == (12 if suffix == "gif" else 1)


def test_bench(monkeypatch, tmp_path):
    file = tmp_path / "bench.json"
    chosen = envs.ENV_IDS[:2]
    sizes = ("--seconds", 0.01, "--size", 16, "--batches", 2)
    run(monkeypatch, "bench", "--json", file, *sizes, "--envs", *chosen)
    report = json.loads(file.read_text())
    keys = {"benchmark", "command", "commit", "machine", "versions", "settings", "rows"}
    assert report.keys() == keys
    rows = [row for row in report["rows"] if row["env"] != YARDSTICK]
    assert [row["env"] for row in rows] == [env_id for env_id in chosen for _ in range(2)]
    for row in report["rows"]:
        assert row.keys() == {"env", "mode", "batch", "frames_per_second"}
        assert row["frames_per_second"] > 0


def test_errors_are_short(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="mp4"):
        run(monkeypatch, "record", envs.ENV_IDS[0], "--out", tmp_path / "film.avi")
    with pytest.raises(SystemExit, match="side"):
        run(monkeypatch, "sheet", "--out", tmp_path / "sheet.png", "--side", 100)
    with pytest.raises(SystemExit, match="error"):
        run(monkeypatch, "record", "narratives/Nothing-v0", "--out", tmp_path / "film.gif")
