"""Every number of the README and of docs/results.md is in a JSON, with the command that made it.

The claims are in ``readme_models.py`` and ``readme_agents.py``; a number that none of them covers
fails, and so does one that is not what the JSON says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.report.load_results import read_one
from evaluation.runner.manifest import find
from tests.examples import readme_agents, readme_models  # noqa: F401 (fills BLOCKS)
from tests.examples.readme_claims import (
    BLOCKS,
    CONFIDENCE,
    DEFINED,
    FOLDER,
    ROOT,
    Block,
    Claims,
    Data,
    Prose,
    Table,
    frames_per_second,
    made_by,
    scale_of_returns,
)  # fmt: skip

README = (ROOT / "README.md").read_text()
DETAILS = (ROOT / "docs" / "results.md").read_text()
NUMBER = r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)"
HIDDEN = r"`[^`]*`|\]\([^)]*\)"  # code and the addresses of links


def section(title: str, readme: str = README) -> str:
    return re.split(rf"^## {title}\n", readme, flags=re.M)[1].split("\n## ")[0]


def blocks(text: str) -> dict[str, str]:
    """A section's paragraphs under the bold title that is above them; "" before the first."""
    found = {"": ""}
    title = ""
    for paragraph in re.split(r"\n\n+", text):
        if bold := re.match(r"\*\*(.+?)\*\*", paragraph, re.S):
            title = " ".join(bold[1].split())
            assert title not in found, f"two blocks begin with {title!r}"
            found[title] = ""
        found[title] += paragraph + "\n\n"
    return found


def measured() -> dict[str, str]:
    """The blocks of both texts."""
    details = blocks(DETAILS)
    details.pop("")
    return {**blocks(section("Numbers")), **details}


def split(text: str) -> tuple[str, list[list[str]]]:
    """Prose in one line, and the cells of the table's lines (the head first)."""
    lines = text.splitlines()
    prose = " ".join(" ".join(line for line in lines if not line.startswith("|")).split())
    rows = [line for line in lines if line.startswith("|") and not re.match(r"[|\-: ]+$", line)]
    return prose, [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def masked(text: str) -> str:
    """Of the same length, with what does not count blanked out."""
    return re.sub(HIDDEN, lambda found: " " * len(found[0]), text)


def numbers(text: str) -> list[str]:
    return re.findall(NUMBER, masked(text))


def says(printed: str, value: float) -> bool:
    """Whether the value, rounded to the digits that are printed, is what is printed."""
    plain = printed.replace(",", "")
    digits = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5 * 10**-digits + 1e-9 * abs(value)


def check_prose(claim: Prose, prose: str) -> tuple[int, int]:
    """Hold a claim against the text; where it stands there."""
    assert not numbers(claim.text), f"a number without a source: {claim.text!r}"
    pattern = rf"({NUMBER})".join(re.escape(piece) for piece in claim.text.split("{}"))
    found = list(re.finditer(pattern, prose))
    assert len(found) == 1, f"expected once in the README, found {len(found)} times: {claim.text!r}"
    said = found[0].groups()
    assert len(said) == len(claim.values), f"{claim.text!r}: {len(claim.values)} values"
    for printed, value in zip(said, claim.values, strict=True):
        assert says(printed, value), f"{found[0][0]!r} says {printed}, the JSON {value}"
    return found[0].span()


def check_row(said: list[str], values: list[float], where: str) -> None:
    assert len(said) == len(values), f"{where}: README {said}, JSON {values}"
    for printed, value in zip(said, values, strict=True):
        assert says(printed, value), f"{where}: the README says {printed}, the JSON {value}"


def check_table(claim: Table, rows: list[list[str]]) -> None:
    check_row([n for cell in rows[0] for n in numbers(cell)], claim.head, "head")
    assert [row[0] for row in rows[1:]] == [label for label, _ in claim.rows]
    for (label, values), row in zip(claim.rows, rows[1:], strict=True):
        check_row([n for cell in row[1:] for n in numbers(cell)], values, label)


def uncovered(prose: str, spans: list[tuple[int, int]]) -> list[str]:
    """Numbers that no claim is about, each with what stands around it."""
    return [
        prose[max(0, found.start() - 40) : found.end() + 20]
        for found in re.finditer(NUMBER, masked(prose))
        if not any(begin <= found.start() and found.end() <= end for begin, end in spans)
    ]


def defined(prose: str) -> list[tuple[int, int]]:
    """Where the prose says what is so by definition."""
    return [
        (begin, begin + len(snippet)) for snippet in DEFINED if (begin := prose.find(snippet)) >= 0
    ]


def check(block: Block, text: str, folder: Path = FOLDER) -> None:
    prose, rows = split(text)
    for source in block.sources:
        assert made_by(source) in prose, f"expected `{made_by(source)}` in the README"
    spans = []
    tables = 0
    for claim in block.claims(block.read(folder)):
        if isinstance(claim, Prose):
            spans.append(check_prose(claim, prose))
        else:
            check_table(claim, rows)
            tables += 1
    assert tables == bool(rows), "a table without a source"
    assert not (left := uncovered(prose, spans)), f"numbers without a source: {left}"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.title)
def test_numbers(block: Block) -> None:
    check(block, measured()[block.title])


def test_every_block_is_claimed() -> None:
    found = measured()
    found.pop("")
    for text in (section("Numbers"), DETAILS):
        opening = " ".join(blocks(text)[""].split())
        claim = check_prose(Prose("intervals are {}%", CONFIDENCE), opening)
        assert not uncovered(opening, [claim])
    assert sorted(found) == sorted(block.title for block in BLOCKS)


def test_environments() -> None:
    prose, rows = split(section("Environments"))
    speeds = frames_per_second(read_one(FOLDER / "envs.json"))
    returns = read_one(FOLDER / "returns.json")
    held = {"narratives/TravelingSalesman-v0": 5}  # the table says so
    left = {row["env"] for row in returns.rows}
    for label, _, reward, *said in rows[1:]:
        env = label.strip("`").partition("`")[0]
        if env in left:
            ends = scale_of_returns(returns, env, held.get(env, 1))
            said_ends = numbers(reward.rpartition(";")[2].replace("*", ""))
            check_row(said_ends, ends[: len(said_ends)], env)
            left.remove(env)
        check_row([n for cell in said for n in numbers(cell)], speeds.pop(env), env)
    assert not speeds and not left
    assert find("envs").command in prose and find("returns").command in prose
    spans = defined(prose)
    unheld, _ = scale_of_returns(returns, "narratives/TravelingSalesman-v0", 1)
    spans.append(check_prose(Prose("random play gets {}.", unheld), prose))
    spans.append(check_prose(Prose("{} test scenes)", returns.rows[0]["n"]), prose))
    assert not uncovered(prose, spans)


@pytest.mark.parametrize(("paragraph", "zone", "claims", "sources"), [
    ("Two minutes on one CPU thread", "Train an agent in imagination", readme_agents.scale,
     ["returns", "control"]),
])  # fmt: skip
def test_returns_outside_of_the_numbers(
    paragraph: str, zone: str, claims: Callable[[Data], Claims], sources: list[str]
) -> None:
    text = next(p for p in section(zone).split("\n\n") if p.startswith(paragraph))
    prose = " ".join(text.split())
    data = {name: read_one(FOLDER / f"{name}.json") for name in sources}
    spans = [check_prose(claim, prose) for claim in claims(data) if isinstance(claim, Prose)]
    assert not uncovered(prose, spans)


# --- the checks themselves ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "value", "right"),
    [
        ("0.021", 0.02145, True), ("0.021", 0.0216, False), ("1,870", 1870.3, True),
        ("-0.25", -0.2494, True), ("38", 38.6, False), ("10.8", 10.75, True),
    ],
)  # fmt: skip
def test_rounding(printed: str, value: float, right: bool) -> None:
    assert says(printed, value) == right


def test_a_changed_number_fails() -> None:
    """Each number of the section in turn: one digit more or less, and its block says so."""
    silent = []
    for block in BLOCKS:
        text = measured()[block.title]
        for found in re.finditer(NUMBER, masked(text)):
            last = found.end() - 1
            changed = text[:last] + str((int(text[last]) + 1) % 10) + text[last + 1 :]
            try:
                check(block, changed)
            except (AssertionError, ValueError):
                continue
            silent.append(text[max(0, found.start() - 30) : found.end() + 10])
    assert not silent


def test_a_changed_result_fails(tmp_path: Path) -> None:
    text = (FOLDER / "consistency.json").read_text()
    assert text.count("0.9725") == 2
    (tmp_path / "consistency.json").write_text(text.replace("0.9725", "0.9740"))
    (block,) = (b for b in BLOCKS if b.sources == ("consistency",))
    with pytest.raises(AssertionError, match="says 97.3, the JSON 97.3999"):
        check(block, measured()[block.title], tmp_path)
