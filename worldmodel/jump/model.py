"""JUMP: consistent jumpy predictions of whole scenes (seed 001; seed 000 calls it CGQN).

    r = sum_j M_theta(v_j, x_j);   z ~ P_phi(z | r);   x_i = M_gamma(z, v_i)

Deviations from the paper, all by configuration: actions enter the key through a causal path;
rewards and terminations are read from (z, r, key) by a head; product keys and the "film" renderer
of preset ``small`` (there the renderer also reads r).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from worldmodel import outcomes
from worldmodel.base import Losses, WorldModel
from worldmodel.jump.config import JumpConfig
from worldmodel.jump.draw import GlobalLatent
from worldmodel.jump.encoder import ProductKeyEncoder, TiledKeyEncoder
from worldmodel.jump.heads import OutcomeHead, SceneVector
from worldmodel.jump.renderer import DrawRenderer, FilmRenderer
from worldmodel.keys import ActionPath, TimeFeatures
from worldmodel.outcomes import at_queries, symexp
from worldmodel.types import (
    Belief,
    Context,
    Prediction,
    Queries,
    SceneBatch,
    Spec,
    Worlds,
    to_float,
)


class Jump(WorldModel):
    """The jumpy world model; see ``JumpConfig`` for what can be set."""

    name: ClassVar[str] = "jump"
    jumpy: ClassVar[bool] = True
    config: JumpConfig

    def __init__(self, spec: Spec, config: JumpConfig) -> None:
        super().__init__(spec, config)
        self.max_context = config.context_max
        channels, height, width = spec.observation
        self.time = TimeFeatures(spec.window, config.time_bands)
        self.path = None if spec.action.kind == "none" else ActionPath(spec.action, config.path)
        key = self.time.features + (config.path if self.path is not None else 0)
        self.encoder: TiledKeyEncoder | ProductKeyEncoder
        if config.key_features:
            self.encoder = ProductKeyEncoder(channels, key, config.key_features)
        else:
            self.encoder = TiledKeyEncoder(channels, key)
        memory = self.encoder.channels
        self.latent = GlobalLatent(memory, config)
        self.scene = SceneVector(
            memory, config.steps * config.latent, (height // 8, width // 8), config.scene
        )
        self.heads = OutcomeHead(config.scene, key, config.head)
        self.renderer: DrawRenderer | FilmRenderer
        if config.renderer == "draw":
            self.renderer = DrawRenderer(channels, key, config)
        else:
            read = ProductKeyEncoder.content if config.key_features else 0
            self.renderer = FilmRenderer(spec.observation, key, memory, read, config)

    # -- keys ------------------------------------------------------------------------------------

    def _past(self, actions: Tensor | None, batch: int, steps: int) -> Tensor:
        """h_0 .. h_steps of the actions so far: (B, steps + 1, path); path is 0 if passive."""
        if self.path is None:
            return torch.zeros(batch, steps + 1, 0, device=self.device)
        start = self.path.start(batch)
        if actions is None or steps == 0:
            return start[:, None].expand(-1, steps + 1, -1)
        return torch.cat([start[:, None], self.path(actions[:, :steps], start)], 1)

    def _keys(self, times: Tensor, path: Tensor) -> Tensor:
        """Keys (..., K, key) from times (..., K) and path features (..., K, path)."""
        features = self.time(times)
        return torch.cat([features.expand(*path.shape[:-1], -1), path], -1)

    # -- the three verbs -------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        present, mask = context.present_times(), context.full_mask()
        batch, window = context.times.shape[0], self.spec.window
        actions = context.actions
        steps = int(present.max())
        past = self._past(actions, batch, steps)
        taken = torch.arange(steps + 1, device=self.device) <= present[:, None]
        table = past.new_zeros(batch, window + 1, past.shape[-1])
        table[:, : steps + 1] = past * taken.unsqueeze(-1)
        times = context.times.masked_fill(~mask, 0)
        path = table.gather(1, times[..., None].expand(-1, -1, table.shape[-1]))
        # masked pairs may hold anything, NaN included: blank them before they are multiplied by 0
        frames = context.observations.masked_fill(~mask[..., None, None, None], 0.0)
        r = self.encoder(frames, self._keys(times, path), mask)
        return Belief(present, {"r": r, "path": table})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        r, table = belief.state["r"], belief.state["path"]
        z = self.latent.sample(r, n, generator)
        scene = self.scene(z, r.repeat_interleave(n, 0))
        batch = r.shape[0]
        state = {
            "z": z.unflatten(0, (batch, n)),
            "scene": scene.unflatten(0, (batch, n)),
            "r": r.unsqueeze(1).expand(-1, n, -1, -1, -1),
            "path": table.unsqueeze(1).expand(-1, n, -1, -1),
        }
        return Worlds(belief.present, state)

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

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> Prediction:
        present, times = worlds.present, queries.times
        ahead = max(int((times.amax(1) - present).max()), 0)
        paths = self._plan_paths(worlds, queries.actions, ahead)
        steps = present[:, None] + torch.arange(1, ahead + 1, device=times.device)
        asked = self._ask(steps.clamp_max(self.spec.window), paths)
        reward, logit = self.heads(worlds.state["scene"], asked)
        rewards, alive = at_queries(symexp(reward), logit.sigmoid(), present, times)
        seen = None
        if frames:
            past = worlds.state["path"][:, :1].expand(-1, paths.shape[1], -1, -1)
            seen = self._render(worlds, times, self._query_keys(present, times, past, paths))
        if queries.actions is None:
            seen = None if seen is None else seen.squeeze(2)
            return Prediction(seen, rewards.squeeze(2), alive.squeeze(2))
        if self.path is None:  # no plan changes a passive scene: one answer serves all
            n = queries.actions.shape[1]
            seen = None if seen is None else seen.expand(-1, -1, n, *seen.shape[3:])
            rewards, alive = rewards.expand(-1, -1, n, -1), alive.expand(-1, -1, n, -1)
        return Prediction(seen, rewards, alive)

    def _ask(self, times: Tensor, paths: Tensor) -> Tensor:
        """The heads' view of steps: times (B, L), paths (B, N, L, path) to (B, N, L, 2 * head)."""
        if self.path is not None:
            return self.heads.ask(self._keys(times.unsqueeze(1), paths))
        window = torch.arange(self.spec.window + 1, device=times.device)
        return self.heads.ask(self.time(window))[times].unsqueeze(1)  # all scenes share the keys

    def _query_keys(self, present: Tensor, times: Tensor, past: Tensor, paths: Tensor) -> Tensor:
        """Keys (B, N, K, key): from the actions taken up to the present, from the plan after it."""
        both = torch.cat([past, paths], 2)  # (B, N, W + 1 + ahead, path)
        ahead = times - present[:, None]
        index = torch.where(ahead > 0, past.shape[2] - 1 + ahead, times)
        index = index[:, None, :, None].expand(-1, both.shape[1], -1, both.shape[-1])
        return self._keys(times.unsqueeze(1), both.gather(2, index))

    def _render(self, worlds: Worlds, times: Tensor, keys: Tensor) -> Tensor:
        """Frames (B, S, N, K, C, H, W), all in one batch."""
        batch, count = worlds.shape
        plans, queries = keys.shape[1:3]
        flat = keys.flatten(1, 2).repeat_interleave(count, 0)  # (B * S, N * K, key)
        z = worlds.state["z"].flatten(0, 1)
        r = worlds.state["r"].flatten(0, 1)
        frames = self._look(z, r, worlds.state["scene"].flatten(0, 1), flat)
        return frames.reshape(batch, count, plans, queries, *frames.shape[2:])

    def _look(self, z: Tensor, r: Tensor, scene: Tensor, keys: Tensor) -> Tensor:
        """M_gamma for P worlds at Q keys each: (P, Q, C, H, W)."""
        if isinstance(self.renderer, DrawRenderer):
            frames: Tensor = self.renderer(z, keys)
            return frames
        read = self.encoder.read(r, keys) if isinstance(self.encoder, ProductKeyEncoder) else None
        frames = self.renderer(z, r, scene, keys, read)
        return frames

    # -- training --------------------------------------------------------------------------------

    def pixel_variance(self, progress: float) -> float:
        """Linear from ``variance_start`` to ``variance_end`` over the first ``anneal`` share."""
        config = self.config
        share = min(progress / config.anneal, 1.0)
        return config.variance_start + share * (config.variance_end - config.variance_start)

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

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """KL(q || p) + sum_i SSE_i / pixel_variance (seed 001, figure 2), plus the heads'.

        The paper's form is a Gaussian of variance pixel_variance / 2 without its constant; the true
        negative ELBO of the targets, in nats, is reported beside it.
        """
        lengths = scenes.lengths
        seen_at, mask, targets = self.draw_times(lengths, generator)
        both = torch.cat([seen_at, targets], 1)
        seen = to_float(scenes.observations(both))
        steps = int(lengths.max())
        past = self._past(scenes.actions, len(lengths), steps)
        index = both.clamp_max(steps)[..., None].expand(-1, -1, past.shape[-1])
        keys = self._keys(both, past.gather(1, index))

        slots = seen_at.shape[1]
        r = self.encoder(seen[:, :slots], keys[:, :slots], mask)
        every = torch.ones_like(targets, dtype=torch.bool)
        r_targets = self.encoder(seen[:, slots:], keys[:, slots:], every)
        z, kl = self.latent.infer(r, r_targets, generator)
        scene = self.scene(z, r)
        frames = self._look(z, r, scene, keys[:, slots:])
        squared = (frames - seen[:, slots:]).square().flatten(2).sum(2)  # (B, targets)
        variance = self.pixel_variance(progress)
        reconstruction = squared.sum(1) / variance
        # the same Gaussian with its constant: -log N(x; mean, variance / 2) over all targets
        constant = 0.5 * seen[:, slots:].flatten(1).shape[1] * math.log(math.pi * variance)
        times = torch.arange(1, steps + 1, device=scene.device).expand(len(lengths), -1)
        asked = self._ask(times, past[:, 1:].unsqueeze(1))
        step_reward, step_logit = (v[:, 0, 0] for v in self.heads(scene.unsqueeze(1), asked))
        reward, ending = outcomes.loss(scenes, step_reward, step_logit, self.config.reward_variance)
        total = (kl + reconstruction + reward + ending).mean()
        parts = {
            "loss": total,
            "kl": kl.mean(),
            "negative_elbo": (kl + reconstruction).mean() + constant,
            "mse": squared.mean() / seen[0, 0].numel(),
            "reward": reward.mean(),
            "continue": ending.mean(),
        }
        return Losses(total, {name: value.detach() for name, value in parts.items()})
