"""How close do sampled futures come to what happened? Traveling Salesman, nature's scenes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs import sample_scenes
from envs.narratives.motion import LEG_STEPS
from evaluation import statistics
from evaluation.consistency import LEG_ENDS, NATURE
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
    if model.spec.action.kind != "none" or model.spec.window != 20:
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
        for rows in torch.arange(scenes, device=model.device).split(16):
            context = Context(truth[rows, :SEEN], times[rows, :SEEN])
            sampled = model.sample(model.observe(context), worlds, generator)
            frames = model.predict(sampled, Queries(times[rows][:, asked])).observations
            assert frames is not None
            error = frames.clamp(0, 1) - truth[rows][:, None, asked]
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


def fidelity(
    model: WorldModel, scenes: int = 200, worlds: int = 30, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows ``model, env, metric, value, low, high, n`` of ``errors``; intervals over scenes."""
    return [
        {
            "model": model.name, "env": NATURE, "metric": f"mse, {name}", "worlds": worlds,
            **statistics.mean(values.double().numpy(), seed)._asdict(),
        }
        for name, values in errors(model, scenes, worlds, seed).items()
    ]  # fmt: skip
