"""VIM: variational independent modules (Assouel, Castrejon et al. 2022; seed 002, chapter 8).

A frame is K slots h^k, each a vector. M modules f_m, perceptrons of their own, are shared by all
slots; for every step t and slot k one of them is selected, r, and moves the slot:

    h_0         = slot attention of the first frame, from random slots
    r_t^k       ~ Categorical(query(h_{t-1}^k) . key(candidate_m))          prior
    r_t^k       ~ Categorical(target_query(x_t^k) . key(candidate_m))       posterior
    z_t^k       ~ N(mu, sigma), from f = f_r(h_{t-1}^k)    prior;   from f and x_t^k    posterior
    h_t^k       = LayerNorm(h_{t-1}^k + z_t^k + f)
    x_t         = sum_k mask_k colour_k, both decoded from h_t^k

where x_t^k is what slot k wins of the encoded frame t (equation 8.4). VIM-k (``selections``)
selects and moves k times between two frames. The bound (section 8.3.3):

    ELBO = sum_t E_q log p(x_t | h_t) - KL(q(z_t | .) || p(z_t | .)) - KL(q(r_t | .) || p(r_t | .))

Training samples r by a Gumbel-softmax of temperature 1, soft; tests take one module (8.5.1). Slot
attention learns single frames first, then rollouts that grow longer (8.A.2).

Deviations and choices:

- The decoder's last layer and the last one of a module have no ReLU (tables 8.2 and 8.3 have one):
  a mask needs negative logits, and an update must be able to lower a number. Nor has the last layer
  of the encoder's perceptron.
- h_0 goes through the LayerNorm as well, so that the decoder sees one kind of slot.
- All four layers of a module are its own; keys and queries are shared. Groupings are weighted means
  over places, as in slot attention; equation 8.4 has a sum.
- p(x_t | h_t) is a Gaussian of variance ``pixel_variance``, whose constant is left out of the loss;
  the thesis names neither. Learning rate and its warm-up are those of slot attention.
- Epochs became shares of the training: 100 of 420 for single frames, then every length as long.
- Beliefs are deterministic: the random slots of the first frame are drawn once, with the weights,
  and past frames are explained by the likeliest module and the mean of z. Worlds differ in r and z
  of what lies ahead.
- Actions are given to the modules and to the prior's query, with each slot. Reward and
  continuation are read out of the mean over slots of a perceptron. (The thesis has neither.)
- ``focus`` (preset ``small``): slots have places. All but the last, which is the background's,
  begin evenly spread, look around where they are, ever less far, and move to the middle of what
  they win; they paint around there, by positions relative to it. z + f moves the place by a linear
  map of it; modules see it, and the posterior what is seen relative to it. Without places slots
  divided the frame into stripes here, whatever was in them; with a focus that did not narrow, two
  of them often shared a ball. Slots that look near from the first training step on find balls too
  slowly: hence ``focus_begin``, and a slot to spare.
- Single frames are both of a pair, so that one batch size serves them and the rollouts.
- Modules and z begin with small changes and little noise, so that slots stay what they are until
  moves are learned.
- ``coarse`` (preset ``small``) encodes and broadcasts at a lower resolution than the frame's.

Modules take one slot: no object knows of another, as in the thesis. So VIM learns how a thing
moves, but not that one goes where another is.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from worldmodel.base import Losses
from worldmodel.models.frame_by_frame import teacher_forcing, vim_nets
from worldmodel.models.frame_by_frame.base import FrameByFrame, State, select_rows
from worldmodel.models.frame_by_frame.vim_config import VimConfig
from worldmodel.models.frame_by_frame.vim_nets import Slots
from worldmodel.models.layers.gaussian import at_least_float32, draw, kl_divergence
from worldmodel.models.layers.presents import draw_present
from worldmodel.models.layers.slot_attention import (
    Focus,
    PictureEncoder,
    SlotAttention,
    even_places,
    near,
    warmed_up,
)
from worldmodel.spec import Spec
from worldmodel.types import SceneBatch


class Explanation(NamedTuple):
    """What the posterior makes of a step.

    Attributes:
        slots: B times K after it.
        modules: int64 (B, k, K), the likeliest modules.
        kl: (2, B), KL of r and of z in nats, summed over slots and selections.
    """

    slots: Slots
    modules: Tensor
    kl: Tensor


class Track(NamedTuple):
    """What ``Vim.track`` makes of T frames.

    Attributes:
        frames: float32 (B, T, C, H, W), reconstructed.
        colours: float32 (B, T, K, C, H, W), what each slot paints.
        masks: float32 (B, T, K, H, W), how much of it is in the frame; sum 1 over slots.
        modules: int64 (B, T - 1, k, K), which module moved each slot.
    """

    frames: Tensor
    colours: Tensor
    masks: Tensor
    modules: Tensor


class Vim(FrameByFrame):
    """VIM; see ``VimConfig`` for what can be set.

    Its own state entries are ``slots`` (K, D) and, with a ``focus``, ``place`` (K - 1, 2), with
    the lead (B,) or (B, S).
    """

    name: ClassVar[str] = "vim"
    feeds_back: ClassVar[bool] = False
    trains_in_parts: ClassVar[bool] = True  # single frames move no slot
    config: VimConfig
    initial_noise: Tensor

    def __init__(self, spec: Spec, config: VimConfig) -> None:
        super().__init__(spec, config)
        image, height, width = spec.observation
        size, axes = config.size, 2 if config.focus else 0
        picture = (image, height, width)
        inner = (config.channels, config.kernel, config.coarse)
        self.noise_shape = (config.selections, config.slots, config.modules + size)
        self.encoder = PictureEncoder(*picture, *inner)
        self.attention = SlotAttention(config.channels, size, 2 * size, config.attention_steps)
        self.transition = vim_nets.Modules(
            config.modules, size, config.hidden, config.candidate, config.width,
            size + spec.action.features + axes, size + axes,
        )  # fmt: skip
        self.prior = vim_nets.Update(size, size, config.width)
        self.posterior = vim_nets.Update(2 * size + axes, size, config.width)
        self.norm = nn.LayerNorm(size)
        self.decoder = vim_nets.BroadcastDecoder(*picture, size, *inner, config.focus)
        self.readout = vim_nets.SlotReadout(size, size)
        self.register_buffer("initial_noise", torch.randn(config.slots, size))
        cells = (height // config.coarse, width // config.coarse)
        self.focus = Focus(*cells, config.focus, config.focus_first) if axes else None
        self.background = nn.Parameter(torch.randn(size) * size**-0.5) if axes else None
        self.shift = nn.Linear(size, axes, bias=False) if axes else None

    # -- one step --------------------------------------------------------------------------------

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        keys, values, slots = self._encode(observations, None)
        for t in range(1, observations.shape[1]):
            after = self._explain(slots, keys[:, t], values[:, t], actions[:, t - 1], None)
            slots = Slots.of(select_rows(t <= present, after.slots.state(), slots.state()))
        return slots.state()

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        slots = Slots.of(state)
        for each in noise.unbind(1):
            inputs = vim_nets.with_actions(slots, actions)
            candidates = self.transition.propose(inputs)
            logits = self.transition.prior(candidates, inputs)
            choice = vim_nets.one_hot(logits + vim_nets.gumbel(each[..., : self.config.modules]))
            change = candidates.chosen(choice)
            mean, logvar = self.prior(change)
            z = draw(mean, logvar, each[..., self.config.modules :])
            slots = self._move(slots, z, change)
        reward, logit = self.readout(slots.content).unbind(-1)
        return slots.state(), reward, logit

    def _decode(self, state: State) -> Tensor:
        return vim_nets.compose(*self.decoder(Slots.of(state))).clamp(0, 1)

    def _encode(
        self, frames: Tensor, noise: Tensor | None, wider: float = 1.0
    ) -> tuple[Tensor, Tensor, Slots]:
        """Keys and values (B, T, n, D) of frames (B, T, C, H, W), and the slots h_0 of the first,
        from noise (B, K, D) or that of the checkpoint.
        """
        features = teacher_forcing.per_step(self.encoder, frames)
        noise = self.initial_noise.expand(len(frames), -1, -1) if noise is None else noise
        keys, values = self.attention.project(features)
        first = self.attention.initial(noise)
        if self.background is not None:
            first = torch.cat([first[:, :-1], self.background.expand_as(first[:, -1:])], 1)
        place = even_places(noise[:, :-1]) if self.focus else None
        content, place = self.attention(keys[:, 0], values[:, 0], first, self.focus, place, wider)
        return keys, values, Slots(self.norm(at_least_float32(content)), place)

    def _move(self, slots: Slots, z: Tensor, change: Tensor) -> Slots:
        both = z + change
        place = slots.place
        if place is not None and self.shift is not None:
            place = place + self.shift(both[:, :-1]).float()
        return Slots(self.norm(slots.content + both), place)

    def _group(self, slots: Slots, keys: Tensor, values: Tensor) -> Tensor:
        """What is known of a frame (B, K, D) where slots look, and how far from their places what
        they win lies (2 more).
        """
        grouped, attention = self.attention.group(
            slots.content, keys, values, near(self.focus, slots.place)
        )
        if self.focus is None or slots.place is None:
            return grouped
        away = self.focus.middle(attention[:, :-1]) - slots.place
        return torch.cat([grouped, pad(away, (0, 0, 0, 1)).to(grouped.dtype)], -1)

    def _explain(
        self,
        slots: Slots,
        keys: Tensor,
        values: Tensor,
        actions: Tensor,
        noise: Tensor | None,
        selections: int | None = None,
    ) -> Explanation:
        """One step by the posterior, towards a frame of keys and values (B, n, D).

        Args:
            slots: B times K before it.
            keys, values: of the frame after it.
            actions: (B, A).
            noise: (B, \\*noise_shape); None takes the likeliest module and the mean of z.
            selections: k, where there is no noise; None for that of the settings.
        """
        count, modules = selections or self.config.selections, self.config.modules
        chosen, kl = [], slots.content.new_zeros(2, len(keys))
        for index in range(count):
            grouped = self._group(slots, keys, values)
            inputs = vim_nets.with_actions(slots, actions)
            candidates = self.transition.propose(inputs)
            prior = self.transition.prior(candidates, inputs)
            logits = self.transition.posterior(candidates, grouped)
            chosen.append(logits.argmax(-1))
            each = None if noise is None else noise[:, index]
            choice = self._choose(logits, None if each is None else each[..., :modules])
            change = candidates.chosen(choice)
            mean, logvar = self.posterior(torch.cat([change, grouped.to(change.dtype)], -1))
            z = mean if each is None else draw(mean, logvar, each[..., modules:])
            kl = kl + torch.stack(
                [
                    vim_nets.categorical_kl(logits, prior).sum(1),
                    kl_divergence(mean, logvar, *self.prior(change)),
                ]
            )
            slots = self._move(slots, z, change)
        return Explanation(slots, torch.stack(chosen, 1), kl)

    def _choose(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Weights (B, K, M) of the modules: soft while training, else those of one module."""
        if noise is None:
            return vim_nets.one_hot(logits)
        logits = (logits + vim_nets.gumbel(noise)) / self.config.temperature
        return logits.softmax(-1) if self.training else vim_nets.one_hot(logits)

    # -- what it sees ----------------------------------------------------------------------------

    @torch.no_grad()
    def track(
        self, frames: Tensor, actions: Tensor | None = None, selections: int | None = None
    ) -> Track:
        """Follow the objects of recorded frames: slots, masks and the modules that move them.

        Slots are those of a belief: the likeliest modules, and the mean of z.

        Args:
            frames: float32 (B, T, C, H, W) in [0, 1], of the times 0 to T - 1.
            actions: (B, T - 1, \\*action) between them; None for passive scenes.
            selections: k of VIM-k, also another than that of the training; None for the same.

        Raises:
            ValueError: the frames have another shape than the model's, or ``selections`` is below
                1.
        """
        if frames.dim() != 5 or tuple(frames.shape[2:]) != self.spec.observation:
            raise ValueError(
                f"frames: expected (B, T, C, H, W) with (C, H, W) = {self.spec.observation}, got "
                f"{tuple(frames.shape)}"
            )
        if selections is not None and selections < 1:
            raise ValueError(f"selections: expected at least 1, got {selections}")
        steps = frames.shape[1] - 1
        present = torch.full((len(frames),), steps, device=frames.device)
        features = self._past_actions(actions, present)
        keys, values, slots = self._encode(frames, None)
        path, chosen = [slots], []
        for t in range(steps):
            after = self._explain(
                path[-1], keys[:, t + 1], values[:, t + 1], features[:, t], None, selections
            )
            path.append(after.slots)
            chosen.append(after.modules)
        colours, masks = self.decoder(_rows(path))
        lead = frames.shape[:2]
        count = (selections or self.config.selections, self.config.slots)
        none = torch.zeros(len(frames), 0, *count, dtype=torch.int64, device=frames.device)
        return Track(
            vim_nets.compose(colours, masks).clamp(0, 1).unflatten(0, lead),
            colours.unflatten(0, lead),
            masks[:, :, 0].unflatten(0, lead),
            torch.stack(chosen, 1) if chosen else none,
        )

    # -- training --------------------------------------------------------------------------------

    def learning_rate(self, done: int, steps: int) -> float:
        """See ``warmed_up``."""
        config = self.config
        return warmed_up(
            config.learning_rate, config.learning_rate_end, config.warm_up, done, steps
        )

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """The negative ELBO without its constant, in nats: sum_t |x - x_t|^2 / (2 variance) + KL of
        r + KL of z + reward + continue, over rollouts of ``config.length(progress)`` frames.

        The first frame of a rollout counts among the pixels. Parts and curves are those of
        ``teacher_forcing.losses``, with ``kl_modules``, the part of r in ``kl``.
        """
        length = self.config.length(progress)
        first, counts = draw_present(scenes.lengths.clamp_min(1), self.spec.window, generator)
        segment = teacher_forcing.take_segment(scenes, self.spec, max(1, length - 1), first)
        frames = segment.observations
        if length == 1:
            return self._single(frames, counts, progress / self.config.pretraining, generator)
        draws = self._draws(len(frames), segment.steps, generator)
        keys, values, slots = self._encode(frames, draws[0])
        path, kls = [slots], []
        for t in range(segment.steps):
            after = self._explain(
                path[-1], keys[:, t + 1], values[:, t + 1], segment.actions[:, t], draws[1][:, t]
            )
            path.append(after.slots)
            kls.append(after.kl)
        every = _rows(path)
        painted = vim_nets.compose(*self.decoder(every)).unflatten(0, frames.shape[:2])
        nll = self._nll(painted, frames)
        kl = torch.stack(kls, -1)
        losses = teacher_forcing.losses(
            segment,
            painted[:, 1:].detach(),
            kl.sum(0),
            self.readout(every.content.unflatten(0, frames.shape[:2])[:, 1:]).unbind(-1),
            self.reward_scale,
            self.config.reward_variance,
            scenes=counts,
            nll=nll[:, 1:],
        )
        total = losses.total + (counts * nll[:, 0]).mean()
        by_modules = (kl[0] * segment.valid).sum(1).mean().detach()
        parts = {**losses.parts, "loss": total.detach(), "kl_modules": by_modules}
        return Losses(total, parts, losses.curves)

    def _single(
        self, frames: Tensor, counts: Tensor, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """The loss at a ``progress`` of the pretraining, on each of the frames (B, T, C, H, W) by
        itself; at first slots look and paint further, so that they find what there is.
        """
        wider = self.config.focus_begin + progress * (1 - self.config.focus_begin)
        noise, _ = self._draws(frames.shape[:2].numel(), 0, generator)
        *_, slots = self._encode(frames.flatten(0, 1).unsqueeze(1), noise, wider)
        painted = vim_nets.compose(*self.decoder(slots, wider)).view_as(frames)
        nll = self._nll(painted, frames).mean(1)
        total = (counts * nll).mean()
        parts = {"loss": total, "mse": (painted - frames).square().mean(), "nll": nll.mean()}
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _nll(self, painted: Tensor, frames: Tensor) -> Tensor:
        """(B, T), of frames (B, T, C, H, W)."""
        squares = (painted - frames).square().flatten(2).sum(2)
        return squares / (2 * self.config.pixel_variance)

    def _draws(
        self, batch: int, steps: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Noise of the first slots (B, K, D) and of each step (B, T, \\*noise_shape)."""
        shapes = (self.initial_noise.shape, (steps, *self.noise_shape))
        first, later = (
            torch.randn((batch, *shape), generator=generator, device=self.device)
            for shape in shapes
        )
        return first, later


def _rows(path: list[Slots]) -> Slots:
    """The slots (B, ...) of T times as B * T rows."""
    states = [slots.state() for slots in path]
    return Slots.of(
        {name: torch.stack([s[name] for s in states], 1).flatten(0, 1) for name in states[0]}
    )
