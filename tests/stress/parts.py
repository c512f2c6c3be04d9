"""Models at test size, each with scenes of noise to train on: what is killed, spoiled and fed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worldmodel import ActionSpec, Episodes, Spec, WorldModel, fit, make, preset, testing
from worldmodel.models.frame_by_frame.ensemble_config import EnsembleConfig
from worldmodel.models.frame_by_frame.vim_config import VimConfig
from worldmodel.models.jumpy.cvg import CvgConfig
from worldmodel.spec.parts import Part
from worldmodel.types import SceneSource

CHOICES = ActionSpec("discrete", (), (3,))
FREE = {"low": (-np.inf,) * 2, "high": (np.inf,) * 2}
IMAGE = Part("camera", (16, 16, 3), "uint8")
GOAL = Part("goal", (2,), "float64", (-2.0,) * 2, (2.0,) * 2)
STATE = Part("state", (2,), "float32", **FREE)
VECTOR = Spec((2,), CHOICES, 8, **FREE)
IMAGES = Spec((3, 16, 16), CHOICES, 8)
VECTORS_OF_DICT = Spec.of_parts((GOAL, STATE), CHOICES, 8)
IMAGE_OF_DICT = Spec.of_parts((IMAGE, STATE), CHOICES, 8)
VIEWS = testing.VIEWS["camera"]

ENSEMBLE = EnsembleConfig(
    members=3, elites=2, layers=1, hidden=8, head_hidden=4, weight_decay=(1e-4, 1e-4)
)
VECTORS = replace(
    preset("jump", "vector"),
    hidden=4, tower=4, latent=2, key_features=2, path=4, scene=4, head=4, mlp=4,
)  # fmt: skip
COPYING = replace(
    preset("jump", "small"), width=16, heads=2, key_features=4, content=3, latent=2, flow_width=16,
    flow_blocks=1, plan_blocks=1, prior_share=0.6, prior_batch=6, prior_memory=10,
)  # fmt: skip
RAYS = replace(
    preset("jump", "rays-small"), features=8, cells=8, memory=4, content=8, samples=6, latent=2,
    flow_width=16, flow_blocks=1, crop=16, prior_share=0.6, prior_batch=6, prior_memory=10,
)  # fmt: skip
INFERNO = replace(
    preset("inferno", "small"), objects=2, channels=8, coarse=4, size=16, pose_hidden=16, latent=8,
    object_layers=3, object_width=16, background_width=8, features=8, point_waves=2, upscaler=8,
)  # fmt: skip
CVG = CvgConfig(
    noise=4, first_generator=(8, 8), first_discriminator=(8, 8), second_generator=(8, 8),
    second_discriminator=(8, 8), scale=2, crop=2, statistics_passes=1, statistics_batch=4,
)  # fmt: skip
VIM = VimConfig(
    slots=3, modules=4, size=16, channels=8, kernel=3, coarse=4, hidden=16, candidate=16, width=16,
    pretraining=0.25, first_frames=3, frames=8,
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A model's name, settings and spec, and whether ``fit`` holds episodes out."""

    name: str
    config: Any
    spec: Spec
    holds_out: bool = False

    def make(self, seed: int = 0) -> WorldModel:
        return make(self.name, self.spec, self.config, seed)

    def source(self) -> SceneSource | Episodes:
        """Episodes where ``fit`` shall hold some out, else windows."""
        if self.holds_out:
            return testing.random_episodes(self.spec, 6)
        return testing.random_source(self.spec)

    def fit(self, model: WorldModel, steps: int, **settings: Any) -> dict[str, float]:
        """Of a run that saves, logs and measures as often as it can; its precision is not chosen by
        the processor's speed.
        """
        if not self.holds_out:
            settings = {"ema": 0.9, "validation": testing.random_source(self.spec), **settings}
        return fit(
            model, self.source(), steps, save_minutes=0.0, log_every=1, validate_every=5,
            holdout_every=3, progress=False, precision="float32", **settings,
        )  # fmt: skip


MODELS = {
    "ensemble": Trained("ensemble", ENSEMBLE, VECTOR, holds_out=True),
    "jumpy of a Dict": Trained("jump", COPYING, IMAGE_OF_DICT),
    "ensemble of a Dict": Trained("ensemble", ENSEMBLE, VECTORS_OF_DICT, holds_out=True),
    "jumpy": Trained("jump", COPYING, IMAGES),
    "rays": Trained("jump", RAYS, VIEWS),
    "inferno": Trained("inferno", INFERNO, VIEWS),
    "cvg": Trained("cvg", CVG, replace(IMAGES, action=ActionSpec("none"), window=7)),
    "vim": Trained("vim", VIM, IMAGES),
    "jump of vectors": Trained("jump", VECTORS, replace(VECTOR, low=(-1.0, -np.inf))),
}
"""The first two stand for all in the short version."""
