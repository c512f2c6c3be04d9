"""The table of real steps: bounds are said to be bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.report import real_steps

Row = dict[str, Any]


def steps(method: str, value: float, reached: int = 3, **more: Any) -> Row:
    row = {"kind": "steps", "env": "Toy-v0", "method": method, "level": 475, "value": value}
    row |= {"low": value / 2, "high": 2 * value, "n": 3, "reached": reached, "area": 90.0}
    return {**row, "censored": reached < 2, "seconds": 120.0, **more}


def ratio(method: str, of: str, value: float, bound: str = "") -> Row:
    row = {"kind": "ratio", "env": "Toy-v0", "method": method, "of": of, "value": value, "n": 3}
    return {**row, "low": 0.8 * value, "high": 1.25 * value, "bound": bound}


ROWS = [
    {"kind": "random", "env": "Toy-v0", "method": "random play", "return": 20.0},
    *(
        {"kind": "return", "env": "Toy-v0", "method": method, "seed": seed, "real_steps": at,
         "return": 0.1 * at, "episodes": 20}
        for method in ("ppo", "dyna-ppo") for seed in (0, 1) for at in (250, 500 + 250 * seed)
    ),
    *(
        {"kind": "run", "env": "Toy-v0", "method": method, "seed": 0}
        for method in ("ppo", "dyna-ppo")
    ),
    steps("ppo", 12_000), steps("dqn", 50_000, 1),
    steps("dyna-ppo", 1000), steps("planner", 4000, 0),
    ratio("dyna-ppo", "ppo", 12.0), ratio("dyna-ppo", "dqn", 50.0, "at least"),
    ratio("planner", "ppo", 3.0, "at most"), ratio("planner", "dqn", 12.0, "undecided"),
]  # fmt: skip


def test_lines() -> None:
    cells = {line[0]: line for line in real_steps.lines(ROWS, "Toy-v0")}
    assert cells["PPO"][1:] == ["12,000 [6,000, 24,000]", "3 of 3", "90", "2", ""]
    assert cells["DQN"][1].startswith("more than 50,000")
    assert cells["PPO, imagined"][-1] == ("12 [9.6, 15] (PPO); at least 50 [40, 62.5] (DQN)")
    planned = cells["CEM, planned online"]
    assert planned[2] == "0 of 3" and planned[-1].endswith("neither reaches it (DQN)")
    assert all(len(line) == len(real_steps.HEAD) for line in cells.values())


def test_answers() -> None:
    assert real_steps.answers(ROWS) == [
        "Toy-v0: 475, PPO, imagined against PPO: 12 [9.6, 15] times fewer real steps (n = 3 seeds)."
    ]
    unsure = [row for row in ROWS if row["kind"] != "ratio"] + [ratio("dyna-ppo", "ppo", 1.1)]
    (text,) = real_steps.answers(unsure)
    assert "includes 1" in text
    assert real_steps.answers([row for row in ROWS if row["kind"] != "ratio"]) == []


def test_picture(tmp_path: Path) -> None:
    real_steps.picture_of(tmp_path / "a.png", ROWS)
    assert Image.open(tmp_path / "a.png").width == 946
