"""The pictures of the page. Each function draws one and returns nothing; files are PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from evaluation.report import names
from evaluation.report.load_results import Row, by_seed, mean_curve
from worldmodel.common.files import atomic

WIDTH = 8.6
"""Inches: about 950 pixels, a little more than a README is wide."""
STYLE: Any = {
    "figure.dpi": 110,
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.markersize": 5,
}
REFERENCES: dict[str, tuple[tuple[float, str], ...]] = {  # what to hold a metric against
    "KL1": ((4.605, "ln 100"),),
    "KL3": ((4.605, "ln 100"),),
    "KL3 / KL1": ((1.0, "one scene"), (3.0, "each view anew")),
    "right digit": ((0.1, "chance"),),
}
MEANING = {
    "coherent stories": "share that visits each shape exactly once",
    "new visits": "share of leg ends on a new shape",
    "obedient stories": "share in the order of the plan",
    "distinct stories": "different orders in 8 futures, of 6",
    "right colours": "share of touched shapes with the colour of the rule",
    "unchanged colours": "share of the others with their own",
    "coherent reactions": "share that changes its colour once, at once",
    "distinct colours": "different colours in 8 futures, of 11",
    "KL1": "nats to learn one view of the hidden side",
    "KL3": "nats to learn three views of it",
    "KL3 / KL1": "times as many nats for three views as for one",
    "same digit, one world": "share of pairs of views that agree",
    "same digit, two worlds": "the same by chance",
    "right digit": "share of views",
    "seen digit, context view": "share of sides read right, of 100 digits",
    "seen digit, new view": "the same in a view that was not given",
    "squared error, new view": "of its pixels in [0, 1]",
}


@contextmanager
def picture(path: Path, height: float, panels: int = 1) -> Iterator[Any]:
    """Axes (rows, columns) to draw on, at most two in a row, each of that height; then the file is
    written, without a date in it.
    """
    columns = min(2, panels)
    rows = -(-panels // columns)
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
        FigureCanvasAgg(figure)  # no window, whatever the machine has
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[panels:]:
            ax.set_axis_off()
        yield axes
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial:
            figure.savefig(partial, metadata={"Software": None})


def plain(axis: Any, ticks: Sequence[float]) -> None:
    """Label a logarithmic axis with these numbers as they are."""
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))
    axis.set_minor_locator(NullLocator())


def speed(path: Path, rows: Sequence[Row]) -> None:
    """Seconds against distance, one line for each model, batch 1."""
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row["model"], row["preset"]), []).append(row)
    slowest = sorted(lines, key=lambda key: -lines[key][-1]["seconds"])
    with picture(path, 5.4) as axes:
        ax = axes[0, 0]
        for key in slowest:
            style = names.style(*key)
            x, y = zip(*[(row["distance"], row["seconds"]) for row in lines[key]], strict=True)
            own = key[0] == "jump"
            ax.plot(
                x, y, style.line, color=style.colour, marker=style.marker, label=style.label,
                linewidth=3.5 if own else 1.5, zorder=3 if own else 2,
            )  # fmt: skip
            low, high = ([row[end] for row in lines[key]] for end in ("low", "high"))
            ax.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
        ax.set(xscale="log", yscale="log", xlabel="T: how many steps ahead the frame is")
        ax.set_ylabel("seconds")
        ax.set_title("Seconds to one frame T steps ahead: lower is faster, flat is jumpy")
        plain(ax.xaxis, sorted({row["distance"] for row in rows}))
        longest = max(float(row["seconds"]) for row in rows)
        plain(ax.yaxis, [10.0**k for k in range(-3, 2) if 10.0**k < 2 * longest])
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="slowest first")


def quality(path: Path, rows: Sequence[Row]) -> None:
    """Errors of models after equal training: against the time of a far frame, and of training."""
    panels = (
        ("T=40", "min-of-n", "seconds to a frame 40 steps ahead", "frames 7 to 21"),
        ("seconds", "ends", "seconds of training", "frames 11, 16 and 21, where legs end"),
    )
    copied = [row for row in rows if row["model"] == "copy-last"]
    order = list(names.STYLES)
    rows = sorted(rows, key=lambda row: order.index(row["model"]) if row["model"] in order else 99)
    with picture(path, 6.0, 2) as axes:
        for ax, (x, y, time, frames) in zip(axes[0], panels, strict=True):
            for row in rows:
                if row.get(y) is None or (x == "seconds" and not row[x]):
                    continue  # a stride that reaches no such frame; nothing to train
                style = names.style(row["model"], row["preset"])
                ends = _error_bar(row, y) if y == "min-of-n" else None
                filled = style.colour if style.line == "-" else "white"  # relatives differ
                ax.errorbar(
                    row[x], row[y], ends, fmt=style.marker, color=style.colour, label=style.label,
                    markersize=9, mfc=filled, mew=1.8, elinewidth=1.3, zorder=3,
                )  # fmt: skip
            for row in copied:
                ax.axhline(row[y], color=names.GREY, linestyle=":", linewidth=1.2)
                ax.text(
                    0.4, row[y], "repeat the last frame", transform=ax.get_yaxis_transform(),
                    ha="left", va="bottom", color="#666666", fontsize=9,
                )  # fmt: skip
            ax.set(xlabel=time, ylim=(0, None))
            ax.set_title(f"Error of the closest of 30 futures,\n{frames}")
        axes[0, 0].set_xscale("log")
        plain(axes[0, 0].xaxis, [0.001, 0.01, 0.1])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        more = zip(*axes[0, 1].get_legend_handles_labels(), strict=True)
        extra = [(handle, name) for handle, name in more if name not in labels]
        axes[0, 0].figure.legend(
            [*handles, *(h for h, _ in extra)], [*labels, *(n for _, n in extra)],
            loc="outside lower center", ncols=4,
        )  # fmt: skip


def consistency(path: Path, rows: Sequence[tuple[str, Row]]) -> None:
    """Bars with intervals, one panel for each metric; rows come with the name of what they are of,
    and a bar is missing where a metric does not apply.
    """
    metrics = list(dict.fromkeys(row["metric"] for _, row in rows))
    bars = list(dict.fromkeys(name for name, _ in rows))
    with picture(path, 1.1 + 0.36 * len(bars), len(metrics)) as axes:
        for ax, metric in zip(axes.flat, metrics, strict=False):
            for name, row in rows:
                if row["metric"] == metric:
                    place, ends = bars.index(name), _error_bar(row, "value")
                    colour = names.style(row["model"]).colour
                    ax.barh(place, row["value"], 0.62, color=colour)
                    ax.errorbar(
                        row["value"], place, xerr=ends, color=names.BLACK, capsize=3, linewidth=1.3
                    )
            for value, meaning in REFERENCES.get(metric, ()):
                ax.axvline(value, color=names.BLACK, linestyle=":", linewidth=1.2)
                ax.text(
                    value, 1, meaning, transform=ax.get_xaxis_transform(), fontsize=9,
                    ha="center", va="bottom",
                )  # fmt: skip
            title = f"{metric}\n{MEANING[metric]}" if metric in MEANING else metric
            ax.set_title(title, pad=16 if metric in REFERENCES else 6, fontsize=10)
            ax.set_yticks(range(len(bars)), ["\n".join(name.rsplit(", ", 1)) for name in bars])
            ax.set_ylim(len(bars) - 0.5, -0.5)
            ax.tick_params(axis="y", labelleft=ax in axes[:, 0])
            ax.grid(False, axis="y")
            if "share" in title or "chance" in title:
                ax.set_xlim(0, 1)


def _error_bar(row: Row, column: str) -> list[list[float]]:
    """Lengths below and above, as matplotlib takes them."""
    return [[row[column] - row["low"]], [row["high"] - row[column]]]


def control(path: Path, rows: Sequence[Row]) -> None:
    """Normalised returns with intervals, best first; the colour says whether agents imagine."""
    best = sorted(rows, key=lambda row: -row["normalised_return"])
    with picture(path, 1.6 + 0.32 * len(best)) as axes:
        ax = axes[0, 0]
        for place, row in enumerate(best):
            colour, marker = agent_style(row["agent"])
            ends = _error_bar(row, "normalised_return")
            ax.errorbar(
                row["normalised_return"], place, xerr=ends, fmt=marker, color=colour, capsize=3,
                markersize=7, linewidth=2,
            )  # fmt: skip
        ax.set_yticks(
            range(len(best)), [f"{r['agent']} ({r['real_steps']:,} real steps)" for r in best]
        )
        ax.set_ylim(len(best) - 0.5, -0.5)
        for value in (0, 1):
            ax.axvline(value, color=names.GREY, linewidth=1.2, linestyle=":")
        ax.set_xlabel("real return: 0 is random play, 1 the best that can be had")
        ax.set_title("With a JUMP (red circles) and without a world model (blue squares)")


def agent_style(agent: str) -> tuple[str, str]:
    """Colour and marker of an agent: JUMP's where it imagines."""
    if agent.startswith("random") and agent != "random shooting":
        return names.GREY, "x"
    alone = agent in ("PPO", "DQN", "SAC", "TD3", "inverse policy")
    return (names.BLUE, "s") if alone else (names.JUMP, "o")


def efficiency(path: Path, tables: Sequence[tuple[str, Sequence[Row]]]) -> None:
    """Returns against real steps, one panel for each environment; thin lines are single seeds."""
    with picture(path, 4.4, len(tables)) as axes:
        for ax, (title, rows) in zip(axes.flat, tables, strict=False):
            floor = [row["return"] for row in rows if row["agent"] == "random play"]
            for value in floor:
                ax.axhline(value, color=names.GREY, linestyle=":", label="random play")
            for agent, curves in by_seed(rows).items():
                colour, _ = agent_style(agent)
                line, marker = ("--", "s") if agent == "planner" else ("-", "o")
                for curve in curves:
                    ax.plot(*zip(*curve, strict=True), line, color=colour, alpha=0.35, linewidth=1)
                ax.plot(
                    *zip(*mean_curve(curves), strict=True), line, color=colour, marker=marker,
                    linewidth=2.6, label=agent,
                )  # fmt: skip
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            round_steps = [n * 10**k for k in range(2, 8) for n in (1, 3)]
            plain(ax.xaxis, [step for step in round_steps if low <= step <= high])
            ax.set(xlabel="real steps", ylabel="real return")
            ax.set_title(title, fontsize=10)
        axes[0, 0].figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4
        )
