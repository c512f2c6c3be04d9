"""Frechet distances with a known answer, FVD by a stand-in network, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_fakes import DIGITS, Script, Scripted, truth
from scipy.linalg import sqrtm
from torch import Tensor

from evaluation.measurements import perceptual
from evaluation.metrics.similarity import DIGITS as ENV
from worldmodel import ActionSpec, Spec, make


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
    assert perceptual.frechet(plain, plain) == pytest.approx(0.0, abs=1e-9)
    assert perceptual.frechet(plain, gaussian(there, one, seed=1)) == pytest.approx(25.0)
    # each of three standard deviations goes from 1 to 2
    assert perceptual.frechet(plain, gaussian(there, 4 * one, 30, 1)) == pytest.approx(28.0)
    first = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]]).double()
    second = torch.tensor([[1.0, -0.4, 0.2], [-0.4, 3.0, 0.0], [0.2, 0.0, 1.0]]).double()
    root = np.real(sqrtm((first @ second).numpy()))  # they do not commute
    expected = float(first.trace() + second.trace() - 2 * np.trace(root))
    assert perceptual.frechet(gaussian(zero, first), gaussian(zero, second)) == pytest.approx(
        expected
    )
    assert perceptual.frechet(plain[:, :1], plain[:, :1] + 2) == pytest.approx(4.0)
    few = torch.randn(2, 5)  # singular
    assert perceptual.frechet(few, few) == pytest.approx(0.0, abs=1e-5)
    with pytest.raises(ValueError, match="2 rows or more, got 50, 1"):
        perceptual.frechet(plain, plain[:1])
    with pytest.raises(ValueError, match="expected .n, D. and .m, D."):
        perceptual.frechet(plain, plain[:, :2])


class StandIn(torch.nn.Module):
    """Says how bright a video is, and how much of it moves; called as I3D is."""

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        assert not rescale and not resize and return_features
        assert x.shape[1] == 3 and x.shape[3] == 224 and x.shape[4] == 224
        moves = (x[:, :, 1:] - x[:, :, :-1]).abs()
        return torch.stack([x.mean([1, 2, 3, 4]), moves.mean([1, 2, 3, 4])], 1)


@pytest.fixture(scope="module")
def i3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "i3d.pt"
    torch.jit.script(StandIn()).save(str(path))
    return path


def test_fvd(i3d: Path) -> None:
    video = truth(ENV, 4, 19)
    right = Scripted(DIGITS, Script(video, video[:, None].expand(-1, 2, -1, -1, -1, -1)))
    fvd = perceptual.Perceptual(env=ENV, i3d=i3d, scenes=4, worlds=2)
    (perfect,) = fvd.of_model(right)
    assert perfect["metric"] == "fvd (I3D of the given file, shown frames included), 4 scenes"
    assert perfect["value"] == pytest.approx(0.0, abs=1e-6) and perfect["env"] == ENV
    (copied,) = fvd.of_model(make("copy-last", DIGITS))
    still = video[:, 4:5].expand(-1, 15, -1, -1, -1)
    network = perceptual.load_i3d(i3d, torch.device("cpu"))
    one, other = (
        perceptual.video_features(network, (x * 255).round().byte().movedim(2, -1))
        for x in (video, torch.cat([video[:, :5], still], 1))
    )
    assert copied["value"] == copied["low"] == pytest.approx(perceptual.frechet(one, other))
    assert copied["value"] > 1e-4
    with pytest.raises(ValueError, match="10 frames or more, got 8"):
        short = make("copy-last", Spec((3, 16, 16), ActionSpec("none"), 7))
        perceptual.Perceptual(env=ENV, i3d=i3d, scenes=2, worlds=2).of_model(short)


def test_lpips_of_the_closest(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the network: the least distance counts, of means over frames."""

    def distance(one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().mean((1, 2, 3))

    monkeypatch.setattr(perceptual, "Lpips", lambda device: distance)
    video = truth(ENV, 2, 19)
    worlds = torch.stack([torch.ones_like(video), video], 1)
    lpips = perceptual.Perceptual(env=ENV, lpips=True, scenes=2, worlds=2)
    rows = lpips.of_model(Scripted(DIGITS, Script(video, worlds)))
    value = {row["metric"].rpartition(", ")[2]: row["value"] for row in rows}
    assert value["best-of-2"] == 0.0
    off = float((1 - video[:, 5:]).mean())
    assert value["mean-of-2"] == pytest.approx(off / 2, rel=1e-4)
    assert 0 < value["copy-last"] < off


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, cpu = make("copy-last", DIGITS), torch.device("cpu")
    with pytest.raises(ValueError, match="nothing to measure"):
        perceptual.Perceptual(env=ENV).of_model(model)
    with pytest.raises(ValueError, match="env: expected one of"):
        perceptual.Perceptual(env="dice/Views-v0", lpips=True).of_model(model)
    with pytest.raises(ValueError, match="worlds: expected 2 or more, got 2, 1"):
        perceptual.Perceptual(env=ENV, lpips=True, scenes=2, worlds=1).of_model(model)
    with pytest.raises(FileNotFoundError, match="i3d_torchscript.pt"):
        perceptual.Perceptual(env=ENV, i3d=tmp_path / "i3d.pt").of_model(model)
    (tmp_path / "i3d.pt").write_text("weights")
    with pytest.raises(ValueError, match="no TorchScript file"):
        perceptual.Perceptual(env=ENV, i3d=tmp_path / "i3d.pt").of_model(model)
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"jumpy-worldmodel\[perceptual\]"):
        perceptual.Lpips(cpu)
    monkeypatch.setattr(perceptual, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*{perceptual.ALEXNET}"):
        perceptual.Lpips(cpu)
