"""Every example runs as it stands, only shorter, and leaves behind what it says."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro
from PIL import Image
from torch.distributed.run import get_args_parser

from worldmodel.commands.train import Train

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
MOST = 67  # lines that are not empty: an example is read in one go
MANY_GPUS = "train_on_many_gpus.md"

Run = Callable[[str, str], str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """An example's name and settings to what it prints."""

    def run(name: str, few: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, "--out", str(tmp_path), *few.split()])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_train_in_imagination(run: Run, tmp_path: Path) -> None:
    printed = run("train_in_imagination.py", "--steps 512 --starts 16 --episodes 2")
    for said in ("random play", "PPO", "normalised_return", f"tensorboard --logdir {tmp_path}"):
        assert said in printed
    assert (tmp_path / "ppo.zip").exists() and list(tmp_path.rglob("events.out*"))


def test_plan_with_lookahead(run: Run) -> None:
    printed = run("plan_with_lookahead.py", "--plans 32 --decisions 128 --episodes 2")
    for said in ("One decision: ", "random play", "tree search", "PPO with lookahead"):
        assert said in printed


def test_dyna_dqn(run: Run, tmp_path: Path) -> None:
    printed = run("dyna_dqn.py", "--steps 240 --every 100 --fit-steps 1 --episodes 2")
    assert re.search(r"^2 fits of the model, [1-9]\d+ imagined transitions", printed, re.M)
    for said in ("random play: ", "DQN: ", "DQN with Dyna: "):
        assert said in printed
    assert (tmp_path / "model" / "config.json").exists()


def test_log_videos(run: Run, tmp_path: Path) -> None:
    printed = run("log_videos.py", "--ppo-steps 256 --fit-steps 2")
    (logs,) = tmp_path.iterdir()
    counts = dict.fromkeys(("truth above three worlds", "real beside imagined"), 1)
    films = {"videos/real_imagined_difference": 2, "videos/real_imagined": 1}
    for tag, count in {**counts, **films}.items():
        assert re.search(rf"^ +{count} x {tag}, {logs}", printed, re.M), printed
    with Image.open(logs / "futures.gif") as clip:
        assert clip.n_frames == 21


def test_backwards_and_in_between(run: Run, tmp_path: Path) -> None:
    printed = run("backwards_and_in_between.py", "--worlds 1 --last 4")
    assert "the past: context [4], queries 0 .. 4" in printed
    with Image.open(tmp_path / "video.gif") as clip:
        assert clip.n_frames == 5
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 3 * 2 * 68  # three questions, truth and one world


def test_dice_hidden_face(run: Run, tmp_path: Path) -> None:
    few = "--train --steps 2 --batch-size 2"
    assert "hidden_face.png" in run("dice_hidden_face.py", few)
    first = (tmp_path / "hidden_face.png").read_bytes()
    (tmp_path / "hidden_face.png").unlink()
    run("dice_hidden_face.py", few)  # goes on where it was, at the end
    assert (tmp_path / "hidden_face.png").read_bytes() == first
    run("dice_hidden_face.py", f"--checkpoint {tmp_path / 'model-2'} --scene 1")
    assert (tmp_path / "hidden_face.png").read_bytes() != first


def test_compare_models(run: Run, tmp_path: Path) -> None:
    few = "jump copy-last:small --seconds 0.1 --distances 2 5 --repeats 1"
    printed = run("compare_models.py", few)
    assert re.search(r"copy-last +small", printed) and "samples.png" in printed
    with Image.open(tmp_path / "samples.png") as samples:
        assert samples.height == 5 * 68  # truth, two futures each


# --- train_on_many_gpus.md ------------------------------------------------------------------------


def commands() -> list[list[str]]:
    blocks = re.findall(r"```\n(.*?)```", (FOLDER / MANY_GPUS).read_text(), re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_exist(command: list[str]) -> None:
    program, *words = command
    if program == "torchrun":
        asked = get_args_parser().parse_args(words)
        assert asked.module and asked.training_script == "worldmodel"
        words = asked.training_script_args
    else:
        assert (program, words[:2]) == ("python", ["-m", "worldmodel"])
        words = words[2:]
    assert words[0] == "train"
    settings = tyro.cli(Train, args=words[1:])
    assert not (program == "torchrun" and settings.devices)  # one of them starts the processes


# --- all of them ----------------------------------------------------------------------------------


def test_the_documentation_lists_them() -> None:
    page = (ROOT / "docs" / "get_started.md").read_text()
    listed = set(re.findall(r"^\| `([a-z_]+\.(?:py|md))` \|", page, re.M))
    assert listed == {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".md")}


def test_they_are_short() -> None:
    for path in FOLDER.glob("*.py"):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(lines) <= MOST or path.name == "quickstart.py", f"{path.name}: {len(lines)}"
