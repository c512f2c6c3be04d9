"""The counts of the stress tests."""

from tests.stress.conftest import Tally


def test_counts_add_up_and_measures_are_replaced() -> None:
    tally = Tally()
    tally.add("survival", "kills", 2)
    tally.add("survival", "kills")
    tally.put("load", "slope", 0.5)
    tally.put("load", "slope", 0.25)
    assert tally.rows() == [
        {"area": "load", "name": "slope", "value": 0.25},
        {"area": "survival", "name": "kills", "value": 3},
    ]
