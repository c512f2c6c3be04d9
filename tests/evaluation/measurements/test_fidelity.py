"""SSIM and PSNR of models whose futures are known, and which scenes a model is judged on."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation_fakes import DIGITS, Script, Scripted, truth
from torch import Tensor

from evaluation.measurements.fidelity import Fidelity
from evaluation.metrics.similarity import (
    CEILING,
    CONTEXT_FRAMES,
    PSNR,
    SSIM,
    psnr,
    similarities,
    ssim,
)
from evaluation.metrics.story_consistency import NATURE
from evaluation.runner.held_out_scenes import held_out
from worldmodel import ActionSpec, Spec, make

ENV = "digits/StochasticMovingDigits-v0"
SCENES = 3


@pytest.fixture(scope="module")
def video() -> Tensor:
    return truth(ENV, SCENES, 19)


def dimmed(video: Tensor) -> Tensor:
    """Half as bright: similar in structure, far off in error."""
    return video * 0.5


def noisy(video: Tensor) -> Tensor:
    """The other way round."""
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(0))
    return (video + 0.04 * noise).clamp(0, 1)


def test_the_truth_cannot_be_beaten(video: Tensor) -> None:
    found = similarities(Scripted(DIGITS, Script(video, video[:, None])), SCENES, worlds=1)
    torch.testing.assert_close(found[f"{SSIM}, best-of-1"], torch.ones(SCENES))
    assert (found[f"{PSNR}, best-of-1"] == CEILING).all()  # and not infinite
    model = Scripted(DIGITS, Script(video, video[:, None]))
    rows = Fidelity(env=ENV, scenes=SCENES, worlds=1).of_model(model)
    assert all(math.isfinite(row[key]) for row in rows for key in ("value", "low", "high"))
    assert {(row["env"], row["worlds"], row["n"]) for row in rows} == {(ENV, 1, SCENES)}


def test_copy_last_gets_what_copying_gets(video: Tensor) -> None:
    found = similarities(make("copy-last", DIGITS), SCENES, worlds=2)
    still = video[:, CONTEXT_FRAMES - 1 : CONTEXT_FRAMES].expand_as(video[:, CONTEXT_FRAMES:])
    error = (still - video[:, CONTEXT_FRAMES:]).square().mean((2, 3, 4))
    by_hand = (-10 * error.log10()).clamp_max(CEILING).mean(1)
    for name in ("best-of-2", "mean-of-2", "copy-last"):
        torch.testing.assert_close(found[f"{PSNR}, {name}"], by_hand)
        torch.testing.assert_close(found[f"{SSIM}, {name}"], found[f"{SSIM}, copy-last"])
    assert (found[f"{SSIM}, copy-last"] < 0.95).all()


def test_the_best_is_chosen_for_each_metric_and_each_sequence(video: Tensor) -> None:
    worlds = torch.stack([dimmed(video), noisy(video), torch.zeros_like(video)], 1)
    worlds[1, 2] = video[1]  # of scene 1 the third world is the truth
    found = similarities(Scripted(DIGITS, Script(video, worlds)), SCENES, worlds=3)
    alone = [
        similarities(Scripted(DIGITS, Script(video, worlds[:, [world]])), SCENES, worlds=1)
        for world in range(3)
    ]
    by_ssim, by_psnr = (
        torch.stack([one[f"{name}, best-of-1"] for one in alone]) for name in (SSIM, PSNR)
    )
    assert by_ssim.argmax(0).tolist() == [0, 2, 0]
    assert by_psnr.argmax(0).tolist() == [1, 2, 1]
    torch.testing.assert_close(found[f"{SSIM}, best-of-3"], by_ssim.amax(0))
    torch.testing.assert_close(found[f"{PSNR}, best-of-3"], by_psnr.amax(0))
    torch.testing.assert_close(found[f"{SSIM}, mean-of-3"], by_ssim.mean(0))


def test_the_best_is_chosen_by_the_mean_over_frames(video: Tensor) -> None:
    """Two worlds, each right half of the time: no frame by frame choice makes one of them."""
    early, late = torch.zeros_like(video), torch.zeros_like(video)
    early[:, :12], late[:, 12:] = video[:, :12], video[:, 12:]
    model = Scripted(DIGITS, Script(video, torch.stack([early, late], 1)))
    found = similarities(model, SCENES, worlds=2)
    assert (found[f"{PSNR}, best-of-2"] < 0.8 * CEILING).all()
    assert (found[f"{SSIM}, best-of-2"] < 0.9).all()


def test_metrics_of_images() -> None:
    dark, light = torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.1)
    torch.testing.assert_close(psnr(dark, light), torch.full((2,), 20.0))
    # without structure only luminance is left: (2 m m' + c) / (m^2 + m'^2 + c), c = 0.01^2
    torch.testing.assert_close(ssim(dark, light), torch.full((2,), 1e-4 / (0.01 + 1e-4)))
    assert (psnr(light, light) == CEILING).all()


def test_a_perfect_tour_has_no_error() -> None:
    spec = Spec((3, 16, 16), ActionSpec("none"), 20)
    video = truth(NATURE, SCENES, 20)
    worlds = torch.stack([torch.zeros_like(video), video], 1)
    measurement = Fidelity(env=NATURE, scenes=SCENES, worlds=2)
    rows = measurement.of_model(Scripted(spec, Script(video, worlds)))
    value = {row["metric"]: row["value"] for row in rows}
    assert value["mse, min-of-n"] == value["mse, leg ends, min-of-n"] == 0.0
    assert value["mse, mean-of-n"] > value["mse, copy-last"] > 0.0


def test_models_are_judged_on_their_own_scenes() -> None:
    passive = ActionSpec("none")
    short = make("copy-last", Spec((3, 16, 16), passive, 9))
    with pytest.raises(ValueError, match="name the env"):
        Fidelity(scenes=2).of_model(short)
    rows = Fidelity(scenes=2, worlds=1, env=f"envs:{ENV}").of_model(short)
    assert {row["env"] for row in rows} == {ENV}
    short.env_id = f"envs:{ENV}"  # as checkpoints record it
    assert Fidelity(scenes=2, worlds=1).of_model(short) == rows
    with pytest.raises(ValueError, match="env: expected .* got 'dice/Views-v0'"):
        Fidelity(scenes=2, env="dice/Views-v0").of_model(short)
    with pytest.raises(ValueError, match="5 steps or more"):
        similarities(make("copy-last", Spec((3, 16, 16), passive, 4)), 2)
    with pytest.raises(ValueError, match="its actions are"):
        held_out(make("copy-last", Spec((3, 16, 16), ActionSpec("discrete", (), (3,)), 19)), ENV, 2)
    with pytest.raises(ValueError, match="have 3 channels"):
        held_out(make("copy-last", Spec((1, 16, 16), passive, 19)), ENV, 2)
    with pytest.raises(ValueError, match="camera poses of 7 numbers; those of .* have 0"):
        held_out(make("copy-last", Spec((3, 16, 16), passive, 19, pose=7)), ENV, 2)
    with pytest.raises(ValueError, match="env: expected one of"):
        held_out(short, "Pong-v0", 2)
