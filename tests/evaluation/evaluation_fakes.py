"""Models whose futures are known, and the scenes that they know."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs import sample_scenes
from worldmodel import (
    ActionSpec,
    Belief,
    Context,
    Prediction,
    Queries,
    Spec,
    Worlds,
    preset,
    to_float,
)
from worldmodel.models.baselines import CopyLast
from worldmodel.models.baselines.copy_last import CopyLastConfig
from worldmodel.models.jumpy.jump import Jump

DIGITS = Spec((3, 16, 16), ActionSpec("none"), 19)


def truth(env: str, scenes: int, steps: int, size: int = 16) -> Tensor:
    """All frames (B, steps + 1, 3, size, size) of the first test scenes of seed 0."""
    batch = sample_scenes(env, scenes, split="test", size=size)
    return to_float(batch.observations(torch.arange(steps + 1).expand(scenes, -1)))


@dataclass(frozen=True)
class Script:
    """Videos of the context, (B, T, C, H, W), and of each world, (B, S, T, C, H, W)."""

    context: Tensor
    worlds: Tensor


class Scripted(CopyLast):
    """Recognises a scene by its context, and predicts the worlds that were written for it."""

    def __init__(self, spec: Spec, script: Script) -> None:
        super().__init__(spec, CopyLastConfig())
        self.script = script

    def _observe(self, context: Context) -> Belief:
        known = self.script.context[:, : context.times.shape[1]]
        same = (context.observations[:, None] == known[None]).flatten(2).all(2)
        assert same.any(1).all()
        return Belief(context.present_times(), {"scene": same.int().argmax(1)})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        assert n == self.script.worlds.shape[1]
        return Worlds(belief.present, {"video": self.script.worlds[belief.state["scene"]]})

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        video = worlds.state["video"]
        rows = torch.arange(len(video))[:, None]
        samples = video.movedim(2, 1)[rows, queries.times].movedim(1, 2).unsqueeze(2)
        return Prediction(samples, video, video)


class Replay(Jump):
    """Shows the true scenes whatever it is asked: the upper bound."""

    def __init__(self, spec: Spec, frames: Tensor) -> None:
        super().__init__(spec, preset("jump", "views"))
        self.frames = frames  # (B, T, C, H, W)

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        rows = torch.arange(len(self.frames))[:, None]
        true = self.frames[rows, queries.times].unsqueeze(1).expand(-1, worlds.shape[1], *[-1] * 4)
        return Prediction(true.unsqueeze(2), torch.zeros(1), torch.zeros(1))
