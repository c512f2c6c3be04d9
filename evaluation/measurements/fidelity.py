"""How close do sampled futures come to what happened? Each kind of scene by its own protocol.

Nature's Traveling Salesman: the squared error of the closest of 30 futures (seed 001, section 4).
Stochastic moving digits: SSIM and PSNR of the best of 100 (``similarity``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs import sample_scenes
from envs.narratives.motion import LEG_STEPS
from evaluation.measurements.story_consistency import LEG_ENDS, NATURE
from evaluation.metrics import statistics
from evaluation.metrics.similarity import DIGITS, similarities
from evaluation.runner.progress import shown
from worldmodel import Context, Queries, WorldModel, to_float

SEEN = LEG_STEPS + 1
"""The paper shows the first six of 21 frames (seed 001, section 4.1)."""


def errors(
    model: WorldModel, scenes: int = 64, worlds: int = 30, seed: int = 0
) -> dict[str, Tensor]:
    """Mean squared errors of pixels in [0, 1], each (scenes,).

    - ``min-of-n``: of the later frames, in the sampled world that comes closest.
    - ``mean-of-n``: of the same frames, over all sampled worlds.
    - ``seen``: of the frames that were shown, over all sampled worlds.
    - ``copy-last``: of the later frames, if the last one shown is repeated.
    - ``leg ends, min-of-n`` and ``leg ends, copy-last``: the same of frames 11, 16 and 21 alone, in
      each of which the actor has arrived somewhere. Models that stride reach no others.

    Raises:
        ValueError: the model is not of nature's Traveling Salesman.
    """
    if not model.spec.passive or model.spec.window != 20:
        raise ValueError(f"model: expected one of envs:{NATURE}, got {model.spec}")
    batch = sample_scenes(NATURE, scenes, split="test", size=model.spec.observation[1], seed=seed)
    every = torch.arange(model.spec.window + 1)
    times = every.expand(scenes, -1)
    truth = to_float(batch.observations(times)).to(model.device)
    times = times.to(model.device)
    # a frame-by-frame model cannot look back
    asked = every if model.jumpy else every[SEEN - 1 + model.stride :: model.stride]
    ahead = asked >= SEEN
    generator = torch.Generator(model.device).manual_seed(seed)
    squared = []
    with torch.inference_mode():
        batches = torch.arange(scenes, device=model.device).split(16)
        for rows in shown(batches, "closest future", "batch"):
            context = Context(truth[rows, :SEEN], times[rows, :SEEN])
            sampled = model.sample(model.observe(context), worlds, generator)
            frames = model.predict(sampled, Queries(times[rows][:, asked])).observations
            assert frames is not None
            error = frames[:, :, 0].clamp(0, 1) - truth[rows][:, None, asked]
            squared.append(error.square().flatten(3).mean(3))  # (rows, worlds, times)
    all_times = torch.cat(squared)
    copied = (truth[:, SEEN - 1 : SEEN] - truth[:, asked]).square().flatten(2).mean(2)
    ends = torch.isin(asked, torch.tensor(LEG_ENDS[1:]))
    found = {
        "leg ends, min-of-n": all_times[:, :, ends].mean(2).amin(1),
        "leg ends, copy-last": copied[:, ends].mean(1),
    }
    if model.stride == 1:
        later = all_times[:, :, ahead].mean(2)
        found |= {"min-of-n": later.amin(1), "mean-of-n": later.mean(1)}
        found["copy-last"] = copied[:, ahead].mean(1)
    if model.jumpy:
        found["seen"] = all_times[:, :, ~ahead].mean((1, 2))
    return {name: values.cpu() for name, values in found.items()}


def env_of(model: WorldModel) -> str:
    """The passive scenes whose frames and length are the model's: nature's, or the digits.

    Raises:
        ValueError: neither.
    """
    spec = model.spec
    lengths = {20: NATURE, 19: DIGITS}  # in steps; both show square frames of 3 channels
    passive = spec.is_image and not spec.pose and spec.passive
    if not passive or spec.window not in lengths:
        raise ValueError(
            f"model: expected one of passive scenes, of 20 steps ({NATURE}) or 19 ({DIGITS}), got "
            f"{spec}; for another window name the env"
        )
    return lengths[spec.window]


def fidelity(
    model: WorldModel,
    scenes: int = 200,
    worlds: int | None = None,
    seed: int = 0,
    env: str | None = None,
) -> list[dict[str, Any]]:
    """Rows ``model, env, metric, worlds, value, low, high, n``; intervals over scenes.

    Args:
        model: of these scenes.
        scenes: of the test split.
        worlds: futures of each; None for the published 30 (Traveling Salesman) or 100 (digits).
        seed: of scenes and worlds.
        env: ``NATURE`` for ``errors``, ``DIGITS`` for ``similarities``; None for ``env_of``.

    Raises:
        ValueError: another env, or the model is not of it; see ``errors``, ``similarities``.
    """
    env = env_of(model) if env is None else env.removeprefix("envs:")
    if env not in (NATURE, DIGITS):
        raise ValueError(f"env: expected {NATURE!r} or {DIGITS!r}, got {env!r}")
    if env == NATURE:
        worlds = 30 if worlds is None else worlds
        found = errors(model, scenes, worlds, seed)
        found = {f"mse, {name}": values for name, values in found.items()}
    else:
        worlds = 100 if worlds is None else worlds
        found = similarities(model, scenes, worlds, seed)
    return statistics.rows(model.name, env, found, seed, worlds=worlds)
