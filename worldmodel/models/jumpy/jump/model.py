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

from worldmodel.base import WorldModel
from worldmodel.models.jumpy.base import SetModel
from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.jumpy.jump.draw import GlobalLatent
from worldmodel.models.jumpy.jump.encoder import ProductKeyEncoder, TiledKeyEncoder
from worldmodel.models.jumpy.jump.renderer import DrawRenderer, FilmRenderer, VectorRenderer
from worldmodel.models.layers.heads import SceneVector
from worldmodel.spec import Spec
from worldmodel.types import Belief, Queries, Worlds


class Jump(SetModel):
    """The jumpy world model; see ``JumpConfig`` for what can be set."""

    name: ClassVar[str] = "jump"
    takes_vectors: ClassVar[bool] = True
    config: JumpConfig

    def __init__(self, spec: Spec, config: JumpConfig) -> None:
        super().__init__(spec, config)
        if (config.renderer == "mlp") == spec.is_image:
            raise ValueError(
                "renderer: expected 'mlp' for vectors (preset 'vector') and 'draw' or 'film' for "
                f"images, got {config.renderer!r} for observations {spec.observation}"
            )
        self.refinements = config.refinements
        image, channels = spec.is_image, spec.observation[0]
        cell = 2 if image else 1
        grid = (spec.observation[1] // 8, spec.observation[2] // 8) if image else (1, 1)
        self.encoder: TiledKeyEncoder | ProductKeyEncoder
        if config.key_features:
            self.encoder = ProductKeyEncoder(channels, self.key, config.key_features, image)
        else:
            self.encoder = TiledKeyEncoder(channels, self.key, image)
        memory = self.encoder.channels + (0 if image else channels)
        self.latent = GlobalLatent(memory, cell, config)
        self.scene = SceneVector(memory, config.steps * config.latent, grid, cell, config.scene)
        self.heads = self._make_heads()
        read = ProductKeyEncoder.content if config.key_features else 0
        self.renderer: DrawRenderer | FilmRenderer | VectorRenderer
        if config.renderer == "draw":
            self.renderer = DrawRenderer(channels, self.key, config)
        elif config.renderer == "film":
            self.renderer = FilmRenderer(spec.observation, self.key, memory, read, config)
        else:
            self.renderer = VectorRenderer(channels, self.key, read, config)

    @property
    def refinements(self) -> int:
        """How often ``sample`` refines what the prior draws; may be set at any time.

        Raises:
            ValueError: below 0; or above it, where scenes are not passive.
        """
        return self.config.refinements

    @refinements.setter
    def refinements(self, count: int) -> None:
        if count and (self.spec.pose or not self.spec.passive):
            raise ValueError(
                f"refinements: expected 0, got {count}: only of passive scenes is it known where "
                "to look; call refine(worlds, queries) with a plan or with poses"
            )
        self.config = replace(self.config, refinements=count)

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        r, table = belief.state["r"], belief.state["path"]
        state = {
            "r": r.unsqueeze(1).expand(-1, n, -1, -1, -1),
            "path": table.unsqueeze(1).expand(-1, n, -1, -1),
        }
        z = self.latent.sample(r, n, generator)
        worlds = self._drawn(Worlds(belief.present, state), z)
        if self.config.refinements:
            span = torch.linspace(0, self.spec.window, self.config.targets, device=r.device)
            queries = Queries(span.round().long().expand(r.shape[0], -1))
            worlds = self.refine(worlds, queries, self.config.refinements, generator)
        return worlds

    def _drawn(self, worlds: Worlds, z: Tensor) -> Worlds:
        """The same, with these latents (B * S, steps, latent, H/8, W/8)."""
        scene = self.scene(z, worlds.state["r"].flatten(0, 1))
        new = {"z": z.unflatten(0, worlds.shape), "scene": scene.unflatten(0, worlds.shape)}
        return Worlds(worlds.present, {**worlds.state, **new})

    @torch.no_grad()
    def refine(
        self,
        worlds: Worlds,
        queries: Queries,
        rounds: int = 1,
        generator: torch.Generator | None = None,
    ) -> Worlds:
        """Draw worlds again from what they show: pseudo-Gibbs sampling.

        Each round looks at the queries, x = M_gamma(z, v), and draws z ~ P_psi(z | r, x, v) from
        the posterior. Were the posterior exact (and x drawn with the pixels' noise), this would
        leave the prior's worlds as likely as they are. A prior that also draws what no posterior
        would, such as an actor at two places, is led back to what the renderer was trained on.
        (Rezende, Mohamed and Wierstra, 2014, fill in missing pixels so.) It costs a rendering
        and an encoding of the queries for each world and round, and some variety.

        Args:
            worlds: B x S sampled worlds.
            queries: K times (or poses) and, for those after the present, a single plan (N = 1).
                Best are about as many as training's ``targets``, spread over the scene.
            rounds: how often.
            generator: on the model's device.

        Returns:
            B x S worlds of the same contexts.

        Raises:
            ValueError: ``rounds`` is below 1, there are several plans, or as for ``predict``.
        """
        if rounds < 1:
            raise ValueError(f"rounds: expected at least 1, got {rounds}")
        self._check_queries(worlds, queries)
        if queries.actions is not None and queries.actions.shape[1] != 1:
            raise ValueError(
                f"queries.actions: expected a single plan (N = 1), got {queries.actions.shape[1]}"
            )
        keys = self._asked(worlds, queries, self._paths_to(worlds, queries))
        flat = keys[:, 0].repeat_interleave(worlds.shape[1], 0)  # (B * S, K, key)
        every = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
        r = worlds.state["r"].flatten(0, 1)
        for _ in range(rounds):
            seen = self._render(worlds, keys, queries).flatten(0, 2)
            seen = seen.clamp(0, 1) if self.spec.is_image else seen
            z, _kl = self.latent.infer(r, self._encode(seen, flat, every), generator)
            worlds = self._drawn(worlds, z)
        return worlds

    def _encode(self, observations: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """r of pairs (B, M, \\*observation), (B, M, key), mask (B, M).

        Vectors are images of one pixel. Beside the sum, r holds the latest of them, from which the
        renderer counts: small changes are learnt as such.
        """
        if self.spec.is_image:
            r: Tensor = self.encoder(observations, keys, mask)
            return r
        pixels = observations[..., None, None]
        latest = keys[..., 0].masked_fill(~mask, -math.inf).argmax(1)  # a key begins with its time
        rows = torch.arange(len(latest), device=latest.device)
        return torch.cat([self.encoder(pixels, keys, mask), pixels[rows, latest]], 1)

    def _added(self, belief: Belief, other: Belief, sign: int) -> Tensor:
        """Sums; of vectors also the latest, which is that of an update and is not forgotten."""
        summed, own = super()._added(belief, other, sign), self.encoder.channels
        latest = (other if sign > 0 else belief).state["r"]
        return torch.cat([summed[:, :own], latest[:, own:]], 1)

    def _render(self, worlds: Worlds, keys: Tensor, queries: Queries) -> Tensor:
        """Frames (B, S, N, K, C, H, W), all in one batch."""
        flat = keys.flatten(1, 2).repeat_interleave(worlds.shape[1], 0)  # (B * S, N * K, key)
        z, r, scene = (worlds.state[name].flatten(0, 1) for name in ("z", "r", "scene"))
        frames = self._look(z, r, scene, flat)
        return frames.reshape(*worlds.shape, *keys.shape[1:3], *frames.shape[2:])

    def _look(self, z: Tensor, r: Tensor, scene: Tensor, keys: Tensor) -> Tensor:
        """M_gamma for P worlds at Q keys each: (P, Q, C, H, W)."""
        if isinstance(self.renderer, DrawRenderer):
            drawn: Tensor = self.renderer(z, keys)
            return drawn
        summed = r[:, : self.encoder.channels]
        read = None
        if isinstance(self.encoder, ProductKeyEncoder):
            read = self.encoder.read(summed, keys)
        if isinstance(self.renderer, VectorRenderer):
            latest = r[:, self.encoder.channels :].flatten(1)
            numbers: Tensor = self.renderer(latest, scene, keys, read)
            return numbers
        frames: Tensor = self.renderer(z, r, scene, keys, read)
        return frames

    def _explain(
        self, r: Tensor, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        every = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
        z, kl = self.latent.infer(r, self._encode(frames, keys, every), generator)
        scene = self.scene(z, r)
        return self._look(z, r, scene, keys), kl, scene


def set_refinements(model: WorldModel, count: int | None) -> None:
    """Set ``Jump.refinements``; None leaves them as they are.

    Raises:
        ValueError: the model is not a JUMP, or as ``Jump.refinements`` says.
    """
    if count is None:
        return
    if not isinstance(model, Jump):
        raise ValueError(f"refinements: only jump draws worlds again; {model.name} cannot")
    model.refinements = count
