"""The numbers of docs/results.md and docs/environments.md are in the JSON that they cite.

A block is a bold title or a heading with all that follows; its sources are the files that its
commands write (``--json NAME.json``). Every number must be one that a source holds, rounded to the
digits that are printed, also as percent or thousands; an interval must be in one row of a source,
and a line of a table in rows that have a name in common (a model, an agent, an environment).
Numbers in code, links and pictures do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.report.load_results import Result, read_one
from evaluation.runner.manifest import find

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "evaluation" / "results" / "cpu-2-cores"
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("results", "environments")}
NUMBER = r"(?<![\w.,])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)"
INTERVAL = rf"({NUMBER})%? \[({NUMBER}), ({NUMBER})\]"
PERCENT = rf"%|(?: to {NUMBER})%"
HIDDEN = r"`[^`]*`|!?\[[^]]*\]\([^)]*\)|T = \d+"
UNITS = (1, 100, 1e-3)
"""A share may be printed as percent, a count in thousands."""
OTHERWISE = (
    # what a paper, a task or a setting of the code says, and what follows from the sources
    "95% interval", "intervals are 95%", "(section 4.2)", "frames 11, 16 and 21", "frames 7 to 21",
    "frame 6, shown, and 11, 16 and 21, imagined", "at most 1.79 nats", "worth 4.6 nats",
    "at 32 px", "plans of 40 steps in 2 worlds", "Its 256 channels", "of 39 worlds",
    "400 branches", "1.7 GB", "closest of 10", "256,000 generated scenes", "4,000 decisions",
    "36 of 100 rooms", "64 px (balls 32) or any multiple of 8", "at 64 px,", "vector of 256",
    # what trainings said whose folders are not in the repository
    "trained for 50 minutes", "after 5,000 steps of", "after 7,963 steps", "after 771 steps",
    "(12 minutes)", "after 8,700 steps of 16,000", "25 minutes of one core each",
)  # fmt: skip
"""Pieces of text whose numbers are in no result."""


@dataclass(frozen=True)
class Numbers:
    """What a block may say.

    Attributes:
        rows: of each row of its sources, the numbers.
        groups: numbers of rows that share a name.
        single: all of these, with settings and minutes.
    """

    rows: list[NDArray[np.float64]]
    groups: list[NDArray[np.float64]]
    single: NDArray[np.float64]


def flat(value: Any) -> Iterator[float]:
    """The numbers in nested lists and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from flat(entry)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def made_by(source: str) -> str:
    return "make stress" if source == "stress" else find(source).command


@cache
def numbers_of(sources: tuple[str, ...]) -> Numbers:
    results: list[Result] = [read_one(FOLDER / f"{name}.json") for name in sources]
    rows = [row for result in results for row in result.rows]
    names: dict[tuple[str, str], list[float]] = {}
    totals: dict[str, float] = {}  # of what was counted in several places
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str):
                names.setdefault((key, value), []).extend(flat(row))
        if row.keys() >= {"area", "name", "value"}:
            of = f"{row['area'].partition(' ')[0]} {row['name']}"
            totals[of] = totals.get(of, 0) + row["value"]
    minutes = [find(name).minutes for name in sources if name != "stress"]
    settings = [number for result in results for number in flat(result.envelope["settings"])]
    single = [*settings, *minutes, *totals.values()]
    single += [number for row in rows for number in flat(row)]
    return Numbers(
        [np.array([*flat(row)]) for row in rows], [np.array(group) for group in names.values()],
        np.array(single),
    )  # fmt: skip


def says(printed: str, values: NDArray[np.float64]) -> bool:
    """Whether one of the values, rounded to the digits that are printed, is what is printed."""
    plain = printed.replace(",", "")
    digits = len(plain.partition(".")[2])
    return bool((abs(float(plain) - values) <= 0.5 * 10**-digits + 1e-9 * abs(values)).any())


def together(numbers: Sequence[str], some: Iterable[NDArray[np.float64]]) -> bool:
    """Whether one of the arrays holds all the numbers, in one unit."""
    return any(all(says(n, unit * each) for n in numbers) for each in some for unit in UNITS)


def blocks(text: str) -> dict[str, str]:
    """Each bold title or heading with the paragraphs below it."""
    found: dict[str, str] = {}
    title = ""
    for paragraph in re.split(r"\n\n+", text):
        if head := re.match(r"\*\*(.+?)\*\*|#+ (.+)", paragraph, re.S):
            title = " ".join((head[1] or head[2]).split())
            assert title not in found, f"two blocks begin with {title!r}"
        found[title] = found.get(title, "") + paragraph + "\n\n"
    return found


def split(text: str) -> tuple[str, list[str]]:
    """Prose in one line, and the lines of tables."""
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("|") and not re.match(r"[|\-: ]+$", line)]
    return " ".join(" ".join(line for line in lines if line[:1] != "|").split()), table


def wrong(text: str) -> list[str]:
    """What a block says that its sources do not."""
    prose, table = split(text)
    named = re.findall(r"--json ([\w-]+)\.json`", prose)
    sources = (*named, *(["stress"] if "`make stress`" in prose else []))
    left = [f"expected `{made_by(s)}`" for s in sources if f"`{made_by(s)}`" not in prose]
    known = numbers_of(sources)
    hidden = "|".join([HIDDEN, *map(re.escape, OTHERWISE)])
    prose, *table = (re.sub(hidden, "", line) for line in (prose, *table))
    for interval in re.finditer(INTERVAL, prose):
        if not together(interval.groups(), known.rows):
            left.append(f"no row has {interval[0]}")
    for text in (re.sub(INTERVAL, "", prose), *table[:1]):
        for number in re.finditer(NUMBER, text):
            unit = 100 if re.match(PERCENT, text[number.end() :]) else 1
            if not says(number[0], unit * known.single):
                left.append(text[max(0, number.start() - 40) : number.end() + 20])
    for line in table[1:]:
        cells = line.strip("|").partition("|")[2]
        intervals = [interval.groups() for interval in re.finditer(INTERVAL, cells)]
        if not all(together(interval, known.rows) for interval in intervals) or not together(
            re.findall(NUMBER, cells), known.groups
        ):
            left.append(f"not in rows with a common name: {line}")
    return left


BLOCKS = {
    f"{page}: {title}": text
    for page, whole in PAGES.items()
    for title, text in blocks(whole).items()
}


@pytest.mark.parametrize("title", BLOCKS)
def test_numbers(title: str) -> None:
    assert not wrong(BLOCKS[title])


def test_the_readme_repeats_them() -> None:
    """Numbers of its table of results stand in docs/results.md, and link there."""
    readme = (ROOT / "README.md").read_text().partition("## Results")[2].partition("\n## ")[0]
    said = set(re.findall(NUMBER, PAGES["results"]))
    _, (_, *lines) = split(readme)
    for line in lines:
        assert "(docs/results.md#" in line
        numbers = re.findall(NUMBER, line.partition("|")[2])
        assert numbers and not {*numbers} - said - {"0", "1"}, line


# --- the check itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "value", "right"),
    [
        ("0.021", 0.02145, True), ("0.021", 0.0216, False), ("1,870", 1870.3, True),
        ("-0.25", -0.2494, True), ("38", 38.6, False), ("10.8", 10.75, True),
    ],
)  # fmt: skip
def test_rounding(printed: str, value: float, right: bool) -> None:
    assert says(printed, np.array([value])) == right


def test_a_changed_number_fails() -> None:
    """Every fifth number with another last digit: few are by chance another number of a source."""
    count = silent = 0
    for text in BLOCKS.values():
        masked = re.sub(HIDDEN, lambda hidden: " " * len(hidden[0]), text)
        for number in list(re.finditer(NUMBER, masked))[::5]:
            last = number.end() - 1
            changed = text[:last] + str((int(text[last]) + 1) % 10) + text[last + 1 :]
            count += 1
            silent += not wrong(changed)
    assert silent <= 0.2 * count


def test_sources_are_named() -> None:
    (first, *_) = wrong("None. (`python -m evaluation returns --json speed.json`)")
    assert first.startswith("expected `python -m evaluation speed --models")
    assert wrong("It takes 3 s, as it seems.") == ["It takes 3 s, as it seems."]
