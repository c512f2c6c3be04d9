"""Intervals that cover, scales that have their ends where they should."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics.statistics import mean, median, normalised_return


def test_mean_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        interval = mean(random.normal(3.0, 1.0, 40), seed=trial)
        assert interval.low < interval.value < interval.high
        hits += interval.low < 3.0 < interval.high
    assert hits >= 85
    assert mean(np.full(5, 2.0)) == (2.0, 2.0, 2.0, 5)
    with pytest.raises(ValueError, match="at least 2"):
        mean(np.zeros(1))


def test_median_lies_between_order_statistics() -> None:
    """Of 6 values the range covers 96.9%; of 9 the second to the eighth 96.1%: P(Bin(9, 1/2) < 2)
    is 0.0195. Of 20 the 6th to the 15th (tables of the sign test). 3 are too few for 95%.
    """
    for n, ends in ((1, (1, 1)), (3, (1, 3)), (6, (1, 6)), (9, (2, 8)), (20, (6, 15))):
        values = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
        assert median(values) == ((n + 1) / 2, *ends, n)
    random = np.random.default_rng(0)
    drawn = [median(random.exponential(1.0, 7)) for _ in range(200)]
    assert sum(each.low < np.log(2) < each.high for each in drawn) >= 190
    with pytest.raises(ValueError, match="values: empty"):
        median(np.zeros(0))


def test_normalised_return_has_its_ends() -> None:
    random, oracle = np.linspace(0, 1, 50), np.linspace(2, 4, 50)
    assert normalised_return(random, random, oracle)[:3] == (0.0, 0.0, 0.0)
    assert normalised_return(oracle, random, oracle)[:3] == (1.0, 1.0, 1.0)
    half = normalised_return((random + oracle) / 2, random, oracle)
    assert half.value == pytest.approx(0.5) and half.low <= 0.5 <= half.high
    with pytest.raises(ValueError, match="the same >= 2 episodes"):
        normalised_return(random[:3], random, oracle)
    with pytest.raises(ValueError, match="not above"):
        normalised_return(random, oracle, random)
