"""The table of commands is true, and ``bench`` runs what it says and says what it does not."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.runner import bench
from evaluation.runner.bench import Bench
from evaluation.runner.manifest import RESULTS, ResultFile, find
from worldmodel.common import results

TRAININGS = {training for each in RESULTS for training in each.needs}
FOLDER = Path(__file__).parents[3] / "evaluation" / "results" / "cpu-2-cores"


def test_each_result_has_its_command() -> None:
    made = {each.name for each in RESULTS} | {"stress"}  # by make stress
    assert made == {path.stem for path in FOLDER.glob("*.json")}
    with pytest.raises(ValueError, match="only: expected one of envs, .* got 'everything'"):
        find("everything")


def options(command: str) -> dict[str, list[str]]:
    """``--fit-steps 2000`` as ``{"fit_steps": ["2000"]}``; what stands before them under ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in shlex.split(command)[4:]:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = []
        else:
            found[name].append(word)
    return found


POSITIONAL = ("checkpoints", "checkpoint", "models")
"""What words without a name are called in the settings."""


@pytest.mark.parametrize("measurement", RESULTS, ids=lambda each: each.name)
def test_commands_are_those_that_were_run(measurement: ResultFile) -> None:
    result = json.loads((FOLDER / f"{measurement.name}.json").read_text())
    verb = measurement.options.split()[1]
    assert result["benchmark"] == ("envs" if measurement.name == "envs" else verb)
    settings = result["settings"]
    for name, words in options(measurement.command).items():
        if name == "json" or not (name or words):
            continue
        if not name:
            was = next(settings[key] for key in POSITIONAL if key in settings)
        elif not words:
            was, words = settings[name.removeprefix("no_")], [str(not name.startswith("no_"))]
        else:
            was = settings[name]
        was = was if isinstance(was, list) else [was]
        assert [_plain(value) for value in was] == [_plain(word) for word in words], name


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    try:
        return str(float(value))
    except ValueError:
        return str(value)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What would have been run; training an sSSM fails."""
    found: list[list[str]] = []

    def run(words: list[str], check: bool) -> SimpleNamespace:
        found.append(words)
        return SimpleNamespace(returncode=int("sssm" in words))

    results.envelope("any", {})  # asks for the processor, once in a process
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    return found


def test_bench_runs_one(ran: list[list[str]]) -> None:
    said = list(Bench(("speed-all",), Path("there")).run())
    minutes = find("speed-all").minutes
    assert said[0] == f"1 of {len(RESULTS)} results, about {minutes} minutes of one thread"
    assert ran == [
        [sys.executable, "-m", "evaluation", "speed", "--num-threads", "1", "--repeats", "15",
         "--json", "there/speed-all.json"]
    ]  # fmt: skip


def test_bench_trains_what_is_needed_and_skips_aloud(ran: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "runs" / "intercept").mkdir(parents=True)
    said = []
    with pytest.raises(ChildProcessError, match="not made: runs/ctl-sssm-jumpy, planning-returns"):
        for text in Bench(("planning-returns", "planning-svg", "common-worlds")).run():
            said.append(text)
    assert "==> runs/intercept: there already, not trained again" in said
    assert "==> planning-returns: skipped, for want of runs/ctl-sssm-jumpy" in said
    assert [words[3] for words in ran] == ["train", "train", "planning", "common-worlds"]


def test_bench_goes_on(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this commit has made stays; of what it has begun, the parts are taken."""
    monkeypatch.setattr(bench.results, "commit", lambda: "new")
    names = ("returns", "speed-all", "outcomes", "control")
    for name, commit in zip(names, ("new", "old"), strict=False):
        result = results.envelope(name, {}, [{"kind": 1, "model": 2, "preset": 3, "batch": 4,
                                            "low": 5, "high": 6}])  # fmt: skip
        results.write(tmp_path / f"{name}.json", {**result, "commit": commit})
    (tmp_path / "outcomes.json.parts").mkdir()
    list(Bench(names, tmp_path, resume=True).run())
    assert [(words[3], words[-1] == "--resume") for words in ran] == [
        ("speed", False), ("outcomes", True), ("control", False),
    ]  # fmt: skip
    ran.clear()
    list(Bench(names, tmp_path).run())
    assert len(ran) == 4 and not any("--resume" in words for words in ran)


def test_bench_dry(ran: list[list[str]]) -> None:
    said = list(Bench(dry=True).run())
    assert not ran and len(said) == 1 + len(TRAININGS) + len(RESULTS)
