"""The page says what the JSON says, the same every time, and what is missing."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.__main__ import main
from evaluation.measurements.speed import ratios, seconds
from evaluation.report import answers, plots
from evaluation.report.answers import cautions
from evaluation.report.load_results import COLUMNS, Result, read_one
from evaluation.report.names import interval, number
from evaluation.report.page import report

Write = Callable[..., Path]


def envelope(benchmark: str, rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    return {
        "benchmark": benchmark, "command": f"python -m evaluation {benchmark}", "commit": "abc1234",
        "machine": {"processor": "toy", "cores": 2, "torch_threads": 1, "accelerator": None,
                    "python": "3.11"},
        "versions": {"torch": "2.0"}, "settings": settings, "rows": rows,
    }  # fmt: skip


def speed_rows() -> list[dict[str, Any]]:
    """JUMP takes 0.02 s, SVG-LP 0.02 s a step, BADJ about as long as JUMP, sSSM half as long;
    T = 160 is not there.
    """
    even = np.ones(6)
    rounds = {}
    for distance in (10, 40):
        rounds[("jump", "narrative"), distance] = 0.02 * even
        rounds[("svg-lp", "paper"), distance] = 0.02 * distance * even
        rounds[("badj", "narrative"), distance] = 0.02 * np.linspace(0.9, 1.1, 6)
        rounds[("sssm", "paper"), distance] = 0.01 * even
    rows = [*seconds(rounds), *ratios(rounds, ("jump", "narrative"))]
    return [{**row, "batch": 1, "device": "cpu"} for row in rows]


def compared(model: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {
        "model": model, "preset": "small", "seconds": 180.0, "min-of-n": value, "low": low,
        "high": high, "ends": value, "T=40": 0.02,
    }  # fmt: skip


def metric(model: str, name: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {
        "checkpoint": f"runs/{model}", "model": model, "env": "dice/Views-v0", "metric": name,
        "value": value, "low": low, "high": high, "n": 9,
    }  # fmt: skip


DICE = [
    metric("jump", "KL3 / KL1", 1.2, 1.1, 1.3), metric("gqn", "KL3 / KL1", 2.9, 2.8, 3.0),
    metric("jump", "same digit, one world", 0.8, 0.7, 0.9),
    metric("jump", "same digit, two worlds", 0.2, 0.1, 0.3),
    metric("gqn", "same digit, one world", 0.2, 0.1, 0.3),
    metric("gqn", "same digit, two worlds", 0.2, 0.1, 0.3),
]  # fmt: skip
RUNS = [
    {"agent": "random play", "return": 1.0},
    *({"agent": agent, "seed": seed, "real_steps": steps, "return": 0.001 * steps + seed}
      for agent in ("PPO", "planner") for seed in (0, 1) for steps in (1000, 2000)),
    {"agent": "ratio", "of": "planner", "level": 0.8, "value": 30.0, "low": 12.0, "high": 40.0,
     "n": 2},
]  # fmt: skip
PLAYED = [
    {"agent": name, "env": "e", "real_steps": 0, "normalised_return": 0.5, "low": 0.4, "high": 0.6,
     "episodes": 9}
    for name in ("random", "random shooting", "PPO")
]  # fmt: skip
STORY = {
    **metric("jump", "coherent stories", 0.95, 0.92, 0.97),
    "checkpoint": "shipped", "env": "narratives/TravelingSalesman-v0",
}  # fmt: skip
ALL = {
    "speed-all": envelope("speed", speed_rows(), repeats=3),
    "model-comparison": envelope(
        "model-comparison", [compared("jump", 1.0, 0.9, 1.1), compared("svg-lp", 2.0, 1.8, 2.2),
                  compared("copy-last", 1.1, 1.0, 1.2)], seconds=180.0,
    ),
    "fidelity": envelope("fidelity", [metric("jump", "mse, new kind", 0.1, 0.05, 0.2)]),
    "consistency": envelope("consistency", [STORY]),
    "consistency-dice": envelope("consistency", DICE),
    "control": envelope("control", PLAYED),
    "efficiency-tsp": envelope("efficiency", RUNS, env="envs:toy/Toy-v0"),
    "extra": envelope("bench", [{"kind": "any"}]),
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(files: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "machine"
        folder.mkdir(exist_ok=True)
        for name, content in (ALL if files is None else files).items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return folder

    return written


def as_result(name: str, content: dict[str, Any]) -> dict[str, Result]:
    rows = content["rows"]
    return {name: Result(name, rows, {k: v for k, v in content.items() if k != "rows"})}


def test_page(write: Write, tmp_path: Path) -> None:
    folder, out = write(), tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (4, 4)).save(out / "model-comparison.png")
    text = report(folder, out).read_text()
    pictures = sorted(path.name for path in (out / "report").iterdir())
    assert pictures == [
        "consistency-dice.png", "consistency-narratives.png", "control.png", "efficiency.png",
        "quality.png", "speed.png",
    ]  # fmt: skip
    for name in pictures:
        assert f"](report/{name})" in text
        assert Image.open(out / "report" / name).width == 946
    assert "](model-comparison.png)" in text and "](envs.png)" not in text
    for name in ALL:
        assert f"[{name}.json](../machine/{name}.json)" in text
    assert "`python -m evaluation speed --num-threads 1 --repeats 15 --json speed-all.json`" in text
    assert "commit abc1234; toy, 2 cores, no GPU, 1 thread(s), Python 3.11; torch 2.0" in text
    assert "mse, new kind | 0.1 [0.05, 0.2] | 9 |" in text
    assert "| SVG-LP | 10 [10, 10] | 40 [40, 40] | not measured |" in text
    assert "consistency-nature.json (6 minutes)" in text  # what is not there


def test_same_json_same_bytes(write: Write, tmp_path: Path) -> None:
    folder = write({"speed-all": ALL["speed-all"]})
    first, again = (
        {path.name: path.read_bytes() for path in [page, *page.parent.glob("report/*")]}
        for page in (report(folder, tmp_path / name) for name in ("a", "b"))
    )
    assert set(first) == {"REPORT.md", "speed.png"} and again == first


def test_page_without_results(write: Write, tmp_path: Path) -> None:
    text = report(write({}), tmp_path).read_text()
    assert (
        "`python -m evaluation speed --num-threads 1 --repeats 15 --json speed-all.json` makes"
        in text
    )
    assert text.count("Not measured (no ") == 2 and "BADJ: not measured." in text
    assert not (tmp_path / "report").exists()
    with pytest.raises(FileNotFoundError, match="expected a folder of results"):
        report(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "control.json: not JSON"),
        ("[]", "control.json: expected a JSON object, got list"),
        ('{"rows": []}', "control.json: expected a result .* got no benchmark"),
        (json.dumps(envelope("control", [])), "control.json: rows: expected at least one"),
        (
            json.dumps(envelope("control", [{"agent": "PPO"}])),
            r"control.json: rows\[0\]: expected a 'env'",
        ),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "control.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        report(tmp_path, tmp_path)


def test_how_much_faster() -> None:
    ten, forty, far, note = answers.faster(as_result("speed-all", ALL["speed-all"]))
    assert ten == (
        "T = 10: JUMP takes 0.02 s. Slower, by this factor: SVG-LP 10 [10, 10]. No significant "
        "difference: BADJ 1 [0.9, 1.1]. Faster: sSSM 0.5 [0.5, 0.5]."
    )
    assert "SVG-LP 40 [40, 40]." in forty
    assert far == "T = 160: not measured."
    assert note.startswith("Medians of 3 rounds")


@pytest.mark.parametrize(
    ("others", "verdict", "groups"),
    [
        ([compared("svg-lp", 2, 1.8, 2.2)], "No, after", "Worse than JUMP: SVG-LP."),
        (
            [compared("svg-lp", 1.2, 1.0, 1.4)],
            "Not significantly",
            "Not significantly different from JUMP: SVG-LP",
        ),
        ([compared("svg-lp", 0.5, 0.4, 0.6)], "Yes, after", "Better than JUMP: SVG-LP."),
    ],
)
def test_is_anything_lost(others: list[dict[str, Any]], verdict: str, groups: str) -> None:
    content = envelope(
        "model-comparison", [compared("jump", 1.0, 0.9, 1.1), *others], seconds=180.0
    )
    first, second = answers.fidelity(as_result("model-comparison", content))
    assert first.startswith(verdict) and groups in first and "1 [0.9, 1.1] with JUMP" in first
    assert second == "After longer training: not measured."


def test_are_samples_consistent() -> None:
    found = answers.consistent(as_result("consistency-dice", ALL["consistency-dice"]))
    jump, gqn, agree, chance, missing = found
    assert "1.2 [1.1, 1.3] times" in jump and jump.endswith(": consistent.")
    assert "2.9 [2.8, 3] times" in gqn and gqn.endswith(": not consistent.")
    assert "80.0% [70.0, 90.0] of the pairs" in agree and agree.endswith(": more than chance.")
    assert chance.endswith("not significantly more than chance.")
    assert missing == "BADJ: not measured."
    between = envelope("consistency", [metric("jump", "KL3 / KL1", 2, 1.5, 2.5)])
    assert "undecided" in answers.consistent(as_result("consistency", between))[0]


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (30.0, 12.0, 40.0, "30 [12, 40] times fewer real steps to come 80% of the way"),
        (2.0, 0.5, 4.0, "this may be no saving at all"),
        (0.0, 0.0, 1.0, "never comes 80% of the way"),
        (math.nan, math.nan, math.nan, "nothing is learned without imagination"),
    ],
)
def test_how_many_steps_are_saved(value: float, low: float, high: float, text: str) -> None:
    row = {"agent": "ratio", "of": "planner", "level": 0.8, "n": 2}
    rows = [{**row, "value": value, "low": low, "high": high}]
    (found,) = answers.saved(as_result("efficiency-x", envelope("efficiency", rows, env="Toy")))
    assert found.startswith("Toy, planner: ") and text in found


def test_cautions() -> None:
    def curve(agent: str, *points: tuple[int, float]) -> list[dict[str, Any]]:
        return [{"agent": agent, "seed": 0, "real_steps": x, "return": y} for x, y in points]

    floor = [{"agent": "random play", "return": 0.0}]
    steady = [*floor, *curve("PPO", (100, 0.5), (200, 1.0))]
    late, early = curve("planner", (10, 0.5), (20, 0.9)), curve("planner", (10, 0.9))
    assert not cautions([*steady, *late], "planner", 0.8) and not cautions(steady, "planner", 0.8)
    (bound,) = cautions([*steady, *early], "planner", 0.8)
    assert bound == "at least, because it reaches it with the fewest steps tried, 10"
    shaky = [*floor, *curve("PPO", (100, 3.0), (200, 1.0)), *late]
    assert cautions(shaky, "planner", 0.8) == ["PPO ends at 1, far below its own best of 3"]


def test_numbers() -> None:
    assert [number(x) for x in (0, 0.0215, 38.49, 312.6, 1870.3, -0.5, 3.7e-7)] == [
        "0", "0.0215", "38.5", "313", "1,870", "-0.5", "0.0000004",
    ]  # fmt: skip
    assert interval(0.95125, 0.91875, 0.9725) == "0.951 [0.919, 0.973]"


def test_what_the_verbs_write_is_what_the_report_reads() -> None:
    folder = Path(__file__).parents[3] / "evaluation" / "results" / "cpu-2-cores"
    found = {read_one(path).kind for path in folder.glob("*.json")}
    assert set(COLUMNS) <= found


def test_the_committed_page_is_of_the_committed_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("speed", "quality", "consistency", "control", "efficiency"):
        monkeypatch.setattr(plots, name, lambda *_: None)  # their bytes vary with the fonts
    results = Path(__file__).parents[3] / "evaluation" / "results"
    for sheet in results.glob("*.png"):
        (tmp_path / sheet.name).touch()
    (tmp_path / "cpu-2-cores").symlink_to(results / "cpu-2-cores")
    fresh = report(tmp_path / "cpu-2-cores", tmp_path).read_text()
    assert fresh == (results / "REPORT.md").read_text(), "run make report"


def test_command_line(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write({"control": ALL["control"]})
    words = ["evaluation", "report", "--folder", str(folder), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    main()
    assert f"report: {tmp_path / 'out' / 'REPORT.md'}" in capsys.readouterr().out
