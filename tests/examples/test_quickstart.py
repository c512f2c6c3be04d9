"""The main job runs from end to end, only shorter."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--train-steps", "2", "--ppo-steps", "256", "--episodes", "2"]
    few += ["--cartpole-steps", "64"]
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--out", str(tmp_path), *few])
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for said in (
        "futures.gif",
        "svg-lp",
        "PPO trained in imagination",
        "real return",
        "tensorboard --logdir",
    ):
        assert said in printed
    with Image.open(tmp_path / "futures.gif") as clip:
        assert clip.n_frames == 21 and clip.width > 4 * 128  # four futures
    rows = json.loads((tmp_path / "control.json").read_text())["rows"]
    assert [row["episodes"] for row in rows] == [2, 2, 2]
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents*"))
