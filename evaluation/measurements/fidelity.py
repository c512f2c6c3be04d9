"""How close do sampled futures come to the true one? Each kind of scene by its own protocol.

Nature's Traveling Salesman: the squared error of the closest of 30 futures (seed 001, section 4).
Stochastic moving digits: SSIM and PSNR of the best of 100 (``similarity``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs import sample_scenes
from envs.narratives.motion import LEG_STEPS
from evaluation.metrics import statistics
from evaluation.metrics.similarity import DIGITS, similarities
from evaluation.metrics.story_consistency import LEG_ENDS, NATURE
from evaluation.runner.measurement import OfWorlds, Row, environment
from worldmodel import Context, Queries, WorldModel, to_float
from worldmodel.common.progress import progress

CONTEXT_FRAMES = LEG_STEPS + 1
"""The paper's context: the first six of 21 frames (seed 001, section 4.1)."""


@dataclass(frozen=True)
class Fidelity(OfWorlds):
    """The sampled future that comes closest: error (Traveling Salesman), SSIM and PSNR (digits)."""

    name = "fidelity"
    columns = ("checkpoint", "model", "metric", "worlds", "value", "low", "high", "n")
    scenes: int = 200
    """Of the test split."""
    worlds: int | None = None
    """Sampled of each scene; by default the published 30 (Traveling Salesman) or 100 (digits)."""

    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows ``model, env, metric, worlds, value, low, high, n``; intervals over scenes.

        Raises:
            ValueError: the environment is neither of the two, or the model is not of it; see
                ``errors``, ``similarities``.
        """
        env = environment(self.env, model.env_id)
        if env not in (NATURE, DIGITS):
            raise ValueError(f"env: expected {NATURE!r} or {DIGITS!r}, got {env!r}")
        worlds = self.worlds
        if env == NATURE:
            worlds = 30 if worlds is None else worlds
            values = errors(model, self.scenes, worlds, self.seed)
            values = {f"mse, {name}": of_scenes for name, of_scenes in values.items()}
        else:
            worlds = 100 if worlds is None else worlds
            values = similarities(model, self.scenes, worlds, self.seed)
        return statistics.rows(model.name, env, values, self.seed, worlds=worlds)


def errors(
    model: WorldModel, scenes: int = 64, worlds: int = 30, seed: int = 0
) -> dict[str, Tensor]:
    """Mean squared errors of pixels in [0, 1], each (scenes,).

    - ``min-of-n``: of the later frames, in the sampled world that comes closest.
    - ``mean-of-n``: of the same frames, over all sampled worlds.
    - ``seen``: of the context's frames, over all sampled worlds.
    - ``copy-last``: of the later frames, if the last one of the context is repeated.
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
    queried = every if model.jumpy else every[CONTEXT_FRAMES - 1 + model.stride :: model.stride]
    ahead = queried >= CONTEXT_FRAMES
    generator = torch.Generator(model.device).manual_seed(seed)
    squared = []
    with torch.inference_mode():
        batches = torch.arange(scenes, device=model.device).split(16)
        for rows in progress(batches, "closest future", "batch"):
            context = Context(truth[rows, :CONTEXT_FRAMES], times[rows, :CONTEXT_FRAMES])
            sampled = model.sample(model.observe(context), worlds, generator)
            frames = model.predict(sampled, Queries(times[rows][:, queried])).observations
            assert frames is not None
            error = frames[:, :, 0].clamp(0, 1) - truth[rows][:, None, queried]
            squared.append(error.square().flatten(3).mean(3))  # (rows, worlds, times)
    all_times = torch.cat(squared)
    copied = truth[:, CONTEXT_FRAMES - 1 : CONTEXT_FRAMES] - truth[:, queried]
    copied = copied.square().flatten(2).mean(2)
    ends = torch.isin(queried, torch.tensor(LEG_ENDS[1:]))
    result = {
        "leg ends, min-of-n": all_times[:, :, ends].mean(2).amin(1),
        "leg ends, copy-last": copied[:, ends].mean(1),
    }
    if model.stride == 1:
        later = all_times[:, :, ahead].mean(2)
        result |= {"min-of-n": later.amin(1), "mean-of-n": later.mean(1)}
        result["copy-last"] = copied[:, ahead].mean(1)
    if model.jumpy:
        result["seen"] = all_times[:, :, ~ahead].mean((1, 2))
    return {name: values.cpu() for name, values in result.items()}
