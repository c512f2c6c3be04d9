"""JUMP: consistent jumpy predictions of whole scenes (seed 001; seed 000 calls it CGQN).

    r = sum_j M_theta(v_j, x_j);   z ~ P_phi(z | r);   x_i = M_gamma(z, v_i)

Deviations from the paper, all by configuration: actions enter the key through a causal path;
rewards and terminations are read from (z, r, key) by a head; product keys and the "film" renderer
of preset ``views`` (there the renderer also reads r).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from worldmodel.models.jumpy.base import JumpyModel
from worldmodel.models.jumpy.heads import SceneVector
from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.jumpy.jump.draw import GlobalLatent
from worldmodel.models.jumpy.jump.encoder import Encoder, ProductKeyEncoder, TiledKeyEncoder
from worldmodel.models.jumpy.jump.fused import FusedDrawRenderer
from worldmodel.models.jumpy.jump.renderer import (
    RENDERERS,
    DrawRenderer,
    LatentWorlds,
    Renderer,
    VectorRenderer,
)
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
    removed_settings: ClassVar[frozenset[str]] = frozenset({"refinements"})
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
        self.renderer: Renderer = make_renderer(shape, self.key, self.encoder, config)
        self._grid = grid
        self.vectors: VectorRenderer | None = None
        if self.pixels and numbers:
            self.vectors = VectorRenderer((numbers,), self.key, self.encoder, config)

    def _fuse(self, dtype: torch.dtype) -> None:
        """See ``WorldModel``: the "draw" renderer without its canvas."""
        if isinstance(self.renderer, DrawRenderer):
            self.renderer = FusedDrawRenderer(self.renderer, self._grid, self.config, dtype)

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        z = self.latent.sample(self._memory(belief.state), n, generator).unflatten(0, (-1, n))
        memory = self._memory(belief.state).repeat_interleave(n, 0)
        vector = self.scene(z.flatten(0, 1), memory).unflatten(0, z.shape[:2])
        return Worlds(belief.present, {"z": z, "vector": vector}, belief.state)

    def _memory(self, context: State) -> Tensor:
        """What prior, posterior and heads read of pairs: r, and of vectors the latest."""
        r = context["r"]
        if self.spec.is_image:
            return r
        tiled = context["latest"][..., None, None].expand(-1, -1, *r.shape[-2:])
        return torch.cat([r, tiled], 1)

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
