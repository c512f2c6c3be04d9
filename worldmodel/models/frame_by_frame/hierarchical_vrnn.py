"""Hierarchical VRNN: several levels of latents for each frame (seed 002, chapter 4: Castrejon,
Ballas and Courville 2019).

For every step t, with the maps e_t = Enc(x_t) and levels l = 1 .. L from 1x1 down to fine maps:

    z_t^l ~ q = N(LSTM_q^l(e_{t-1}^l, e_t^l, z_t^{<l}))    posterior, while training (4.4)
    z_t^l ~ p = N(LSTM_p^l(e_{t-1}^l, z_t^{<l}))           learned prior, while generating (4.3)
    g_t = LSTM_d(e_{t-1}^1, z_t),   x_t = Pixels(g_t)      a ConvLSTM at every resolution

and the loss is -sum_t [log p(x_t | ...) - beta sum_l KL(q^l || p^l)] (4.5), with a Gaussian
likelihood of fixed variance. Prior and posterior of a level read the latents of all levels above
(dense connectivity, 4.4.1), and beta grows linearly from 0 to 1 (4.5, "beta warmup"). Layers are
those of appendix 4.B. The public code differs (its prior is not dense); ours is written from the
text. What the text leaves open or we do otherwise:

- Actions, where there are any, join the inputs of every prior and posterior level and of the
  decoder at 1x1. Rewards and continuations are read by a small MLP from the decoder's states at
  the resolutions of the latents, averaged over space (ours).
- Initial states are functions of the first frame alone, and the loss counts every frame from
  there on; later context frames update them with z at the posterior's mean, because a belief is
  deterministic in this project. (The text begins from all context frames, it does not say how.)
- The posterior reads e_{t-1} and e_t: 4.A.2 names the one, 4.4.2 the other. Neither it nor the
  prior reads its own level's z_{t-1}, which (4.3) allows and 4.4.2 leaves out, or the decoder.
- Latents of higher levels are enlarged by repetition; z joins the decoder at its resolution by a
  1x1 convolution. There are no skips from the encoder to the decoder: the text has none.
- Kernels at 1x1 maps are 1x1 (the text: 3x3, or 4x4 for the decoder's first ConvLSTM), since all
  other weights would meet padding. The shortcut around the 4x4 block is a 4x4 convolution. The
  transposed convolutions are followed by GroupNorm and ReLU, ConvLSTMs normalise their gates.
- sigma is parametrised by its logarithm. The GroupNorm of the latents' parameters begins with
  scale 0.1, so that the first KL is small.
- The variance is not in the text; 1/2 makes the negative log likelihood the squared error. The
  share of training that warms up is not either.
- Latents have the 128, 512 and 512 channels of table 4.6, although the third level then adds 40 M
  weights, and table 4.2 counts 10 M for it.
- Adam has its usual betas and no weight decay (text: 0.5, 0.9 and 1e-4), and the rate is constant
  (text: 2e-5 to 1.6e-4 within 5 epochs).
- 32 px drop the stage of 8x8, and halve the sides of the latents except the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from worldmodel.base import Losses
from worldmodel.common.config_checks import above_zero, at_least, to_tuples
from worldmodel.models.frame_by_frame import hierarchical_vrnn_nets as nets
from worldmodel.models.frame_by_frame import teacher_forcing
from worldmodel.models.frame_by_frame.base import FrameByFrame, State, at_times, select_rows
from worldmodel.models.layers.gaussian import draw, kl_divergence, standard_normal
from worldmodel.rewards import reward_layer
from worldmodel.spec import Spec
from worldmodel.types import SceneBatch


@dataclass(frozen=True)
class HierarchicalVrnnConfig(teacher_forcing.TrainingConfig):
    """Sizes and training settings; the defaults are seed 002's, appendix 4.B and section 4.5.

    Attributes:
        channels: of the encoder's and decoder's maps, from the full frame to 8x8; 4x4 and 1x1 have
            the last again. Frames of 32 px drop the last.
        levels: sides of the latents' maps at 64 px, from the top down; frames of 32 px halve all
            but the first, which is 1.
        latents: channels of each level's latents, and of the ConvLSTMs that give them.
        groups: of GroupNorm. All channels are multiples of it, and at least twice as many: a group
            of one number would be normalised to nothing.
        head: hidden width of the reward and continuation read-out.
        variance: of a pixel's Gaussian.
        warm_up: share of training over which beta grows linearly from 0 to 1; 0 for none.
        frames, reward_variance, learning_rate, learning_rate_end: as in ``TrainingConfig``.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    levels: tuple[int, ...] = (1, 8, 32)
    latents: tuple[int, ...] = (128, 512, 512)
    groups: int = 16
    head: int = 256
    variance: float = 0.5
    warm_up: float = 0.2
    frames: int = 15
    learning_rate: float = 1.6e-4
    learning_rate_end: float = 1.6e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        to_tuples(self, "channels", "levels", "latents")
        at_least(1, self, "groups", "head")
        if len(self.channels) != 4:
            raise ValueError(f"channels: expected 4 numbers, got {self.channels}")
        sides = (8, 16, 32, 64)
        lower = self.levels[1:]
        if self.levels[:1] != (1,) or not set(lower) <= set(sides) or sorted(lower) != list(lower):
            raise ValueError(
                f"levels: expected 1, then growing numbers out of {sides}, got {self.levels}"
            )
        if len(set(self.levels)) != len(self.levels) or len(self.latents) != len(self.levels):
            raise ValueError(
                "levels, latents: expected different sides and as many latents, got "
                f"{self.levels} and {self.latents}"
            )
        for name in ("channels", "latents"):
            widths = getattr(self, name)
            if any(width % self.groups or width < 2 * self.groups for width in widths):
                raise ValueError(
                    f"{name}: expected multiples of groups = {self.groups}, at least "
                    f"{2 * self.groups}, got {widths}"
                )
        if not 0 <= self.warm_up <= 1:
            raise ValueError(f"warm_up: expected a share in [0, 1], got {self.warm_up}")
        at_least(2, self, "frames")
        above_zero(self, "variance")

    def beta(self, progress: float) -> float:
        """Weight of the KL at a share ``progress`` of training."""
        return min(1.0, progress / self.warm_up) if self.warm_up else 1.0


PRESETS: dict[str, HierarchicalVrnnConfig] = {
    "paper": HierarchicalVrnnConfig(),
    "small": HierarchicalVrnnConfig(
        channels=(8, 16, 32, 32),
        latents=(16, 16, 8),
        groups=4,
        head=64,
        variance=0.1,
        frames=21,
        learning_rate=2e-3,
        learning_rate_end=2e-4,
    ),
}


class HierarchicalVrnn(FrameByFrame):
    """A VRNN with a hierarchy of latents; see ``HierarchicalVrnnConfig`` for what can be set.

    Its own state entries, with the lead (B,) or (B, S): ``map0`` .., the last frame's features at
    each level's resolution; ``prior0_h/_c`` .. of each level and ``decoder1_h/_c`` .. of each
    resolution.

    Attributes:
        levels: sides of the latents' maps, from the top down.
        sizes: numbers in each level's latents.

    Raises:
        ValueError: the frames are neither 32x32 nor 64x64.
    """

    name: ClassVar[str] = "hierarchical-vrnn"
    feeds_back: ClassVar[bool] = True
    config: HierarchicalVrnnConfig

    def __init__(self, spec: Spec, config: HierarchicalVrnnConfig) -> None:
        super().__init__(spec, config)
        image, height, width = spec.observation
        if height != width or height not in (32, 64):
            raise ValueError(
                "observation: hierarchical-vrnn takes square frames of 32 or 64 pixels, got "
                f"{height}x{width}"
            )
        stages = 4 if height == 64 else 3
        groups, latents, actions = config.groups, config.latents, spec.action.features
        channels = config.channels[:stages]
        sides = [1, 4, *(height >> i for i in reversed(range(stages)))]
        widths = [channels[-1], channels[-1], *reversed(channels)]
        self.side = height
        self.levels = tuple(max(1, side * height // 64) for side in config.levels)
        self.sizes = [n * side**2 for n, side in zip(latents, self.levels, strict=True)]
        self.noise_shape = (sum(self.sizes),)  # the top level's first
        self.level_maps = [sides.index(side) for side in self.levels]  # among the encoder's maps
        maps = [widths[index] for index in self.level_maps]
        self.encoder = nets.Encoder(image, channels, groups)
        shared = (maps, latents, self.levels, actions, groups)
        self.prior = nets.Hierarchy("prior", 1, *shared)
        self.posterior = nets.Hierarchy("posterior", 2, *shared)
        joining = dict(zip(self.levels, latents, strict=True))
        self.decoder = nets.Decoder(widths, sides, joining, actions, groups)
        self.pixels = nn.Sequential(
            nn.Conv2d(channels[0], channels[0], 3, padding=1),
            nn.GroupNorm(groups, channels[0]),
            nn.ReLU(),
            nn.Conv2d(channels[0], image, 3, padding=1),
        )
        self.readout = nn.Sequential(
            nn.Linear(sum(maps), config.head), nn.ReLU(), reward_layer(config.head)
        )

    # -- one step --------------------------------------------------------------------------------

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        maps, state = self._encode(observations)
        for t in range(1, observations.shape[1]):
            _, _, after = self._forced_step(maps, t, actions, None, state)
            state = select_rows(t <= present, after, state)
        own = {name: v for name, v in state.items() if not name.startswith("posterior")}
        return {**own, **{f"map{level}": at_times(m, present) for level, m in enumerate(maps)}}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        maps = [state[f"map{level}"] for level in range(len(self.levels))]
        noises = self._split(noise)
        _, z, prior = self.prior(
            maps, actions, state, lambda level, mean, logvar: draw(mean, logvar, noises[level])
        )
        after = {**state, **prior, **self.decoder(maps[0], actions, z, state)}
        reward, logit = self.readout(self._pooled(after)).unbind(-1)
        return after, reward, logit

    def _decode(self, state: State) -> Tensor:
        frame: Tensor = self.pixels(state[f"decoder{self.side}_h"])
        return frame

    def _feed_back(self, state: State, observation: Tensor) -> State:
        # the output is linear, but the encoder was trained on values in [0, 1]
        maps = self.encoder(observation.clamp(0, 1))
        return {f"map{level}": maps[index] for level, index in enumerate(self.level_maps)}

    # -- teacher forcing -------------------------------------------------------------------------

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """Negative ELBO (4.5) in nats over t = 1 .. frames - 1, its KL weighted by beta.

        Parts and curves are those of ``teacher_forcing.losses``, and ``kl_level0`` .. are the nats
        per scene of each level from the top down, without beta.
        """
        segment = teacher_forcing.take_segment(scenes, self.spec, self.config.frames - 1)
        like = segment.actions.new_empty(len(segment.actions), segment.steps, *self.noise_shape)
        noise = standard_normal(like, generator)
        features, pooled, kl = self._infer(segment.observations, segment.actions, noise)
        result = teacher_forcing.losses(
            segment,
            teacher_forcing.per_step(self.pixels, features),
            kl.sum(0),
            self.readout(pooled).unbind(-1),
            self.reward_scale,
            self.config.reward_variance,
            pixels=segment.observations[0, 0].numel() / (2 * self.config.variance),
            beta=self.config.beta(progress),
        )
        nats = (kl * segment.valid).sum(2).mean(1).detach()
        levels = {f"kl_level{level}": value for level, value in enumerate(nats)}
        return replace(result, parts={**result.parts, **levels})

    def _infer(
        self, frames: Tensor, actions: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher forcing over frames (B, T, C, H, W), actions (B, T - 1, features) and noise
        (B, T - 1, \\*noise_shape).

        Returns:
            the inputs of ``pixels`` (B, T - 1, channels, H, W), the inputs of ``readout``
            (B, T - 1, n) and the KL of each level and step (L, B, T - 1).
        """
        maps, state = self._encode(frames)
        features, pooled, kl = [], [], []
        for t in range(1, frames.shape[1]):
            q, p, state = self._forced_step(maps, t, actions, noise[:, t - 1], state)
            features.append(state[f"decoder{self.side}_h"])
            pooled.append(self._pooled(state))
            pairs = zip(q, p, strict=True)
            kl.append(torch.stack([kl_divergence(*of_q, *of_p) for of_q, of_p in pairs]))
        return torch.stack(features, 1), torch.stack(pooled, 1), torch.stack(kl, 2)

    def _forced_step(
        self, maps: list[Tensor], t: int, actions: Tensor, noise: Tensor | None, state: State
    ) -> tuple[list[nets.Gaussian], list[nets.Gaussian], State]:
        """The step from time t - 1 to t, whose frame is known.

        Args:
            maps: (B, T, channels, side, side) of each level, from all frames.
            t: 1 or later.
            actions: (B, T - 1, features).
            noise: (B, \\*noise_shape) for a sample of the posterior; None for its mean.
            state: entries of prior, posterior and decoder.

        Returns:
            posterior and prior of each level, and the state.
        """
        noises = None if noise is None else self._split(noise)

        def pick(level: int, mean: Tensor, logvar: Tensor) -> Tensor:
            return mean if noises is None else draw(mean, logvar, noises[level])

        before, action = [m[:, t - 1] for m in maps], actions[:, t - 1]
        both = [torch.cat([m[:, t - 1], m[:, t]], 1) for m in maps]
        q, z, posterior = self.posterior(both, action, state, pick)
        p, _, prior = self.prior(before, action, state, lambda level, mean, logvar: z[level])
        return q, p, {**posterior, **prior, **self.decoder(before[0], action, z, state)}

    def _encode(self, frames: Tensor) -> tuple[list[Tensor], State]:
        """Frames (B, T, C, H, W) to maps (B, T, channels, side, side) of each level and the state
        of prior, posterior and decoder at the first.
        """
        maps = [m.unflatten(0, frames.shape[:2]) for m in self.encoder(frames.flatten(0, 1))]
        levels = [maps[index] for index in self.level_maps]
        first = [m[:, 0] for m in levels]
        state = {**self.prior.start(first), **self.posterior.start(first)}
        return levels, {**state, **self.decoder.start([m[:, 0] for m in maps])}

    def _pooled(self, state: State) -> Tensor:
        """(P, n): the decoder's states at the resolutions of the latents, averaged over space."""
        return torch.cat([state[f"decoder{side}_h"].mean((2, 3)) for side in self.levels], 1)

    def _split(self, noise: Tensor) -> list[Tensor]:
        """(P, \\*noise_shape) to (P, latents, side, side) of each level."""
        parts = zip(noise.split(self.sizes, 1), self.levels, strict=True)
        return [part.unflatten(1, (-1, side, side)) for part, side in parts]
