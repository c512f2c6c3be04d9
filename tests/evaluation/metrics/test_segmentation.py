"""The adjusted Rand index against its definition, and centres of masks."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from evaluation.metrics.segmentation import adjusted_rand_index, centres


def by_pairs(truth: list[int], predicted: list[int]) -> float:
    """(agreement - chance) / (most - chance), counted pair by pair."""
    pairs = list(combinations(range(len(truth)), 2))
    same = [(truth[i] == truth[j], predicted[i] == predicted[j]) for i, j in pairs]
    both = sum(a and b for a, b in same)
    left, right = sum(a for a, _ in same), sum(b for _, b in same)
    chance = left * right / len(pairs)
    return (both - chance) / ((left + right) / 2 - chance)


def test_against_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, predicted = torch.randint(4, (2, 20, 30), generator=generator)
    expected = [by_pairs(*each) for each in zip(truth.tolist(), predicted.tolist(), strict=True)]
    index = adjusted_rand_index(truth, predicted)
    torch.testing.assert_close(index, torch.tensor(expected, dtype=torch.float64))
    assert abs(float(index.mean())) < 0.05  # chance


def test_names_do_not_matter() -> None:
    truth = torch.tensor([[0, 0, 1, 1, 2, 2]])
    assert float(adjusted_rand_index(truth, torch.tensor([[5, 5, 0, 0, 1, 1]]))) == 1.0


def test_a_segment_may_be_ignored() -> None:
    truth = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])
    predicted = torch.tensor([[3, 1, 2, 1, 1, 2, 2]])
    assert float(adjusted_rand_index(truth, predicted, ignore=0)) == 1.0
    assert float(adjusted_rand_index(truth, predicted)) < 1.0


def test_without_choice() -> None:
    one = torch.zeros(1, 4, dtype=torch.int64)
    assert float(adjusted_rand_index(one, one)) == 1.0
    assert float(adjusted_rand_index(one, torch.arange(4)[None])) == 0.0
    assert adjusted_rand_index(one, one, ignore=0).isnan().all()


def test_bad_segments() -> None:
    with pytest.raises(ValueError, match="expected the same \\(B, n\\)"):
        adjusted_rand_index(torch.zeros(1, 3).long(), torch.zeros(1, 4).long())
    with pytest.raises(ValueError, match="count from 0"):
        adjusted_rand_index(torch.zeros(1, 3).long(), torch.full((1, 3), -1))


def test_centres() -> None:
    masks = torch.zeros(2, 4, 8)
    masks[0, 1, 2] = 0.5
    masks[1] = 1
    expected = torch.tensor([[2.5 / 8, 1.5 / 4], [0.5, 0.5]])
    torch.testing.assert_close(centres(masks), expected)
    assert centres(torch.zeros(3, 3)).isfinite().all()
