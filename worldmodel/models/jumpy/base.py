"""What jumpy models share: the context is a set of (key, frame) pairs, summed up in r.

    r = sum_j M_theta(v_j, x_j)

A key is a camera pose, or a time with a summary of the actions up to it. Rewards and terminations
are read from (world, key) by a head, which renders nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.base import Losses, WorldModel
from worldmodel.models.jumpy.config import JumpyConfig
from worldmodel.models.jumpy.heads import RewardContinueHead
from worldmodel.models.jumpy.keys import ActionPath, TimeFeatures
from worldmodel.models.layers.moments import vector_moments
from worldmodel.rewards import RewardScale
from worldmodel.spec import Spec
from worldmodel.types import (
    Belief,
    Context,
    Queries,
    SceneBatch,
    SceneSource,
    State,
    StepPrediction,
    Worlds,
)

VECTOR_WEIGHT = 20.0
"""Of squared errors of vectors beside an image: by so much are the pixel variances of preset
``small`` above those of preset ``vector``, from start to end."""


class Explained(NamedTuple):
    """n target frames of B scenes, reconstructed from a world that was inferred from them.

    Attributes:
        kl: float32 (B,), of the posterior to the prior, in nats.
        squared: float32 (B, n), squared errors, summed over a frame's numbers (standardised, if
            they are vectors; of vectors beside an image times ``VECTOR_WEIGHT``).
        numbers: in one frame: C * H * W, or D.
        scene: float32 (B, scene), the vector that the heads read.
        path: float32 (B, window + 1, path), features of the actions up to each time.
        weighted: how many of the numbers are of vectors beside an image.
    """

    kl: Tensor
    squared: Tensor
    numbers: int
    scene: Tensor
    path: Tensor
    weighted: int = 0

    def constant(self, pixel_variance: float) -> float:
        """What ``squared.sum(1) / pixel_variance`` lacks to be a negative log density, in nats.

        Of n frames, in a Gaussian of variance pixel_variance / 2 (of weighted numbers divided by
        their weight).
        """
        weights = self.weighted * math.log(VECTOR_WEIGHT)
        per_frame = self.numbers * math.log(math.pi * pixel_variance) - weights
        return 0.5 * self.squared.shape[1] * per_frame


class JumpyModel(WorldModel):
    """Everything but how a world is sampled and how it is rendered.

    Subclasses set ``encoder``, ``scene`` and ``heads``, and say how to sample, ``_render`` and
    ``_explain``. ``Belief.state``, which becomes ``Worlds.scene``, holds ``r`` and ``path``, the
    action features (B, window + 1, path) up to the present; ``Worlds.state`` holds at least
    ``vector`` (B, S, scene), which the heads read.
    """

    jumpy: ClassVar[bool] = True
    extends: ClassVar[bool] = True
    config: JumpyConfig
    shift: Tensor
    scale: Tensor
    prepared: Tensor
    encoder: nn.Module
    heads: RewardContinueHead | None

    def __init__(self, spec: Spec, config: JumpyConfig) -> None:
        super().__init__(spec, config)
        self.max_context = config.context_max
        image = spec.image_part
        self.pixels = 0 if image is None else image.size  # of a Dict, before its vectors
        if not spec.is_image:
            numbers = spec.observation[0] - self.pixels
            self.register_buffer("shift", torch.zeros(numbers))
            self.register_buffer("scale", torch.ones(numbers))
            self.register_buffer("prepared", torch.tensor(False))
        self.reward_scale = RewardScale()
        self.time = TimeFeatures(spec.window, config.time_bands)
        self.path = None if spec.passive else ActionPath(spec.action, config.path)
        self.key = spec.pose or self.time.features + (config.path if self.path is not None else 0)

    def _make_heads(self) -> RewardContinueHead | None:
        """None where poses are the keys: there are no rewards then."""
        if self.spec.pose:
            return None
        return RewardContinueHead(self.config.scene, self.key, self.config.head)

    def _encode(self, observations: Tensor, keys: Tensor, mask: Tensor) -> State:
        """``r`` of pairs (B, M, \\*observation), (B, M, key), where mask (B, M)."""
        return {"r": self.encoder(observations, keys, mask)}

    @abstractmethod
    def _render(self, worlds: Worlds, keys: Tensor, queries: Queries) -> Tensor:
        """Observations (B, S, N, K, \\*observation), standardised, at keys (B, N, K, key).

        ``queries`` says what the keys mean.
        """

    @abstractmethod
    def _explain(
        self, context: State, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct targets from the posterior.

        Args:
            context: what ``_encode`` returned for it.
            keys: (B, n, key) of the targets.
            frames: (B, n, \\*observation), the targets.
            generator: of the posterior's sample.

        Returns:
            their means (B, n, \\*observation), the KL to the prior (B,) in nats, and the scene
            vector (B, scene) for the heads.
        """

    # -- observations ----------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, source: SceneSource) -> None:
        """Learn mean and spread of vectors and of rewards, by which they are standardised."""
        super().prepare(source)
        if self.spec.is_image or bool(self.prepared):
            return
        self.prepared.fill_(True)
        shift, scale = vector_moments(source, self.spec, self.pixels)
        self.shift.copy_(shift)
        self.scale.copy_(scale)

    def _standardised(self, observations: Tensor) -> Tensor:
        return self._of_vectors(observations, lambda x: (x - self.shift) / self.scale)

    def _of_vectors(self, observations: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of the vectors; images, also those of Dicts, stay as they are."""
        if self.spec.is_image:
            return observations
        if not self.pixels:
            return function(observations)
        image, vectors = observations[..., : self.pixels], observations[..., self.pixels :]
        return torch.cat([image, function(vectors)], -1)

    # -- keys ------------------------------------------------------------------------------------

    def _action_features(self, actions: Tensor | None, present: Tensor) -> Tensor:
        """h of all times up to the present (B,): (B, window + 1, path), 0 behind it.

        A present beyond the window, as of a recorded scene, makes the second axis longer.
        """
        steps, width = int(present.max()), 0 if self.path is None else self.path.features
        shape = (len(present), max(self.spec.window, steps) + 1, width)
        table = torch.zeros(shape, device=self.device)
        if self.path is not None and actions is not None and steps:
            taken = torch.arange(1, steps + 1, device=self.device) <= present[:, None]
            states = self.path(actions[:, :steps], self.path.start(len(present)))
            table[:, 1 : steps + 1] = states * taken.unsqueeze(-1)
        return table

    def _keys(self, times: Tensor, path: Tensor, poses: Tensor | None = None) -> Tensor:
        """Keys (..., K, key) from times (..., K) and path features (..., K, path), or the poses."""
        if poses is not None:
            return poses
        features = self.time(times)
        return torch.cat([features.expand(*path.shape[:-1], -1), path], -1)

    def _plan_paths(self, worlds: Worlds, queries: Queries) -> Tensor:
        """h of the times present + 1 .. last query along each plan: (B, N, ahead, path)."""
        table, ahead = worlds.scene["path"], queries.ahead(worlds.present)
        if self.path is None or queries.actions is None:
            return table.new_zeros(len(table), 1, ahead, table.shape[-1])
        now = table[torch.arange(len(table), device=table.device), worlds.present]
        start = now.repeat_interleave(queries.plans, 0)
        paths: Tensor = self.path(queries.actions[:, :, :ahead].flatten(0, 1), start)
        return paths.view(len(table), queries.plans, ahead, self.path.features)

    def _query_keys(self, worlds: Worlds, queries: Queries, paths: Tensor) -> Tensor:
        """Keys (B, N, K, key): along the recorded actions up to the present, then along ``paths``,
        which ``_plan_paths`` returned.
        """
        if queries.poses is not None:
            return queries.poses.unsqueeze(1)
        recorded = worlds.scene["path"].unsqueeze(1).expand(-1, paths.shape[1], -1, -1)
        path = torch.cat([recorded, paths], 2)  # (B, N, W + 1 + ahead, path)
        ahead = queries.times - worlds.present[:, None]
        index = torch.where(ahead > 0, self.spec.window + ahead, queries.times)
        index = index[:, None, :, None].expand(-1, path.shape[1], -1, path.shape[-1])
        return self._keys(queries.times.unsqueeze(1), path.gather(2, index))

    # -- the three verbs -------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        table, *pairs = self._pairs(context)
        return Belief(context.present_times(), {**self._encode(*pairs), "path": table})

    def _pairs(self, context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``_action_features``; frames (B, M, \\*observation), standardised; keys (B, M, key); and
        mask (B, M).
        """
        mask = context.full_mask()
        table = self._action_features(context.actions, context.present_times())
        times = context.times.masked_fill(~mask, 0)
        path = table.gather(1, times[..., None].expand(-1, -1, table.shape[-1]))
        # masked pairs may hold anything, NaN included: blank them before they are multiplied by 0
        blank = ~mask.view(*mask.shape, *[1] * len(self.spec.observation))
        frames = self._standardised(context.observations).masked_fill(blank, 0.0)
        poses = context.poses
        if poses is not None:
            poses = poses.masked_fill(~mask[..., None], 0.0)
        return table, frames, self._keys(times, path, poses), mask

    def posterior_kl(
        self, belief: Belief, targets: Context, generator: torch.Generator | None = None
    ) -> Tensor:
        """KL(q(z | context, targets) || p(z | context)): what the targets add to the context.

        Where each target has a latent of its own (GQN, BADJ) it is the sum over targets. (Seed 001,
        section 4.2, compares one target with three.)

        Args:
            belief: of the context.
            targets: pairs of the same B scenes, all of them there (no mask), at most
                ``max_context``; with the actions from time 0 on.
            generator: of the posterior's sample, on the model's device: z is sampled step by step,
                and each step's divergence is that given the sampled steps before it.

        Returns:
            float32 (B,), nats.

        Raises:
            TypeError, ValueError: as for ``observe``; a target is masked.
        """
        self._check_context(targets)
        if not bool(targets.full_mask().all()):
            raise ValueError("targets: expected pairs that are all there, got a mask")
        _, frames, keys, _ = self._pairs(targets)
        return self._explain(belief.state, keys, frames, generator)[1]

    def _update(self, belief: Belief, context: Context) -> Belief:
        """r is a sum: that of the new pairs is added."""
        new = self._observe(context)
        return Belief(new.present, {**new.state, "r": belief.state["r"] + new.state["r"]})

    def _forget(self, belief: Belief, context: Context) -> Belief:
        old = self._observe(context)
        return Belief(belief.present, {**belief.state, "r": belief.state["r"] - old.state["r"]})

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        present, steps = worlds.present, actions.shape[1]
        if self.path is None:
            return replace(worlds, present=present + steps)
        table = worlds.scene["path"].clone()
        rows = torch.arange(table.shape[0], device=table.device)
        state = table[rows, present]
        for step in range(steps):
            state = self.path.step(state, actions[:, step])
            table[rows, present + step + 1] = state
        return replace(worlds, present=present + steps, scene={**worlds.scene, "path": table})

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        paths = self._plan_paths(worlds, queries)
        steps = torch.arange(1, paths.shape[2] + 1, device=paths.device)
        times = (worlds.present[:, None] + steps).clamp_max(self.spec.window)
        reward, logit = self._step_rewards(worlds.state["vector"], times, paths)
        observations = None
        if frames:
            keys = self._query_keys(worlds, queries, paths)
            observations = self._render(worlds, keys, queries)
            observations = self._of_vectors(observations, lambda x: x * self.scale + self.shift)
        return StepPrediction(self.reward_scale.decode(reward), logit, observations)

    def _step_rewards(self, scene: Tensor, times: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
        """Reward, on its scale, and continuation logit of steps, both (B, S, N, L).

        Args:
            scene: (B, S, scene).
            times: (B, L), when the steps end.
            paths: (B, N, L, path).
        """
        if self.heads is None:
            none = scene.new_zeros(*scene.shape[:2], *paths.shape[1:3])
            return none, none + math.inf
        if self.path is not None:
            key_features = self.heads.from_key(self._keys(times.unsqueeze(1), paths))
        else:  # all scenes share the keys
            window = torch.arange(self.spec.window + 1, device=times.device)
            key_features = self.heads.from_key(self.time(window))[times].unsqueeze(1)
        reward, logit = self.heads(scene, key_features)
        return reward, logit

    # -- training --------------------------------------------------------------------------------

    def explain(
        self,
        scenes: SceneBatch,
        context: Tensor,
        mask: Tensor,
        targets: Tensor,
        generator: torch.Generator | None,
    ) -> Explained:
        """Encode the context, infer a world from the targets as well, and reconstruct those.

        Args:
            scenes: B scenes.
            context: int64 (B, M), times of the context.
            mask: bool (B, M), True where a pair is there.
            targets: int64 (B, n), times to explain.
            generator: of the posterior's sample, on the device of the model.
        """
        slots, times = context.shape[1], torch.cat([context, targets], 1)
        pairs = Context(
            self.spec.to_model(scenes.observations(times)),
            times,
            scenes.actions,
            torch.cat([mask, torch.ones_like(targets, dtype=torch.bool)], 1),
            scenes.lengths,
            scenes.poses(times) if self.spec.pose else None,
        )
        path, frames, keys, _ = self._pairs(pairs)
        encoded = self._encode(frames[:, :slots], keys[:, :slots], mask)
        truth = frames[:, slots:]
        means, kl, scene = self._explain(encoded, keys[:, slots:], truth, generator)
        error, weighted = (means - truth).square(), 0
        if self.pixels:
            weighted = error.shape[-1] - self.pixels
            error = self._of_vectors(error, lambda x: VECTOR_WEIGHT * x)
        squared = error.flatten(2).sum(2)
        return Explained(kl, squared, frames[0, 0].numel(), scene, path, weighted)

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """KL(q || p) + sum_i SSE_i / pixel_variance (seed 001, figure 2), plus the heads'.

        The paper's form is a Gaussian of variance pixel_variance / 2 without its constant; the true
        negative ELBO of the targets, in nats, is reported as well. For vectors it, and ``mse``, are
        those of the standardised numbers. The parts are plain means over scenes; in the loss
        scenes are weighted, see ``TrainingDraws``.
        """
        context, mask, targets, weights = self.config.draw(
            scenes.lengths, self.spec.window, generator
        )
        explained = self.explain(scenes, context, mask, targets, generator)
        variance = self.config.pixel_variance(progress)
        reconstruction = explained.squared.sum(1) / variance
        reward = ending = torch.zeros_like(explained.kl)
        if self.heads is not None:
            path = explained.path[:, None, 1 : int(scenes.lengths.max()) + 1]
            times = torch.arange(1, path.shape[2] + 1, device=path.device).expand(len(path), -1)
            steps = self._step_rewards(explained.scene.unsqueeze(1), times, path)
            step_reward, step_logit = (value[:, 0, 0] for value in steps)
            latest = context.masked_fill(~mask, 0).amax(1)
            reward, ending = self.reward_scale.loss(
                scenes, step_reward, step_logit, self.config.reward_variance, latest
            )
        total = (weights * (explained.kl + reconstruction + reward + ending)).mean()
        elbo = (explained.kl + reconstruction).mean() + explained.constant(variance)
        parts = {
            "loss": total,
            "kl": explained.kl.mean(),
            "negative_elbo": elbo,
            "mse": explained.squared.mean() / explained.numbers,
            "reward": reward.mean(),
            "continue": ending.mean(),
        }
        return Losses(total, {name: value.detach() for name, value in parts.items()})
