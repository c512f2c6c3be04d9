"""Both ends of the scale of returns."""

from __future__ import annotations

import pytest

from evaluation.measurements.returns import Returns


def test_random_is_below_the_best() -> None:
    envs = ("narratives/TravelingSalesman-v0:5", "dice/FindDigit-v0:1")
    rows = Returns(envs=envs, scenes=16).measure()
    for random, best in zip(rows[::2], rows[1::2], strict=True):
        assert (random["metric"], best["metric"]) == ("random", "best")
        assert random["env"] == best["env"] and random["value"] < best["value"]
        assert random["low"] < random["value"] < random["high"]


@pytest.mark.parametrize("entry", ["dice/FindDigit-v0", "dice/FindDigit-v0:0", ":3", "x:y"])
def test_entries_name_their_steps(entry: str) -> None:
    with pytest.raises(ValueError, match="expected ID:STEPS"):
        Returns(envs=(entry,)).measure()
