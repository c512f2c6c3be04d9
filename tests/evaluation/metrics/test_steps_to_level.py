"""Steps, areas and ratios of runs that may never reach the level."""

from __future__ import annotations

import pytest

from evaluation.metrics.steps_to_level import (
    StepsToLevel,
    area,
    median_is_censored,
    median_steps,
    steps_to_level,
    times_fewer,
)


def runs(*steps: int, never: int = 0, budget: int = 1000) -> list[StepsToLevel]:
    return [StepsToLevel(n, True) for n in steps] + [StepsToLevel(budget, False)] * never


def test_the_first_evaluation_at_the_level_counts() -> None:
    points = [(10, 1.0), (20, 5.0), (30, 2.0), (40, 6.0)]
    assert steps_to_level(points, 5.0, 100) == StepsToLevel(20, True)
    assert steps_to_level(points, 7.0, 100) == StepsToLevel(100, False)


def test_area() -> None:
    assert area([(10, 10.0)], 0.0, 10) == 5.0
    assert area([(10, 10.0)], 0.0, 20) == 7.5  # goes on at 10
    assert area([(10, 10.0), (20, 10.0), (30, 4.0)], 0.0, 20) == 7.5  # cut
    assert area([(10, 10.0), (20, 0.0)], 0.0, 15) == pytest.approx((50 + 37.5) / 15)
    assert area([(10, 10.0), (20, 20.0)], 10.0, 40, last=2) == pytest.approx(
        (100 + 150 + 20 * 15) / 40
    )
    with pytest.raises(ValueError, match="expected at least one evaluation"):
        area([], 0.0, 10)


def test_ratio_of_medians() -> None:
    result = times_fewer(runs(90, 100, 110), runs(400, 500, 600))
    assert result.ratio.value == 5.0 and result.bound == ""
    assert 1 < result.ratio.low < 5 < result.ratio.high and result.ratio.n == 3
    assert result == times_fewer(runs(90, 100, 110), runs(400, 500, 600))


def test_censored_runs_make_bounds() -> None:
    assert times_fewer(runs(100, 100, 100), runs(300, never=2)).bound == "at least"
    assert times_fewer(runs(100, 100, 100), runs(300, never=2)).ratio.value == 10.0
    assert times_fewer(runs(100, never=2), runs(300, 400, 500)).bound == "at most"
    assert times_fewer(runs(100, never=2), runs(300, never=2)).bound == "undecided"
    assert times_fewer(runs(100, 200, never=1), runs(300, 400, never=1)).bound == ""
    with pytest.raises(ValueError, match="expected runs of both, got 0 and 1"):
        times_fewer([], runs(1))


def test_median() -> None:
    assert not median_is_censored(runs(1, 2, never=1)) and median_is_censored(runs(1, never=2))
    assert median_is_censored(runs(1, 2, never=2))  # the mean of 2 and the budget
    assert median_is_censored([StepsToLevel(5, False), StepsToLevel(10, True)])
    assert median_steps(runs(10, 20, never=1)).value == 20
