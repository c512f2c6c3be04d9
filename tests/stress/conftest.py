"""Tests that come in two sizes: short in the ordinary run, long with ``--stress``; and the tally.

A test counts what it tried with ``tally``; at the end the counts are printed and, with
``--stress-json``, written like every other result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from worldmodel.common import results

COMMAND = "make stress"


class Tally:
    """Numbers by area and name, such as 12 for ("survival", "kills")."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[str, float]] = defaultdict(dict)

    def add(self, area: str, name: str, count: float = 1) -> None:
        """Count on."""
        self.numbers[area][name] = self.numbers[area].get(name, 0) + count

    def put(self, area: str, name: str, value: float) -> None:
        """Note what was measured; the last one counts."""
        self.numbers[area][name] = value

    def rows(self) -> list[dict[str, object]]:
        """Rows ``area, name, value``."""
        return [
            {"area": area, "name": name, "value": value}
            for area, numbers in sorted(self.numbers.items())
            for name, value in numbers.items()
        ]


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    """Where a test counts what it tried."""
    return request.config.stash[TALLY]


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """``size(short, long)``: the second with ``--stress``, else the first."""
    long = bool(request.config.getoption("--stress"))
    return lambda short, full: full if long else short


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts, and write them if asked."""
    config = terminalreporter.config
    rows = config.stash[TALLY].rows()
    if not config.getoption("--stress") or not rows:
        return
    terminalreporter.section("stress")
    terminalreporter.write_line(results.table(rows, ["area", "name", "value"]))
    path: Path | None = config.getoption("--stress-json")
    if path is not None:
        told = {
            "command": COMMAND,
            "failed": len(terminalreporter.stats.get("failed", [])),
            "passed": len(terminalreporter.stats.get("passed", [])),
        }
        results.write(path, results.envelope("stress", told, rows))
        terminalreporter.write_line(f"result: {path}")
