"""The page: answers first, then each picture and table with the command that made it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics import reaction_consistency as reaction
from evaluation.report import answers, plots, real_steps
from evaluation.report.load_results import Result, Row, of, read
from evaluation.report.names import interval_of, label, number
from evaluation.runner.manifest import RESULTS, find
from worldmodel.common.files import atomic

Results = Mapping[str, Result]
KNOWN = {result.name for result in RESULTS}
SHEETS = {  # pictures that other commands write next to the page, and what they show
    "model-comparison.png": "Two futures by each model of nature's Traveling Salesman, after the "
    "same short training: frame 6 of the context (yellow border), and 11, 16 and 21, imagined.",
    "dice.png": "Views of the side of the dice that no context view shows, in sampled scenes.",
    "envs.png": "All environments under random play.",
}


def report(folder: Path, out: Path) -> Path:
    """Write ``out``/REPORT.md and ``out``/report/*.png about the JSON of ``folder``.

    The same JSON makes the same bytes.

    Returns:
        the page's path.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is no result; the message names it.
    """
    results = read(folder)
    page = _Page(results, folder, out)
    sections = (
        _answers, _speed, _quality, _fidelity, _consistency, _outcomes, _control, _efficiency,
        _sample_efficiency, _sheets, _others,
    )  # fmt: skip
    for section in sections:
        section(page)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "REPORT.md"
    with atomic(path) as partial:
        partial.write_text("\n\n".join(page.parts) + "\n")
    return path


class _Page:
    """The parts of the page so far, and its folders."""

    def __init__(self, results: Results, folder: Path, out: Path) -> None:
        self.results, self.out = results, out
        self.folder = Path(os.path.relpath(folder, out)).as_posix()
        self.parts: list[str] = ["# Report"]

    def add(self, *parts: str) -> None:
        self.parts.extend(parts)

    def picture(self, name: str, alt: str, plot: Callable[[Path, Any], None], data: Any) -> None:
        """Plot the data into ``report/name`` and add it."""
        plot(self.out / "report" / name, data)
        self.add(f"![{alt}](report/{name})")

    def made_by(self, *results: Result) -> None:
        """A line for each file: command, commit, machine, versions."""
        self.add("\n".join(f"- {self.provenance(result)}" for result in results))

    def provenance(self, result: Result) -> str:
        machine, versions = result.envelope["machine"], result.envelope["versions"]
        known = result.name in KNOWN
        command = find(result.name).command if known else result.envelope["command"]
        accelerator = machine.get("accelerator") or "no GPU"
        facts = (
            f"commit {result.envelope['commit']}",
            f"{machine.get('processor')}, {machine.get('cores')} cores, {accelerator}, "
            f"{machine.get('torch_threads')} thread(s), Python {machine.get('python')}",
            ", ".join(f"{name} {version}" for name, version in versions.items()),
        )
        file = f"{result.name}.json"
        return f"[{file}]({self.folder}/{file}): `{command}`; <sub>{'; '.join(facts)}</sub>"

    def missing(self, *expected: str) -> None:
        """The commands that make the missing ones of these results."""
        for name in expected:
            if name not in self.results:
                made = find(name)
                time = f"{made.minutes} minute{'s' if made.minutes != 1 else ''}"
                self.add(f"Not measured: `{made.command}` makes {name}.json ({time}).")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers, on the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _answers(page: _Page) -> None:
    results = page.results
    page.add(
        f"Made by `make report` from the JSON in [`{page.folder}/`]({page.folder}/), every number "
        "of it. Intervals are 95%; what has no JSON is called not measured.",
        "## Answers",
    )
    for question, parts in (
        ("How much faster is a jump?", answers.faster(results)),
        ("Is anything lost in fidelity?", answers.fidelity(results)),
        ("Are JUMP's samples consistent, and those of BADJ and GQN not?",
         answers.consistent(results)),
        ("How many real steps does imagination save?", answers.saved(results)),
    ):  # fmt: skip
        page.add(f"**{question}**", "\n".join(f"- {part}" for part in parts))


def _speed(page: _Page) -> None:
    page.add("## Time to a far frame")
    if "speed-all" in page.results:
        result = page.results["speed-all"]
        rows = [row for row in result.rows if row["batch"] == 1]
        taken = [row for row in rows if row["kind"] == "seconds"]
        page.picture("speed.png", "Seconds against distance", plots.speed, taken)
        page.add("How many times as long as JUMP others take to the frame at distance T:")
        page.add(_ratios([row for row in rows if row["kind"] == "ratio"]))
        page.made_by(result)
    page.missing("speed-all")


def _ratios(rows: Sequence[Row]) -> str:
    distances = sorted({row["distance"] for row in rows} | set(answers.HORIZONS))
    by_model: dict[str, dict[int, str]] = {}
    for row in rows:
        times = by_model.setdefault(label(row["model"], row["preset"]), {})
        times[row["distance"]] = interval_of(row, "ratio")
    lines = [
        [name, *(times.get(t, answers.NOT_MEASURED) for t in distances)]
        for name, times in by_model.items()
    ]
    return table(["", *(f"T = {t}" for t in distances)], lines)


def _quality(page: _Page) -> None:
    page.add("## Quality against time")
    if "model-comparison" in page.results:
        result = page.results["model-comparison"]
        alt = "Error of the closest of 30 futures against time"
        page.picture("quality.png", alt, plots.quality, result.rows)
        page.add(
            "Every model learned from the same scenes for about the same time: lower left is best."
        )
        page.made_by(result)
    page.missing("model-comparison")


def _fidelity(page: _Page) -> None:
    page.add("## Fidelity of released models")
    _metrics(page, of(page.results, "fidelity"))
    page.missing("fidelity")


def _metrics(page: _Page, results: Iterable[Result]) -> None:
    """A table of each result, whose rows have a metric, a value and its interval."""
    for result in results:
        lines = [
            [name, str(row["metric"]), interval_of(row), _count(row)]
            for name, row in answers.named(result.rows)
        ]
        page.add(table(["model", "metric", "value, 95% interval", "n"], lines))
        page.made_by(result)


def _count(row: Row) -> str:
    return str(row.get("n", ""))


def _consistency(page: _Page) -> None:
    page.add("## Consistency")
    files = of(page.results, "consistency")
    kinds: dict[str, list[tuple[str, Row]]] = {}
    for name, row in answers.named([row for result in files for row in result.rows]):
        env = str(row["env"])
        kind = "reactions" if env in (reaction.AGENT, reaction.NATURE) else env.partition("/")[0]
        kinds.setdefault(kind, []).append((name, row))
    for kind, rows in sorted(kinds.items()):
        alt = f"Consistency of samples: {kind}"
        page.picture(f"consistency-{kind}.png", alt, plots.consistency, rows)
    _metrics(page, files)
    page.missing("consistency", "consistency-nature")


def _control(page: _Page) -> None:
    page.add("## Returns in the real environment")
    for result in of(page.results, "control"):
        alt = "Normalised returns of agents"
        page.picture(f"{result.name}.png", alt, plots.control, result.rows)
        lines = [
            [r["agent"], f"{r['real_steps']:,}", _return(r), str(r["episodes"])]
            for r in result.rows
        ]
        page.add(table(["agent", "real steps", "normalised return", "episodes"], lines))
        page.made_by(result)
    page.missing("control")


def _return(row: Row) -> str:
    return f"{row['normalised_return']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _efficiency(page: _Page) -> None:
    page.add("## Returns against real steps")
    files = of(page.results, "efficiency")
    ratios = [
        [_env(result), str(row["of"]), interval_of(row), _count(row)]
        for result in files
        for row in result.rows
        if row["agent"] == "ratio"
    ]
    if files:
        tables = []
        for result in files:  # the title: the environment, and below it the ratios
            env = _env(result)
            lines = [f"{agent}: {ratio}" for of, agent, ratio, _ in ratios if of == env]
            title = "\n".join([f"{env}: times fewer real steps", *lines])
            tables.append((title, result.rows))
        alt = "Returns against real steps"
        page.picture("efficiency.png", alt, plots.efficiency, tables)
        page.add(
            "Thin lines are single seeds, thick ones their means. World models learned from random "
            "real steps alone; how many times fewer it takes to come 80% of the way from random "
            "play to where PPO ends (0: never):"
        )
        page.add(table(["environment", "agent", "times fewer", "seeds"], ratios))
        page.made_by(*files)
    page.missing("efficiency-tsp")


def _sample_efficiency(page: _Page) -> None:
    """Nothing until it is measured."""
    for index, result in enumerate(of(page.results, "sample-efficiency")):
        if index == 0:
            episodes = result.envelope["settings"].get("episodes")
            page.add(
                "## Real steps to a level of return",
                "Every method learns online, from nothing, with its settings of `agents.recipes`. "
                f"What counts is the first evaluation ({episodes} episodes, deterministic, of all "
                "methods after the same numbers of real steps) at or above the level. Medians over "
                "runs, and their ratios; a run that never gets there counts with its budget. The "
                "mean return is over the real steps that methods with a world model have; minutes "
                "are those of learning.",
            )
        name = f"{result.name}.png"
        page.picture(name, "Returns against real steps", real_steps.picture_of, result.rows)
        for env in real_steps.environments(result.rows):
            page.add(f"**{real_steps.title(result.rows, env)}**")
            page.add(table(real_steps.HEAD, real_steps.lines(result.rows, env)))
        page.made_by(result)


def _env(result: Result) -> str:
    env = str(result.envelope["settings"].get("env", result.name))
    return env.rpartition("/")[2].rpartition(":")[2]


def _sheets(page: _Page) -> None:
    sheets = {name: caption for name, caption in SHEETS.items() if (page.out / name).exists()}
    if sheets:
        page.add("## Samples")
    for name, caption in sheets.items():
        page.add(f"![{caption}]({name})", f"*{caption}*")


def _outcomes(page: _Page) -> None:
    if "outcomes" not in page.results:
        return
    page.add("## Are imagined rewards and ends right on the average?")
    result = page.results["outcomes"]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in result.rows:
        groups.setdefault((row["case"], row["quantity"]), []).append(row)
    page.add(table(["case", "quantity", "real", "imagined, a run each"], [
        [case, quantity,
         *(", ".join(dict.fromkeys(number(row[part]) for row in rows if part in row))
           for part in ("real", "imagined"))]
        for (case, quantity), rows in groups.items()
    ]))  # fmt: skip
    page.made_by(result)


def _others(page: _Page) -> None:
    """Results that no section above is about, and those that are missing."""
    above = (
        "fidelity", "consistency", "outcomes", "control", "efficiency", "sample-efficiency",
    )  # fmt: skip
    rest = [
        result for name, result in page.results.items()
        if result.kind not in above and name not in ("model-comparison", "speed-all")
    ]  # fmt: skip
    if rest:
        page.add(
            "## Other results", "docs/results.md describes most of them; these commands make them."
        )
        page.made_by(*rest)
    for result in RESULTS:
        noted = any(f"makes {result.name}.json" in part for part in page.parts)
        if result.name not in page.results and not noted:
            page.missing(result.name)
