"""The table of ``sample-efficiency``: what each method needs, and a picture of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.report import names
from evaluation.report.load_results import Row
from evaluation.report.names import interval_of, number
from evaluation.report.plots import picture, plain

HEAD = ("method", "real steps to it", "runs that reach it", "mean return", "minutes", "times fewer")
COLOURS = {
    "ppo": names.BLUE, "dqn": names.SKY, "sac": names.BLACK, "dyna-ppo": names.JUMP,
    "dyna-sac": names.PURPLE, "dyna-dqn": names.GREEN, "planner": names.GREY,
}  # fmt: skip


def environments(rows: Sequence[Row]) -> list[str]:
    """Their ids, in the order of the rows."""
    return list(dict.fromkeys(str(row["env"]) for row in rows))


def title(rows: Sequence[Row], env: str) -> str:
    """``CartPole-v1: 475``: the environment and the level."""
    level = next(row["level"] for row in rows if row["kind"] == "steps" and row["env"] == env)
    return f"{env}: {number(level)}"


def lines(rows: Sequence[Row], env: str) -> list[list[str]]:
    """The cells of one environment's table, a method each, below ``HEAD``."""
    here = [row for row in rows if row["env"] == env]
    cells = []
    for row in (row for row in here if row["kind"] == "steps"):
        more = "more than " if row["censored"] else ""
        ratios = [
            f"{fewer(ratio)} ({names_of(ratio['of'])})"
            for ratio in here
            if ratio["kind"] == "ratio" and ratio["method"] == row["method"]
        ]
        cells.append([
            names_of(row["method"]), more + interval_of(row), f"{row['reached']} of {row['n']}",
            number(row["area"]), number(row["seconds"] / 60), "; ".join(ratios),
        ])  # fmt: skip
    return cells


def fewer(row: Row) -> str:
    """The ratio in words, as a bound where it is one."""
    if row["bound"] == "undecided":
        return "neither reaches it"
    return f"{row['bound']} {interval_of(row)}".strip()


def names_of(method: str) -> str:
    """``dyna-ppo`` is "PPO, imagined"."""
    if method == "planner":
        return "CEM, planned online"
    kind, _, algorithm = method.rpartition("-")
    return f"{algorithm.upper()}, imagined" if kind else algorithm.upper()


def answers(rows: Sequence[Row]) -> list[str]:
    """For each environment the method with a world model that needs the fewest real steps, and
    against which one without it is compared: its best.
    """
    parts = []
    for env in environments(rows):
        here = [row for row in rows if row["env"] == env]
        needed = {row["method"]: row for row in here if row["kind"] == "steps"}
        ratios = [row for row in here if row["kind"] == "ratio"]
        if not ratios:
            continue
        best = min({row["method"] for row in ratios}, key=lambda name: _order(needed[name]))
        other = min({row["of"] for row in ratios}, key=lambda name: _order(needed[name]))
        ratio = next(row for row in ratios if (row["method"], row["of"]) == (best, other))
        text = f"{title(rows, env)}, {names_of(best)} against {names_of(other)}: {fewer(ratio)}"
        if ratio["bound"] != "undecided":
            text += " times fewer real steps"
            if ratio["low"] <= 1 <= ratio["high"]:
                text += "; the interval includes 1, so this may be no saving at all"
        parts.append(f"{text} (n = {ratio['n']} seeds).")
    return parts


def _order(row: Row) -> tuple[bool, float, float]:
    return bool(row["censored"]), float(row["value"]), -float(row["area"])


def picture_of(path: Path, rows: Sequence[Row]) -> None:
    """Returns against real steps, a panel for each environment; thin lines are single runs, thick
    ones their medians, each run going on at its last return.
    """
    envs = environments(rows)
    with picture(path, 3.6, len(envs)) as axes:
        for ax, env in zip(axes.flat, envs, strict=False):
            here = [row for row in rows if row["env"] == env]
            for row in here:
                if row["kind"] == "random":
                    ax.axhline(row["return"], color=names.GREY, linestyle=":")
            for method in dict.fromkeys(row["method"] for row in here if row["kind"] == "run"):
                colour = COLOURS.get(method, names.GREY)
                curves = _curves([row for row in here if row["method"] == method])
                for steps, values in curves:
                    ax.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
                grid = sorted({step for steps, _ in curves for step in steps})
                if grid:
                    every = [np.interp(grid, steps, values) for steps, values in curves]
                    line = "-" if "-" in method or method == "planner" else "--"
                    ax.plot(
                        grid, np.median(every, 0), line, color=colour, linewidth=2.4,
                        label=names_of(method),
                    )  # fmt: skip
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            plain(ax.xaxis, [n * 10**k for k in range(2, 8) for n in (1, 3)
                             if low <= n * 10**k <= high])  # fmt: skip
            ax.set(xlabel="real steps", ylabel="real return")
            ax.set_title(title(rows, env), fontsize=10)
        handles = {
            label: handle
            for ax in axes.flat
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        axes[0, 0].figure.legend(
            [*handles.values()], [*handles], loc="outside lower center", ncols=4
        )


def _curves(rows: Sequence[Row]) -> list[tuple[list[float], list[float]]]:
    """Real steps and returns, of each seed."""
    points: dict[int, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row["kind"] == "return":
            steps, values = points.setdefault(row["seed"], ([], []))
            steps.append(float(row["real_steps"]))
            values.append(float(row["return"]))
    return list(points.values())
