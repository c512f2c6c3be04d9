"""CVG: cascaded video generation (Castrejon, Ballas and Courville 2022; seed 002, chapter 6).

Two generators draw a video from noise, the first a small outline, the second what is seen:

    x^1 = G_1(z_1)            every ``time_scale``-th frame at 1 / ``scale`` of the resolution
    x^2 = G_2(z_2, x^1)       all frames (equation 6.1)

Each level plays against discriminators of its own (equations 6.2 and 6.3), by hinge losses over all
their logits: a spatial one of single frames, a temporal one of the video at half the resolution,
and, in the second level, a matching one of pairs (x^2 at the resolution of x^1, x^1), without which
G_2 might ignore x^1. The first level is trained first. The second then learns from windows of its
samples, ``crop`` frames long, and is applied to all of them at once when sampling: its layers over
time are convolutions.

What it answers: it draws whole videos from nothing. A context must be empty (``Context.empty``), as
no frame can be taken into account, and scenes have no actions; a frame in a context raises
``UnsupportedQuery``. ``sample`` makes the video, ``predict`` reads any of its times; rewards are 0
and episodes go on, as the model knows of neither.

Two players, one optimizer: ``fit`` has one loss and one step. Here a step is a turn of one player
(``turn``, saved with the weights), ``discriminator_steps`` of the discriminators, then one of the
generator; the other's weights get no gradient, and Adam leaves them and their moments alone. When
the optimizer has made its step, a hook passes the turn on and lets the spectral norms follow the
weights. So the training loop, its clipping, its resuming and several processes need not know, and
the loss is a function of weights, turn and batch. ``fit``'s ``steps`` are turns: two thirds go to
the discriminators.

Deviations and choices:

- No classes: the environments have none. z alone is the condition of the normalisation.
- The channels of the first level's discriminators are listed from high to low (6.A.1); here they
  rise, as those of the second. Five units of which all but the last double 4x4 pixels would
  end at 64x64, not 128x128 (6.A.2); here as many units double as are needed, the first ones, and in
  each the second block does.
- "Geometric hinge loss" is read as that of geometric GANs, the hinge. A discriminator has a logit
  for each frame, and all logits count alike. They halve the resolution in all blocks but the last,
  as far as 2x2, and never the number of frames; the first block has no ReLU on the pixels. At the
  end features are summed over pixels.
- Frames are made smaller by averages, which repeated bilinear halvings are.
- Adam's betas are 0 and 0.999, as in DVD-GAN; the thesis names none. Epsilon is torch's.
- The thesis recomputes statistics by 200 passes where it unrolls; here that is done before the
  first sample after any training, and there are no others. Means and variances are averaged over
  passes; each pass draws x^1 as the second level's training does, normalised by its batch.
- Several processes normalise by the statistics of their own batches; the thesis synchronises them.
- Behind the end of an episode its last frame is repeated.

Losses of adversaries say nothing of quality: ``fit`` cannot stop early by them (``holdout``), and a
``best`` checkpoint by validation means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from worldmodel.base import Losses, UnsupportedQuery, WorldModel
from worldmodel.models.jumpy.cvg.config import CvgConfig
from worldmodel.models.jumpy.cvg.discriminator import (
    Discriminators,
    discriminator_loss,
    generator_loss,
    smaller,
)
from worldmodel.models.jumpy.cvg.generator import GRID, Generator
from worldmodel.models.layers.frame_norm import is_statistic, recorded_statistics, recording
from worldmodel.models.layers.spectral_norm import power_iteration
from worldmodel.spec import Spec
from worldmodel.types import Belief, Context, Queries, SceneBatch, StepPrediction, Worlds

BETAS = (0.0, 0.999)


class Cvg(WorldModel):
    """CVG; see ``CvgConfig`` for what can be set.

    Args:
        spec: square images of 4 * ``scale`` pixels on a side or more, a power of two; no actions.
        config: sizes and training settings.

    Raises:
        ValueError: the spec is another, or a generator has too few units for its resolution.
    """

    name: ClassVar[str] = "cvg"
    jumpy: ClassVar[bool] = True
    trains_in_parts: ClassVar[bool] = True
    config: CvgConfig
    turn: Tensor
    stale: Tensor

    def __init__(self, spec: Spec, config: CvgConfig) -> None:
        super().__init__(spec, config)
        _check_spec(spec, config)
        self.max_context = 0
        colours, size, _ = spec.observation
        self.outline = -(-(spec.window + 1) // config.time_scale)  # frames of the first level
        low, frames = size // config.scale, self.outline * config.time_scale
        judged, scale = config.frames, config.time_scale
        # in the order of the optimizer's groups
        self.first = Generator(colours, low, config.first_generator, self.outline, config.noise)
        self.first_judges = Discriminators(colours, low, config.first_discriminator, judged)
        self.second = Generator(colours, size, config.second_generator, frames, config.noise, low)
        self.second_judges = Discriminators(
            colours, size, config.second_discriminator, judged, low * config.matching, scale
        )
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
        self.register_buffer("stale", torch.ones((), dtype=torch.bool))

    # -- training --------------------------------------------------------------------------------

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam over the four networks, the discriminators at a learning rate of their own; after
        each step the turn passes on.
        """
        networks = (self.first, self.first_judges, self.second, self.second_judges)
        groups = [
            {
                "params": list(network.parameters()),
                "factor": self.config.discriminator_rate if _judges(network) else 1.0,
            }
            for network in networks
        ]
        optimizer = torch.optim.Adam(groups, lr=self.config.learning_rate, betas=BETAS)
        optimizer.register_step_post_hook(self._pass_on)
        return optimizer

    def _pass_on(self, *_: Any) -> None:
        for network in self.children():
            if any(weights.grad is not None for weights in network.parameters()):
                power_iteration(network)
        self.turn.copy_((self.turn + 1) % (self.config.discriminator_steps + 1))
        self.stale.fill_(True)

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """The loss of the player whose turn it is, of the first level, later of the second.

        Returns:
            of a step's ``parts``: ``fake`` and, in a turn of the discriminators, ``real`` are mean
            logits; ``level`` is 1 or 2; ``loss`` the hinge loss of who plays.
        """
        second = progress >= self.config.first_share
        network, judges = (
            (self.second, self.second_judges) if second else (self.first, self.first_judges)
        )
        plays = int(self.turn) == self.config.discriminator_steps
        with torch.set_grad_enabled(plays and torch.is_grad_enabled()):
            z, low = self._noise(len(scenes.lengths), generator), None
            length = self.outline
            if second:
                low = self._windows(self._outlines(len(z), generator), generator)
                length = low.shape[1] * self.config.time_scale
            fake = network(z, length, low)
        if plays:
            with _without_gradient(judges):
                logits = judges(fake, low, generator)
            total = generator_loss(logits)
            parts = {"fake": logits.detach().mean()}
        else:
            video, outline = self._recorded(scenes, second, generator)
            pairs = None if low is None or outline is None else torch.cat([outline, low])
            real, made = judges(torch.cat([video, fake]), pairs, generator).chunk(2)
            total = discriminator_loss(real, made)
            parts = {"fake": made.detach().mean(), "real": real.detach().mean()}
        level = torch.tensor(2.0 if second else 1.0)
        return Losses(total, {"loss": total.detach(), "level": level, **parts})

    def holdout_errors(
        self, scenes: SceneBatch, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Raises ValueError: the losses of a game are no errors."""
        raise ValueError(
            "holdout: an adversarial loss does not fall as samples get better; train cvg without"
        )

    def _recorded(
        self, scenes: SceneBatch, second: bool, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """A level's real videos and, for the second, what they are to be made from."""
        scale, size = self.config.time_scale, self.spec.observation[-1]
        times = scale * torch.arange(self.outline, device=scenes.lengths.device)
        times = times.expand(len(scenes.lengths), -1)
        if second:
            within = torch.arange(scale, device=times.device)
            times = self._windows(times, generator)[:, :, None] + within
        known = torch.minimum(times.flatten(1), scenes.lengths[:, None])
        video = 2 * self.spec.to_model(scenes.observations(known)) - 1
        outline = smaller(video[:, ::scale] if second else video, size // self.config.scale)
        return (video, outline) if second else (outline, None)

    def _windows(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        """``crop`` successive entries (B, crop, ...) of values (B, T, ...), from anywhere."""
        batch, length = values.shape[:2]
        crop = min(self.config.crop, length)
        chance = torch.rand(batch, generator=generator, device=values.device)
        start = (chance * (length - crop + 1)).long()[:, None]
        rows = torch.arange(batch, device=values.device)[:, None]
        return values[rows, start + torch.arange(crop, device=values.device)]

    def _noise(self, count: int, generator: torch.Generator | None) -> Tensor:
        shape = (count, self.config.noise)
        return torch.randn(shape, generator=generator, device=self.device)

    @torch.no_grad()
    def _outlines(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Samples of the first level, in [-1, 1]."""
        outlines: Tensor = self.first(self._noise(count, generator), self.outline)
        return outlines

    # -- generation ------------------------------------------------------------------------------

    @torch.no_grad()
    def recompute_statistics(self) -> None:
        """Measure what the normalisation of all layers and frames needs, with the present weights.

        ``sample`` does it where weights have changed since (``statistics_passes`` videos of
        ``statistics_batch`` each); a checkpoint that is saved after it need not do it again.
        """
        generator = torch.Generator(self.device).manual_seed(0)
        count, frames = self.config.statistics_batch, self.outline * self.config.time_scale
        with torch.autocast(self.device.type, enabled=False), recording(self):
            for _ in range(self.config.statistics_passes):
                low = self._outlines(count, generator)
                self.second(self._noise(count, generator), frames, low)
        self.stale.fill_(False)

    def unrolled(self, window: int) -> Cvg:
        """A model of these weights for videos of another length; both levels are unrolled.

        Args:
            window: steps of its spec's window; its videos have one frame more.

        Raises:
            ValueError: ``window`` is below 1.
        """
        if window < 1:
            raise ValueError(f"window: expected at least 1 step, got {window}")
        other = Cvg(replace(self.spec, window=window), self.config).to(self.device)
        weights = {name: t for name, t in self.state_dict().items() if not is_statistic(name)}
        other.load_state_dict(weights, strict=False)
        other.stale.fill_(True)
        return other.train(self.training)

    @torch.no_grad()
    def levels(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n videos, and the outlines that they were made from.

        Args:
            n: how many.
            generator: on the model's device.

        Returns:
            float32 in [0, 1]: outlines (n, T', C, H / scale, W / scale), T' = (window + 1) /
            time_scale rounded up, and videos (n, window + 1, C, H, W).

        Raises:
            ValueError: ``n`` is below 1.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 video, got {n}")
        if bool(self.stale):
            self.recompute_statistics()
        with recorded_statistics(self):
            low = self._outlines(n, generator)
            z = self._noise(n, generator)
            video = self.second(z, self.outline * self.config.time_scale, low)
        return (low + 1) / 2, (video[:, : self.spec.window + 1] + 1) / 2

    # -- the three verbs -------------------------------------------------------------------------

    def _check_context(self, context: Context) -> None:
        frames = context.observations
        self._check_shapes(context, "0", "Context.empty makes such a context")
        if frames.shape[1] > 0:
            raise UnsupportedQuery(
                f"context: cvg draws videos from noise and cannot go on from frames, got "
                f"{frames.shape[1]}; give it Context.empty(B, spec.observation)"
            )
        if len(frames) == 0:
            raise ValueError("context: expected at least one scene, got a batch of 0")
        self._check_times(context.present_times(), "context.present")

    def _observe(self, context: Context) -> Belief:
        """Nothing is known.

        Raises:
            UnsupportedQuery: the context holds a frame.
        """
        return Belief(context.present_times().to(self.device), {})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        batch = len(belief.present)
        return Worlds(
            belief.present, {"video": self.levels(batch * n, generator)[1].unflatten(0, (batch, n))}
        )

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        return Worlds(worlds.present + actions.shape[1], worlds.state)

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        video = worlds.state["video"]
        rewards = video.new_zeros(*worlds.shape, 1, queries.ahead(worlds.present))
        rows = torch.arange(len(video), device=video.device)[:, None]
        answer = video[rows, :, queries.times].movedim(2, 1).unsqueeze(2)  # (B, S, 1, K, C, H, W)
        return StepPrediction(rewards, rewards + math.inf, answer if frames else None)


def _judges(network: nn.Module) -> bool:
    return isinstance(network, Discriminators)


@contextmanager
def _without_gradient(module: nn.Module) -> Iterator[None]:
    """Gradients pass through the module and leave its own weights alone."""
    for weight in module.parameters():
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in module.parameters():
            weight.requires_grad_(True)


def _check_spec(spec: Spec, config: CvgConfig) -> None:
    if not spec.passive:
        raise ValueError(
            f"spec: cvg draws videos from noise and knows of no actions, got {spec.action}; record "
            "scenes without an agent"
        )
    if spec.pose:
        raise ValueError("spec: cvg draws videos and cannot look from camera poses; jump can")
    _, height, width = spec.observation
    low = height // config.scale
    if height != width or low * config.scale != height or low < GRID or low & (low - 1):
        raise ValueError(
            f"spec: cvg takes square frames of a power of two, at least {GRID * config.scale} "
            f"pixels on a side (scale {config.scale}), got {height} x {width}"
        )
