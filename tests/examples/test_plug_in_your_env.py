"""An environment of one's own, from end to end, only shorter."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env

FILE = Path(__file__).parents[2] / "examples" / "plug_in_your_env.py"


def test_plug_in_your_env(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--episodes", "4", "--fit-steps", "2", "--imagined-steps", "64", "--test-episodes", "2"]
    monkeypatch.setattr(sys, "argv", [FILE.name, *few])
    names = runpy.run_path(str(FILE), run_name="__main__")
    printed = capsys.readouterr().out
    for player in ("random", "PPO, trained in imagination", "tree search"):
        assert f"{player}: " in printed
    check_env(names["Catch"](), skip_render_check=True)
