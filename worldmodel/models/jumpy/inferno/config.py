"""Settings of INFERNO: the thesis' (seed 002, chapter 10 and appendix 10.A), and ours for a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from worldmodel.common.config_checks import above_zero, at_least, below_one, layer_counts, odd

Projection = Literal["perspective", "orthographic"]


@dataclass(frozen=True)
class InfernoConfig:
    """Sizes and training settings; the defaults are the thesis' for CLEVR6 at 64x64.

    What the thesis leaves open of cameras and rays is GIRAFFE's. Lengths are in units of half the
    scene's cube.

    Attributes:
        objects: K, slots besides that of the background.
        channels, kernel: of the convolutions.
        coarse: pixels on a side of the places that are encoded: 1, 2 or 4.
        size: numbers of a slot.
        attention_steps: of slot attention.
        focus: how far slots of objects look around where they are, in half sides of the frame, and
            objects are placed relative to that; 0: anywhere, and in the scene.
        pose_hidden: units of the perceptron of poses.
        latent: numbers of a shape, and of an appearance.
        object_layers, object_width: of the perceptron that is the objects' field.
        skip: the layer of it that reads position and shape again; 0 for none.
        background_layers, background_width: of the background's.
        features: channels of a rendered picture, the first of which are its colours.
        point_waves, direction_waves: frequencies of the waves that encode a position, and the
            direction of a ray; 0 of the latter: colours do not depend on it.
        samples: points on a ray; some should lie in each object: 24 for the views of dice.
        render: pixels on a side that are rendered, at least, while the upscaler is there.
        upscaler: channels of it.
        upscaling: share of the training with the upscaler; then it is taken away.
        rays: pixels of a frame that a training step renders without it; 0 for all.
        object_scale: half the size of a usual object; they are from half to twice as large.
        projection: where scenes have no known camera, ``perspective``, or ``orthographic`` from
            above.
        field_of_view, elevation: of the perspective camera, in degrees.
        distance: of it from the middle of the scene.
        near, far: depths between which it sees.
        views: of a scene that a training step renders, the one that is observed and others, where
            the camera is known.
        warm_up: share of the training in which the learning rate rises from 0, below 1; from there
            it goes by a constant factor per step to ``learning_rate_end``.
        weight_decay: of Adam, added to the gradients.
    """

    objects: int = 6
    channels: int = 64
    kernel: int = 5
    coarse: int = 1
    size: int = 128
    attention_steps: int = 3
    focus: float = 0.0
    pose_hidden: int = 7
    latent: int = 128
    object_layers: int = 8
    object_width: int = 64
    skip: int = 4
    background_layers: int = 4
    background_width: int = 16
    features: int = 128
    point_waves: int = 10
    direction_waves: int = 4
    samples: int = 64
    render: int = 16
    upscaler: int = 64
    upscaling: float = 0.25
    rays: int = 0
    object_scale: float = 0.17
    projection: Projection = "perspective"
    field_of_view: float = 49.13
    elevation: float = 33.0
    distance: float = 2.732
    near: float = 0.5
    far: float = 6.0
    views: int = 1
    warm_up: float = 0.025
    weight_decay: float = 1e-6
    learning_rate: float = 1e-4
    learning_rate_end: float = 1e-4

    def __post_init__(self) -> None:
        at_least(1, self, "objects", "channels", "kernel", "size", "attention_steps", "pose_hidden")
        at_least(1, self, "latent", "object_width")
        layer_counts(self, "object_layers", "background_layers")
        at_least(1, self, "background_width", "point_waves", "render", "upscaler", "views")
        at_least(2, self, "samples")
        at_least(3, self, "features")
        at_least(0, self, "focus", "skip", "direction_waves", "rays", "weight_decay")
        odd(self, "kernel")
        above_zero(self, "object_scale", "distance", "near", "learning_rate", "learning_rate_end")
        below_one(self, "warm_up")
        if self.coarse not in (1, 2, 4):
            raise ValueError(f"coarse: expected 1, 2 or 4 pixels, got {self.coarse}")
        if self.skip >= self.object_layers:
            raise ValueError(
                f"skip: expected a layer before the last of {self.object_layers}, got {self.skip}"
            )
        if not 0 <= self.upscaling <= 1:
            raise ValueError(f"upscaling: expected from 0 to 1, got {self.upscaling}")
        if self.projection not in get_args(Projection):
            raise ValueError(
                f"projection: expected one of {get_args(Projection)}, got {self.projection!r}"
            )
        if not 0 < self.field_of_view < 180 or not -90 <= self.elevation <= 90:
            raise ValueError(
                "field_of_view, elevation: expected degrees in (0, 180) and [-90, 90], got "
                f"{self.field_of_view} and {self.elevation}"
            )
        if not self.near < self.far:
            raise ValueError(f"near, far: expected near < far, got {self.near} and {self.far}")


PRESETS: dict[str, InfernoConfig] = {
    "paper": InfernoConfig(),
    "small": InfernoConfig(
        objects=5,
        channels=32,
        coarse=2,
        size=64,
        focus=0.35,
        pose_hidden=64,
        latent=32,
        object_layers=4,
        object_width=32,
        skip=2,
        features=32,
        point_waves=4,
        direction_waves=0,
        samples=8,
        upscaler=32,
        upscaling=0.4,
        rays=256,
        object_scale=0.3,
        projection="orthographic",
        views=2,
        warm_up=0.1,
        learning_rate=2e-3,
        learning_rate_end=2e-4,
    ),
}
