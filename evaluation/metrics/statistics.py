"""Intervals for everything that is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating]


class Interval(NamedTuple):
    """An estimate with the ends of its 95% interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int

    def columns(self, name: str = "value") -> dict[str, Any]:
        """``name, low, high, n`` for a row."""
        return {name: self.value, "low": self.low, "high": self.high, "n": self.n}


def rows(
    model: str, env: str, metrics: Mapping[str, Tensor | Interval], seed: int = 0, **columns: Any
) -> list[dict[str, Any]]:
    """Tidy rows ``model, env, metric, (columns), value, low, high, n`` of metrics by name.

    Args:
        model, env: of all of them.
        metrics: values (n,) of scenes, whose mean and its interval make the row; or an interval.
        seed: of the bootstraps.
        columns: further ones.
    """
    lines = []
    for metric, values in metrics.items():
        if isinstance(values, Tensor):
            values = mean(values.double().numpy(), seed)
        row = {"model": model, "env": env, "metric": metric, **columns}
        lines.append({**row, **values.columns()})
    return lines


def mean(values: Array, seed: int = 0) -> Interval:
    """A mean with its BCa bootstrap interval; ``values`` (n,).

    Raises:
        ValueError: fewer than 2 values.
    """
    if values.size < 2:
        raise ValueError(f"values: expected at least 2, got {values.size}")
    if np.ptp(values) == 0:  # the bootstrap of a constant is degenerate
        return Interval(float(values[0]), float(values[0]), float(values[0]), int(values.size))
    interval = scipy.stats.bootstrap((values,), np.mean, rng=np.random.default_rng(seed))
    low, high = interval.confidence_interval
    return Interval(float(values.mean()), float(low), float(high), int(values.size))


def median(values: Array) -> Interval:
    """A median with the narrowest pair of values that holds it with at least 95%; ``values`` (n,).

    Nothing is assumed of the distribution: the number of values below the median is binomial. Fewer
    than 6 are too few for 95%; the interval is then their range, which holds it with
    1 - 2 ** (1 - n): 75% of 3, 94% of 5.

    Raises:
        ValueError: ``values`` is empty.
    """
    n = int(values.size)
    if n == 0:
        raise ValueError("values: empty; a median needs at least one value")
    ordered = np.sort(values)
    outside = max(int(scipy.stats.binom.ppf(0.025, n, 0.5)), 1)  # counted from either end, from 1
    low, high = ordered[outside - 1], ordered[n - outside]
    return Interval(float(np.median(values)), float(low), float(high), n)


def exponent(seconds: Mapping[int, Array]) -> Interval:
    """How time grows with a size: the slope of log seconds against log size, 0 if it does not and 1
    if in proportion. The median over rounds, in each of which it is made.

    Args:
        seconds: by size, of two or more; (rounds,) each.
    """
    logs = np.log(np.stack([*seconds.values()]))
    return median(np.polyfit(np.log([*seconds]), logs, 1)[0])


def normalised_return(returns: Array, random: Array, oracle: Array, seed: int = 0) -> Interval:
    """Mean return on a scale where random play is 0 and the oracle 1, paired over episodes.

    Args:
        returns: (n,) of an agent.
        random: (n,) expected returns of random play on the same episodes.
        oracle: (n,) best returns on the same episodes.
        seed: of the bootstrap, which resamples whole episodes.

    Raises:
        ValueError: the lengths differ, there are fewer than 2 episodes, or the oracle is no
            better than random play.
    """
    if not len(returns) == len(random) == len(oracle) >= 2:
        raise ValueError(
            "returns, random, oracle: expected the same >= 2 episodes, got "
            f"{len(returns)}, {len(random)}, {len(oracle)}"
        )
    if oracle.mean() <= random.mean():
        raise ValueError("oracle: its mean return is not above random play's")

    def scale(mine: Array, zero: Array, one: Array, axis: int = -1) -> Array:
        low = zero.mean(axis)
        share: Array = (mine.mean(axis) - low) / (one.mean(axis) - low)
        return share

    return _bootstrap(scale, (returns, random, oracle), seed)


def ratio(above: Array, below: Array, seed: int = 0) -> Interval:
    """mean(above) / mean(below), paired: (n,) each, with its bootstrap interval.

    Raises:
        ValueError: the lengths differ, or there are fewer than 2 pairs.
    """
    if not len(above) == len(below) >= 2:
        raise ValueError(
            f"above, below: expected the same >= 2 pairs, got {len(above)}, {len(below)}"
        )

    def divide(upper: Array, lower: Array, axis: int = -1) -> Array:
        quotient: Array = upper.mean(axis) / lower.mean(axis)
        return quotient

    return _bootstrap(divide, (above, below), seed)


def _bootstrap(statistic: Callable[..., Array], samples: tuple[Array, ...], seed: int) -> Interval:
    """Of paired samples (n,) each: the statistic with its percentile interval."""
    resampled = scipy.stats.bootstrap(
        samples, statistic, paired=True, vectorized=True, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = resampled.confidence_interval
    return Interval(float(statistic(*samples)), float(low), float(high), len(samples[0]))
