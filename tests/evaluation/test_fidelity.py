"""SSIM and PSNR of models whose futures are known, and which scenes a model is judged on."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation_fakes import DIGITS, Script, Scripted, truth
from torch import Tensor

from evaluation.measurements.fidelity import NATURE, env_of, fidelity
from evaluation.metrics.similarity import CEILING, PSNR, SEEN, SSIM, psnr, similarities, ssim
from evaluation.runner.test_scenes import unseen
from worldmodel import ActionSpec, Spec, make

ENV = "digits/StochasticMovingDigits-v0"
SCENES = 3


@pytest.fixture(scope="module")
def films() -> Tensor:
    return truth(ENV, SCENES, 19)


def dimmed(films: Tensor) -> Tensor:
    """Half as bright: similar in structure, far off in error."""
    return films * 0.5


def noisy(films: Tensor) -> Tensor:
    """The other way round."""
    noise = torch.randn(films.shape, generator=torch.Generator().manual_seed(0))
    return (films + 0.04 * noise).clamp(0, 1)


def test_the_truth_cannot_be_beaten(films: Tensor) -> None:
    found = similarities(Scripted(DIGITS, Script(films, films[:, None])), SCENES, worlds=1)
    torch.testing.assert_close(found[f"{SSIM}, best-of-1"], torch.ones(SCENES))
    assert (found[f"{PSNR}, best-of-1"] == CEILING).all()  # and not infinite
    rows = fidelity(Scripted(DIGITS, Script(films, films[:, None])), SCENES, worlds=1)
    assert all(math.isfinite(row[key]) for row in rows for key in ("value", "low", "high"))
    assert {(row["env"], row["worlds"], row["n"]) for row in rows} == {(ENV, 1, SCENES)}


def test_copy_last_gets_what_copying_gets(films: Tensor) -> None:
    found = similarities(make("copy-last", DIGITS), SCENES, worlds=2)
    still = films[:, SEEN - 1 : SEEN].expand_as(films[:, SEEN:])  # shown frames do not count
    error = (still - films[:, SEEN:]).square().mean((2, 3, 4))
    by_hand = (-10 * error.log10()).clamp_max(CEILING).mean(1)
    for name in ("best-of-2", "mean-of-2", "copy-last"):
        torch.testing.assert_close(found[f"{PSNR}, {name}"], by_hand)
        torch.testing.assert_close(found[f"{SSIM}, {name}"], found[f"{SSIM}, copy-last"])
    assert (found[f"{SSIM}, copy-last"] < 0.95).all()


def test_the_best_is_chosen_for_each_metric_and_each_sequence(films: Tensor) -> None:
    worlds = torch.stack([dimmed(films), noisy(films), torch.zeros_like(films)], 1)
    worlds[1, 2] = films[1]  # of scene 1 the third world is the truth
    found = similarities(Scripted(DIGITS, Script(films, worlds)), SCENES, worlds=3)
    alone = [
        similarities(Scripted(DIGITS, Script(films, worlds[:, [world]])), SCENES, worlds=1)
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


def test_the_best_is_chosen_by_the_mean_over_frames(films: Tensor) -> None:
    """Two worlds, each right half of the time: no frame by frame choice makes one of them."""
    early, late = torch.zeros_like(films), torch.zeros_like(films)
    early[:, :12], late[:, 12:] = films[:, :12], films[:, 12:]
    model = Scripted(DIGITS, Script(films, torch.stack([early, late], 1)))
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
    films = truth(NATURE, SCENES, 20)
    worlds = torch.stack([torch.zeros_like(films), films], 1)
    rows = fidelity(Scripted(spec, Script(films, worlds)), SCENES, worlds=2)
    value = {row["metric"]: row["value"] for row in rows}
    assert value["mse, min-of-n"] == value["mse, leg ends, min-of-n"] == 0.0
    assert value["mse, mean-of-n"] > value["mse, copy-last"] > 0.0


def test_models_are_judged_on_their_own_scenes() -> None:
    passive = ActionSpec("none")
    assert env_of(make("copy-last", Spec((3, 16, 16), passive, 20))) == NATURE
    assert env_of(make("copy-last", DIGITS)) == ENV
    short = make("copy-last", Spec((3, 16, 16), passive, 9))
    with pytest.raises(ValueError, match="name the env"):
        fidelity(short, 2)
    rows = fidelity(short, 2, worlds=1, env=f"envs:{ENV}")
    assert {row["env"] for row in rows} == {ENV}
    with pytest.raises(ValueError, match="env: expected .* got 'dice/Views-v0'"):
        fidelity(short, 2, env="dice/Views-v0")
    with pytest.raises(ValueError, match="5 steps or more"):
        similarities(make("copy-last", Spec((3, 16, 16), passive, 4)), 2)
    with pytest.raises(ValueError, match="its actions are"):
        unseen(make("copy-last", Spec((3, 16, 16), ActionSpec("discrete", (), (3,)), 19)), ENV, 2)
    with pytest.raises(ValueError, match="have 3 channels"):
        unseen(make("copy-last", Spec((1, 16, 16), passive, 19)), ENV, 2)
    with pytest.raises(ValueError, match="camera poses of 7 numbers; those of .* have 0"):
        unseen(make("copy-last", Spec((3, 16, 16), passive, 19, pose=7)), ENV, 2)
    with pytest.raises(ValueError, match="env: expected one of"):
        unseen(short, "Pong-v0", 2)
