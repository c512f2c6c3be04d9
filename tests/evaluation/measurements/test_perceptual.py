"""FVD by a stand-in network, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation_fakes import DIGITS, Script, Scripted, truth
from torch import Tensor

from evaluation.measurements import perceptual
from evaluation.metrics.similarity import DIGITS as ENV
from evaluation.metrics.video_features import frechet
from worldmodel import ActionSpec, Spec, make


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
    assert copied["value"] == copied["low"] == pytest.approx(frechet(one, other))
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
