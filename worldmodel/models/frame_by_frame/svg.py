"""SVG: stochastic video generation with a learned or a fixed prior, and the baseline without.

For every step t, with h_t = Enc(x_t) (seed 003, Denton and Fergus 2018, section 3):

    z_t ~ N(mu_phi, sigma_phi)(t) = LSTM_phi(h_t)             posterior, while training
    z_t ~ N(mu_psi, sigma_psi)(t) = LSTM_psi(h_{t-1})         prior of SVG-LP, while generating
    z_t ~ N(0, I)                                             prior of SVG-FP
    g_t = LSTM_theta(h_{t-1}, z_t),   x_t = Dec(g_t, skips)

The deterministic baseline is the same without z. Layers are those of the public implementation, as
tabulated in the reference notes (the paper's text names none); the code is our own. Deviations:

- Actions, where there are any: the features of the action from t-1 to t join the inputs of all
  three LSTMs. Rewards and continuations are read from g_t by a small MLP (ours).
- Their losses are in nats and weighted by beta like the KL, so that total / beta is in nats.
- While conditioning, z_t is the posterior's mean: a belief is deterministic in this project. (The
  public SVG-LP samples there, its SVG-FP takes the mean; the paper does not say.)
- Skips are frozen from the last context frame, as the paper says; the public code takes the one
  before. In training that frame is ``past - 1`` or, with ``past = 0``, random for each scene.
- Batch normalisation runs over all frames of a training batch at once (the public code: step by
  step), and uses running statistics whenever it generates (there: batch statistics).
- beta is scaled by 64 * 64 / (H * W), which keeps the variance of the equivalent Gaussian; 32 px
  drop the last stage, so that the last convolution still sees 4x4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from worldmodel.base import Losses
from worldmodel.common.config_checks import above_zero, at_least, layer_counts, to_tuples
from worldmodel.models.frame_by_frame import teacher_forcing
from worldmodel.models.frame_by_frame.base import FrameByFrame, State, at_times, select_rows
from worldmodel.models.frame_by_frame.svg_coders import Backbone, coders
from worldmodel.models.layers.gaussian import draw, kl_divergence, standard_normal
from worldmodel.rewards import reward_layer
from worldmodel.spec import Spec
from worldmodel.types import SceneBatch


@dataclass(frozen=True)
class SvgConfig(teacher_forcing.PastConfig):
    """Sizes and training settings; the defaults are the paper's on Stochastic Moving MNIST, with
    the conditioning of the narratives. (Names in brackets are the public implementation's.)

    Attributes:
        backbone: "dcgan" or "vgg" encoder and decoder.
        channels: of the encoder's stages, from the largest map to 4x4; smaller frames drop the
            last ones, the decoder mirrors them.
        features: width of h and g (g_dim).
        latent: width of z_t (z_dim).
        hidden: of the LSTMs, and of the reward and continuation read-out (rnn_size).
        predictor_layers, posterior_layers, prior_layers: LSTM layers.
        beta: weight of the KL against the mean squared error, at 64 px.
        past: as in ``PastConfig`` (n_past).
        frames, reward_variance, learning_rate, learning_rate_end: as in ``TrainingConfig``
            (``frames`` is n_past + n_future).
    """

    backbone: Backbone = "dcgan"
    channels: tuple[int, ...] = (64, 128, 256, 512)
    features: int = 128
    latent: int = 10
    hidden: int = 256
    predictor_layers: int = 2
    posterior_layers: int = 1
    prior_layers: int = 1
    beta: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        to_tuples(self, "channels")
        if self.backbone not in ("dcgan", "vgg"):
            raise ValueError(f"backbone: expected 'dcgan' or 'vgg', got {self.backbone!r}")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels: expected numbers of at least 1, got {self.channels}")
        layers = ("predictor_layers", "posterior_layers", "prior_layers")
        at_least(1, self, "features", "latent", "hidden")
        layer_counts(self, *layers)
        above_zero(self, "beta")

    def stages(self, height: int, width: int) -> int:
        """How many stages lead from a frame to 4x4.

        Raises:
            ValueError: none of them does.
        """
        sizes = [4 * 2**count for count in range(1, len(self.channels) + 1)]
        if height == width and height in sizes:
            return sizes.index(height) + 1
        raise ValueError(
            f"observation: SVG with {len(self.channels)} stages of channels takes square frames "
            f"of {sizes[1:]} pixels, got {height}x{width}"
        )


PRESETS: dict[str, SvgConfig] = {
    "paper": SvgConfig(),
    "bair": SvgConfig(backbone="vgg", latent=64, past=2, frames=12),
    "kth": SvgConfig(
        backbone="vgg",
        latent=24,
        beta=1e-6,
        past=10,
        frames=20,
        learning_rate=8e-4,
        learning_rate_end=8e-4,
    ),
    "small": SvgConfig(
        channels=(16, 32, 64, 128), features=64, hidden=128, past=0, learning_rate_end=2e-4
    ),
}


class Recurrence(nn.Module):
    """Linear, LSTM layers, Linear. Its state is ``name_h`` and ``name_c``, (P, layers, hidden)."""

    def __init__(self, name: str, inputs: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.names, self.hidden, self.layers = (f"{name}_h", f"{name}_c"), hidden, layers
        self.enter = nn.Linear(inputs, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.out = nn.Linear(hidden, outputs)

    def start(self, like: Tensor) -> State:
        """Zeros for the batch of ``like``."""
        zeros = like.new_zeros(like.shape[0], self.layers, self.hidden)
        return dict.fromkeys(self.names, zeros)

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence from zeros: x (P, T, inputs) to (P, T, outputs)."""
        return torch.as_tensor(self.out(self.lstm(self.enter(x))[0]))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: x (P, inputs) to (P, outputs); ``state`` may hold other entries too."""
        before = tuple(state[name].transpose(0, 1).contiguous() for name in self.names)
        y, after = self.lstm(self.enter(x).unsqueeze(1), before)
        pairs = zip(self.names, after, strict=True)
        return self.out(y[:, 0]), {name: value.transpose(0, 1) for name, value in pairs}


class Svg(FrameByFrame):
    """SVG with a learned prior; see ``SvgConfig`` for what can be set.

    Its own state entries, with the lead (B,) or (B, S): ``h`` (features,), the encoded last frame;
    ``predictor_h/_c`` and, with a learned prior, ``prior_h/_c`` (layers, hidden); ``skip0`` ..
    (channels, h, w), frozen. Every frame but a rollout's last is decoded and encoded again.

    Attributes:
        prior_kind: "learned", "fixed" to N(0, I), or "none" without a latent.

    Raises:
        ValueError: the frames are not square, or their size does not fit the stages.
    """

    name: ClassVar[str] = "svg-lp"
    prior_kind: ClassVar[Literal["learned", "fixed", "none"]] = "learned"
    feeds_back: ClassVar[bool] = True
    config: SvgConfig

    def __init__(self, spec: Spec, config: SvgConfig) -> None:
        super().__init__(spec, config)
        image, height, width = spec.observation
        channels = config.channels[: config.stages(height, width)]
        self.beta = config.beta * 64 * 64 / (height * width)
        self.encoder, self.decoder = coders(config.backbone, image, channels, config.features)
        inputs, hidden = config.features + spec.action.features, config.hidden
        self.latent = 0 if self.prior_kind == "none" else config.latent
        self.noise_shape = (self.latent,)
        self.posterior = self.prior = None
        if self.latent:
            layers = config.posterior_layers
            self.posterior = Recurrence("posterior", inputs, hidden, layers, 2 * self.latent)
        if self.prior_kind == "learned":
            self.prior = Recurrence("prior", inputs, hidden, config.prior_layers, 2 * self.latent)
        self.predictor = Recurrence(
            "predictor", inputs + self.latent, hidden, config.predictor_layers, config.features
        )
        self.apply(_initialise)
        self.readout = nn.Sequential(
            nn.Linear(config.features, hidden), nn.ReLU(), reward_layer(hidden)
        )

    # -- one step --------------------------------------------------------------------------------

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        length = observations.shape[1]
        h, maps = self._encode(observations)
        state = self.predictor.start(h)
        if self.prior is not None:
            state |= self.prior.start(h)
        z = h[:, 1:, :0]
        if self.posterior is not None and length > 1:
            z = self.posterior(torch.cat([h[:, 1:], actions], -1)).chunk(2, -1)[0]
        for t in range(1, length):
            before = torch.cat([h[:, t - 1], actions[:, t - 1]], -1)
            _, after = self.predictor.step(torch.cat([before, z[:, t - 1]], -1), state)
            if self.prior is not None:
                after |= self.prior.step(before, state)[1]
            state = select_rows(t <= present, after, state)
        skips = {f"skip{i}": at_times(skip, present) for i, skip in enumerate(maps)}
        return {**state, **skips, "h": at_times(h, present)}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        before = torch.cat([state["h"], actions], -1)
        z, prior = noise, State()
        if self.prior is not None:
            numbers, prior = self.prior.step(before, state)
            mean, logvar = numbers.chunk(2, -1)
            z = draw(mean, logvar, noise)
        g, predictor = self.predictor.step(torch.cat([before, z], -1), state)
        g = g.tanh()
        reward, logit = self.readout(g).unbind(-1)
        return {**state, **prior, **predictor, "g": g}, reward, logit

    def _decode(self, state: State) -> Tensor:
        skips = [state[f"skip{i}"] for i in range(len(self.encoder.stages))]
        frame: Tensor = self.decoder(state["g"], skips)
        return frame

    def _feed_back(self, state: State, observation: Tensor) -> State:
        return {"h": self.encoder(observation)[0]}

    def _encode(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frames (B, T, C, H, W) to h (B, T, features) and the map (B, T, ...) of each stage."""
        h, maps = self.encoder(frames.flatten(0, 1))
        lead = frames.shape[:2]
        return h.unflatten(0, lead), [skip.unflatten(0, lead) for skip in maps]

    # -- training --------------------------------------------------------------------------------

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """sum_t MSE_t + beta KL_t over t = 1 .. frames - 1, context included: the SVG-LP bound of
        seed 003, section 3, with a Gaussian likelihood.

        MSE_t is the mean over pixels, KL_t is summed over z. Parts and curves are those of
        ``teacher_forcing.losses``. ``progress`` is not used: nothing is annealed.
        """
        segment = teacher_forcing.take_segment(scenes, self.spec, self.config.frames - 1)
        h, maps = self._encode(segment.observations)
        g, kl = self._infer(h, segment.actions, generator)

        last, counts = self.config.draw_last(scenes.lengths.clamp_max(segment.steps), generator)
        sources = torch.minimum(torch.arange(segment.steps, device=last.device), last[:, None])
        skips = [at_times(skip, sources).flatten(0, 1) for skip in maps]
        frames = self.decoder(g.flatten(0, 1), skips).unflatten(0, g.shape[:2])
        readouts, variance = self.readout(g).unbind(-1), self.config.reward_variance
        return teacher_forcing.losses(
            segment,
            frames,
            kl,
            readouts,
            self.reward_scale,
            variance,
            scenes=counts,
            weight=self.beta,
        )

    def _infer(
        self, h: Tensor, actions: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Teacher forcing over h (B, T, features) and actions (B, T - 1, ...).

        Returns:
            g (B, T - 1, features) and KL(posterior || prior) of each step (B, T - 1).
        """
        before = torch.cat([h[:, :-1], actions], -1)
        z, kl = before[..., :0], before.new_zeros(before.shape[:2])
        if self.posterior is not None:
            numbers = self.posterior(torch.cat([h[:, 1:], actions], -1))
            q_mean, q_logvar = numbers.chunk(2, -1)
            z = draw(q_mean, q_logvar, standard_normal(q_mean, generator))
            prior = torch.zeros_like(numbers) if self.prior is None else self.prior(before)
            pair = (q_mean, q_logvar, *prior.chunk(2, -1))
            kl = kl_divergence(*(value.flatten(0, 1) for value in pair)).view_as(kl)
        return self.predictor(torch.cat([before, z], -1)).tanh(), kl


class SvgFixedPrior(Svg):
    """SVG with the fixed prior N(0, I) (seed 003, section 3.1)."""

    name: ClassVar[str] = "svg-fp"
    prior_kind: ClassVar[Literal["learned", "fixed", "none"]] = "fixed"


class SvgDeterministic(Svg):
    """The baseline without a latent (seed 003, section 4): every sampled world is the same."""

    name: ClassVar[str] = "svg-det"
    stochastic: ClassVar[bool] = False
    prior_kind: ClassVar[Literal["learned", "fixed", "none"]] = "none"


def _initialise(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions and linear layers; LSTMs and batch norms keep their own."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
