"""Real steps until a return is reached, of runs that may never reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used

from evaluation.metrics.statistics import Interval, median

RESAMPLED = 10_000

Points = Sequence[tuple[int, float]]
"""Real steps and mean return of the evaluations of a run, in order."""


@dataclass(frozen=True)
class StepsToLevel:
    """Real steps to a level.

    Attributes:
        steps: of the first evaluation at or above it; those of the whole run where there is none.
        reached: whether there is one. If not, the run is censored: more than ``steps`` are needed.
    """

    steps: int
    reached: bool


def steps_to_level(points: Points, level: float, budget: int) -> StepsToLevel:
    """Real steps of the first evaluation at or above the level.

    Args:
        points: of one run.
        level: mean return.
        budget: real steps of a run that does not reach it.
    """
    for steps, value in points:
        if value >= level:
            return StepsToLevel(steps, True)
    return StepsToLevel(budget, False)


def area(points: Points, random: float, budget: int, last: int = 1) -> float:
    """Mean return over the real steps from 0 to the budget, linear between evaluations.

    The curve begins with random play at 0. Where a run ends before the budget, it goes on at the
    mean of its ``last`` evaluations.

    Args:
        points: of one run.
        random: mean return of random play.
        budget: real steps.
        last: evaluations, at least 1.

    Raises:
        ValueError: there is no evaluation, or a number is below 1.
    """
    if not points or budget < 1 or last < 1:
        raise ValueError(
            "points, budget, last: expected at least one evaluation and numbers from 1 on, got "
            f"{len(points)} evaluations, {budget} and {last}"
        )
    steps = [0, *(at for at, _ in points)]
    values = [random, *(value for _, value in points)]
    if steps[-1] < budget:
        final = float(np.mean(values[1:][-last:]))
        steps, values = [*steps, steps[-1], budget], [*values, final, final]
    inside = [at for at in steps if at < budget]
    cut = float(np.interp(budget, steps, values))
    values = [*values[: len(inside)], cut]
    return float(scipy.integrate.trapezoid(values, [*inside, budget]) / budget)


@dataclass(frozen=True)
class StepsRatio:
    """How many times fewer real steps one method needs than another, by medians over runs.

    Attributes:
        ratio: with a 95% interval of a bootstrap that resamples the runs of both.
        bound: "" if both medians are of runs that reached the level; "at least" if the other
            method's is of one that never did, "at most" if this one's is; "undecided" if both.
    """

    ratio: Interval
    bound: str


def times_fewer(
    needed: Sequence[StepsToLevel], by_other: Sequence[StepsToLevel], seed: int = 0
) -> StepsRatio:
    """median(by_other) / median(needed); runs that never reach the level count with their budget.

    Args:
        needed: by the method, one for each run.
        by_other: by the method that it is compared with.
        seed: of the bootstrap.

    Raises:
        ValueError: one of them has no run.
    """
    if not needed or not by_other:
        raise ValueError(
            f"needed, by_other: expected runs of both, got {len(needed)} and {len(by_other)}"
        )
    rng = np.random.default_rng(seed)
    below, above = (np.array([run.steps for run in runs], float) for runs in (needed, by_other))
    resampled = [
        np.median(rng.choice(runs, (RESAMPLED, len(runs))), axis=1) for runs in (above, below)
    ]
    low, high = np.quantile(resampled[0] / resampled[1], [0.025, 0.975])
    value = float(np.median(above) / np.median(below))
    own, other = median_is_censored(needed), median_is_censored(by_other)
    bound = {(0, 0): "", (0, 1): "at least", (1, 0): "at most", (1, 1): "undecided"}[own, other]
    return StepsRatio(Interval(value, float(low), float(high), len(needed)), bound)


def median_is_censored(runs: Sequence[StepsToLevel]) -> bool:
    """Whether the median of the steps is that of runs that never reached the level."""
    ordered = sorted(runs, key=lambda run: (not run.reached, run.steps))
    return not ordered[len(runs) // 2].reached


def median_steps(runs: Sequence[StepsToLevel]) -> Interval:
    """The median over runs, as ``statistics.median``; a lower bound if it is censored."""
    return median(np.array([run.steps for run in runs], float))
