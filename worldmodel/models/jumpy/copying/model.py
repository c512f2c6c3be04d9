"""JUMP that copies what the context shows and imagines only what it does not (ours).

    r = sum_j k(t_j) (outer) phi(x_j);   z ~ flow(z | r);   x_i = copy and paint(z, r, t_i, actions)

The three verbs and the idea are the paper's (seed 001); what it is made of is not: see
``CopyingJump``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.base import Losses
from worldmodel.models.jumpy.copying.cells import Grid
from worldmodel.models.jumpy.copying.config import CopyingConfig
from worldmodel.models.jumpy.copying.flow import FlowPrior
from worldmodel.models.jumpy.copying.latent import Completion, Posterior
from worldmodel.models.jumpy.copying.memory import ContextCells, FrameMemory
from worldmodel.models.jumpy.copying.parts import ObservationParts, by_time
from worldmodel.models.jumpy.copying.plan import Past, PlanTransformer
from worldmodel.models.jumpy.copying.renderer import (
    CopyingRenderer,
    MoverMask,
    Sources,
    StillPicture,
)
from worldmodel.models.jumpy.rectified_flow import FlowSampler
from worldmodel.models.jumpy.training_draws import TrainingTimes, draw_distinct
from worldmodel.models.layers import gaussian
from worldmodel.models.layers.transformer import perceptron
from worldmodel.rewards import RewardScale
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

EXTRA_FRAMES = 1
"""Frames that a belief may hold beyond ``max_context``, until one is forgotten."""


class Scene(NamedTuple):
    """What the context says of B scenes, computed once for all their worlds.

    Attributes:
        sources: what the renderer copies from.
        cells: (B, cells, width).
        vectors: (B, numbers), the latest vectors of a Dict, standardised; else (B, 0).
    """

    sources: Sources
    cells: Tensor
    vectors: Tensor


class Inferred(NamedTuple):
    """What the posterior says of B training scenes, and what it was drawn for.

    Attributes:
        z: (B, tokens, latent), a sample; (B, 0) without a latent.
        moments: its mean and log-variance, as ``z``.
        kl: float32 (B,), to a standard normal, in nats; 0 where z is left out.
        given: float32 (B,), 0 where z is left out, else 1; see ``CopyingConfig.context_only``.
        scene: of the contexts.
        r: (B, features, cells, content), of the contexts.
        draws: times of contexts and of targets.
        truth: (B, targets, \\*observation), the targets' frames, standardised.
    """

    z: Tensor
    moments: tuple[Tensor, Tensor]
    kl: Tensor
    given: Tensor
    scene: Scene
    r: Tensor
    draws: TrainingTimes
    truth: Tensor


class CopyingJump(FlowSampler):
    """JUMP for a camera that stands still: images, or Dicts of an image and vectors.

    - **Copying**: what stands still is the context's pixels, weighed per frame; a gate says where
      something is painted over it; what moves is copied from the latest frame.
    - **Completion**: z, numbers for each square of 2 x 2 cells, is decoded into an addition to r.
      Times that the context shows and times that it does not are then read alike.
    - **Posterior**: sees more frames than the loss compares, so that z is of the whole scene. Its
      divergence is to a standard normal, with a small weight.
    - **Prior**: a rectified flow given the context, trained on the posterior's samples. It has no
      density in closed form: there is no ``posterior_kl`` and no negative ELBO (presets
      "narrative" and "dice" have them).
    - **No latent**: where context and actions decide all that follows, ``latent=0`` leaves out z,
      posterior and prior.
    - **Plans**: one transformer over actions attends to the world's cells and serves rewards, ends
      and the renderer.

    ``Belief.state`` holds ``r``, and ``frames``, ``times`` and ``mask`` of the context, sorted by
    time; ``Worlds.state`` holds ``z``, the completed ``memory`` and ``cells``.
    """

    name: ClassVar[str] = "jump"
    stochastic: bool  # type: ignore[misc]
    jumpy: ClassVar[bool] = True
    extends: ClassVar[bool] = True
    takes_image_parts: ClassVar[bool] = True
    config: CopyingConfig

    def __init__(self, spec: Spec, config: CopyingConfig) -> None:
        super().__init__(spec, config)
        if spec.pose or not (spec.is_image or spec.image_part is not None):
            what = "poses as keys" if spec.pose else f"vectors {spec.observation}"
            preset = "views" if spec.pose else "vector"
            raise ValueError(
                f"config: a {type(config).__name__} is for images of a camera that stands still, "
                f"the spec has {what}; take preset {preset!r}"
            )
        self.parts = ObservationParts(spec)
        self.max_context = config.context_max
        channels, height, width = self.parts.image
        grid = Grid(height, width, config.cell_side(height, width))
        planes, window = self.parts.planes, spec.window
        self.vectors: nn.Module | None = None
        if self.parts.numbers:
            self.vectors = perceptron(config.width, 2 * config.width, self.parts.numbers)
        self.reward_scale = RewardScale()
        self.encoder = FrameMemory(planes, grid, window, config)
        self.still = StillPicture(channels, window)
        self.scene = ContextCells(planes, channels, grid, config)
        self.completion = Completion(grid, config)
        self.posterior = Posterior(grid, config) if config.latent else None
        self.prior = FlowPrior(grid, config) if config.latent else None
        self.stochastic = bool(config.latent)
        self.heads = PlanTransformer(spec.action.features, window, config)
        self.mover = MoverMask(channels, grid, config)
        self.renderer = CopyingRenderer(channels, grid, window, config)

    @torch.no_grad()
    def prepare(self, source: SceneSource) -> None:
        """Learn mean and spread of a Dict's vectors and of rewards."""
        super().prepare(source)
        self.parts.prepare(source)

    # -- belief ----------------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        frames, times, mask = self._pairs(context)
        state = {"r": self.encoder(self.parts.planes_of(frames), times, mask)}
        state |= by_time(frames, times, mask, self._slots)
        return self._with_actions(Belief(context.present_times(), state), context)

    @property
    def _slots(self) -> int:
        """Pairs that a belief has room for."""
        return self.config.context_max + EXTRA_FRAMES

    def _pairs(self, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Frames (B, M, \\*observation), standardised, times and mask (B, M); 0 where masked."""
        mask = context.full_mask()
        frames = self.parts.blank(self.parts.standardised(context.observations), mask)
        return frames, context.times.masked_fill(~mask, 0), mask

    def _with_actions(self, belief: Belief, context: Context) -> Belief:
        """With the features of all actions up to the present, (B, window, features), 0 after it."""
        if self.spec.passive:
            return belief
        window, present = self.spec.window, belief.present
        table = torch.zeros(len(present), window, self.spec.action.features, device=self.device)
        steps = min(int(present.max()), window)
        if context.actions is not None and steps:
            taken = torch.arange(steps, device=present.device) < present[:, None]
            known = self.spec.action.encode(context.actions[:, :steps])
            table[:, :steps] = known * taken[..., None]
        return replace(belief, state={**belief.state, "actions": table})

    def _update(self, belief: Belief, context: Context) -> Belief:
        """r is a sum: that of the new pairs is added."""
        frames, times, mask = self._pairs(context)
        state = belief.state
        known = int((state["mask"].sum(1) + mask.sum(1)).max())
        if known > self._slots:
            raise ValueError(
                f"context: with it the belief has {known} observations, more than the "
                f"{self.config.context_max} that the model was trained with; forget some first"
            )
        r = state["r"] + self.encoder(self.parts.planes_of(frames), times, mask)
        frames = torch.cat([state["frames"], frames], 1)
        times, mask = torch.cat([state["times"], times], 1), torch.cat([state["mask"], mask], 1)
        pairs = by_time(frames, times, mask, self._slots)
        longer = Belief(context.present_times(), {"r": r, **pairs})
        return self._with_actions(longer, context)

    def _forget(self, belief: Belief, context: Context) -> Belief:
        frames, times, mask = self._pairs(context)
        state = belief.state
        gone = (state["times"][:, :, None] == times[:, None]) & mask[:, None]
        left = state["mask"] & ~gone.any(2)
        r = state["r"] - self.encoder(self.parts.planes_of(frames), times, mask)
        rest = self.parts.blank(state["frames"], left), state["times"].masked_fill(~left, 0), left
        return replace(belief, state={**state, "r": r, **by_time(*rest, self._slots)})

    # -- worlds ----------------------------------------------------------------------------------

    def _scene(self, r: Tensor, frames: Tensor, times: Tensor, mask: Tensor) -> Scene:
        """Of r and the context's pairs, as in ``_pairs``."""
        latest = times.masked_fill(~mask, -1).argmax(1)
        now = times.gather(1, latest[:, None])
        last = frames[torch.arange(len(latest), device=latest.device), latest]
        images, _ = self.parts.split(frames)
        still = self.still(images, now - times, mask)
        cells = self.scene(r, still, self.parts.planes_of(last))
        image, vectors = self.parts.split(last)
        mover = self.mover(cells, still, image)
        return Scene(Sources(still, image, mover), cells, vectors)

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        state = belief.state
        filled = int(state["mask"].sum(1).max())  # the slots behind are empty
        pairs = (state[name][:, :filled] for name in ("frames", "times", "mask"))
        scene = self._scene(state["r"], *pairs)
        r, cells = (x.repeat_interleave(n, 0) for x in (state["r"], scene.cells))
        z = cells.new_zeros(len(cells), 0)
        if self.prior is not None:
            z = self.prior.sample(scene.cells, n, self.config.flow_steps, generator)
        memory, cells = self.completion(r, cells, z)
        worlds = {"z": z, "memory": memory, "cells": cells}
        shared = {**scene.sources._asdict(), "vectors": scene.vectors}
        if not self.spec.passive:
            shared["actions"] = state["actions"]
        return Worlds(
            belief.present, {key: x.unflatten(0, (-1, n)) for key, x in worlds.items()}, shared
        )

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        present, steps = worlds.present, actions.shape[1]
        scene = worlds.scene
        if not self.spec.passive:
            table = scene["actions"].clone()
            rows = torch.arange(len(present), device=present.device)[:, None]
            index = present[:, None] + torch.arange(steps, device=present.device)
            table[rows, index] = self.spec.action.encode(actions)
            scene = {**scene, "actions": table}
        return replace(worlds, present=present + steps, scene=scene)

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        samples, present = worlds.shape[1], worlds.present
        steps = torch.arange(1, queries.ahead(present) + 1, device=present.device)
        times = (present[:, None] + steps).clamp_max(self.spec.window)
        cells = worlds.state["cells"].flatten(0, 1)
        wide = replace(queries, times=queries.times.repeat_interleave(samples, 0))
        if self.spec.passive:
            both = torch.cat([times, queries.times if frames else queries.times[:, :0]], 1)
            moments = self.heads.past(cells, both.repeat_interleave(samples, 0), None).features
            ahead, queried = moments.split([len(steps), moments.shape[2] - len(steps)], 2)
        else:
            past = self._past(worlds, cells)
            ahead = self._ahead(worlds, cells, past, times, queries)
            queried = self._queried(past, ahead, worlds, queries) if frames else ahead[:, :, :0]
        reward, logit = (x.unflatten(0, worlds.shape) for x in self.heads.outcomes(ahead))
        observations = self._render(worlds, cells, queried, wide.times) if frames else None
        return StepPrediction(self.reward_scale.decode(reward), logit, observations)

    def _past(self, worlds: Worlds, cells: Tensor) -> Past:
        """The moments up to the latest present, of all worlds."""
        samples, last = worlds.shape[1], int(worlds.present.max())
        actions = worlds.scene["actions"][:, :last].repeat_interleave(samples, 0)
        times = torch.arange(last + 1, device=cells.device).expand(len(cells), -1)
        return self.heads.past(cells, times, actions)

    def _ahead(
        self, worlds: Worlds, cells: Tensor, past: Past, times: Tensor, queries: Queries
    ) -> Tensor:
        """The moments of all plans after the present: (B * S, N, L, width)."""
        samples, length = worlds.shape[1], times.shape[1]
        if queries.actions is None:
            return past.features[:, :, :0]
        plans = self.spec.action.encode(queries.actions[:, :, :length])
        parts = (x.repeat_interleave(samples, 0) for x in (worlds.present, times, plans))
        return self.heads.ahead(cells, past, *parts)

    def _queried(self, past: Past, ahead: Tensor, worlds: Worlds, queries: Queries) -> Tensor:
        """The moments (B * S, N, K, width) of the queries, from those before and after presents."""
        samples, plans, width = worlds.shape[1], ahead.shape[1], ahead.shape[-1]
        after = queries.times - worlds.present[:, None]
        before = past.features.shape[2]
        index = torch.where(after > 0, before + after - 1, queries.times)
        index = index.repeat_interleave(samples, 0)[:, None, :, None].expand(-1, plans, -1, width)
        return torch.cat([past.features.expand(-1, plans, -1, -1), ahead], 2).gather(2, index)

    def _render(self, worlds: Worlds, cells: Tensor, moments: Tensor, times: Tensor) -> Tensor:
        """Observations (B, S, N, K, \\*observation) of moments (P, N, K, width), times (P, K)."""
        memory, scene = worlds.state["memory"].flatten(0, 1), worlds.scene
        plans, count = moments.shape[1:3]
        read = self.encoder.read(memory, times).repeat(1, plans, 1, 1)
        sources = Sources(scene["still"], scene["latest"], scene["mover"])
        flat = moments.flatten(1, 2)
        images = self.renderer(sources, cells, read, times.repeat(1, plans), flat)
        vectors = scene["vectors"].repeat_interleave(worlds.shape[1], 0)
        frames = self._joined(images, flat, vectors)
        frames = self.parts.restored(frames)
        return frames.reshape(*worlds.shape, plans, count, *self.spec.observation)

    def _joined(self, images: Tensor, moments: Tensor, vectors: Tensor) -> Tensor:
        """Frames (P, Q, \\*observation), vectors standardised, from images (P, Q, C, H, W), moments
        (P, Q, width) and the latest vectors (P, numbers).
        """
        predicted = None
        if self.vectors is not None:
            predicted = vectors.unsqueeze(1) + self.vectors(moments).float()
        return self.parts.joined(images, predicted)

    # -- training --------------------------------------------------------------------------------

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """Errors of frames, rewards and ends, the posterior's divergence, and the prior's loss.

        The parts are plain means over scenes; in the total all but the prior's loss (``flow``) are
        weighted by ``config``, and scenes as ``TrainingDraws`` says. ``kl`` is that of the
        posterior to a standard normal, in nats. In the last ``config.prior_share`` of the training
        the total is the prior's loss alone.
        """
        alone = self.trains_prior_alone(progress)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not alone):
            inferred = self._infer(scenes, generator)
        parts: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        if not alone:
            total, parts = self._errors(scenes, inferred)
        if self.prior is not None:
            known = (inferred.scene.cells,)
            parts["flow"] = self.prior_loss(
                self.prior, inferred.z, inferred.moments, known, alone, generator
            )
            total = total + parts["flow"]
        parts["loss"] = total
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _infer(self, scenes: SceneBatch, generator: torch.Generator | None) -> Inferred:
        """The posterior of scenes, given drawn contexts and further frames."""
        config, window, lengths = self.config, self.spec.window, scenes.lengths
        draws = config.draw(lengths, window, generator)
        count = config.posterior_frames if self.posterior is not None else 0
        more, there = draw_distinct(lengths, window, count, generator)
        times = torch.cat([draws.context, more, draws.targets], 1)
        frames = self.parts.standardised(self.spec.to_model(scenes.observations(times)))
        context, others, truth = frames.split(
            [draws.context.shape[1], more.shape[1], draws.targets.shape[1]], 1
        )
        r = self.encoder(self.parts.planes_of(context), draws.context, draws.mask)
        context_times = draws.context.masked_fill(~draws.mask, 0)
        scene = self._scene(r, context, context_times, draws.mask)
        batch, none = len(r), r.new_zeros(len(r), dtype=torch.float32)
        no_z = r.new_zeros(batch, 0)
        known = Inferred(no_z, (no_z, no_z), none, none, scene, r, draws, truth)
        if self.posterior is None:
            return known
        whole = r + self.encoder(self.parts.planes_of(others), more, there)
        mean, logvar = self.posterior(scene.cells, whole)
        z = gaussian.draw(mean, logvar, gaussian.standard_normal(mean, generator))
        given = torch.ones(batch, device=z.device)
        if not self.spec.passive:
            chance = torch.rand(batch, generator=generator, device=z.device)
            given = (chance >= config.context_only).float()
        kl = gaussian.kl_divergence(mean, logvar, torch.zeros_like(mean), torch.zeros_like(mean))
        return known._replace(z=z, moments=(mean, logvar), kl=kl * given, given=given)

    def _errors(self, scenes: SceneBatch, inferred: Inferred) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss without the prior's, and its parts."""
        config, lengths = self.config, scenes.lengths
        scene, r, draws, truth = inferred.scene, inferred.r, inferred.draws, inferred.truth
        memory, cells = self.completion(r, scene.cells, inferred.z, inferred.given)

        span = torch.arange(int(lengths.max()) + 1, device=lengths.device).expand(len(r), -1)
        actions = None
        if not self.spec.passive:
            actions = self.spec.action.encode(scenes.actions[:, : span.shape[1] - 1])
        every = self.heads.past(cells, span, actions).features[:, 0]
        index = draws.targets[..., None].expand(-1, -1, every.shape[-1])
        moments = every.gather(1, index)
        read = self.encoder.read(memory, draws.targets)
        images = self.renderer(scene.sources, cells, read, draws.targets, moments)
        predicted = self._joined(images, moments, scene.vectors)
        mse, reconstruction = self._squared(predicted, truth)
        still = scene.sources.still.unsqueeze(1) - self.parts.split(truth)[0]
        reconstruction = reconstruction + config.still_detail * still.square().mean((2, 3, 4)).sum(
            1
        )

        present = draws.context.masked_fill(~draws.mask, 0).amax(1)
        reward, logit = self.heads.outcomes(every[:, 1:])
        reward, ending = self.reward_scale.loss(scenes, reward, logit, 0.5, present)
        heads = config.reward_weight * reward + config.end_weight * ending
        weighted = reconstruction + config.kl_weight * inferred.kl + heads
        parts = {
            "kl": inferred.kl.sum() / inferred.given.sum().clamp_min(1),
            "mse": mse.mean(),
            "reward": reward.mean(),
            "continue": ending.mean(),
        }
        return (draws.weights * weighted).mean(), parts

    def _squared(self, predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared errors of pixels (B, n), and the weighted errors of each scene (B,)."""
        error = (predicted.float() - truth).square().flatten(2)
        pixels = self.parts.pixels
        mse = error[..., :pixels].mean(2)
        weighted = self.config.detail * mse
        if self.parts.numbers:
            weighted = weighted + self.config.vector_detail * error[..., pixels:].mean(2)
        return mse, weighted.sum(1)
