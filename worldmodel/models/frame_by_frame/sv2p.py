"""CDNA (Finn, Goodfellow and Levine 2016) and SV2P (Babaeizadeh et al. 2018), on one tower.

For every step t, with z drawn once for the whole video (CDNA has none):

    z ~ N(mu_phi, sigma_phi)(x_0 .. x_T)                      posterior, while training
    z ~ N(0, I)                                               prior, while generating
    hidden_t = Tower(x_{t-1}, a_{t-1}, z, hidden_{t-1})       seven ConvLSTMs
    x_t = m_0 x_{t-1} + m_1 painted_t + sum_k m_{k+1} (kernel_{t,k} * x_{t-1})

where the masks m sum to 1 in each pixel. Layers are those of the public implementations, as
tabulated in the reference notes; the code is our own. Deviations:

- There is a mask for everything that is mixed: with ten kernels twelve, not eleven. (The public
  CDNA pairs ten masks with the painted and the ten moved frames and thereby drops the last one.)
- Layer normalisation is ``GroupNorm(1, C)``: over channels and pixels, scaled channel by channel.
- Only z and, where there are any, the features of the action from t-1 to t join on the smallest
  grid: no robot state. Rewards and continuations are read from the smallest hidden map, with its
  positions, by a small MLP (ours); their losses are in nats and weighted by beta like the KL, also
  in the phases in which the KL does not count.
- The loss sums over all steps, also those of the context, as the other models' here do. The public
  code averages over the frames after the context; ``Sv2pConfig.beta`` says what that makes of its
  weight of 1e-3. beta is scaled by 64 * 64 / (H * W), which keeps the variance of the equivalent
  Gaussian, beta C H W / 2.
- The KL is summed over the latent's grid and averaged over scenes.
- Scheduled sampling decides for each scene and step by itself (the public code: for a fixed number
  of scenes of each batch), and its k is a share of the training, see ``share_of_truth``.
- A world's state at the present depends on its z, so that SV2P processes the context once for
  each world, when it is sampled; the belief keeps the context for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.base import Losses
from worldmodel.common.config_checks import above_zero, at_least, odd, to_tuples
from worldmodel.models.frame_by_frame import sv2p_nets as nets
from worldmodel.models.frame_by_frame import teacher_forcing
from worldmodel.models.frame_by_frame.base import FrameByFrame, State, at_times, select_rows
from worldmodel.models.layers.gaussian import draw, kl_divergence, standard_normal
from worldmodel.rewards import reward_layer
from worldmodel.spec import Spec
from worldmodel.types import SceneBatch

SCHEDULED_STEPS = 900.0  # k of the public implementations' inverse sigmoid


@dataclass(frozen=True)
class Sv2pConfig(teacher_forcing.PastConfig):
    """Sizes and training settings of both models; the defaults are the public implementations',
    with the conditioning of the narratives.

    Attributes:
        channels: of the ConvLSTMs at 1/2, 1/4 and 1/8 of the frame's size.
        kernels, kernel_size: CDNA's; the size is odd.
        inference: channels of the inference network's first convolution (sv2p only).
        hidden: of the reward and continuation read-out.
        beta: weight of the KL against the mean squared error of a frame, both summed over the
            video, at 64 px. The public 1e-3 is against the mean over ten predicted frames.
        phases: shares of the training (sv2p only). Before the first z is drawn from the prior,
            from then on from the posterior; from the second to the third the KL's weight rises
            from 0 to beta. (50k, 100k and 120k of 200k steps.)
        sampling: k of scheduled sampling as a share of the training (900 of 200k steps).
        past: as in ``PastConfig``; in the context the truth is always fed.
        frames: as in ``TrainingConfig``; the inference network sees the same frames.
        reward_variance, learning_rate, learning_rate_end: as in ``TrainingConfig``.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    kernels: int = 10
    kernel_size: int = 5
    inference: int = 32
    hidden: int = 128
    beta: float = 0.01
    phases: tuple[float, ...] = (0.25, 0.5, 0.6)
    sampling: float = 0.0045
    learning_rate: float = 1e-3
    learning_rate_end: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        to_tuples(self, "channels", "phases")
        if len(self.channels) != 3 or min(self.channels) < 1:
            raise ValueError(f"channels: expected three numbers of at least 1, got {self.channels}")
        at_least(1, self, "kernels", "kernel_size", "inference", "hidden")
        odd(self, "kernel_size")
        rising = list(self.phases) == sorted(self.phases)
        if len(self.phases) != 3 or not rising or not 0 <= self.phases[0] <= self.phases[2] <= 1:
            raise ValueError(
                f"phases: expected three shares in [0, 1] that do not fall, got {self.phases}"
            )
        above_zero(self, "beta", "sampling")


PRESETS: dict[str, Sv2pConfig] = {
    "paper": Sv2pConfig(),
    # Shapes of the narratives move by four pixels of 32 in a step; 5x5 kernels reach two.
    "small": Sv2pConfig(
        channels=(8, 16, 32),
        kernel_size=9,
        inference=16,
        hidden=64,
        beta=3e-4,
        sampling=0.04,
        past=0,
        learning_rate=2e-3,
        learning_rate_end=2e-4,
    ),
}


class Phase(NamedTuple):
    """Where z comes from and what share of its KL counts."""

    posterior: bool
    anneal: float


def phase(progress: float, phases: tuple[float, ...]) -> Phase:
    """The phase of SV2P's training at ``progress`` in [0, 1]; ``phases`` as in the config."""
    infer, start, end = phases
    if progress < infer:
        return Phase(posterior=False, anneal=0.0)
    if progress < start:
        return Phase(posterior=True, anneal=0.0)
    risen = (progress - start) / (end - start) if end > start else 1.0
    return Phase(posterior=True, anneal=min(risen, 1.0))


def share_of_truth(progress: float, sampling: float) -> float:
    """Chance that a step after the context is fed the truth: k / (k + exp(step / k)).

    With step / k = progress / sampling this is the public curve at the public budget of 200,000
    steps, and the same curve stretched at any other: one half at ``6.8 * sampling``.
    """
    return 1.0 / (1.0 + math.exp(min(progress / sampling - math.log(SCHEDULED_STEPS), 700.0)))


class Cdna(FrameByFrame):
    """The tower without a latent: one future for each context; see ``Sv2pConfig``.

    Its own state entries, with the lead (B,) or (B, S): ``h0``, ``c0`` .. ``h6``, ``c6`` of the
    ConvLSTMs, and ``previous`` (C, H, W), the frame that the next step moves.
    """

    name: ClassVar[str] = "cdna"
    feeds_back: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False
    latent: ClassVar[int] = 0
    noise_shape = (0,)
    config: Sv2pConfig

    def __init__(self, spec: Spec, config: Sv2pConfig) -> None:
        super().__init__(spec, config)
        image, height, width = spec.observation
        self.grid = (height // 8, width // 8)
        self.steps = min(config.frames - 1, spec.window)
        self.beta = config.beta * 64 * 64 / (height * width)
        self.tower = nets.Tower(image, config.channels, spec.action.features + self.latent)
        self.compositor = nets.Compositor(
            image, config.channels, self.grid, config.kernels, config.kernel_size
        )
        flat = config.channels[2] * self.grid[0] * self.grid[1]
        hidden = config.hidden
        self.readout = nn.Sequential(nn.Linear(flat, hidden), nn.ReLU(), reward_layer(hidden))

    # -- one step --------------------------------------------------------------------------------

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        return self._condition(observations, actions, present, {})

    def _condition(
        self, frames: Tensor, actions: Tensor, present: Tensor, fixed: State, n: int = 1
    ) -> State:
        """The state (B * n, ...) of n worlds of each row at its present, by teacher forcing.

        Args:
            frames, actions, present: as ``_start`` takes them; they may be padded further.
            fixed: entries (B * n, ...) of the worlds that no step changes.
            n: worlds of each row.
        """
        until = present.repeat_interleave(n)
        state = self.tower.start(frames[:, 0].repeat_interleave(n, 0))
        for t in range(int(present.max())):
            frame = frames[:, t].repeat_interleave(n, 0)
            extra = self._extra(actions[:, t].repeat_interleave(n, 0), fixed)
            state = select_rows(t < until, self.tower(frame, extra, state)[0], state)
        return {**state, **fixed, "previous": at_times(frames, present).repeat_interleave(n, 0)}

    def _extra(self, actions: Tensor, state: State) -> list[Tensor]:
        """The inputs that join on the smallest grid: actions (P, n, 1, 1) and z (P, 1, h, w)."""
        return [actions[..., None, None]] + ([state["z"]] if self.latent else [])

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        new, bottom, top = self.tower(state["previous"], self._extra(actions, state), state)
        reward, logit = self.readout(bottom.flatten(1)).unbind(-1)
        return {**state, **new, "bottom": bottom, "top": top}, reward, logit

    def _decode(self, state: State) -> Tensor:
        frame: Tensor = self.compositor(state["previous"], state["bottom"], state["top"])
        return frame

    def _feed_back(self, state: State, observation: Tensor) -> State:
        return {"previous": observation}

    # -- training --------------------------------------------------------------------------------

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """sum_t MSE_t + beta (anneal KL + reward + continue): SV2P's bound with a Gaussian
        likelihood, where ``progress`` sets the source of z, ``anneal`` and the share of the truth
        that is fed.

        MSE_t is the mean over pixels. Parts and curves are those of ``teacher_forcing.losses``;
        after the beginning of the training, the frames of ``mse`` mostly follow the model's own
        frames. Outside of training, ``forced_mse`` is that of frames that follow the truth.
        """
        segment = teacher_forcing.take_segment(scenes, self.spec, self.steps)
        last, counts = self.config.draw_last(scenes.lengths.clamp_max(segment.steps), generator)
        fixed, kl, anneal = self._infer(segment.observations, progress, generator)
        share = share_of_truth(progress, self.config.sampling)
        frames, readouts = self.unroll(segment, fixed, last, share, generator)
        variance, weight = self.config.reward_variance, self.beta
        result = teacher_forcing.losses(
            segment,
            frames,
            kl,
            readouts,
            self.reward_scale,
            variance,
            scenes=counts,
            weight=weight,
            beta=anneal,
        )
        if self.training:
            return result
        # a second rollout, which is not trained on
        forced = self.unroll(segment, fixed, last, 1.0, generator)[0]
        error = teacher_forcing.squared_error(forced, segment) * segment.valid
        mean = error.sum() / segment.valid.sum().clamp_min(1)
        return replace(result, parts={**result.parts, "forced_mse": mean.detach()})

    def _infer(
        self, frames: Tensor, progress: float, generator: torch.Generator | None
    ) -> tuple[State, Tensor, float]:
        """What is fixed for the whole video, its KL (B,) in nats and the share of that."""
        return {}, frames.new_zeros(len(frames)), 0.0

    def unroll(
        self,
        segment: teacher_forcing.Segment,
        fixed: State,
        last: Tensor,
        share: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Predict a segment by the same steps as the verbs, with scheduled sampling.

        Args:
            segment: B scenes of L steps.
            fixed: entries (B, ...) that no step changes.
            last: int64 (B,), the last frame that is context: up to it the truth is fed.
            share: chance that after it the truth is fed too, rather than the model's own frame.
            generator: of these draws.

        Returns:
            frames (B, L, C, H, W) after each step, and the read-outs, both (B, L).
        """
        x, steps = segment.observations, segment.steps
        chance = torch.rand(len(x), steps, generator=generator, device=x.device)
        truth = (chance < share) | (torch.arange(steps, device=x.device) <= last[:, None])
        noise = x.new_zeros(len(x), *self.noise_shape)
        state: State = {**self.tower.start(x[:, 0]), **fixed, "previous": x[:, 0]}
        frames: list[Tensor] = []
        readouts: list[list[Tensor]] = []
        for t in range(steps):
            if t:
                fed = torch.where(truth[:, t, None, None, None], x[:, t], frames[-1])
                state |= self._feed_back(state, fed)
            state, *readout = self._step(state, segment.actions[:, t], noise)
            frames.append(self._decode(state))
            readouts.append(readout)
        rewards, logits = (torch.stack(each, 1) for each in zip(*readouts, strict=True))
        return torch.stack(frames, 1), (rewards, logits)


class Sv2p(Cdna):
    """The tower with one latent for the whole video; see ``Sv2pConfig``.

    A belief holds ``context`` (B, window + 1, C, H, W), ``actions`` (B, window, features) and
    ``now`` int64 (B,), with zeros after a row's present. A world holds what CDNA's does, and ``z``
    (1, H/8, W/8).
    """

    name: ClassVar[str] = "sv2p"
    stochastic: ClassVar[bool] = True
    latent: ClassVar[int] = 1

    def __init__(self, spec: Spec, config: Sv2pConfig) -> None:
        super().__init__(spec, config)
        self.inference = nets.Inference((self.steps + 1) * spec.observation[0], config.inference)

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        padding = self.spec.window + 1 - observations.shape[1]
        return {
            "context": nn.functional.pad(observations, (0, 0) * 3 + (0, padding)),
            "actions": nn.functional.pad(actions, (0, 0, 0, padding)),
            "now": present,
        }

    def _sample_state(self, state: State, n: int, generator: torch.Generator | None) -> State:
        context = state["context"]
        shape = (len(context), n, self.latent, *self.grid)
        z = standard_normal(context.new_empty(shape), generator)
        return self.with_latents(state, z)

    def with_latents(self, state: State, z: Tensor) -> State:
        """The entries of worlds (B, n, ...) of a belief's ``state`` with z (B, n, 1, H/8, W/8)."""
        context, actions, present = state["context"], state["actions"], state["now"]
        worlds = self._condition(context, actions, present, {"z": z.flatten(0, 1)}, z.shape[1])
        return {name: value.unflatten(0, z.shape[:2]) for name, value in worlds.items()}

    def _infer(
        self, frames: Tensor, progress: float, generator: torch.Generator | None
    ) -> tuple[State, Tensor, float]:
        """z (B, 1, H/8, W/8) of the phase, and the posterior's KL.

        The inference network runs in the first phase too, where its gradient is 0: training on
        several devices needs a gradient of every parameter in every step.
        """
        posterior, anneal = phase(progress, self.config.phases)
        mean, logvar = self.posterior(frames)
        prior = torch.zeros_like(mean)
        kl = kl_divergence(mean, logvar, prior, prior)
        noise = standard_normal(mean, generator)
        return {"z": draw(mean, logvar, noise) if posterior else noise}, kl, anneal

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, (B, 1, H/8, W/8), from frames (B, T, C, H, W).

        A video shorter than what the network sees repeats its last frame.
        """
        index = torch.arange(self.steps + 1, device=frames.device)
        mean, logvar = self.inference(frames[:, index.clamp_max(frames.shape[1] - 1)])
        return mean, logvar
