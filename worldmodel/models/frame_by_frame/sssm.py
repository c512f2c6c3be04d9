"""Stochastic state-space models (Buesing et al. 2018, arXiv 1802.03006): sSSM, dSSM-VAE, dSSM-DET.

The state s evolves without the frames, which are only decoded from it. With e the encoder, for
every step t (equations as in our reference notes, section 4):

    s_0 = init(e(o_-2), e(o_-1), e(o_0))
    z_t ~ p(z_t | s_{t-1}, a_{t-1})                     learned prior, while generating
    z_t ~ q(z_t | s_{t-1}, a_{t-1}, e(o_t), mu, sigma)  posterior, while training; the prior's
                                                        mu and sigma are among its inputs
    s_t = g(s_{t-1}, z_t, a_{t-1})    sSSM;     g(s_{t-1}, a_{t-1})    both dSSM
    o_t ~ p(o_t | s_t, z_t)           sSSM and dSSM-VAE;  p(o_t | s_t)  dSSM-DET, which has no z

    ELBO = sum_t E_q log p(o_t | s_t, z_t) + log p(r_t | s_t) - KL(q(z_t | .) || p(z_t | .))

p(o_t | .) is a Bernoulli of each pixel in [0, 1]. jumpy-c (``jump``): one step takes c steps of
time; frames are sub-sampled by c, the c actions concatenated, the c rewards summed.

Sources: we did not have the paper. Equations and layers are those of the reference notes, which
are second-hand (two public re-implementations that quote its figures, one with a report).
Deviations and choices:

- Rewards: a Gaussian on their scale, and a Bernoulli of continuation, from s_t by the same kind of
  head. (There: the bits of floor(r_t), each a Bernoulli; no terminations.)
- Actions are the features of any Gymnasium space (one-hot where discrete), tiled onto the map.
- sigma = softplus(x - 0.1) + 0.1 from a stack of its own, for prior and posterior; z is drawn by
  reparameterisation. Both residuals of the transition are added to s_{t-1}.
- The three frames of s_0 lie a stride apart: at the present, c and 2 c before; the frame of time 0
  stands for those before it.
- A training rollout starts at time 0 half of the time, else anywhere in the scene: at test a
  context may be a single frame.
- The learning rate is the one of a public re-implementation; the initial weights are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from worldmodel.base import Losses
from worldmodel.common.config_checks import above_zero, at_least
from worldmodel.models.frame_by_frame import sssm_nets as nets
from worldmodel.models.frame_by_frame import teacher_forcing
from worldmodel.models.frame_by_frame.base import FrameByFrame, State
from worldmodel.models.layers.gaussian import kl_divergence, standard_normal
from worldmodel.models.layers.presents import draw_present
from worldmodel.spec import Spec
from worldmodel.types import SceneBatch

RECENT = 3  # frames that the initial state is made of


@dataclass(frozen=True)
class SssmConfig(teacher_forcing.TrainingConfig):
    """Sizes and training settings; the defaults are those of the reference notes' table.

    Attributes:
        channels: of a state, of z_t and of an encoded frame; inner layers have a half or a quarter.
        readout: channels of the convolution of the reward and continuation read-out.
        jump: c, steps of time that one step of the model takes.
        beta: weight of the KL; 1 is the ELBO. (The JUMP authors swept it.)
        frames: T, frames that a training rollout predicts, ``jump`` apart.
        reward_variance, learning_rate, learning_rate_end: as in ``TrainingConfig``.
    """

    channels: int = 64
    readout: int = 24
    jump: int = 1
    beta: float = 1.0
    frames: int = 10
    learning_rate: float = 1e-4
    learning_rate_end: float = 1e-4

    def __post_init__(self) -> None:
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels: expected a multiple of 4 above 0, got {self.channels}")
        super().__post_init__()
        at_least(1, self, "readout", "jump")
        above_zero(self, "beta")


_SMALL = SssmConfig(channels=32, frames=20, learning_rate=2e-3, learning_rate_end=2e-4)
PRESETS: dict[str, SssmConfig] = {
    "paper": SssmConfig(),
    "paper-jumpy": SssmConfig(jump=5),
    "small": _SMALL,
    "jumpy": replace(_SMALL, jump=5),
}


class Sssm(FrameByFrame):
    """A stochastic state-space model; see ``SssmConfig`` for what can be set.

    Of the context it needs three frames only (see the module); its own state entry is ``s``
    (channels, H/8, W/8), with the lead (B,) or (B, S).

    Attributes:
        stochastic: whether there is a z.
        moves: whether z enters the transition, in addition to the decoder.
    """

    name: ClassVar[str] = "sssm"
    feeds_back: ClassVar[bool] = False
    moves: ClassVar[bool] = True
    config: SssmConfig

    def __init__(self, spec: Spec, config: SssmConfig) -> None:
        super().__init__(spec, config)
        self.stride = self.gap = config.jump
        image, height, width = spec.observation
        self.grid = (height // 8, width // 8)
        state, actions = config.channels, self.stride * spec.action.features
        latent = state if self.stochastic else 0
        self.noise_shape = (state, *self.grid) if self.stochastic else (0,)
        self.encoder = nets.Encoder(image, state)
        self.initial = nets.ConvStack(RECENT * state, (1, state), (3, state), (3, state))
        if self.stochastic:
            self.prior = nets.Gaussian(state + actions, state)
            self.posterior = nets.Gaussian(2 * state + actions + 2 * latent, state)
        self.transition = nets.Transition(state + actions + (latent if self.moves else 0), state)
        self.decoder = nets.Decoder(state + latent, state, image)
        self.readout = nets.Readout(state, config.readout, self.grid[0] * self.grid[1])
        self.apply(nets.initialise)

    # -- one step --------------------------------------------------------------------------------

    def _history(self, present: Tensor) -> Tensor:
        back = self.stride * torch.arange(RECENT - 1, -1, -1, device=present.device)
        return (present.unsqueeze(1) - back).clamp_min(0)

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        encoded = teacher_forcing.per_step(self.encoder, observations)
        return {"s": self.initial(encoded.flatten(1, 2))}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        inputs = self._with_actions(state["s"], actions)
        after: State = {}
        if self.moves:
            after["z"] = self._sample_z(inputs, noise)
        elif self.stochastic:  # z is sampled in ``_decode``: nothing else depends on it
            after |= {"inputs": inputs, "noise": noise}
        after["s"] = self._move(inputs, after.get("z"))
        reward, logit = self.readout(after["s"]).unbind(-1)
        return after, reward, logit

    def _decode(self, state: State) -> Tensor:
        features = state["s"]
        if self.stochastic:
            z = state["z"] if self.moves else self._sample_z(state["inputs"], state["noise"])
            features = torch.cat([features, z], 1)
        return torch.sigmoid(self.decoder(features))

    def _sample_z(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """z by the prior, from ``_with_actions``."""
        mean, sigma = self.prior(inputs)
        z: Tensor = mean + sigma * noise
        return z

    def _with_actions(self, s: Tensor, actions: Tensor) -> Tensor:
        """s (P, C, h, w) and, tiled, the actions (P, stride * action features)."""
        return torch.cat([s, actions[:, :, None, None].expand(-1, -1, *self.grid)], 1)

    def _move(self, inputs: Tensor, z: Tensor | None) -> Tensor:
        """g: the next state, from ``_with_actions`` and z where it is an input."""
        s = inputs[:, : self.config.channels]
        if z is not None and self.moves:
            inputs = torch.cat([inputs, z], 1)
        after: Tensor = self.transition(inputs, s)
        return after

    # -- training --------------------------------------------------------------------------------

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """sum_t NLL_t + beta KL_t + reward_t + continue_t over a rollout of T steps, in nats: the
        negative ELBO where beta is 1.

        Parts and curves are those of ``teacher_forcing.losses``, with ``mse`` that of the
        Bernoulli's mean. ``progress`` is not used: nothing is annealed.
        """
        first, counts = self.draw_first(scenes.lengths, generator)
        longest = self.config.frames
        segment = teacher_forcing.take_segment(scenes, self.spec, longest, first, self.stride)
        recent = self.spec.to_model(scenes.observations(self._history(first)))
        state = self._start(recent, segment.actions, first)["s"]
        truth = segment.observations[:, 1:]
        s, z, kl = self._infer(state, truth, segment.actions, generator)

        logits = teacher_forcing.per_step(self.decoder, s if z is None else torch.cat([s, z], 2))
        nll = binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(2).sum(2)
        return teacher_forcing.losses(
            segment,
            logits.detach().sigmoid(),
            kl,
            teacher_forcing.per_step(self.readout, s).unbind(-1),
            self.reward_scale,
            self.config.reward_variance,
            scenes=counts,
            nll=nll,
            beta=self.config.beta,
        )

    def draw_first(
        self, lengths: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """int64 (B,), where rollouts start, with a whole step before the length (B,), or at 0; and
        float32 (B,), what each scene counts in the loss; see ``draw_present``.
        """
        latest = 1 - self.stride
        starts = (lengths + latest).clamp_min(1)
        return draw_present(starts, max(1, self.spec.window + latest), generator)

    def _infer(
        self, s: Tensor, frames: Tensor, actions: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Teacher forcing from s (B, C, h, w) along frames (B, T, ...) and actions (B, T, ...).

        Frames are encoded all at once; only the recurrence is sequential.

        Returns:
            s_t (B, T, C, h, w), z_t of the same shape or None, KL(posterior || prior) (B, T).
        """
        lead = frames.shape[:2]
        states: list[Tensor] = []
        if not self.stochastic:
            for action in actions.unbind(1):
                s = self._move(self._with_actions(s, action), None)
                states.append(s)
            return torch.stack(states, 1), None, frames.new_zeros(lead)
        encoded = teacher_forcing.per_step(self.encoder, frames)
        noise = standard_normal(encoded, generator)
        latents: list[Tensor] = []
        gaussians: list[tuple[Tensor, ...]] = []
        for t in range(lead[1]):
            inputs = self._with_actions(s, actions[:, t])
            prior = self.prior(inputs)
            mean, sigma = self.posterior(torch.cat([inputs, encoded[:, t], *prior], 1))
            latents.append(mean + sigma * noise[:, t])
            s = self._move(inputs, latents[-1])
            states.append(s)
            gaussians.append((mean, sigma, *prior))
        q_mean, q_sigma, p_mean, p_sigma = (
            torch.stack(each, 1).flatten(0, 1) for each in zip(*gaussians, strict=True)
        )
        kl = kl_divergence(q_mean, 2 * q_sigma.log(), p_mean, 2 * p_sigma.log())
        return torch.stack(states, 1), torch.stack(latents, 1), kl.unflatten(0, lead)


class DssmVae(Sssm):
    """dSSM-VAE: a deterministic transition; z_t enters the decoder of frame t only."""

    name: ClassVar[str] = "dssm-vae"
    moves: ClassVar[bool] = False


class DssmDet(Sssm):
    """dSSM-DET: no z at all. All worlds of a belief are the same."""

    name: ClassVar[str] = "dssm-det"
    stochastic: ClassVar[bool] = False
    moves: ClassVar[bool] = False
