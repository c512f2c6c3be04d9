"""Progress in a log: a line every 30 s, none of what is quick; on a terminal a bar."""

from __future__ import annotations

import re

import pytest

from worldmodel.common import progress as module
from worldmodel.common.progress import progress, progress_bar


class Clock:
    """Time that passes only when a test lets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.strip()]


def test_a_line_every_30_s(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress(range(100), "wait", "turn"):
        clock.now += 1
    at = [re.search(r"(\d+)/100 \[", line) for line in lines(capsys)]
    assert [int(each[1]) for each in at if each] == [30, 60, 90, 100]  # and the last


def test_one_long_turn_shows_when_it_ends(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("fit", "step", 3, initial=1) as bar:
        for seconds in (1, 200):
            clock.now += seconds
            bar.update()
    ended, again = lines(capsys)  # when it ends, and once more to end the line
    assert ended == again and ended.startswith("fit: 100%") and "3/3" in ended


def test_what_is_quick_or_not_to_be_shown_leaves_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for show, seconds in ((True, 1), (False, 100)):
        for _ in progress_bar("wait", items=range(20), show=show):
            clock.now += seconds
    assert lines(capsys) == []


def test_a_terminal_shows_it_at_once(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "on_terminal", lambda: True)
    with progress_bar("wait", total=2) as bar:
        assert lines(capsys)[0].startswith("wait:   0%")
        clock.now += 1
        bar.update()
    assert "1/2" in lines(capsys)[-1]
