"""INFERNO: infer NeRF objects (Castrejon, Ballas and Courville 2022; seed 002, chapter 10).

A frame is explained as a scene of K objects and a background, each a neural radiance field:

    slots            = slot attention of the encoded frame, from random slots       (10.2.2)
    pose_i           = MLP(slot_i): translation, scale (and a rotation)             (table 10.7)
    shape_i, app_i   = MLP(slot_i), its LayerNorm conditioned on pose_i
    sigma_i, a_i     = NeRF(pose_i^-1 x, d, shape_i, app_i)                         (10.3)
    sigma            = sum_i sigma_i,   a = sum_i sigma_i a_i / sigma               (10.4)
    frame            = upscale(what 16 x 16 rays meet), later what all rays meet

and the loss is the squared error of the frame (10.1). No label, no mask and, in the thesis, no
second view is needed. The upscaler is there for the first quarter of the training.

What it answers. The random slots are the only randomness: worlds of one belief differ by how the
frame is divided into objects. It observes one frame (``max_context`` of 1), and

- with camera poses as keys, of a known camera (``Spec.camera``), any view of the scene;
- with times as keys, the observed time alone: it knows single frames, and neither motion nor
  actions nor rewards. Other times, and ``advance``, raise ``UnsupportedQuery``.

``infer`` and ``render`` are its halves: a ``Scene`` may be changed in between, objects moved,
scaled, turned, removed, or taken from another scene (10.B.1).

Deviations and choices:

- Constants that the thesis lacks are GIRAFFE's, whose renderer it uses: 64 points on a ray, depths,
  field of view and distance of the camera, frequencies; background positions are divided by twice
  the far depth. Its axes are ours: z is up, x away from the camera. Objects are from half to
  twice as large as GIRAFFE's, translations lie in [-1, 1], of z in [-0.5, 0.5]: the thesis says no
  ranges.
- Where the camera is known, a scene's x is where the observing camera looks, and camera numbers
  are added to the encoded frame; other views are learned from as well (``views``), if wanted.
- ``orthographic`` (preset ``small``) sees a plane from above, for drawn 2-D frames.
- An object fills the ball in its box, and its density falls to 0 there; GIRAFFE cuts off a box.
  Densities are a softplus, not a ReLU, so that no object dies. Fields are evaluated only where an
  object is.
- What passes all points of a ray belongs to the background; a NeRF's last point is infinitely
  long, and haze of an object there would own it.
- The first channels of rendered features are the colours, which the upscaler adds to: so it can be
  taken away. The thesis does not say how features then become colours. Without it, a training step
  may render some pixels only (``rays``).
- ``focus`` (preset ``small``): an object's slot begins at a random place and looks around where it
  is, and translations are relative to that. Without, all slots of a story stayed alike for the
  first hundreds of steps. Colours begin faint: else, objects first learn to be small and thin.
- Convolutions are padded by 2, as "resolution-preserving" asks of 5x5 kernels; table 10.5 says 1.
  Positions also scale features, and a perceptron follows, as in our other slot attention. LayerNorm
  of the places is over their 64 channels; table 10.6 says 128.
- Rotations are not inferred (nor in the thesis), but rendered.
- The learning rate warms up for a share of the training, of unknown length there. LPIPS, which the
  thesis adds for CLEVR2345 only, needs the weights of another network, and is left out.
- ``coarse`` (preset ``small``) encodes at a lower resolution than the frame's.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.base import Losses, UnsupportedQuery, WorldModel
from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.inferno.cameras import SceneCamera
from worldmodel.models.jumpy.inferno.config import InfernoConfig
from worldmodel.models.jumpy.inferno.renderer import Renderer, Upscaler, doublings
from worldmodel.models.jumpy.inferno.slots import Scene, SceneSlots, SlotToObject
from worldmodel.models.layers.slot_attention import PictureEncoder, warmed_up
from worldmodel.spec import Spec
from worldmodel.types import Belief, Context, Queries, SceneBatch, StepPrediction, Worlds

POINTS_AT_ONCE = 1 << 20
"""Points on rays times objects that answers are rendered of at once."""
CAMERA_NUMBERS = 12
"""Position and axes."""


class View(NamedTuple):
    """P rendered pictures.

    Attributes:
        frames: float32 (P, C, H, W), not clamped.
        masks: float32 (P, 1 + K, H, W), how much of each pixel is the background, and each object;
            sum 1.
    """

    frames: Tensor
    masks: Tensor


class Inferno(WorldModel):
    """INFERNO; see ``InfernoConfig`` for what can be set.

    ``Worlds.state`` holds the entries of ``Scene``, by name.

    Args:
        spec: images. Where poses are the keys, of a known camera.
        config: sizes and training settings.

    Raises:
        ValueError: poses are the keys, but nothing is known of the camera.
    """

    name: ClassVar[str] = "inferno"
    jumpy: ClassVar[bool] = True
    uses_camera: ClassVar[bool] = True
    trains_in_parts: ClassVar[bool] = True
    config: InfernoConfig
    initial_noise: Tensor
    upscales: Tensor

    def __init__(self, spec: Spec, config: InfernoConfig) -> None:
        super().__init__(spec, config)
        if spec.pose and spec.camera is None:
            raise ValueError(
                "spec: inferno renders rays of a known camera, got poses without one; give "
                "Spec.camera, as Spec.from_spaces(..., pose=7, camera=Camera(...)) sets it"
            )
        self.max_context, self.horizon = 1, None if spec.pose else 0
        image, height, width = spec.observation
        self.halvings = doublings(height, width, config.render)
        inner = (config.channels, config.kernel, config.coarse)
        self.camera = SceneCamera(spec.camera, height, width, config)
        self.encoder = PictureEncoder(image, height, width, *inner)
        known = spec.camera is not None
        self.viewpoint = nn.Linear(CAMERA_NUMBERS, config.channels) if known else None
        self.slots = SceneSlots(height // config.coarse, width // config.coarse, config)
        self.to_object = SlotToObject(config)
        self.renderer = Renderer(self.camera.near, self.camera.far, config)
        self.upscaler = Upscaler(image, config.features, config.upscaler, self.halvings)
        self.register_buffer("initial_noise", torch.randn(config.objects + 1, config.size))
        self.register_buffer("upscales", torch.tensor(config.upscaling > 0))

    # -- scenes ----------------------------------------------------------------------------------

    def infer(
        self, frames: Tensor, poses: Tensor | None = None, noise: Tensor | None = None
    ) -> Scene:
        """The scenes that frames show.

        Args:
            frames: float32 (P, C, H, W) in [0, 1].
            poses: float32 (P, pose), of the camera, where poses are the keys; else None.
            noise: float32 (P, K + 1, D), standard normal, of the slots; None takes that of the
                checkpoint, the same for all frames.

        Raises:
            ValueError: frames or poses have another shape than the model's.
        """
        if frames.dim() != 4 or tuple(frames.shape[1:]) != self.spec.observation:
            raise ValueError(
                f"frames: expected (P, C, H, W) with (C, H, W) = {self.spec.observation}, got "
                f"{tuple(frames.shape)}"
            )
        expected = (len(frames), self.spec.pose) if self.spec.pose else None
        got = None if poses is None else tuple(poses.shape)
        if got != expected:
            raise ValueError(f"poses: expected {expected}, got {got}")
        if noise is None:
            noise = self.initial_noise.expand(len(frames), -1, -1)
        cameras = self._observers(len(frames), poses)
        return self._infer(self._encode(frames, cameras), cameras, noise)

    def render(self, scene: Scene, cameras: Cameras | None = None) -> View:
        """Pictures of scenes.

        Args:
            scene: P of them.
            cameras: P of them, in the frames of the scenes; None takes those that observed them.

        Returns:
            pictures of the model's size; with the upscaler, as training begins, masks are those of
            the small picture, enlarged.
        """
        cameras = Cameras(scene.position, scene.axes) if cameras is None else cameras
        _, height, width = self.spec.observation
        upscales = bool(self.upscales)
        factor = 2**self.halvings if upscales else 1
        size = (height // factor, width // factor)
        features, masks = self.renderer(scene, self.camera.rays(cameras, *size))
        masks = masks.unflatten(2, size)
        if not upscales:
            return View(self._colours(features).unflatten(2, size), masks)
        frames = self.upscaler(features.transpose(1, 2).unflatten(2, size))
        return View(frames, masks.repeat_interleave(factor, 2).repeat_interleave(factor, 3))

    def _observers(self, count: int, poses: Tensor | None) -> Cameras:
        """Cameras that observe, each in the frame of its scene."""
        if poses is None:
            return self.camera.standard(count)
        return Cameras(*(x[:, 0] for x in self.camera.in_scene(poses.unsqueeze(1), poses)))

    def _encode(self, frames: Tensor, cameras: Cameras) -> Tensor:
        """Features (P, n, F)."""
        features: Tensor = self.encoder(frames)
        if self.viewpoint is not None:
            numbers = torch.cat([cameras.position, cameras.axes.flatten(-2)], -1)
            features = features + self.viewpoint(numbers).unsqueeze(1)
        return features

    def _infer(self, features: Tensor, cameras: Cameras, noise: Tensor) -> Scene:
        slots, background, middle = self.slots(features, noise)
        centre = None if middle is None else self.camera.on_floor(cameras, middle)
        scene: Scene = self.to_object(slots, background, centre, cameras)
        return scene

    def _colours(self, features: Tensor) -> Tensor:
        """(P, C, R) of features (P, R, F)."""
        return features[..., : self.spec.observation[0]].transpose(1, 2)

    # -- the three verbs -------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        mask = context.full_mask()
        rows = torch.arange(len(mask), device=mask.device), mask.long().argmax(1)
        frames = context.observations[rows]
        poses = None if context.poses is None else context.poses[rows].float()
        features = self._encode(frames, self._observers(len(frames), poses))
        state = {"features": features.float()}
        state |= {"time": context.times[rows]} if poses is None else {"observer": poses}
        return Belief(context.present_times(), state)

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        state, batch = belief.state, len(belief.present)
        noise = self._noise(batch * n, generator)
        features = state["features"].repeat_interleave(n, 0)
        cameras = self._observers(batch, state.get("observer"))
        cameras = Cameras(*(x.repeat_interleave(n, 0) for x in cameras))
        scene = self._infer(features, cameras, noise)
        worlds = {name: value.unflatten(0, (batch, n)) for name, value in scene._asdict().items()}
        shared = {name: value for name, value in state.items() if name != "features"}
        return Worlds(belief.present, worlds, shared)

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        """Of views, which do not depend on time."""
        return Worlds(worlds.present + actions.shape[1], worlds.state, worlds.scene)

    def _check_queries(self, worlds: Worlds, queries: Queries) -> None:
        super()._check_queries(worlds, queries)
        if self.spec.pose:
            return
        time = worlds.scene["time"]
        if bool((queries.times != time.unsqueeze(1)).any()):
            raise UnsupportedQuery(
                f"queries.times: inferno knows the frame that it observed, at times "
                f"{time.tolist()}, and none before or after, got {queries.times.tolist()}"
            )

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        rewards = torch.zeros(*worlds.shape, 1, queries.ahead(worlds.present), device=self.device)
        observations = self._answer(worlds, queries) if frames else None
        return StepPrediction(rewards, rewards + math.inf, observations)

    def _answer(self, worlds: Worlds, queries: Queries) -> Tensor:
        """Frames (B, S, 1, K, C, H, W), some at a time."""
        (batch, samples), count = worlds.shape, queries.times.shape[1]
        scene = Scene(**{name: value.flatten(0, 1) for name, value in worlds.state.items()})
        if queries.poses is None:  # the observed frame, as often as it is wanted
            count, views = 1, Cameras(scene.position, scene.axes)
        else:
            placed = self.camera.in_scene(queries.poses, worlds.scene["observer"])
            views = Cameras(*(x.repeat_interleave(samples, 0) for x in placed)).flat()
            scene = _repeat(scene, count)
        _, height, width = self.spec.observation
        each = height * width * self.config.samples * self.config.objects
        frames = torch.cat(
            [
                self.render(Scene(*(x[part] for x in scene)), Cameras(*(x[part] for x in views)))[0]
                for part in torch.arange(len(views.position)).split(max(1, POINTS_AT_ONCE // each))
            ]
        )
        answer: Tensor = frames.unflatten(0, (batch, samples, 1, count))
        return answer.expand(-1, -1, -1, queries.times.shape[1], -1, -1, -1)

    # -- training --------------------------------------------------------------------------------

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam with ``weight_decay``."""
        config = self.config
        return torch.optim.Adam(
            self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def learning_rate(self, done: int, steps: int) -> float:
        """See ``warmed_up``."""
        config = self.config
        return warmed_up(
            config.learning_rate, config.learning_rate_end, config.warm_up, done, steps
        )

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """The mean squared error of a frame of each scene, at any of its times (equation 10.1).

        With ``views`` above 1 and a known camera, that of further views, too. Of the parts, ``mse``
        is of the observed frames, ``view_mse`` of the others.
        """
        if self.training:  # measuring on held-out frames leaves it as it is
            self.upscales.fill_(progress < self.config.upscaling)
        lengths, count = scenes.lengths, self.config.views if self.spec.pose else 1
        chance = torch.rand(len(lengths), count, generator=generator, device=self.device)
        times = (chance * (lengths[:, None] + 1)).long()
        truth = self.spec.to_model(scenes.observations(times))
        poses = scenes.poses(times) if self.spec.pose else None
        observer = None if poses is None else poses[:, 0].float()
        cameras = self._observers(len(truth), observer)
        noise = self._noise(len(truth), generator)
        scene = self._infer(self._encode(truth[:, 0], cameras), cameras, noise)
        if poses is not None and observer is not None:
            cameras = self.camera.in_scene(poses.float(), observer).flat()
        errors = self._errors(_repeat(scene, count), cameras, truth.flatten(0, 1), generator)
        errors = errors.unflatten(0, (-1, count))
        parts = {"loss": errors.mean(), "mse": errors[:, 0].mean()}
        if count > 1:
            parts["view_mse"] = errors[:, 1:].mean()
        return Losses(parts["loss"], {name: value.detach() for name, value in parts.items()})

    def _errors(
        self, scene: Scene, cameras: Cameras, truth: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Mean squared errors (P,) of pictures (P, C, H, W), or of some of their pixels."""
        height, width = truth.shape[-2:]
        upscales, chosen = bool(self.upscales), None
        if upscales:
            height, width = height >> self.halvings, width >> self.halvings
        elif 0 < self.config.rays < height * width:
            scores = torch.rand(len(truth), height * width, generator=generator, device=self.device)
            chosen = scores.topk(self.config.rays, 1).indices
        rays = self.camera.rays(cameras, height, width, chosen)
        shape = (*rays.origins.shape[:2], self.config.samples)
        chance = torch.rand(shape, generator=generator, device=self.device)
        features = self.renderer(scene, rays, chance).features
        if upscales:
            painted = self.upscaler(features.transpose(1, 2).unflatten(2, (height, width)))
            return mean_square(painted - truth)
        pixels = truth.flatten(2)
        if chosen is not None:
            pixels = pixels.gather(2, chosen.unsqueeze(1).expand(-1, pixels.shape[1], -1))
        return mean_square(self._colours(features) - pixels)

    def _noise(self, count: int, generator: torch.Generator | None) -> Tensor:
        shape = (count, *self.initial_noise.shape)
        return torch.randn(shape, generator=generator, device=self.device)


def _repeat(scene: Scene, count: int) -> Scene:
    """Each scene ``count`` times, one after the other."""
    return Scene(*(x.repeat_interleave(count, 0) for x in scene)) if count > 1 else scene


def mean_square(errors: Tensor) -> Tensor:
    """Of each of P rows (P, ...): (P,)."""
    return torch.as_tensor(errors.square().flatten(1).mean(1))
