"""Similarity of frames: to the truth (SSIM, PSNR), and to themselves when queried again.

Best-of-n SSIM and PSNR on stochastic moving digits follow the protocol of SVG.

(Denton and Fergus 2018, section 4.1 and its published code: the context is five frames, of each
test sequence 100 futures are sampled, and the best one counts.) The best is chosen for each metric
and each sequence by its mean over the predicted frames; the context does not count.

There are several SSIMs. Ours is torchmetrics': Gaussian window of 11 x 11 pixels, sigma 1.5, data
range 1, borders reflected and counted. SVG's published numbers come from an old scikit-image with
its defaults: uniform window of 7 x 7, sample covariance, data range 2 (that of the dtype float, not
of the pixels), three pixels of border cropped. The range makes it more lenient with noise, and it
is a little lower where digits are misplaced: two blobs a pixel apart get .898 by ours and .899 by
theirs, two pixels .806 and .795, and different blobs .651 and .596. A third, Wang et al.'s (11 x 11
Gaussian without the reflected border; SVG's ``finn_eval``, TensorFlow, SAVP, SRVP), gives .862,
.738 and .531. Compare rows of one table with each other, never with a paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from evaluation.runner.held_out_scenes import futures
from worldmodel import Queries, WorldModel, Worlds, to_float
from worldmodel.common.progress import progress

DIGITS = "digits/StochasticMovingDigits-v0"
CONTEXT_FRAMES = 5
"""SVG's."""
CEILING = 100.0
"""Decibels. Equal frames have an infinite PSNR; 8-bit frames of up to 220 pixels that differ at all
stay below 100."""
SSIM = "ssim (torchmetrics, 11x11 gaussian 1.5, data range 1)"
PSNR = f"psnr (torchmetrics, per frame, data range 1, at most {CEILING:.0f} dB)"
LEAST = 1 / 255
"""A difference of pixels in [0, 1] that an 8-bit frame shows."""
_IMAGES = 128
"""Compared at once: SSIM holds ten copies of each."""


def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of images, float32 (n, C, H, W) in [0, 1]; see above for which one.

    Returns:
        (n,), 1 for equal images.
    """
    from torchmetrics.functional.image import (  # takes seconds
        structural_similarity_index_measure,
    )

    pairs = zip(predicted.split(_IMAGES), truth.split(_IMAGES), strict=True)
    values = []
    for one, other in pairs:
        value = structural_similarity_index_measure(one, other, reduction="none", data_range=1.0)
        assert isinstance(value, Tensor)
        values.append(value.reshape(-1))
    return torch.cat(values)


def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images, float32 (n, C, H, W) in [0, 1].

    Returns:
        (n,) in decibels, -10 log10 of the mean squared error, at most ``CEILING``: one frame that
        is exactly right must not make a mean infinite.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    value = peak_signal_noise_ratio(
        predicted, truth, data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return value.clamp_max(CEILING)


def similarities(
    model: WorldModel, scenes: int = 200, worlds: int = 100, seed: int = 0
) -> dict[str, Tensor]:
    """SSIM and PSNR, means over the predicted frames, each (scenes,) on the CPU.

    Of both, by the names ``SSIM`` and ``PSNR``: ``best-of-n``, of the best of ``worlds`` futures;
    ``mean-of-n``, of all of them; and ``copy-last``, if the last context frame is repeated.

    Raises:
        ValueError: the model is not of the digits' scenes; see ``futures``.
    """
    metrics = {SSIM: ssim, PSNR: psnr}
    sampled: dict[str, list[Tensor]] = {name: [] for name in metrics}
    copied: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for frames, imagined in futures(model, DIGITS, CONTEXT_FRAMES, scenes, worlds, seed):
        truth = to_float(frames).to(model.device)[:, None]  # (b, 1, T, C, H, W)
        guess = to_float(imagined).to(model.device)
        later = truth[:, :, CONTEXT_FRAMES:]
        still = truth[:, :, CONTEXT_FRAMES - 1 : CONTEXT_FRAMES].expand_as(later)
        for name, metric in metrics.items():
            sampled[name].append(per_future(metric, guess, later))
            copied[name].append(per_future(metric, still, later))
    result = {}
    for name in metrics:
        of_worlds = torch.cat(sampled[name])  # (scenes, worlds)
        result[f"{name}, best-of-{worlds}"] = of_worlds.amax(1)
        result[f"{name}, mean-of-{worlds}"] = of_worlds.mean(1)
        result[f"{name}, copy-last"] = torch.cat(copied[name])[:, 0]
    return result


def per_future(
    metric: Callable[[Tensor, Tensor], Tensor], futures: Tensor, truth: Tensor
) -> Tensor:
    """Means over frames (b, S) on the CPU, of futures (b, S, K, C, H, W) and truth (b, 1, K, ...).

    ``metric`` compares images (n, C, H, W) and gives (n,).
    """
    each = metric(futures.flatten(0, 2), truth.expand_as(futures).flatten(0, 2))
    return each.view(futures.shape[:3]).mean(2).cpu()


@torch.inference_mode()
def contradictions(model: WorldModel, worlds: Worlds, queries: Queries, frames: Tensor) -> Tensor:
    """Share of frames that change when they are queried again: each alone, the last one first.

    Args:
        model: of the worlds.
        worlds: B x S.
        queries: K of each scene, along one plan or none.
        frames: float32 (B, S, K, C, H, W), predicted for all queries at once.

    Returns:
        float32 (B,), over worlds and queries, on the CPU.
    """
    changed = []
    for k in progress(range(queries.times.shape[1])[::-1], "contradictions", "query"):
        poses = None if queries.poses is None else queries.poses[:, k : k + 1]
        alone = replace(queries, times=queries.times[:, k : k + 1], poses=poses)
        again = model.predict(worlds, alone).observations
        assert again is not None
        difference = (again[:, :, 0, 0] - frames[:, :, k]).abs().flatten(2).amax(2)
        changed.append(difference > LEAST)
    return torch.stack(changed).float().mean((0, 2)).cpu()
