"""Videos from noise: how near they are to real ones, and what becomes of them unrolled.

CVG, of the models. It generates whole videos, of any length; the thesis asks whether a second level
that plays against the matching discriminator stays with the first one's outline where a video is
longer than any of the training (seed 002, section 6.4).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.metrics import statistics
from evaluation.metrics.video_features import RandomFeatures, frechet
from evaluation.runner.held_out_scenes import held_out
from evaluation.runner.measurement import OfEachModel, Row, environment
from worldmodel import WorldModel, to_float
from worldmodel.common.config_checks import at_least
from worldmodel.common.progress import progress
from worldmodel.models.jumpy.cvg import Cvg
from worldmodel.models.jumpy.cvg.discriminator import smaller

_VIDEOS = 20
"""Drawn at once."""
WIDTH = 128
"""Of the features; a covariance needs more videos than that."""


@dataclass(frozen=True)
class Generation(OfEachModel):
    """Frechet distance of videos from noise to real ones, and the drift of longer ones."""

    name = "generation"
    columns = ("checkpoint", "model", "env", "metric", "value", "low", "high", "n")
    videos: int = 400
    """Of the test split, and drawn; more than the 128 features."""
    unroll: int = 4
    """How many times longer than those of the training drawn videos are."""
    draws: int = 5
    """Of as many videos each; intervals of distances are over them."""

    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows ``model, env, metric, value, low, high, n``, with 95% intervals.

        A video is cut into parts as long as those of the training.

        - ``distance, part p``: Frechet distance of the p-th parts to real videos, by features of
          random convolutions (``RandomFeatures``): no FVD, whose network needs a download.
        - ``distance, real``: of other real videos to them, which are no nearer for being few.
        - ``distance, noise``: of frames of random pixels.
        - ``outline, part p``: mean squared difference of the second level, made as small as the
          first, and the first.

        Raises:
            ValueError: the model does not draw videos from noise; a number is out of range.
        """
        at_least(WIDTH + 1, self, "videos")
        at_least(1, self, "unroll")
        at_least(2, self, "draws")
        if not isinstance(model, Cvg):
            raise ValueError(
                f"checkpoints: expected models that draw videos from noise (cvg), got {model.name};"
                " perceptual and fidelity measure those that predict"
            )
        env = environment(self.env, model.env_id)
        features = RandomFeatures(model.spec.observation[0]).to(model.device)
        truth, *others = self._real(model, env, features)
        frames = model.spec.window + 1
        shape = (self.videos, frames, *model.spec.observation)
        generator = torch.Generator(model.device).manual_seed(self.seed)
        longer = model if self.unroll == 1 else model.unrolled(self.unroll * frames - 1)
        distances: dict[str, list[float]] = defaultdict(list)
        outlines: dict[str, list[Tensor]] = defaultdict(list)
        for other in progress(others, "draw", "set"):
            parts = self._parts(longer, features, generator, outlines)
            for p, part in enumerate(parts):
                distances[f"distance, part {p + 1}"].append(frechet(part, truth))
            distances["distance, real"].append(frechet(other, truth))
            noise = torch.rand(shape, generator=generator, device=model.device)
            of_noise = torch.cat([features(some) for some in noise.split(_VIDEOS)])
            distances["distance, noise"].append(frechet(of_noise, truth))
        values = {name: torch.tensor(each) for name, each in sorted(distances.items())}
        values |= {name: torch.cat(each) for name, each in sorted(outlines.items())}
        return statistics.rows(model.name, env, values, self.seed)

    def _real(self, model: Cvg, env: str, features: RandomFeatures) -> tuple[Tensor, ...]:
        """Features (videos, D) of sets of real videos: what is compared with, and one a draw."""
        total = self.videos * (self.draws + 1)
        scenes = held_out(model, env, total, self.seed, self.device)
        parts = []
        for rows in torch.arange(total, device=self.device).split(_VIDEOS):
            times = torch.arange(model.spec.window + 1, device=self.device).expand(len(rows), -1)
            parts.append(features(to_float(scenes.rows(rows).observations(times))))
        sets: tuple[Tensor, ...] = torch.cat(parts).split(self.videos)
        return sets

    @torch.inference_mode()
    def _parts(
        self,
        model: Cvg,
        features: RandomFeatures,
        generator: torch.Generator,
        outlines: dict[str, list[Tensor]],
    ) -> list[Tensor]:
        """Features (videos, D) of each part of drawn videos; their errors go to ``outlines``."""
        parts: list[list[Tensor]] = [[] for _ in range(self.unroll)]
        for first in range(0, self.videos, _VIDEOS):
            low, video = model.levels(min(_VIDEOS, self.videos - first), generator)
            small = smaller(video[:, :: model.config.time_scale], low.shape[-1])
            errors = (small - low).square().flatten(2).mean(2).chunk(self.unroll, 1)
            for p, part in enumerate(video.chunk(self.unroll, 1)):
                parts[p].append(features(part))
                outlines[f"outline, part {p + 1}"].append(errors[p].mean(1))
        return [torch.cat(each) for each in parts]
