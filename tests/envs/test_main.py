"""The command line: each verb once, small."""

from __future__ import annotations

import json
import sys

import pytest

import envs
from envs.__main__ import main


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


def test_bench(monkeypatch, tmp_path):
    file = tmp_path / "bench.json"
    run(monkeypatch, "bench", "--json", file, "--seconds", 0.01, "--size", 16, "--batches", 2)
    report = json.loads(file.read_text())
    keys = {"benchmark", "command", "commit", "machine", "versions", "settings", "rows"}
    assert report.keys() == keys
    assert len(report["rows"]) == 4
    for row in report["rows"]:
        assert row.keys() == {"env", "mode", "batch", "frames_per_second"}
        assert row["frames_per_second"] > 0


def test_errors_are_short(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="mp4"):
        run(monkeypatch, "record", envs.ENV_IDS[0], "--out", tmp_path / "film.avi")
    with pytest.raises(SystemExit, match="error"):
        run(monkeypatch, "record", "narratives/Nothing-v0", "--out", tmp_path / "film.gif")
