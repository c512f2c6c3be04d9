"""The README's snippets run as they stand, only with smaller numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
SNIPPETS = [
    (section.partition("\n")[0], code)
    for section in re.split(r"^## ", README, flags=re.M)
    for code in re.findall(r"```python\n(.*?)```", section, re.S)
]
SMALLER = {
    "steps=30_000": "steps=512",
    "steps=5_000": "steps=2",
    "episodes=100": "episodes=2",
    "episodes=200": "episodes=3",
    "2048": "32",
    "episodes=500": "episodes=40",
    '"Pendulum-v1", 70': '"Pendulum-v1", 2',
    "episodes=20": "episodes=2",
    '"learning_starts": 1000': '"learning_starts": 8',
    "learn(12_000)": "learn(64)",
    "steps=4_000": "steps=2",
    "steps=60_000": "steps=512",
    "episodes=50": "episodes=2",
    "episodes=8": "episodes=2",
    "plans=256": "plans=32",
    "learn(128)": "learn(1)",
    "n_steps=32": "n_steps=2",
    "batch_size=32": "batch_size=4",
}


def test_all_are_there() -> None:
    titles = ["Three verbs", *["Train an agent in imagination"] * 3,
              *["Plug in a custom environment"] * 2,
              *["Log videos to TensorBoard"] * 2]  # fmt: skip
    assert [title for title, _ in SNIPPETS] == titles
    for _, code in SNIPPETS:
        lines = [line for line in code.splitlines() if line and "import" not in line]
        assert len(lines) <= 10


@pytest.mark.parametrize(("title", "code"), SNIPPETS)
def test_snippet(title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, smaller in SMALLER.items():
        code = code.replace(number, smaller)
    exec(compile(code, f"README.md: {title}", "exec"), {})
