"""CVG: sizes of the thesis, and how its layers are normalised."""

from __future__ import annotations

import pytest
import torch
from cvg_fixtures import steps_of, tiny
from scenes import generator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from worldmodel import ActionSpec, Spec, preset
from worldmodel.models.jumpy.cvg import Cvg
from worldmodel.models.jumpy.cvg.generator import ConvGru, SeparableBlock, Unit
from worldmodel.models.layers import spectral_norm
from worldmodel.models.layers.frame_norm import FrameNorm, recorded_statistics, recording
from worldmodel.models.layers.spectral_norm import power_iteration

# -- sizes ---------------------------------------------------------------------------------------


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel + outputs


def norm(channels: int) -> int:
    return 2 * (128 * channels + channels)  # gain and bias, linear in z


def up_block(inputs: int, outputs: int) -> int:
    skip = conv(inputs, outputs, 1) if inputs != outputs else 0
    return (
        norm(inputs) + norm(outputs) + conv(inputs, outputs, 9) + conv(outputs, outputs, 9) + skip
    )


def down_blocks(colours: int, widths: tuple[int, ...], over_time: int) -> int:
    total, inputs = 0, colours
    for index, outputs in enumerate(widths):
        kernel = 27 if index < over_time else 9
        total += conv(inputs, outputs, kernel) + conv(outputs, outputs, kernel)
        total += conv(inputs, outputs, 1) if inputs != outputs else 0
        inputs = outputs
    return total + inputs + 1


def count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


@pytest.fixture(scope="module")
def paper() -> Cvg:
    """As for Kinetics-600: 24 frames of 32x32 pixels, refined to 48 of 128x128."""
    with torch.device("meta"):  # 700 million weights, which need not be there
        return Cvg(Spec((3, 128, 128), ActionSpec("none"), 47), preset("cvg", "paper"))


def test_first_level_of_the_thesis(paper: Cvg) -> None:
    widths = (1024, 1024, 512, 256)  # 128 * [8, 8, 4, 2]
    expected, inputs = conv(128, 8 * 128 * 16, 1), 1024
    for outputs in widths:
        expected += conv(2 * inputs, 2 * inputs, 9) + conv(2 * inputs, inputs, 9)
        expected += up_block(inputs, outputs) + up_block(outputs, outputs)
        inputs = outputs
    expected += norm(256) + conv(256, 3, 9)
    assert count(paper.first) == expected
    judges = tuple(128 * multiplier for multiplier in (2, 4, 8, 16, 16))
    expected = down_blocks(3, judges, 0) + down_blocks(3, judges, 2)
    assert count(paper.first_judges) == expected
    assert paper.first_judges.matching is None
    assert all(isinstance(unit.blocks[0], ConvGru) for unit in paper.first.units)


def test_second_level_of_the_thesis(paper: Cvg) -> None:
    widths = (1024, 1024, 512, 256, 128)  # 128 * [8, 8, 4, 2, 1]
    expected, inputs, side = conv(128, 8 * 128 * 16, 1), 1024, 4
    for outputs in widths:
        expected += 2 * norm(inputs) + conv(inputs, inputs, 3) + conv(inputs, inputs, 9)
        expected += up_block(inputs, outputs) + up_block(outputs, outputs)
        expected += conv(3, inputs, 1) * (side <= 32) + conv(3, outputs, 1) * (side <= 32)
        side *= 2
        expected += conv(3, outputs, 1) * (side <= 32)  # no residual where it has more pixels
        inputs = outputs
    expected += norm(128) + conv(128, 3, 9)
    assert side == 128
    assert count(paper.second) == expected
    judges = tuple(96 * multiplier for multiplier in (1, 2, 4, 8, 16, 16))
    expected = down_blocks(3, judges, 0) + down_blocks(3, judges, 2) + down_blocks(6, judges, 2)
    assert count(paper.second_judges) == expected
    assert all(isinstance(unit.blocks[0], SeparableBlock) for unit in paper.second.units)


def test_shapes_of_the_thesis(paper: Cvg) -> None:
    sides: list[tuple[int, ...]] = []

    def note(unit: nn.Module, inputs: object, output: Tensor) -> None:
        sides.append(tuple(output.shape[1:]))

    hooks = [m.register_forward_hook(note) for m in paper.modules() if isinstance(m, Unit)]
    z = torch.zeros(2, 128, device="meta")
    outline = paper.first(z, 24)
    assert outline.shape == (2, 24, 3, 32, 32)
    assert sides == [(24, 1024, 8, 8), (24, 1024, 16, 16), (24, 512, 32, 32), (24, 256, 32, 32)]
    sides.clear()
    window = outline[:, :6]
    video = paper.second(z, 12, window)
    assert video.shape == (2, 12, 3, 128, 128)
    assert [shape[1:] for shape in sides] == [
        (1024, 8, 8), (1024, 16, 16), (512, 32, 32), (256, 64, 64), (128, 128, 128),
    ]  # fmt: skip
    # 8 frames, 12 of the video at half the resolution, and 6 pairs
    assert paper.second_judges(video, window, None).shape == (2, 8 + 12 + 6)
    assert paper.first_judges(outline, None, None).shape == (2, 8 + 24)
    for hook in hooks:
        hook.remove()


# -- normalisation -------------------------------------------------------------------------------


def layers(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if parametrize.is_parametrized(m, "weight")]


def test_all_layers_are_normalised_and_begin_orthogonal() -> None:
    model = tiny()
    plain = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)]
    assert len(plain) == len(layers(model))
    for layer in layers(model):
        values = torch.linalg.svdvals(layer.weight.flatten(1))
        torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-3, atol=1e-3)


def test_shapes_alone_are_not_iterated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading makes a model without memory first, where each product takes milliseconds."""
    calls = []

    def counted(vector: Tensor, dim: int) -> Tensor:
        calls.append(dim)
        return vector

    monkeypatch.setattr(spectral_norm, "normalize", counted)
    with torch.device("meta"):
        layer = spectral_norm.spectral(nn.Linear(3, 4))
    assert len(calls) == 2 and layer.weight.shape == (4, 3)  # the first vectors


def test_spectral_norms_follow_the_training() -> None:
    model = tiny(learning_rate=1e-2)
    steps_of(model, 0.0, 6)
    steps_of(model, 0.6, 6)
    power_iteration(model, 300)
    with torch.no_grad():
        raw = [layer.parametrizations.weight.original for layer in layers(model)]
        assert max(float(torch.linalg.matrix_norm(w.flatten(1), 2)) for w in raw) > 1.05
        for layer in layers(model):
            assert float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) < 1.01


def test_a_frame_is_normalised_by_itself() -> None:
    layer = FrameNorm(3, 5, 2)
    x = torch.randn(4, 5, 3, 2, 2, generator=generator()) * torch.arange(1, 6)[:, None, None, None]
    z = torch.zeros(4, 2)  # a gain of 1 and a bias of 0
    normal = layer(x, z)
    torch.testing.assert_close(normal.mean((0, 3, 4)), torch.zeros(5, 3), atol=1e-5, rtol=0)
    with torch.no_grad():
        with recording(layer):
            layer(x, z)
            layer(x + 2, z)
        torch.testing.assert_close(layer.mean, x.mean((0, 3, 4)) + 1)
        torch.testing.assert_close(layer.variance, x.var((0, 3, 4), correction=0))
        with recorded_statistics(layer):
            alone = layer(x[:1] + 1, z[:1])
    torch.testing.assert_close(alone, normal[:1], rtol=1e-4, atol=1e-4)


def test_statistics_are_recomputed_after_training() -> None:
    model = tiny()
    steps_of(model, 0.9, 3)
    assert bool(model.stale)
    outline, video = model.levels(4, generator())
    assert not bool(model.stale)
    with torch.no_grad():  # of one pass over the same noise, the batch's are the recorded ones
        noise = torch.Generator().manual_seed(0)
        low = model._outlines(4, noise)
        high = model.second(model._noise(4, noise), 8, low)
    torch.testing.assert_close(2 * outline - 1, low)
    torch.testing.assert_close(2 * video - 1, high)
    before = model.first.norm.mean.clone()
    steps_of(model, 0.0, 3)
    model.levels(1, generator())
    assert not model.first.norm.mean.equal(before)
