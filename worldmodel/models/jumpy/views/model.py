"""JUMP for views of a scene that stands still, from a camera whose intrinsics are known (ours).

    r = sum_j M_theta(v_j, x_j);   z ~ flow(z | r);   x_i = M_gamma(z, r, v_i)

The three verbs and the idea are the paper's (seed 001); what it is made of is not: see
``ViewsJump``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from worldmodel.base import Losses
from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.rectified_flow import FlowSampler
from worldmodel.models.jumpy.views.anchors import (
    SQUARE,
    AnchorDecoder,
    AnchorPoses,
    AnchorPosterior,
    KnownFromContext,
)
from worldmodel.models.jumpy.views.config import ViewsConfig
from worldmodel.models.jumpy.views.crops import Crops, draw_crops
from worldmodel.models.jumpy.views.draws import draw_views
from worldmodel.models.jumpy.views.flow import AnchorPrior
from worldmodel.models.jumpy.views.geometry import Space
from worldmodel.models.jumpy.views.memory import (
    STRIDE,
    SpaceMemory,
    ViewEncoder,
    Views,
    Volume,
)
from worldmodel.models.jumpy.views.renderer import RayRenderer
from worldmodel.models.layers import gaussian
from worldmodel.spec import Spec
from worldmodel.types import (
    Belief,
    Context,
    Queries,
    SceneBatch,
    SceneSource,
    StepPrediction,
    Worlds,
)

EXTRA_VIEWS = 1
"""Views that a belief may hold beyond ``max_context``, until one is forgotten."""
RAYS_AT_ONCE = 1 << 14
"""In ``predict``: their samples must fit into memory."""


class Inferred(NamedTuple):
    """What the posterior says of B training scenes.

    Attributes:
        z: (B, A, latent, rows, columns), a sample.
        mean, logvar: of the posterior, float32, as ``z``.
        known: (B, A, KNOWN, H / 4, W / 4), what the contexts show from the anchors.
        context: the contexts' views.
        anchors: where the anchors stand.
        truth: float32 (B, A, C, H, W), what they show.
        r: (B, memory + 1, cells), of the contexts.
    """

    z: Tensor
    mean: Tensor
    logvar: Tensor
    known: Tensor
    context: Views
    anchors: Cameras
    truth: Tensor
    r: Tensor


class ViewsJump(FlowSampler):
    """JUMP for views of a camera whose intrinsics are known (``Spec.camera``).

    - **Memory in space**: features of each view are put where its rays pass, and summed over views:
      a set, extended at the cost of one view.
    - **Rays**: densities say where a ray of a query ends; what it meets there is looked up in every
      view of the context, and copied by attention.
    - **Anchors**: what no view shows is imagined as views around the scene (z), decoded to features
      like those of the context, and context from then on.
    - **Prior**: a rectified flow that draws all anchors together, given what the context alone
      shows from them. It has no density in closed form: there is no ``posterior_kl`` and no
      negative ELBO (preset "dice" has them).

    ``Belief.state`` holds ``r``, and ``features``, ``poses`` and ``mask`` of the context's views,
    sorted by pose; ``Worlds.state`` holds ``z``, and ``volume`` and ``anchors``, which follow from
    it.
    """

    name: ClassVar[str] = "jump"
    jumpy: ClassVar[bool] = True
    extends: ClassVar[bool] = True
    uses_camera: ClassVar[bool] = True
    training_batch: ClassVar[int] = 8
    config: ViewsConfig

    def __init__(self, spec: Spec, config: ViewsConfig) -> None:
        super().__init__(spec, config)
        if spec.camera is None:
            raise ValueError(
                "spec: these settings are for poses of a camera whose intrinsics are known "
                "(Spec.camera, as Spec.from_spaces(..., pose=7, camera=Camera(...)) sets it), got "
                "none; preset 'views' learns from poses alone, preset 'small' from times"
            )
        self.max_context = config.context_max
        channels, height, width = spec.observation
        self.camera = spec.camera
        self.space = Space(spec.camera, height, width, config)
        self.encoder = ViewEncoder(channels, config.features)
        self.memory = SpaceMemory(self.space, config)
        self.volume = Volume(self.space, config)
        self.renderer = RayRenderer(channels, self.space, config)
        self.anchors = AnchorPoses(self.space, config.anchors)
        self.known = KnownFromContext(self.renderer.numbers)
        self.posterior = AnchorPosterior(config)
        self.decoder = AnchorDecoder(channels, config)
        self.prior = AnchorPrior(self.space, (height // SQUARE, width // SQUARE), config)

    @torch.no_grad()
    def prepare(self, source: SceneSource) -> None:
        """Choose where the anchors stand."""
        super().prepare(source)
        self.anchors.prepare(source)

    # -- belief ----------------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        features, poses, mask = self._encode(context)
        views = self._views(features, poses, mask)
        state = {"r": self.memory(views)} | _by_pose(features, poses, mask, self._slots)
        return Belief(context.present_times(), state)

    @property
    def _slots(self) -> int:
        """Views that a belief has room for."""
        return self.config.context_max + EXTRA_VIEWS

    def _encode(self, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, M, features, H / 2, W / 2), poses (B, M, P) and mask (B, M); 0 where masked,
        since frames may be NaN there.
        """
        mask = context.full_mask()
        assert context.poses is not None
        there = mask[..., None, None, None]
        frames = context.observations.masked_fill(~there, 0.0)
        features = self.encoder(frames).float().masked_fill(~there, 0.0)
        return features, context.poses.float().masked_fill(~mask[..., None], 0.0), mask

    def _views(self, features: Tensor, poses: Tensor, mask: Tensor) -> Views:
        """Of a context, with what ``_encode`` returns."""
        imagined = torch.zeros(mask.shape[1], dtype=torch.bool, device=mask.device)
        return Views(features, self.camera.read(poses), mask, imagined)

    def _update(self, belief: Belief, context: Context) -> Belief:
        """r is a sum: that of the new views is added."""
        features, poses, mask = self._encode(context)
        state = belief.state
        known = int((state["mask"].sum(1) + mask.sum(1)).max())
        if known > self._slots:
            raise ValueError(
                f"context: with it the belief has {known} views, more than the "
                f"{self.config.context_max} that the model was trained with; forget some first"
            )
        r = state["r"] + self.memory(self._views(features, poses, mask))
        pairs = ((state["features"], features), (state["poses"], poses), (state["mask"], mask))
        features, poses, mask = (torch.cat(pair, 1) for pair in pairs)
        longer = {"r": r} | _by_pose(features, poses, mask, self._slots)
        return Belief(context.present_times(), longer)

    def _forget(self, belief: Belief, context: Context) -> Belief:
        features, poses, mask = self._encode(context)
        state = belief.state
        gone = (state["poses"][:, :, None] == poses[:, None]).all(-1) & mask[:, None]
        left = state["mask"] & ~gone.any(2)
        r = state["r"] - self.memory(self._views(features, poses, mask))
        rest = (
            state["features"].masked_fill(~left[..., None, None, None], 0.0),
            state["poses"].masked_fill(~left[..., None], 0.0),
            left,
        )
        return replace(belief, state={"r": r} | _by_pose(*rest, self._slots))

    # -- worlds ----------------------------------------------------------------------------------

    def _known_from(self, r: Tensor, context: Views, anchors: Cameras) -> Tensor:
        """What contexts show from the anchors: (B, A, KNOWN, H / 4, W / 4)."""
        _, height, width = self.spec.observation
        quarter = self.renderer.whole(anchors, height // 4, width // 4)
        known: Tensor = self.known(self.renderer.rays(self.volume(r), context, anchors, *quarter))
        return known

    def _imagined(self, features: Tensor, cameras: Cameras, given: Tensor | None = None) -> Views:
        """Anchors as views of B scenes; they do not count where ``given`` (B,) is False."""
        batch, count = features.shape[:2]
        mask = torch.ones(batch, count, dtype=torch.bool, device=features.device)
        if given is not None:
            mask = mask & given[:, None]
        return Views(features, cameras, mask, mask.new_ones(count))

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        state, batch = belief.state, len(belief.present)
        context = self._views(state["features"], state["poses"], state["mask"])
        cameras = self.anchors.cameras(batch)
        known = self._known_from(state["r"], context, cameras)
        facts = self.prior.facts(cameras, context.cameras, context.mask)
        condition = self.prior.condition(known, facts)
        z = self.prior.sample(condition, n, self.config.flow_steps, generator)
        features = self.decoder(z, known.repeat_interleave(n, 0)).float()
        imagined = self._imagined(features, self.anchors.cameras(batch * n))
        r = state["r"].repeat_interleave(n, 0) + self.memory(imagined)
        worlds = {"z": z, "volume": self.volume(r).float(), "anchors": features}
        shared = {name: state[name] for name in ("features", "poses", "mask")}
        return Worlds(
            belief.present, {key: x.unflatten(0, (-1, n)) for key, x in worlds.items()}, shared
        )

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        return replace(worlds, present=worlds.present + actions.shape[1])

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        ahead = queries.ahead(worlds.present)
        rewards = torch.zeros(*worlds.shape, 1, ahead, device=self.device)
        observations = self._render(worlds, queries) if frames else None
        return StepPrediction(rewards, rewards + math.inf, observations)

    def _render(self, worlds: Worlds, queries: Queries) -> Tensor:
        """Frames (B, S, 1, K, C, H, W), some worlds and views at a time."""
        poses = queries.poses
        assert poses is not None
        samples = worlds.shape[1]
        _, height, width = self.spec.observation
        at_once = max(1, RAYS_AT_ONCE * STRIDE**2 // (height * width))

        def world(scene: int, sample: int) -> Tensor:
            parts = poses[scene].split(at_once)
            return torch.cat([self._frames(worlds, scene, sample, part) for part in parts])

        scenes = [
            torch.stack([world(scene, sample) for sample in range(samples)])
            for scene in range(worlds.shape[0])
        ]
        return torch.stack(scenes).unsqueeze(2)

    def _frames(self, worlds: Worlds, scene: int, sample: int, poses: Tensor) -> Tensor:
        """Frames (k, C, H, W) of one world at poses (k, P)."""
        shared = {name: value[scene : scene + 1] for name, value in worlds.scene.items()}
        context = self._views(shared["features"], shared["poses"], shared["mask"])
        own = {name: value[scene, sample : sample + 1] for name, value in worlds.state.items()}
        views = context.join(self._imagined(own["anchors"], self.anchors.cameras(1)))
        cameras = self.camera.read(poses.unsqueeze(0))
        _, height, width = self.spec.observation
        rays = self.renderer.whole(cameras, height // STRIDE, width // STRIDE)
        frames: Tensor = self.renderer(own["volume"], views, cameras, *rays)[0]
        return frames

    # -- training --------------------------------------------------------------------------------

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """Errors of targets and of anchors, the posterior's divergence, and the prior's loss.

        The parts are plain means over scenes; in the total all but the prior's loss (``flow``) are
        weighted by ``config``. ``kl`` is that of the posterior to a standard normal, in nats;
        ``mse`` that of the targets' pixels, ``anchor_mse`` that of the anchors'. In the last
        ``config.prior_share`` of the training the prior's loss is all there is.
        """
        alone = self.trains_prior_alone(progress)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not alone):
            inferred, targets = self._infer(scenes, generator)
        parts: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        if not alone:
            total, parts = self._errors(scenes, inferred, targets, generator)
        context = inferred.context
        facts = self.prior.facts(inferred.anchors, context.cameras, context.mask)
        moments, known = (inferred.mean, inferred.logvar), (inferred.known, facts)
        parts["flow"] = self.prior_loss(self.prior, inferred.z, moments, known, alone, generator)
        parts["loss"] = total = total + parts["flow"]
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _infer(
        self, scenes: SceneBatch, generator: torch.Generator | None
    ) -> tuple[Inferred, Tensor]:
        """The posterior of the anchors, and the times (B, k) of the targets."""
        lengths, config = scenes.lengths, self.config
        every = torch.arange(int(lengths.max()) + 1, device=lengths.device)
        poses = scenes.poses(torch.minimum(every.expand(len(lengths), -1), lengths[:, None]))
        assert poses is not None
        cameras = self.camera.read(poses)
        fixed = self.anchors.cameras(len(lengths))
        times = draw_views(self.space, cameras, lengths, fixed, config, generator)
        both = torch.cat([times.context, times.anchors], 1)
        frames = self.spec.to_model(scenes.observations(both))
        count = times.context.shape[1]
        features = self.encoder(frames)
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        context = self._views(features[:, :count], poses[rows, times.context], times.mask)
        anchors = Cameras(*(x[rows, times.anchors] for x in cameras))
        r = self.memory(context)
        known = self._known_from(r, context, anchors)
        mean, logvar = self.posterior(features[:, count:], known)
        z = gaussian.draw(mean, logvar, gaussian.standard_normal(mean, generator))
        inferred = Inferred(z, mean, logvar, known, context, anchors, frames[:, count:], r)
        return inferred, times.targets

    def _errors(
        self,
        scenes: SceneBatch,
        inferred: Inferred,
        targets: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss without the prior's, and its parts."""
        config, device = self.config, self.device
        features = self.decoder(inferred.z, inferred.known)
        chance = torch.rand(len(targets), generator=generator, device=device)
        given = chance >= config.context_only
        imagined = self._imagined(features, inferred.anchors, given)
        volume = self.volume(inferred.r + self.memory(imagined))
        poses = scenes.poses(targets)
        assert poses is not None
        cameras = self.camera.read(poses)
        truth = self.spec.to_model(scenes.observations(targets))
        crops: Crops = draw_crops(self.space, cameras, truth, config.crop, generator)
        views = inferred.context.join(imagined)
        frames = self.renderer(volume, views, cameras, crops.rows, crops.columns)
        mse = (frames - crops.frames).square().flatten(1).mean(1)
        anchor_mse = (self.decoder.frames(features) - inferred.truth).square().flatten(1).mean(1)
        none = torch.zeros_like(inferred.mean)
        kl = gaussian.kl_divergence(inferred.mean, inferred.logvar, none, none)
        weighted = config.detail * mse + config.anchor_detail * anchor_mse + config.kl_weight * kl
        parts = {"kl": kl.mean(), "mse": mse.mean(), "anchor_mse": anchor_mse.mean()}
        return weighted.mean(), parts


def _by_pose(features: Tensor, poses: Tensor, mask: Tensor, slots: int) -> dict[str, Tensor]:
    """``features``, ``poses`` and ``mask`` of views in an order of their poses, in ``slots`` slots;
    the others are 0. So beliefs of the same views are the same.

    Args:
        features: (B, M, ...).
        poses: float32 (B, M, P).
        mask: bool (B, M), True where a view is there, at most ``slots`` of a scene.
        slots: how many the answer has.
    """
    order = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    numbers = [*poses.unbind(-1)][::-1]
    for key in [*numbers, (~mask).float()]:  # the last key counts first: views that are there
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    order = order[:, :slots]
    rows = torch.arange(len(order), device=order.device)[:, None]
    short = slots - order.shape[1]

    def moved(value: Tensor) -> Tensor:
        return pad(value[rows, order], [0, 0] * (value.dim() - 2) + [0, short])

    return {"features": moved(features), "poses": moved(poses), "mask": moved(mask)}
