"""Returns against real steps, and what to be careful about with them."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.report.load_results import Row
from evaluation.report.names import number

Curve = list[tuple[float, float]]
"""Real steps, return."""


def by_seed(rows: Sequence[Row]) -> dict[str, list[Curve]]:
    """Each agent's curves, one for each seed; points before the first real step are left out, for
    the axis of steps is logarithmic.
    """
    found: dict[str, dict[int, Curve]] = {}
    for row in rows:
        if row.get("real_steps"):
            curve = found.setdefault(row["agent"], {}).setdefault(row["seed"], [])
            curve.append((row["real_steps"], row["return"]))
    return {agent: list(curves.values()) for agent, curves in found.items()}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds, point by point."""
    return [
        (sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points))
        for points in zip(*curves, strict=True)
    ]


def cautions(rows: Sequence[Row], of: str, level: float) -> list[str]:
    """What weakens a ratio of real steps: the agent ``of`` starts above the level, so that the
    ratio is only a bound, or PPO ends far below its own best, so that the level says little.
    """
    curves = {agent: mean_curve(seeds) for agent, seeds in by_seed(rows).items()}
    floor = next((row["return"] for row in rows if row["agent"] == "random play"), None)
    if floor is None or not {of, "PPO"} <= set(curves):
        return []
    found = []
    last, best = curves["PPO"][-1][1], max(value for _, value in curves["PPO"])
    steps, first = curves[of][0]
    if first >= floor + level * (last - floor):
        found.append(f"at least, for it is there with the fewest steps tried, {number(steps)}")
    if last - floor < level * (best - floor):
        found.append(f"PPO ends at {number(last)}, far below its own best of {number(best)}")
    return found
