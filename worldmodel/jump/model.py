"""JUMP: consistent jumpy predictions of whole scenes (seed 001; seed 000 calls it CGQN).

    r = sum_j M_theta(v_j, x_j);   z ~ P_phi(z | r);   x_i = M_gamma(z, v_i)

Deviations from the paper, all by configuration: actions enter the key through a causal path;
rewards and terminations are read from (z, r, key) by a head; product keys and the "film" renderer
of preset ``small`` (there the renderer also reads r).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from worldmodel.heads import SceneVector
from worldmodel.jump.config import JumpConfig
from worldmodel.jump.draw import GlobalLatent
from worldmodel.jump.encoder import ProductKeyEncoder, TiledKeyEncoder
from worldmodel.jump.renderer import DrawRenderer, FilmRenderer
from worldmodel.sets import SetModel
from worldmodel.types import Belief, Queries, Spec, Worlds


class Jump(SetModel):
    """The jumpy world model; see ``JumpConfig`` for what can be set."""

    name: ClassVar[str] = "jump"
    config: JumpConfig

    def __init__(self, spec: Spec, config: JumpConfig) -> None:
        super().__init__(spec, config)
        channels, height, width = spec.observation
        self.encoder: TiledKeyEncoder | ProductKeyEncoder
        if config.key_features:
            self.encoder = ProductKeyEncoder(channels, self.key, config.key_features)
        else:
            self.encoder = TiledKeyEncoder(channels, self.key)
        memory = self.encoder.channels
        self.latent = GlobalLatent(memory, config)
        self.scene = SceneVector(
            memory, config.steps * config.latent, (height // 8, width // 8), config.scene
        )
        self.heads = self._make_heads()
        self.renderer: DrawRenderer | FilmRenderer
        if config.renderer == "draw":
            self.renderer = DrawRenderer(channels, self.key, config)
        else:
            read = ProductKeyEncoder.content if config.key_features else 0
            self.renderer = FilmRenderer(spec.observation, self.key, memory, read, config)

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

    def _render(self, worlds: Worlds, keys: Tensor, queries: Queries) -> Tensor:
        """Frames (B, S, N, K, C, H, W), all in one batch."""
        flat = keys.flatten(1, 2).repeat_interleave(worlds.shape[1], 0)  # (B * S, N * K, key)
        z, r, scene = (worlds.state[name].flatten(0, 1) for name in ("z", "r", "scene"))
        frames = self._look(z, r, scene, flat)
        return frames.reshape(*worlds.shape, *keys.shape[1:3], *frames.shape[2:])

    def _look(self, z: Tensor, r: Tensor, scene: Tensor, keys: Tensor) -> Tensor:
        """M_gamma for P worlds at Q keys each: (P, Q, C, H, W)."""
        if isinstance(self.renderer, DrawRenderer):
            frames: Tensor = self.renderer(z, keys)
            return frames
        read = self.encoder.read(r, keys) if isinstance(self.encoder, ProductKeyEncoder) else None
        frames = self.renderer(z, r, scene, keys, read)
        return frames

    def _explain(
        self, r: Tensor, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        every = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
        z, kl = self.latent.infer(r, self.encoder(frames, keys, every), generator)
        scene = self.scene(z, r)
        return self._look(z, r, scene, keys), kl, scene
