"""GQN: a generative query network, in which each query samples a latent of its own.

Eslami et al. 2018 (layer tables in its supplement, S1). The latent depends on the query and enters
the recurrence that renders; each training target is explained alone. The KL of n targets is
therefore the sum of n (seed 001, section 4.2).

    r = sum_j M_theta(v_j, x_j);   z_l ~ pi(z_l | h_{l-1});   (h_l, u_l) = step(z_l, h_{l-1}, r, v)

A world here is a seed: noise is pinned to (world, query), so that repeating a query gives the same
answer; two queries of one world still share nothing but r. Time keys, actions and the head that
reads rewards and terminations from (r, key) are JUMP's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from worldmodel.common.config_checks import at_least, odd
from worldmodel.models.jumpy.base import JumpyModel
from worldmodel.models.jumpy.config import JumpyConfig
from worldmodel.models.jumpy.heads import SceneVector
from worldmodel.models.jumpy.jump.encoder import TiledKeyEncoder
from worldmodel.models.layers import gaussian, pinned
from worldmodel.models.layers.conv_lstm import ConvLSTMCell
from worldmodel.models.layers.conv_lstm import State as LSTMState
from worldmodel.spec import Spec
from worldmodel.types import Belief, Queries, State, Worlds


@dataclass(frozen=True)
class GqnConfig(JumpyConfig):
    """Sizes; the defaults are GQN's (its supplement, table S1), the schedules too.

    GQN's standard deviation falls from 2.0 to 0.7; ``pixel_variance`` is twice a variance.

    Attributes:
        steps: DRAW steps (L).
        hidden: LSTM channels.
        canvas: channels of the canvas.
        latent: latent channels of each step.
        kernel: size of the LSTM kernels.
    """

    steps: int = 12
    hidden: int = 128
    canvas: int = 128
    latent: int = 3
    kernel: int = 5
    targets: int = 1
    variance_start: float = 8.0
    variance_end: float = 0.98

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "steps", "hidden", "canvas", "latent", "kernel")
        odd(self, "kernel")


PRESETS: dict[str, GqnConfig] = {
    "paper": GqnConfig(),
    "small": GqnConfig(
        steps=4,
        hidden=32,
        canvas=32,
        kernel=3,
        time_bands=6,
        variance_start=2.0,
        variance_end=0.1,
        anneal=0.5,
        context_frames=0,
        learning_rate=1e-3,
        learning_rate_end=1e-4,
    ),
}


class Core(nn.Module):
    """The recurrence that samples and renders at once: its state is the prior of the next z.

    Subclasses build the layers that differ: how r enters (``embed``), how targets enter the
    posterior (``target_features``), what the renderer reads from its own canvas (``read``), and
    ``to_image``.

    Args:
        key: features of a key.
        embedded: channels of ``embed``.
        target: channels of ``target_features``.
        read: channels of ``read``.
        config: sizes.

    Attributes:
        cell: image pixels along one cell of the recurrence.
        scale: canvas pixels along one cell of the recurrence.
    """

    cell: ClassVar[int]
    scale: ClassVar[int]
    embed: nn.Module
    to_image: nn.Module

    def __init__(self, key: int, embedded: int, target: int, read: int, config: GqnConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent, kernel = config.hidden, config.latent, config.kernel
        self.prior = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)
        self.posterior = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)
        self.generator = ConvLSTMCell(embedded + key + read + latent, hidden, kernel)
        self.inference = ConvLSTMCell(embedded + key + target + hidden, hidden, kernel)
        self.to_canvas = nn.ConvTranspose2d(hidden, config.canvas, self.scale, self.scale)

    @abstractmethod
    def target_features(
        self, frames: Tensor, r: Tensor, r_target: Tensor, canvas: Tensor
    ) -> Tensor:
        """What the posterior reads (P, target, h, w) of targets and of the canvas so far."""

    @abstractmethod
    def read(self, canvas: Tensor) -> list[Tensor]:
        """What the renderer reads from its canvas, at most one (P, read, h, w)."""

    def forward(self, r: Tensor, keys: Tensor, noise: Tensor) -> Tensor:
        """Frames (P, C, H, W) from the prior.

        Args:
            r: (P, memory, H/4, W/4).
            keys: (P, key).
            noise: (P, steps, latent, h, w), standard normal.
        """
        conditioning, state, canvas = self._begin(r, keys)
        for step in range(self.config.steps):
            mean, logvar = self.prior(state[0]).chunk(2, 1)
            z = gaussian.draw(mean, logvar, noise[:, step])
            state, canvas = self._step(conditioning, z, state, canvas)
        frames: Tensor = self.to_image(canvas)
        return frames

    def explain(
        self,
        r: Tensor,
        keys: Tensor,
        frames: Tensor,
        r_target: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Means (P, C, H, W) of targets from the posterior, and its KL to the prior (P,)."""
        conditioning, state, canvas = self._begin(r, keys)
        inner, kl = self.inference.start(conditioning), r.new_zeros(r.shape[0])
        for _ in range(self.config.steps):
            target = self.target_features(frames, r, r_target, canvas)
            inner = self.inference(torch.cat([conditioning, target, state[0]], 1), inner)
            mean_q, logvar_q = self.posterior(inner[0]).chunk(2, 1)
            mean_p, logvar_p = self.prior(state[0]).chunk(2, 1)
            kl = kl + gaussian.kl_divergence(mean_q, logvar_q, mean_p, logvar_p)
            z = gaussian.draw(mean_q, logvar_q, gaussian.standard_normal(mean_q, generator))
            state, canvas = self._step(conditioning, z, state, canvas)
        return self.to_image(canvas), kl

    def _begin(self, r: Tensor, keys: Tensor) -> tuple[Tensor, LSTMState, Tensor]:
        embedded = self.embed(r)
        height, width = embedded.shape[-2:]
        conditioning = torch.cat([embedded, keys[..., None, None].expand(-1, -1, height, width)], 1)
        side = (self.scale * height, self.scale * width)
        canvas = r.new_zeros(len(r), self.config.canvas, *side)
        return conditioning, self.generator.start(conditioning), canvas

    def _step(
        self, conditioning: Tensor, z: Tensor, state: LSTMState, canvas: Tensor
    ) -> tuple[LSTMState, Tensor]:
        state = self.generator(torch.cat([conditioning, *self.read(canvas), z], 1), state)
        return state, canvas + self.to_canvas(state[0])


class GqnCore(Core):
    """GQN's: at H/4, canvas of full size, the posterior reads target and canvas as images."""

    cell, scale = 4, 4

    def __init__(self, channels: int, key: int, memory: int, config: GqnConfig) -> None:
        super().__init__(key, memory, config.hidden, 0, config)
        self.embed = nn.Identity()
        self.see_frame = nn.Conv2d(channels, config.hidden, 4, 4)
        self.see_canvas = nn.Conv2d(config.canvas, config.hidden, 4, 4)
        self.to_image = nn.Conv2d(config.canvas, channels, 1)

    def target_features(
        self, frames: Tensor, r: Tensor, r_target: Tensor, canvas: Tensor
    ) -> Tensor:
        """Target and canvas, each by one strided convolution, added."""
        added: Tensor = self.see_frame(frames) + self.see_canvas(canvas)
        return added

    def read(self, canvas: Tensor) -> list[Tensor]:
        """Nothing."""
        return []


class TowerEncoder(nn.Module):
    """GQN's "tower": two residual blocks, the key enters between them (its supplement, S1)."""

    channels = 256

    def __init__(self, image_channels: int, key: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(image_channels, 256, 2, 2)
        self.skip_1 = nn.Conv2d(256, 256, 2, 2)
        self.block_1 = nn.Sequential(
            nn.Conv2d(256, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 256, 2, 2)
        )
        self.skip_2 = nn.Conv2d(256 + key, 256, 3, padding=1)
        self.block_2 = nn.Sequential(
            nn.Conv2d(256 + key, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 256, 3, padding=1)
        )
        self.leave = nn.Conv2d(256, self.channels, 1)

    def forward(self, frames: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """r (B, 256, H/4, W/4): the sum over pairs (B, M, C, H, W), (B, M, key), mask (B, M)."""
        x = self.enter(frames.flatten(0, 1)).relu()
        x = (self.skip_1(x) + self.block_1(x)).relu()
        tiled = keys.flatten(0, 1)[..., None, None].expand(-1, -1, *x.shape[-2:])
        x = torch.cat([x, tiled], 1)
        x = self.leave((self.skip_2(x) + self.block_2(x)).relu()).unflatten(0, frames.shape[:2])
        summed: Tensor = (x * mask[..., None, None, None]).sum(1)
        return summed


class Gqn(JumpyModel):
    """Generative query network: jumpy, but each query samples a latent of its own."""

    name: ClassVar[str] = "gqn"
    encoder_class: ClassVar[type[TiledKeyEncoder | TowerEncoder]] = TowerEncoder
    core_class: ClassVar[Callable[..., Core]] = GqnCore
    config: GqnConfig

    def __init__(self, spec: Spec, config: GqnConfig) -> None:
        super().__init__(spec, config)
        channels, height, width = spec.observation
        self.encoder = self.encoder_class(channels, self.key)
        memory = self.encoder.channels
        self.renderer = self.core_class(channels, self.key, memory, config)
        self.scene = SceneVector(memory, 0, (height // 8, width // 8), 2, config.scene)
        self.heads = self._make_heads()
        cell = self.renderer.cell
        self._noise_shape = (config.steps, config.latent, height // cell, width // cell)

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        r = belief.state["r"]
        seeds = torch.randint(
            -(2**62), 2**62, (len(r), n), generator=generator, device=r.device, dtype=torch.int64
        )
        vector = self.scene(None, r).unsqueeze(1).expand(-1, n, -1)
        return Worlds(belief.present, {"seed": seeds, "vector": vector}, belief.state)

    def _render(self, worlds: Worlds, keys: Tensor, queries: Queries) -> Tensor:
        """Plans share the noise of a time: their frames differ by what they do alone."""
        lead = (*worlds.shape, *keys.shape[1:3])  # (B, S, N, K)
        address = queries.times.unsqueeze(-1) if queries.poses is None else queries.poses
        names = pinned.hashed(worlds.state["seed"][..., None], pinned.address(address)[:, None])

        def each(value: Tensor) -> Tensor:
            """One row for each frame."""
            return value.expand(*lead, *value.shape[4:]).flatten(0, 3)

        noise = pinned.standard_normal(names, self._noise_shape)
        frames: Tensor = self.renderer(
            each(worlds.scene["r"][:, None, None, None]),
            each(keys[:, None]),
            each(noise[:, :, None]),
        )
        return frames.reshape(*lead, *frames.shape[1:])

    def _explain(
        self, context: State, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        lead = keys.shape[:2]
        one = torch.ones(keys.shape[0] * keys.shape[1], 1, dtype=torch.bool, device=keys.device)
        flat_frames, flat_keys = frames.flatten(0, 1), keys.flatten(0, 1)
        r_target = self.encoder(flat_frames[:, None], flat_keys[:, None], one)
        r = context["r"].repeat_interleave(lead[1], 0)
        means, kl = self.renderer.explain(r, flat_keys, flat_frames, r_target, generator)
        scene = self.scene(None, context["r"])
        return means.unflatten(0, lead), kl.view(lead).sum(1), scene
