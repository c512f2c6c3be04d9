"""Parts of a measurement outlive it, until its result is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults
from worldmodel.common.files import locked

FACTS = {
    "benchmark": "sums", "commit": "abc", "versions": {"numpy": "2"}, "machine": {"cores": 2},
    "command": "python -m evaluation sums", "settings": {"seed": 0, "json": "a.json"},
}  # fmt: skip


LONG = "ü/" * 200 + "/.."


class Broken(Exception):
    """What ends a run before its time."""


def add(numbers: list[float]) -> float:
    if 13 in numbers:
        raise Broken
    return sum(numbers)


def interrupted(result: Path) -> Path:
    """A run that came to grief at its third part; the folder with the two before."""
    with pytest.raises(Broken), PartialResults.opened(result, FACTS, resume=False) as partial:
        partial.each(add, {"a": [1], LONG: [2, 3], "c": [13], "d": [4]}, "sums")
    return result.with_name(result.name + ".parts")


def test_parts_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    result = tmp_path / "sums.json"
    folder = interrupted(result)
    assert len(list(folder.glob("*.part.json"))) == 2
    made: list[list[float]] = []

    def added(numbers: list[float]) -> float:
        made.append(numbers)
        return sum(numbers)

    changed = {**FACTS, "settings": {"seed": 0, "json": "b.json", "resume": True, "workers": 2}}
    items = {"a": [1], LONG: [2, 3], "c": [6, 7], "d": [4]}
    with PartialResults.opened(result, changed, resume=True) as partial:
        assert partial.each(added, items, "sums") == [1, 5, 13, 4]
        assert partial.facts == FACTS  # those of the run that began
    assert made == [[6, 7], [4]] and not folder.exists()


def test_a_part_is_the_same_before_and_after(tmp_path: Path) -> None:
    value = {"returns": np.array([0.1, np.nan]), "steps": np.int64(3), "pair": (1, None)}
    (first,) = PartialResults().each(lambda item: item, {"x": value}, "any")
    with pytest.raises(Broken), PartialResults.opened(tmp_path / "r.json", FACTS, False) as partial:
        partial.each(lambda item: item, {"x": value}, "any")
        raise Broken
    with PartialResults.opened(tmp_path / "r.json", FACTS, True) as partial:
        (read,) = partial.each(add, {"x": [13.0]}, "any")
    assert repr(first) == repr(read) == "{'returns': [0.1, nan], 'steps': 3, 'pair': [1, None]}"
    with pytest.raises(TypeError, match="value: expected what JSON can hold, got set"):
        PartialResults().each(lambda item: item, {"x": {1}}, "any")


def test_nothing_is_lost_in_silence(tmp_path: Path) -> None:
    result = tmp_path / "sums.json"
    folder = interrupted(result)
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    refused: list[tuple[type[Exception], str, dict[str, Any], bool]] = [
        (FileExistsError, "json: .*parts holds 2 parts of a run .* --resume", FACTS, False),
        (ValueError, "begun with seed = 0, now it is 1", {**FACTS, "settings": {"seed": 1}}, True),
        (ValueError, "begun with commit = 'abc', now it is 'd'", {**FACTS, "commit": "d"}, True),
    ]
    for error, message, facts, resume in refused:
        with (
            pytest.raises(error, match=message),
            PartialResults.opened(result, facts, resume),
        ):
            pass
    with (
        locked(folder),
        pytest.raises(BlockingIOError, match="in use by another run"),
        PartialResults.opened(result, FACTS, True),
    ):
        pass
    assert {path: path.read_bytes() for path in folder.glob("*.json")} == before


def test_who_stops_it_is_told_how_to_go_on(tmp_path: Path) -> None:
    def stop(item: int) -> int:
        if item:
            raise KeyboardInterrupt
        return item

    with (
        pytest.raises(KeyboardInterrupt, match="stopped; 1 parts are done, --resume goes on"),
        PartialResults.opened(tmp_path / "sums.json", FACTS, resume=False) as partial,
    ):
        partial.each(stop, {"a": 0, "b": 1}, "sums")


def test_nothing_done_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(Broken),
        PartialResults.opened(tmp_path / "sums.json", FACTS, resume=False) as partial,
    ):
        partial.each(add, {"a": [13]}, "sums")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ['{"part": "a"}', '{"part": [], "value": 1}', '{"part": "b", "value": 1}', "[1]", '{"']
)
def test_what_is_no_part_is_named(tmp_path: Path, text: str) -> None:
    folder = interrupted(tmp_path / "sums.json")
    part = next(path for path in folder.glob("*.part.json") if '"part": "a"' in path.read_text())
    part.write_text(text)
    with (
        pytest.raises(ValueError, match=re.escape(part.name)),
        PartialResults.opened(tmp_path / "sums.json", FACTS, True),
    ):
        pass


class Sums(Measurement):
    """Of numbers, of which the unlucky one can be removed."""

    name = "sums"
    columns = ("sum",)
    unlucky = True

    def rows(self, partial_results: PartialResults) -> list[Row]:
        items = {"a": [1.0], "b": [13.0 if self.unlucky else 12.0]}
        return [{"sum": found} for found in partial_results.each(add, items, "sums")]


def test_a_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evaluation/__main__.py", "sums", "--resume"])
    result = tmp_path / "new" / "sums.json"
    with pytest.raises(Broken):
        list(Sums(json=result).run())
    monkeypatch.setattr(Sums, "unlucky", False)
    with pytest.raises(FileExistsError, match="holds 1 parts"):
        list(Sums(json=result).run())
    assert str(result) in list(Sums(json=result, resume=True).run())[-1]
    result_json = json.loads(result.read_text())
    assert result_json["rows"] == [{"sum": 1.0}, {"sum": 12.0}]
    assert (
        result_json["command"] == "python -m evaluation sums"
        and not result_json["settings"]["resume"]
    )
    assert [path.name for path in result.parent.iterdir()] == ["sums.json"]
    before = result.read_bytes()  # done is done, and nobody's result is lost to --resume
    assert list(Sums(json=result, resume=True).run()) == [f"result: {result} (done already)"]
    with pytest.raises(ValueError, match="with machine.torch_threads = 1, now it is 2"):
        list(Sums(json=result, resume=True, num_threads=2).run())
    assert result.read_bytes() == before
    assert list(Sums().run()) == ["sum\n---\n  1\n 12"]
    with pytest.raises(ValueError, match="resume: needs --json"):
        list(Sums(resume=True).run())


def test_a_run_may_be_resumed_with_other_parts_if_its_settings_only_select_them(
    tmp_path: Path,
) -> None:
    result, selecting = tmp_path / "r.json", frozenset({"envs"})
    facts = {**FACTS, "settings": {**FACTS["settings"], "envs": ["a"]}}
    more = {**FACTS, "settings": {**FACTS["settings"], "envs": ["a", "b"]}}
    with (
        pytest.raises(Broken),
        PartialResults.opened(result, facts, False, selecting) as partial,
    ):
        partial.each(str, {"a": 1}, "parts")
        raise Broken
    with (
        pytest.raises(ValueError, match="was begun with"),
        PartialResults.opened(result, more, True),
    ):
        pass
    made: list[int] = []
    with PartialResults.opened(result, more, True, selecting) as partial:
        partial.each(made.append, {"a": 1, "b": 2}, "parts")
        assert made == [2] and partial.facts["settings"]["envs"] == ["a", "b"]
