"""What jumpy models share: the context is a set of (key, frame) pairs, summed up in r.

    r = sum_j M_theta(v_j, x_j)

A key is a camera pose, or a time with a summary of the actions up to it. Rewards and terminations
are read from (world, key) by a head, which renders nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from worldmodel.base import Explained, Losses, WorldModel
from worldmodel.models.jumpy.config import SetConfig
from worldmodel.models.jumpy.keys import ActionPath, TimeFeatures
from worldmodel.models.layers import rewards as outcomes
from worldmodel.models.layers.heads import OutcomeHead
from worldmodel.models.layers.rewards import symexp
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

PREPARE_BATCHES = 32
"""Of the training source, from which the scale of vectors is learnt."""


class SetModel(WorldModel):
    """Everything but how a world is drawn and how it is rendered.

    Subclasses set ``encoder``, ``scene`` and ``heads``, and say how to sample, ``_render`` and
    ``_explain``. ``Worlds.state`` holds at least ``scene`` (B, S, scene) and ``path``.
    """

    jumpy: ClassVar[bool] = True
    extends: ClassVar[bool] = True
    config: SetConfig
    shift: Tensor
    scale: Tensor
    prepared: Tensor
    encoder: nn.Module
    heads: OutcomeHead | None

    def __init__(self, spec: Spec, config: SetConfig) -> None:
        super().__init__(spec, config)
        self.max_context = config.context_max
        if not spec.is_image:
            self.register_buffer("shift", torch.zeros(spec.observation))
            self.register_buffer("scale", torch.ones(spec.observation))
            self.register_buffer("prepared", torch.tensor(False))
        self.time = TimeFeatures(spec.window, config.time_bands)
        self.path = None if spec.passive else ActionPath(spec.action, config.path)
        self.key = spec.pose or self.time.features + (config.path if self.path is not None else 0)

    def _make_heads(self) -> OutcomeHead | None:
        """Nothing is at stake where poses are the keys."""
        return (
            None if self.spec.pose else OutcomeHead(self.config.scene, self.key, self.config.head)
        )

    def _encode(self, observations: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """r of pairs (B, M, \\*observation), (B, M, key), where mask (B, M)."""
        r: Tensor = self.encoder(observations, keys, mask)
        return r

    @abstractmethod
    def _render(self, worlds: Worlds, keys: Tensor, queries: Queries) -> Tensor:
        """Observations (B, S, N, K, *observation), standardised, at keys (B, N, K, key).

        ``queries`` says what the keys mean.
        """

    @abstractmethod
    def _explain(
        self, r: Tensor, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct targets (B, n, C, H, W) at keys (B, n, key) from the posterior.

        Returns:
            their means (B, n, C, H, W), the KL to the prior (B,) in nats, and the scene vector
            (B, scene) for the heads.
        """

    # -- observations ----------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, source: SceneSource) -> None:
        """Learn mean and spread of vectors, which are standardised; the checkpoint keeps them.

        Only once: weights that were trained with a scale keep it, whatever they are trained on
        next.
        """
        if self.spec.is_image or bool(self.prepared):
            return
        self.prepared.fill_(True)
        seen = []
        for index in range(PREPARE_BATCHES):
            scenes = source.batch(index)
            times = torch.arange(scenes.actions.shape[1] + 1, device=scenes.lengths.device)
            frames = scenes.observations(times.expand(len(scenes.lengths), -1))
            seen.append(frames[times <= scenes.lengths[:, None]].double())
        scale, shift = torch.std_mean(torch.cat(seen), 0)
        self.shift.copy_(shift)
        self.scale.copy_(torch.where(scale > 1e-6, scale, 1.0))  # a number that never changes

    def _standardised(self, observations: Tensor) -> Tensor:
        return observations if self.spec.is_image else (observations - self.shift) / self.scale

    # -- keys ------------------------------------------------------------------------------------

    def _past(self, actions: Tensor | None, batch: int, steps: int) -> Tensor:
        """h_0 .. h_steps of the actions so far: (B, steps + 1, path); path is 0 if passive."""
        if self.path is None:
            return torch.zeros(batch, steps + 1, 0, device=self.device)
        start = self.path.start(batch)
        if actions is None or steps == 0:
            return start[:, None].expand(-1, steps + 1, -1)
        return torch.cat([start[:, None], self.path(actions[:, :steps], start)], 1)

    def _keys(self, times: Tensor, path: Tensor, poses: Tensor | None = None) -> Tensor:
        """Keys (..., K, key) from times (..., K) and path features (..., K, path), or the poses."""
        if poses is not None:
            return poses
        features = self.time(times)
        return torch.cat([features.expand(*path.shape[:-1], -1), path], -1)

    # -- the three verbs -------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        table, frames, keys, mask = self._pairs(context)
        r = self._encode(frames, keys, mask)
        return Belief(context.present_times(), {"r": r, "path": table})

    def _pairs(self, context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h of all times up to the present (B, window + 1, path), 0 behind it; and the pairs:
        frames (B, M, \\*observation), standardised, keys (B, M, key), mask (B, M).
        """
        present, mask = context.present_times(), context.full_mask()
        batch, window = context.times.shape[0], self.spec.window
        steps = int(present.max())
        past = self._past(context.actions, batch, steps)
        taken = torch.arange(steps + 1, device=self.device) <= present[:, None]
        table = past.new_zeros(batch, window + 1, past.shape[-1])
        table[:, : steps + 1] = past * taken.unsqueeze(-1)
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
        """KL(q(z | context, targets) || p(z | context)): what the targets say beyond the context.

        Where each target has a latent of its own (GQN, BADJ) it is the sum over targets. (Seed 001,
        section 4.2, compares one target with three.)

        Args:
            belief: of the context.
            targets: pairs of the same B scenes, all of them there (no mask), at most
                ``max_context``; with the actions from time 0 on.
            generator: of the posterior's sample, on the model's device: z is drawn step by step,
                and each step's divergence is that at the drawn steps before it.

        Returns:
            float32 (B,), nats.

        Raises:
            TypeError, ValueError: as for ``observe``; a target is masked.
        """
        self._check_context(targets)
        if not bool(targets.full_mask().all()):
            raise ValueError("targets: expected pairs that are all there, got a mask")
        _, frames, keys, _ = self._pairs(targets)
        return self._explain(belief.state["r"], keys, frames, generator)[1]

    def _update(self, belief: Belief, context: Context) -> Belief:
        """r is a sum: what is new is added."""
        new = self._observe(context)
        return Belief(new.present, {**new.state, "r": self._added(belief, new, 1)})

    def _forget(self, belief: Belief, context: Context) -> Belief:
        old = self._observe(context)
        return Belief(belief.present, {**belief.state, "r": self._added(belief, old, -1)})

    def _added(self, belief: Belief, other: Belief, sign: int) -> Tensor:
        """r of both beliefs' pairs, or (-1) of those of the first that are not the second's."""
        return belief.state["r"] + sign * other.state["r"]

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        present, steps = worlds.present, actions.shape[1]
        if self.path is None:
            return replace(worlds, present=present + steps)
        table = worlds.state["path"][:, 0].clone()
        rows = torch.arange(table.shape[0], device=table.device)
        state = table[rows, present]
        for step in range(steps):
            state = self.path.step(state, actions[:, step])
            table[rows, present + step + 1] = state
        path = table.unsqueeze(1).expand(-1, worlds.shape[1], -1, -1)
        return Worlds(present + steps, {**worlds.state, "path": path})

    def _paths_to(self, worlds: Worlds, queries: Queries) -> Tensor:
        """``_plan_paths`` up to the last query."""
        return self._plan_paths(worlds, queries.actions, queries.ahead(worlds.present))

    def _asked(self, worlds: Worlds, queries: Queries, paths: Tensor) -> Tensor:
        """Keys (B, N, K, key) of the queries, where paths (B, N, ahead, path) are their plans'."""
        if queries.poses is not None:
            return queries.poses.unsqueeze(1)
        past = worlds.state["path"][:, :1].expand(-1, paths.shape[1], -1, -1)
        return self._query_keys(worlds.present, queries.times, past, paths)

    def _plan_paths(self, worlds: Worlds, actions: Tensor | None, ahead: int) -> Tensor:
        """h of the times present + 1 .. present + ahead along each plan: (B, N, ahead, path)."""
        table = worlds.state["path"][:, 0]
        batch = table.shape[0]
        if self.path is None or actions is None:
            return table.new_zeros(batch, 1, ahead, table.shape[-1])
        plans = actions.shape[1]
        now = table[torch.arange(batch, device=table.device), worlds.present]
        start = now.repeat_interleave(plans, 0)
        paths: Tensor = self.path(actions[:, :, :ahead].flatten(0, 1), start)
        return paths.view(batch, plans, ahead, self.path.features)

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        paths = self._paths_to(worlds, queries)
        steps = torch.arange(1, paths.shape[2] + 1, device=paths.device)
        steps = (worlds.present[:, None] + steps).clamp_max(self.spec.window)
        reward, logit = self._outcomes(worlds.state["scene"], steps, paths)
        observations = None
        if frames:
            observations = self._render(worlds, self._asked(worlds, queries, paths), queries)
            if not self.spec.is_image:
                observations = observations * self.scale + self.shift
        return StepPrediction(symexp(reward), logit, observations)

    def _outcomes(self, scene: Tensor, times: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
        """Symlog reward and continuation logit of steps, both (B, S, N, L).

        Args:
            scene: (B, S, scene).
            times: (B, L), when the steps end.
            paths: (B, N, L, path).
        """
        if self.heads is None:
            none = scene.new_zeros(*scene.shape[:2], *paths.shape[1:3])
            return none, none + math.inf
        if self.path is not None:
            asked = self.heads.ask(self._keys(times.unsqueeze(1), paths))
        else:  # all scenes share the keys
            window = torch.arange(self.spec.window + 1, device=times.device)
            asked = self.heads.ask(self.time(window))[times].unsqueeze(1)
        reward, logit = self.heads(scene, asked)
        return reward, logit

    def _query_keys(self, present: Tensor, times: Tensor, past: Tensor, paths: Tensor) -> Tensor:
        """Keys (B, N, K, key): from the actions taken up to the present, from the plan after it."""
        both = torch.cat([past, paths], 2)  # (B, N, W + 1 + ahead, path)
        ahead = times - present[:, None]
        index = torch.where(ahead > 0, past.shape[2] - 1 + ahead, times)
        index = index[:, None, :, None].expand(-1, both.shape[1], -1, both.shape[-1])
        return self._keys(times.unsqueeze(1), both.gather(2, index))

    # -- training --------------------------------------------------------------------------------

    def _poses(self, scenes: SceneBatch, times: Tensor) -> Tensor | None:
        return scenes.poses(times) if self.spec.pose else None

    def draw_times(
        self, lengths: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Which frames to see and which to predict.

        Args:
            lengths: int64 (B,), the last valid time of each scene.
            generator: on the device of ``lengths``.

        Returns:
            context times (B, context_max), their mask, target times (B, targets). Context times
            differ from each other; targets lie anywhere in 0 .. length.
        """
        config, batch, device = self.config, lengths.shape[0], lengths.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        if config.context_frames:
            latest = lengths.clamp_max(config.context_frames - 1)
        else:  # half of the presents are the origin's, where every episode and every plan begins
            anywhere = (uniform(batch) * lengths.float()).long()
            latest = torch.where(uniform(batch) < 0.5, 0, anywhere)
        span = torch.arange(self.spec.window + 1, device=device)
        score = uniform(batch, self.spec.window + 1).masked_fill(span > latest[:, None], -1.0)
        slots = min(config.context_max, self.spec.window + 1)
        value, times = score.topk(slots, 1)
        sizes = config.context_min + uniform(batch) * (config.context_max - config.context_min + 1)
        mask = (torch.arange(slots, device=device) < sizes.long()[:, None]) & (value >= 0)
        targets = (uniform(batch, config.targets) * (lengths[:, None] + 1)).long()
        return times, mask, targets

    def explain(
        self,
        scenes: SceneBatch,
        seen_at: Tensor,
        mask: Tensor,
        targets: Tensor,
        generator: torch.Generator | None,
    ) -> Explained:
        """Encode the context, infer a world from the targets as well, and reconstruct those.

        Args:
            scenes: B scenes.
            seen_at: int64 (B, M), times of the context.
            mask: bool (B, M), which of them are there.
            targets: int64 (B, n), times to explain.
            generator: of the posterior's draw, on the device of the model.
        """
        both = torch.cat([seen_at, targets], 1)
        seen = self._standardised(self.spec.to_model(scenes.observations(both)))
        steps = int(scenes.lengths.max())
        past = self._past(scenes.actions, len(both), steps)
        index = both.clamp_max(steps)[..., None].expand(-1, -1, past.shape[-1])
        keys = self._keys(both, past.gather(1, index), self._poses(scenes, both))

        slots = seen_at.shape[1]
        r = self._encode(seen[:, :slots], keys[:, :slots], mask)
        frames, kl, scene = self._explain(r, keys[:, slots:], seen[:, slots:], generator)
        squared = (frames - seen[:, slots:]).square().flatten(2).sum(2)
        return Explained(kl, squared, seen[0, 0].numel(), scene, past)

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """KL(q || p) + sum_i SSE_i / pixel_variance (seed 001, figure 2), plus the heads'.

        The paper's form is a Gaussian of variance pixel_variance / 2 without its constant; the true
        negative ELBO of the targets, in nats, is reported beside it. For vectors it, and ``mse``,
        are those of the standardised numbers.
        """
        lengths = scenes.lengths
        told = self.explain(scenes, *self.draw_times(lengths, generator), generator)
        variance = self.config.pixel_variance(progress)
        reconstruction = told.squared.sum(1) / variance
        steps = int(lengths.max())
        times = torch.arange(1, steps + 1, device=lengths.device).expand(len(lengths), -1)
        step_reward, step_logit = (
            value[:, 0, 0]
            for value in self._outcomes(
                told.scene.unsqueeze(1), times, told.past[:, 1:].unsqueeze(1)
            )
        )
        if self.heads is None:
            reward = ending = torch.zeros_like(told.kl)
        else:
            reward, ending = outcomes.loss(
                scenes, step_reward, step_logit, self.config.reward_variance
            )
        total = (told.kl + reconstruction + reward + ending).mean()
        parts = {
            "loss": total,
            "kl": told.kl.mean(),
            "negative_elbo": (told.kl + reconstruction).mean() + told.constant(variance),
            "mse": told.squared.mean() / told.numbers,
            "reward": reward.mean(),
            "continue": ending.mean(),
        }
        return Losses(total, {name: value.detach() for name, value in parts.items()})
