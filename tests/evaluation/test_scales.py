"""Both ends of the scale of returns."""

from __future__ import annotations

import pytest

from evaluation.metrics.return_scale import scales


def test_random_is_below_the_best() -> None:
    rows = scales(["narratives/TravelingSalesman-v0:5", "dice/FindDigit-v0:1"], scenes=16)
    for random, best in zip(rows[::2], rows[1::2], strict=True):
        assert (random["metric"], best["metric"]) == ("random", "best")
        assert random["env"] == best["env"] and random["value"] < best["value"]
        assert random["low"] < random["value"] < random["high"]


@pytest.mark.parametrize("entry", ["dice/FindDigit-v0", "dice/FindDigit-v0:0", ":3", "x:y"])
def test_entries_name_their_steps(entry: str) -> None:
    with pytest.raises(ValueError, match="expected ID:STEPS"):
        scales([entry])
