"""GQN and BADJ: what JUMP becomes when each frame is drawn for itself.

GQN is Eslami et al. 2018 (layer tables in its supplement, S1); BADJ is JUMP without the three
features that make it consistent (seed 001, figure 4): its latent depends on the query, it is fed
straight into the recurrence that renders, and each training target is explained alone. The KL of
n targets is therefore the sum of n (seed 001, section 4.2).

    r = sum_j M_theta(v_j, x_j);   z_l ~ pi(z_l | h_{l-1});   (h_l, u_l) = step(z_l, h_{l-1}, r, v)

A world here is a seed: noise is pinned to (world, query), so that asking twice gives the same
answer; two queries of one world still share nothing but r. Rewards and terminations are read from
(r, key) by the same head as JUMP's. Time keys and actions: as in ``sets``.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from worldmodel.common.config_checks import at_least, odd
from worldmodel.models.jumpy.base import SetModel
from worldmodel.models.jumpy.config import SetConfig
from worldmodel.models.jumpy.jump.config import PRESETS as JUMP_PRESETS
from worldmodel.models.jumpy.jump.encoder import TiledKeyEncoder
from worldmodel.models.layers import gaussian, pinned
from worldmodel.models.layers.conv_lstm import ConvLSTMCell
from worldmodel.models.layers.conv_lstm import State as LSTMState
from worldmodel.models.layers.heads import SceneVector
from worldmodel.spec import Spec
from worldmodel.types import Belief, Queries, Worlds


@dataclass(frozen=True)
class GqnConfig(SetConfig):
    """Sizes; the defaults are GQN's (its supplement, table S1), the schedules too.

    GQN's standard deviation falls from 2.0 to 0.7; ``pixel_variance`` is twice a variance.

    Attributes:
        core: "gqn", a recurrence at H/4 with a canvas of full size; or "jump", JUMP's blocks: a
            recurrence at H/8 with a canvas at H/4.
        steps: DRAW steps (L).
        hidden: LSTM channels.
        canvas: channels of the canvas.
        latent: latent channels of each step.
        kernel: size of the LSTM kernels.
        tower: channels into the LSTM ("jump" core).
        canvas_in: channels from the canvas into the renderer's LSTM ("jump" core).
    """

    core: Literal["gqn", "jump"] = "gqn"
    steps: int = 12
    hidden: int = 128
    canvas: int = 128
    latent: int = 3
    kernel: int = 5
    tower: int = 128
    canvas_in: int = 64
    targets: int = 1
    variance_start: float = 8.0
    variance_end: float = 0.98

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "steps", "hidden", "canvas", "latent", "kernel", "tower", "canvas_in")
        odd(self, "kernel")
        if self.core not in ("gqn", "jump"):
            raise ValueError(f"core: expected 'gqn' or 'jump', got {self.core!r}")


class Core(nn.Module):
    """The recurrence that draws and renders at once: its state is the prior of the next z.

    Subclasses build the layers that differ: how r enters (``embed``), what the posterior sees of a
    target (``watch``), what the renderer reads off its own canvas (``read``), and ``to_image``.
    """

    scale: ClassVar[int]
    """Canvas pixels along one cell of the recurrence."""
    embed: nn.Module
    to_image: nn.Module

    def __init__(self, key: int, told: int, seen: int, read: int, config: GqnConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent, kernel = config.hidden, config.latent, config.kernel
        self.prior = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)
        self.posterior = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)
        self.generator = ConvLSTMCell(told + key + read + latent, hidden, kernel)
        self.inference = ConvLSTMCell(told + key + seen + hidden, hidden, kernel)
        self.to_canvas = nn.ConvTranspose2d(hidden, config.canvas, self.scale, self.scale)

    @abstractmethod
    def watch(self, frames: Tensor, r: Tensor, r_target: Tensor, canvas: Tensor) -> Tensor:
        """The posterior's view (P, seen, h, w) of targets and of the canvas so far."""

    @abstractmethod
    def read(self, canvas: Tensor) -> list[Tensor]:
        """What the renderer reads off its canvas, at most one (P, read, h, w)."""

    def forward(self, r: Tensor, keys: Tensor, noise: Tensor) -> Tensor:
        """Frames (P, C, H, W) from the prior.

        Args:
            r: (P, memory, H/4, W/4).
            keys: (P, key).
            noise: (P, steps, latent, h, w), standard normal.
        """
        told, state, canvas = self._begin(r, keys)
        for step in range(self.config.steps):
            mean, logvar = self.prior(state[0]).chunk(2, 1)
            z = gaussian.draw(mean, logvar, noise[:, step])
            state, canvas = self._step(told, z, state, canvas)
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
        told, state, canvas = self._begin(r, keys)
        inner, kl = self.inference.start(told), r.new_zeros(r.shape[0])
        for _ in range(self.config.steps):
            seen = self.watch(frames, r, r_target, canvas)
            inner = self.inference(torch.cat([told, seen, state[0]], 1), inner)
            mean_q, logvar_q = self.posterior(inner[0]).chunk(2, 1)
            mean_p, logvar_p = self.prior(state[0]).chunk(2, 1)
            kl = kl + gaussian.kl_divergence(mean_q, logvar_q, mean_p, logvar_p)
            z = gaussian.draw(mean_q, logvar_q, gaussian.standard_normal(mean_q, generator))
            state, canvas = self._step(told, z, state, canvas)
        return self.to_image(canvas), kl

    def _begin(self, r: Tensor, keys: Tensor) -> tuple[Tensor, LSTMState, Tensor]:
        told = self.embed(r)
        height, width = told.shape[-2:]
        told = torch.cat([told, keys[..., None, None].expand(-1, -1, height, width)], 1)
        side = (self.scale * height, self.scale * width)
        return told, self.generator.start(told), r.new_zeros(len(r), self.config.canvas, *side)

    def _step(
        self, told: Tensor, z: Tensor, state: LSTMState, canvas: Tensor
    ) -> tuple[LSTMState, Tensor]:
        state = self.generator(torch.cat([told, *self.read(canvas), z], 1), state)
        return state, canvas + self.to_canvas(state[0])


class GqnCore(Core):
    """GQN's: at H/4, canvas of full size, the posterior sees target and canvas as images."""

    scale = 4

    def __init__(self, channels: int, key: int, memory: int, config: GqnConfig) -> None:
        super().__init__(key, memory, config.hidden, 0, config)
        self.embed = nn.Identity()
        self.see_frame = nn.Conv2d(channels, config.hidden, 4, 4)
        self.see_canvas = nn.Conv2d(config.canvas, config.hidden, 4, 4)
        self.to_image = nn.Conv2d(config.canvas, channels, 1)

    def watch(self, frames: Tensor, r: Tensor, r_target: Tensor, canvas: Tensor) -> Tensor:
        """Target and canvas, each by one strided convolution, added."""
        seen: Tensor = self.see_frame(frames) + self.see_canvas(canvas)
        return seen

    def read(self, canvas: Tensor) -> list[Tensor]:
        """Nothing."""
        return []


class JumpCore(Core):
    """JUMP's blocks (seed 001, appendix B): at H/8, canvas at H/4, the posterior sees M(v, x)."""

    scale = 2

    def __init__(self, channels: int, key: int, memory: int, config: GqnConfig) -> None:
        super().__init__(key, config.tower, config.tower, config.canvas_in, config)
        self.embed = nn.Conv2d(memory, config.tower, 2, 2)
        self.see = nn.Conv2d(2 * memory, config.tower, 2, 2)
        self.from_canvas = nn.Conv2d(config.canvas, config.canvas_in, 2, 2)
        self.to_image = nn.ConvTranspose2d(config.canvas, channels, 4, 4)

    def watch(self, frames: Tensor, r: Tensor, r_target: Tensor, canvas: Tensor) -> Tensor:
        """The target's encoding beside r, as JUMP's posterior sees it."""
        seen: Tensor = self.see(torch.cat([r, r_target], 1))
        return seen

    def read(self, canvas: Tensor) -> list[Tensor]:
        """The canvas, by one strided convolution."""
        return [self.from_canvas(canvas)]


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


class Gqn(SetModel):
    """Generative query network: jumpy, but each query draws a latent of its own."""

    name: ClassVar[str] = "gqn"
    config: GqnConfig

    def __init__(self, spec: Spec, config: GqnConfig) -> None:
        super().__init__(spec, config)
        channels, height, width = spec.observation
        jump = config.core == "jump"
        self.encoder: TiledKeyEncoder | TowerEncoder
        self.encoder = (TiledKeyEncoder if jump else TowerEncoder)(channels, self.key)
        memory = self.encoder.channels
        self.renderer = (JumpCore if jump else GqnCore)(channels, self.key, memory, config)
        self.scene = SceneVector(memory, 0, (height // 8, width // 8), 2, config.scene)
        self.heads = self._make_heads()
        cell = 8 if jump else 4
        self._noise_shape = (config.steps, config.latent, height // cell, width // cell)

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        r, table = belief.state["r"], belief.state["path"]
        seeds = torch.randint(
            -(2**62), 2**62, (len(r), n), generator=generator, device=r.device, dtype=torch.int64
        )
        state = {
            "scene": self.scene(None, r).unsqueeze(1).expand(-1, n, -1),
            "seed": seeds,
            "r": r.unsqueeze(1).expand(-1, n, -1, -1, -1),
            "path": table.unsqueeze(1).expand(-1, n, -1, -1),
        }
        return Worlds(belief.present, state)

    def _render(self, worlds: Worlds, keys: Tensor, queries: Queries) -> Tensor:
        """Plans share the noise of a time: their frames differ by what they do alone."""
        batch, count = worlds.shape
        plans, asked = keys.shape[1:3]
        what = queries.times.unsqueeze(-1) if queries.poses is None else queries.poses
        names = pinned.hashed(worlds.state["seed"][..., None], pinned.address(what)[:, None])
        every = (batch, count, plans, asked)

        def each(value: Tensor) -> Tensor:
            """One row for each frame."""
            return value.expand(*every, *value.shape[4:]).flatten(0, 3)

        noise = pinned.standard_normal(names, self._noise_shape)
        frames: Tensor = self.renderer(
            each(worlds.state["r"][:, :, None, None]),
            each(keys[:, None]),
            each(noise[:, :, None]),
        )
        return frames.reshape(*every, *frames.shape[1:])

    def _explain(
        self, r: Tensor, keys: Tensor, frames: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, targets = keys.shape[:2]
        one = torch.ones(batch * targets, 1, dtype=torch.bool, device=keys.device)
        flat_frames, flat_keys = frames.flatten(0, 1), keys.flatten(0, 1)
        r_target = self.encoder(flat_frames[:, None], flat_keys[:, None], one)
        told = r.repeat_interleave(targets, 0)
        means, kl = self.renderer.explain(told, flat_keys, flat_frames, r_target, generator)
        scene = self.scene(None, r)
        return means.unflatten(0, (batch, targets)), kl.view(batch, targets).sum(1), scene


class Badj(Gqn):
    """JUMP's ablation of seed 001, figure 4: GQN's way of drawing in JUMP's blocks and sizes."""

    name: ClassVar[str] = "badj"


GQN_PRESETS: dict[str, GqnConfig] = {
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

BADJ_PRESETS: dict[str, GqnConfig] = {
    "narrative": GqnConfig(core="jump", steps=4, hidden=64, variance_start=2.0, variance_end=0.5),
    "dice": GqnConfig(
        core="jump",
        steps=6,
        canvas_in=128,
        variance_steps=JUMP_PRESETS["dice"].variance_steps,
        context_frames=10,
        context_max=5,
    ),
    "small": replace(GQN_PRESETS["small"], core="jump", tower=32, canvas_in=32),
}
