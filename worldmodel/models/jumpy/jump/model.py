"""JUMP: consistent jumpy predictions of whole scenes (seed 001; seed 000 calls it CGQN).

    r = sum_j M_theta(v_j, x_j);   z ~ P_phi(z | r);   x_i = M_gamma(z, v_i)

Deviations from the paper, all by configuration: actions enter the key through a causal path;
rewards and terminations are read from (z, r, key) by a head; product keys and the "film" renderer
of preset ``small`` (there the renderer also reads r).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.models.jumpy.base import JumpyModel
from worldmodel.models.jumpy.heads import SceneVector
from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.jumpy.jump.draw import GlobalLatent
from worldmodel.models.jumpy.jump.encoder import Encoder, ProductKeyEncoder, TiledKeyEncoder
from worldmodel.models.jumpy.jump.renderer import RENDERERS, LatentWorlds, VectorRenderer
from worldmodel.spec import Spec
from worldmodel.types import Belief, Queries, State, Worlds


class Jump(JumpyModel):
    """The jumpy world model; see ``JumpConfig`` for what can be set.

    For vectors the belief also holds ``latest`` (B, D), the latest vector of the context, from
    which the renderer counts: small changes are learnt as such.

    Of Dicts with an image the vectors are tiled onto the image, as keys are; the renderer makes the
    image, and ``vectors``, another one, the vectors.
    """

    name: ClassVar[str] = "jump"
    takes_vectors: ClassVar[bool] = True
    takes_image_parts: ClassVar[bool] = True
    renamed_weights: ClassVar[Mapping[str, str]] = {
        "renderer.glance.ask.": "renderer.attention.query.",
        "renderer.glance.places.": "renderer.attention.key_value.",
    }
    config: JumpConfig

    def __init__(self, spec: Spec, config: JumpConfig) -> None:
        super().__init__(spec, config)
        part = spec.image_part
        shape = spec.observation if part is None else part.in_model
        image, (channels, *sides) = len(shape) == 3, shape
        if (config.renderer == "mlp") == image:
            raise ValueError(
                "renderer: expected 'mlp' for vectors (preset 'vector') and 'draw' or 'film' for "
                f"images, got {config.renderer!r} for observations {shape}"
            )
        numbers = 0 if spec.is_image else spec.observation[0] - self.pixels
        self.refinements = config.refinements
        cell = 2 if image else 1
        grid = (sides[0] // 8, sides[1] // 8) if image else (1, 1)
        planes = channels + numbers if image else numbers
        self.encoder: Encoder
        if config.key_features:
            self.encoder = ProductKeyEncoder(planes, self.key, config.key_features, image)
        else:
            self.encoder = TiledKeyEncoder(planes, self.key, image)
        memory = self.encoder.channels + numbers
        self.latent = GlobalLatent(memory, cell, config)
        self.scene = SceneVector(memory, config.steps * config.latent, grid, cell, config.scene)
        self.heads = self._make_heads()
        make_renderer = RENDERERS[config.renderer]
        self.renderer = make_renderer(shape, self.key, self.encoder, config)
        self.vectors: VectorRenderer | None = None
        if self.pixels and numbers:
            self.vectors = VectorRenderer((numbers,), self.key, self.encoder, config)

    @property
    def refinements(self) -> int:
        """How often ``sample`` refines the prior's samples; may be set at any time.

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
        z = self.latent.sample(self._memory(belief.state), n, generator).unflatten(0, (-1, n))
        worlds = self._worlds(belief.present, belief.state, z)
        if self.config.refinements:
            span = torch.linspace(0, self.spec.window, self.config.targets, device=z.device)
            queries = Queries(span.round().long().expand(len(z), -1))
            worlds = self.refine(worlds, queries, self.config.refinements, generator)
        return worlds

    def _worlds(self, present: Tensor, scene: State, z: Tensor) -> Worlds:
        """The worlds of latents z (B, S, steps, latent, H/8, W/8)."""
        memory = self._memory(scene).repeat_interleave(z.shape[1], 0)
        vector = self.scene(z.flatten(0, 1), memory).unflatten(0, z.shape[:2])
        return Worlds(present, {"z": z, "vector": vector}, scene)

    def _memory(self, context: State) -> Tensor:
        """What prior, posterior and heads read of pairs: r, and of vectors the latest."""
        r = context["r"]
        if self.spec.is_image:
            return r
        tiled = context["latest"][..., None, None].expand(-1, -1, *r.shape[-2:])
        return torch.cat([r, tiled], 1)

    @torch.no_grad()
    def refine(
        self,
        worlds: Worlds,
        queries: Queries,
        rounds: int = 1,
        generator: torch.Generator | None = None,
    ) -> Worlds:
        """Sample worlds again given their own frames: pseudo-Gibbs sampling.

        Each round renders the queries, x = M_gamma(z, v), and samples z ~ P_psi(z | r, x, v) from
        the posterior. Were the posterior exact (and x sampled with the pixels' noise), this would
        leave the prior's worlds as likely as they are. Samples of the prior that no posterior would
        give, such as an actor in two positions, move to what the renderer was trained on.
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
        keys = self._query_keys(worlds, queries, self._plan_paths(worlds, queries))
        flat = keys[:, 0].repeat_interleave(worlds.shape[1], 0)  # (B * S, K, key)
        every = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
        memory = self._memory(worlds.scene).repeat_interleave(worlds.shape[1], 0)
        for _ in range(rounds):
            frames = self._render(worlds, keys, queries).flatten(0, 2)
            if self.spec.is_image:
                frames = frames.clamp(0, 1)
            elif self.pixels:
                clamped = frames[..., : self.pixels].clamp(0, 1)
                frames = torch.cat([clamped, frames[..., self.pixels :]], -1)
            targets = self._memory(self._encode(frames, flat, every))
            z, _kl = self.latent.infer(memory, targets, generator)
            worlds = self._worlds(worlds.present, worlds.scene, z.unflatten(0, worlds.shape))
        return worlds

    def _encode(self, observations: Tensor, keys: Tensor, mask: Tensor) -> State:
        """r of pairs (B, M, \\*observation), (B, M, key), mask (B, M); of vectors ``latest``, too.

        Vectors are images of one pixel.
        """
        if self.spec.is_image:
            return super()._encode(observations, keys, mask)
        latest = keys[..., 0].masked_fill(~mask, -math.inf).argmax(1)  # a key begins with its time
        rows = torch.arange(len(latest), device=latest.device)
        if self.spec.image_part is None:
            planes = observations[..., None, None]
        else:
            image = observations[..., : self.pixels].unflatten(-1, self.spec.image_part.in_model)
            observations = observations[..., self.pixels :]
            tiled = observations[..., None, None].expand(-1, -1, -1, *image.shape[-2:])
            planes = torch.cat([image, tiled], 2)
        state = super()._encode(planes, keys, mask)
        return {**state, "latest": observations[rows, latest]}

    def _render(self, worlds: Worlds, keys: Tensor, queries: Queries) -> Tensor:
        """Observations (B, S, N, K, \\*observation), all in one batch."""
        count = worlds.shape[1]
        flat = keys.flatten(1, 2).repeat_interleave(count, 0)  # (B * S, N * K, key)
        scene = {
            name: value.repeat_interleave(count, 0)
            for name, value in worlds.scene.items()
            if name != "path"
        }
        own = {name: value.flatten(0, 1) for name, value in worlds.state.items()}
        frames = self._decode(LatentWorlds(**scene, **own), flat)
        return frames.reshape(*worlds.shape, *keys.shape[1:3], *frames.shape[2:])

    def _decode(self, worlds: LatentWorlds, keys: Tensor) -> Tensor:
        """M_gamma for P worlds at Q keys each: (P, Q, \\*observation)."""
        content = self.encoder.read(worlds.r, keys)
        frames: Tensor = self.renderer(worlds, keys, content)
        if not self.pixels:
            return frames
        frames = frames.flatten(2)
        if self.vectors is None:
            return frames
        if content is not None:
            content = content.mean((-2, -1), keepdim=True)
        return torch.cat([frames, self.vectors(worlds, keys, content)], -1)

    def _explain(
        self, context: State, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        every = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
        memory, targets = self._memory(context), self._memory(self._encode(frames, keys, every))
        z, kl = self.latent.infer(memory, targets, generator)
        vector = self.scene(z, memory)
        r = memory[:, : self.encoder.channels]  # of one tensor, so that gradients add up in order
        worlds = LatentWorlds(z, r, vector, context.get("latest"))
        return self._decode(worlds, keys), kl, vector


def set_refinements(model: WorldModel, count: int | None) -> None:
    """Set ``Jump.refinements``; None leaves them as they are.

    Raises:
        ValueError: the model is not a JUMP, or as ``Jump.refinements`` says.
    """
    if count is None:
        return
    if not isinstance(model, Jump):
        raise ValueError(f"refinements: only jump samples worlds again; {model.name} cannot")
    model.refinements = count
