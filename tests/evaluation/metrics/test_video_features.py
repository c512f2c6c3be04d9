"""Frechet distances with a known answer, and features that are the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from evaluation.metrics.video_features import RandomFeatures, frechet


def gaussian(mean: Tensor, covariance: Tensor, n: int = 50, seed: int = 0) -> Tensor:
    """n rows whose mean and covariance are exactly these."""
    width = len(mean)
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False)
    return mean + (torch.linalg.cholesky(covariance) @ white).T


def test_frechet_distance() -> None:
    zero, one = torch.zeros(3).double(), torch.eye(3).double()
    there = torch.tensor([3.0, 0.0, 4.0]).double()
    plain = gaussian(zero, one)
    assert frechet(plain, plain) == pytest.approx(0.0, abs=1e-9)
    assert frechet(plain, gaussian(there, one, seed=1)) == pytest.approx(25.0)
    # each of three standard deviations goes from 1 to 2
    assert frechet(plain, gaussian(there, 4 * one, 30, 1)) == pytest.approx(28.0)
    first = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]]).double()
    second = torch.tensor([[1.0, -0.4, 0.2], [-0.4, 3.0, 0.0], [0.2, 0.0, 1.0]]).double()
    root = np.real(sqrtm((first @ second).numpy()))  # they do not commute
    expected = float(first.trace() + second.trace() - 2 * np.trace(root))
    assert frechet(gaussian(zero, first), gaussian(zero, second)) == pytest.approx(expected)
    assert frechet(plain[:, :1], plain[:, :1] + 2) == pytest.approx(4.0)
    few = torch.randn(2, 5)  # singular
    assert frechet(few, few) == pytest.approx(0.0, abs=1e-5)
    with pytest.raises(ValueError, match="2 rows or more, got 50, 1"):
        frechet(plain, plain[:1])
    with pytest.raises(ValueError, match="expected .n, D. and .m, D."):
        frechet(plain, plain[:, :2])


def test_features_are_pinned() -> None:
    videos = torch.rand(3, 4, 3, 16, 16)
    one, other = RandomFeatures(3), RandomFeatures(3)
    assert one(videos).shape == (3, 128)
    assert one(videos).equal(other(videos))


def test_what_does_not_move_is_far_from_what_does() -> None:
    generator = torch.Generator().manual_seed(0)
    steps = torch.rand(150, 6, 3, 16, 16, generator=generator)
    other = torch.rand(150, 6, 3, 16, 16, generator=generator)
    features = RandomFeatures(3)
    still = other[:, :1].expand_as(other)
    near, far = (frechet(features(steps), features(x)) for x in (other, still))
    assert far > 3 * near
