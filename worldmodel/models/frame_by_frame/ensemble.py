"""A probabilistic ensemble of one-step dynamics, for vectors (PETS, MBPO).

Each member e maps an observation x and an action a to a distribution of the next observation, and
these to the reward and the chance that the episode goes on:

    x' = x + delta,   delta ~ N(mu_e(x, a), sigma_e(x, a))            Chua et al. 2018, section 4
    r, c = head_e(x, a, x')

Both sides are standardised. The log-variance lies between learned bounds (there, appendix A.1). A
world is a member, uniform over the elites, and the noise of each step: trajectory sampling TS-inf
of PETS; ``propagation="step"`` draws a member anew at each step: TS1, as MBPO does (Janner et al.
2019). So a planner's worlds are PETS's particles.

Members differ by their initial weights and by their bootstrap: each counts a recorded step
Poisson(1) times (Oza and Russell 2001; much data makes it the same as drawing with replacement),
always as often, for one step of a recording. ``fit`` takes each member's best weights by the error
on held-out episodes, and ranks the elites by it.

Where a Gaussian is wrong: numbers that take few values, and one-hot groups (both are detected in
the training data), are drawn from a softmax, so that a world takes one branch. Numbers that never
change within an episode stay as they are. Reward and end read the next observation, so that they
belong to the branch that was taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from worldmodel.base import Losses
from worldmodel.common.hashing import high_bits
from worldmodel.models.frame_by_frame import teacher_forcing
from worldmodel.models.frame_by_frame.base import FrameByFrame, State
from worldmodel.models.frame_by_frame.ensemble_config import EnsembleConfig
from worldmodel.models.frame_by_frame.ensemble_data import Recorded, moments
from worldmodel.models.frame_by_frame.ensemble_nets import (
    Categories,
    DynamicsNets,
    MemberNets,
    soft_clamp,
)
from worldmodel.models.frame_by_frame.ensemble_roll import MemberLayout, roll
from worldmodel.models.layers.pinned import hashed
from worldmodel.rewards import RewardScale
from worldmodel.spec import Spec
from worldmodel.types import Queries, RecordedBatch, SceneBatch, SceneSource, Worlds

POISSON = (0.36788, 0.73576, 0.91970, 0.98101, 0.99634, 0.99941, 0.99992)
"""Of a Poisson distribution with mean 1: the chance of at most 0, 1, ... events."""
BOUNDS_WEIGHT = 0.01
"""Of the bounds of the log-variance in the loss: they close in on what the data need."""
SCALES, HALVINGS = (1e-3, 10.0), 20
"""Factors of the spread that ``calibrate`` searches, and how often it halves their range."""
CALIBRATED_ON = 200
"""Held-out steps that it takes at least: with 50, CartPole's agent needed 2,000 real steps where
1,250 are enough without."""
FAR = 10.0
"""Recorded ranges beyond the recorded values where imagined ones are cut off."""


RARE = 0.1
"""Of a categorical number's range: its spread as an input is at least that."""


class Ensemble(FrameByFrame):
    """A probabilistic ensemble; see ``EnsembleConfig`` for what can be set.

    Only the latest observation is a context, since it is taken for the whole state: stack frames
    where velocities are missing. The window bounds plans and imagined episodes and costs nothing
    in training, which sees single steps: choose it as long as needed.

    Its own state entries: ``x`` (D,), the observation; ``member`` int64 (), of a world.

    Attributes:
        shift, scale: float32 (D,), of observations as inputs.
        change_shift, change_scale: float32 (D,), of their changes.
        gaussian: bool (D,), numbers that change by a Gaussian. Of the others ``categories`` has
            some; the rest stay as they are.
        low, high: float32 (D,), where imagined observations are cut off, far beyond what was
            recorded: long rolls stay finite.
        noise_scale: float32 (D,), of the learned spread of each number; see ``calibrate``.
        elites: int64 (elites,), members that worlds are drawn from.
    """

    name: ClassVar[str] = "ensemble"
    takes_images: ClassVar[bool] = False
    takes_vectors: ClassVar[bool] = True
    training_window: ClassVar[int | None] = 1
    training_batch: ClassVar[int] = 256
    holdout_share: ClassVar[float] = 0.2
    disagrees: ClassVar[bool] = True
    feeds_back: ClassVar[bool] = False  # the state holds the observation
    config: EnsembleConfig

    shift: Tensor
    scale: Tensor
    change_shift: Tensor
    change_scale: Tensor
    gaussian: Tensor
    low: Tensor
    high: Tensor
    noise_scale: Tensor
    elites: Tensor
    prepared: Tensor

    def __init__(self, spec: Spec, config: EnsembleConfig) -> None:
        super().__init__(spec, config)
        (numbers,) = spec.observation
        self.max_context, self.numbers = 1, numbers
        self.noise_shape = (numbers + (config.propagation == "step"),)
        self.categories = Categories(numbers, numbers + config.slots)
        inputs, outputs = numbers + spec.action.features, 3 * numbers + config.slots
        hidden, members = [config.hidden] * config.layers, config.members
        limits = config.logvar_min, config.logvar_max
        self.dynamics = DynamicsNets(members, (inputs, *hidden, outputs), numbers, limits)
        self.head = MemberNets(members, (inputs + numbers, *[config.head_hidden] * 2, 2))
        nn.init.constant_(self.head.biases[-1][..., 1], 4.0)  # most steps do not end an episode
        for name, value in {
            "shift": 0.0, "scale": 1.0, "change_shift": 0.0, "change_scale": 1.0,
            "low": -torch.inf, "high": torch.inf,
        }.items():  # fmt: skip
            self.register_buffer(name, torch.full((numbers,), value))
        self.register_buffer("gaussian", torch.ones(numbers, dtype=torch.bool))
        self.register_buffer("noise_scale", torch.ones(numbers))
        self.register_buffer("elites", torch.arange(config.elites))
        self.register_buffer("prepared", torch.tensor(False))

    # -- worlds ----------------------------------------------------------------------------------

    def _history(self, present: Tensor) -> Tensor:
        return present[:, None]

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        return {"x": observations[:, -1]}

    def _sample_state(self, state: State, n: int, generator: torch.Generator | None) -> State:
        """A member for each world; all elites have as many worlds of a scene, or one more."""
        worlds = super()._sample_state(state, n, generator)
        chance = torch.rand(
            len(state["x"]), len(self.elites), generator=generator, device=self.elites.device
        )
        turn = torch.arange(n, device=self.elites.device) % len(self.elites)
        return {**worlds, "member": self.elites[chance.argsort(1)[:, turn]]}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        x, member = state["x"], state["member"]
        if self.config.propagation == "step":
            turn = (torch.special.ndtr(noise[:, -1]) * len(self.elites)).long()
            member = self.elites[turn.clamp_max(len(self.elites) - 1)]
            noise = noise[:, :-1]
        layout = MemberLayout.of(member, self.config.members)
        inputs = torch.cat([self.standardised(x), actions], -1)
        outputs = layout.apply(self.dynamics, inputs, self.used_outputs)
        bounds = self.dynamics.logvar_min[member, 0], self.dynamics.logvar_max[member, 0]
        after = self.next_observation(x, outputs, *bounds, noise * self.noise_scale)
        outcome = layout.apply(self.head, torch.cat([inputs, self.standardised(after)], -1))
        reward, logit = outcome.unbind(-1)
        return {**state, "x": after}, reward, logit

    def _roll(
        self, worlds: Worlds, plans: Tensor, queries: Tensor, feed_last: bool = False
    ) -> tuple[State, Tensor, Tensor, Tensor]:
        if self.config.propagation == "step":
            return super()._roll(worlds, plans, queries, feed_last)
        return roll(self, worlds, plans, queries)

    def _decode(self, state: State) -> Tensor:
        return state["x"]

    def standardised(self, x: Tensor) -> Tensor:
        """Observations (..., D) as inputs of the networks."""
        return (x - self.shift) / self.scale

    def next_observation(
        self, x: Tensor, outputs: Tensor, lowest: Tensor, highest: Tensor, noise: Tensor
    ) -> Tensor:
        """The observations after x (..., D), drawn by noise (..., D) from the networks' outputs,
        with bounds of the log-variance that broadcast.
        """
        mean, logvar, logits = self._split(outputs)
        spread = (0.5 * soft_clamp(logvar, lowest, highest)).exp()
        change = torch.addcmul(mean, spread, noise)
        after = x + torch.addcmul(self.change_shift, change, self.change_scale)
        after = torch.where(self.gaussian, after, x)
        if logits.shape[-1]:
            sampled = self.categories.draw(logits.flatten(0, -2), noise.flatten(0, -2)).view_as(x)
            after = torch.where(self.categories.categorical, sampled, after)
        return after.clamp(self.low, self.high)

    @property
    def used_outputs(self) -> int:
        """Outputs of the dynamics that are in use."""
        return 2 * self.numbers + self.categories.used

    def _split(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means and unbounded log-variances (..., D), and logits of the slots in use."""
        mean, logvar = outputs[..., : self.numbers], outputs[..., self.numbers : 2 * self.numbers]
        return mean, logvar, outputs[..., 2 * self.numbers :]

    def _disagreement(self, worlds: Worlds, actions: Tensor) -> Tensor:
        """Of the elites, along the path that each world takes."""
        steps = actions.shape[1]
        times = worlds.present[:, None] + torch.arange(steps, device=actions.device)
        path = self._predict(worlds, Queries(times, actions[:, None]), True).observations
        assert path is not None
        x = path[:, :, 0]  # (B, S, L, D), before each action
        encoded = self._plans(actions[:, None], len(actions), steps)  # (B, 1, L, features)
        inputs = torch.cat([self.standardised(x), encoded.expand(*x.shape[:3], -1)], -1)
        every = inputs.flatten(0, 2).expand(self.config.members, -1, -1)
        outputs = self.dynamics(every, self.used_outputs)[self.elites]
        moves = self.gaussian.clone()
        means, _, logits = self._split(outputs)
        if logits.shape[-1]:
            means = torch.where(self.gaussian, means, self.categories.mean(logits) / self.scale)
            moves |= self.categories.categorical
        spread = means.std(0, correction=0).square()[:, moves].mean(-1).sqrt()
        return spread.view(x.shape[:3]).mean(-1)

    # -- training --------------------------------------------------------------------------------

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """Negative log likelihood of all steps of the scenes, for each member, and summed.

        That of the observation is per Gaussian number and categorical group, so that
        ``weight_decay`` means the same for all sizes.
        ``progress`` is not used: nothing is annealed.

        Returns:
            ``nll`` per number or group, ``mse`` of standardised changes, ``reward`` (a squared
            error, standardised) and ``continue`` in nats; means over members and steps.
        """
        segment = teacher_forcing.take_segment(scenes, self.spec, scenes.actions.shape[1])
        parts = self._errors(segment, self._counts(scenes, segment, generator))
        bounds = (self.dynamics.logvar_max - self.dynamics.logvar_min)[..., self.gaussian].sum()
        *factors, last = self.config.weight_decay
        decay = self.dynamics.decay((*factors, last)) + self.head.decay((last,) * 3)
        total = (parts["nll"] + parts["reward"] + parts["continue"]).sum()
        total = total + BOUNDS_WEIGHT * bounds + decay
        means = {name: value.detach().mean() for name, value in parts.items()}
        return Losses(total, {"loss": total.detach(), **means})

    def holdout_errors(
        self, scenes: SceneBatch, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """(members,): of the dynamics, standardised squared errors and nats of what is categorical,
        per number or group; of the head, squared error of the reward and nats of the end.
        """
        segment = teacher_forcing.take_segment(scenes, self.spec, scenes.actions.shape[1])
        parts = self._errors(segment, None)
        return {"dynamics": parts["error"], "head": parts["reward"] + parts["continue"]}

    @torch.no_grad()
    def calibrate(self, errors: Mapping[str, Tensor], scenes: Iterable[SceneBatch]) -> None:
        """The elites are those whose dynamics have the lowest errors. Together they are a mixture
        of Gaussians, whose spread is scaled until 90% of what was held out lies within its 90%
        intervals (a recalibration as that of Kuleshov et al. 2018, by one factor for each number).
        What the members disagree about is not scaled, so intervals may stay too wide.
        """
        self.elites.copy_(errors["dynamics"].argsort()[: len(self.elites)].sort().values)
        off = [self._deviations(batch) for batch in scenes]
        if sum(each.shape[2] for each in off) < CALIBRATED_ON:
            return
        deviation, spread = torch.cat(off, 2)
        low, high = (torch.full_like(self.noise_scale, bound).log() for bound in SCALES)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = torch.special.ndtr(deviation / (middle.exp() * spread)).mean(0)
            within = ((below > 0.05) & (below < 0.95)).float().mean(0)
            low = torch.where(within < 0.9, middle, low)
            high = torch.where(within < 0.9, high, middle)
        self.noise_scale.copy_(torch.where(self.gaussian, high.exp(), 1.0))

    def _deviations(self, scenes: SceneBatch) -> Tensor:
        """By how much each elite's mean misses, and its spread: (2, elites, n, D)."""
        segment = teacher_forcing.take_segment(scenes, self.spec, scenes.actions.shape[1])
        valid = segment.valid.flatten() > 0
        before, after = (
            part.flatten(0, 1)[valid]
            for part in (segment.observations[:, :-1], segment.observations[:, 1:])
        )
        inputs = torch.cat([self.standardised(before), segment.actions.flatten(0, 1)[valid]], -1)
        off, logvar, _ = self._deviation(before, inputs, after)
        return torch.stack([-off, (0.5 * logvar).exp()])[:, self.elites]

    def _deviation(
        self, before: Tensor, inputs: Tensor, after: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """By how much each member's mean misses the change from ``before`` to ``after`` (n, D),
        standardised, its log-variance, (members, n, D) each, and its logits.
        """
        every = inputs.expand(self.config.members, -1, -1)
        mean, logvar, logits = self._split(self.dynamics(every, self.used_outputs))
        logvar = soft_clamp(logvar, self.dynamics.logvar_min, self.dynamics.logvar_max)
        off = mean - (after - before - self.change_shift) / self.change_scale
        return off, logvar, logits

    def _errors(self, segment: teacher_forcing.Segment, counts: Tensor | None) -> dict[str, Tensor]:
        """Means over valid steps, (members,) each; ``counts`` (members, n) is what each counts."""
        before, after = segment.observations[:, :-1].flatten(0, 1), segment.observations[:, 1:]
        after, valid = after.flatten(0, 1), segment.valid.flatten()
        members = self.config.members
        weights = valid.expand(members, -1) if counts is None else valid * counts
        inputs = torch.cat([self.standardised(before), segment.actions.flatten(0, 1)], -1)
        off, logvar, logits = self._deviation(before, inputs, after)
        error = off.square()
        nll = (0.5 * (error * (-logvar).exp() + logvar) * self.gaussian).sum(-1)
        squared = (error * self.gaussian).sum(-1)
        surprise = torch.zeros_like(nll)
        if logits.shape[-1]:
            surprise = self.categories.nll(logits, after)
        inputs = torch.cat([inputs, self.standardised(after)], -1)
        outcome = self.head(inputs.expand(members, -1, -1)).flatten(0, 1)
        rewards, ended, every = (
            part.flatten().repeat(members)[:, None]
            for part in (segment.rewards, segment.ended, torch.ones_like(segment.valid))
        )
        reward, logit = outcome[:, :1], outcome[:, 1:]
        scored = self.reward_scale.nll(rewards, ended, every, reward, logit, 0.5)
        earned, ending = (part.view(members, -1) for part in scored)
        variables = (self.gaussian.sum() + self.categories.group.max() + 1).clamp_min(1)
        each = {
            "nll": (nll + surprise) / variables,
            "error": (squared + surprise) / variables,
            "mse": squared / variables,
            "reward": earned,
            "continue": ending,
        }
        total = valid.sum().clamp_min(1)
        return {name: (weights * value).sum(1) / total for name, value in each.items()}

    def _counts(
        self,
        scenes: SceneBatch,
        segment: teacher_forcing.Segment,
        generator: torch.Generator | None,
    ) -> Tensor:
        """How often each member counts each step, (members, n): Poisson(1), 1 without bootstrap.

        A function of the step's number in the recording; where there is none, each step is new.
        """
        members, device = torch.arange(self.config.members)[:, None], scenes.lengths.device
        size = len(members), segment.valid.numel()
        if not self.config.bootstrap:
            return torch.ones(size, device=device)
        if isinstance(scenes, RecordedBatch):
            numbers = scenes.rows[:, None] + torch.arange(segment.steps, device=device)
            names = hashed(numbers.flatten(), members.to(device))
            uniform = high_bits(names) * 2.0**-24
        else:
            uniform = torch.rand(size, generator=generator, device=device)
        return torch.bucketize(uniform, torch.tensor(POISSON, device=device)).float()

    # -- scales ----------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, source: SceneSource) -> None:
        """Learn scales, categories and limits, in float64; again at each fit, from all its data.

        What the networks compute stays the same: their first and last layers take up the change of
        the scales. Where categories changed, their logits begin anew.
        """
        data = Recorded.of(source, self.spec)
        groups = data.groups(self.config.values, self.config.slots)
        if self.categories.set(groups):
            self.dynamics.blank_outputs(slice(2 * self.numbers, None))
        change = data.after - data.before
        gaussian = (change != 0).any(0) & ~self.categories.categorical
        fresh = gaussian & ~self.gaussian
        least = torch.minimum(data.before.amin(0), data.after.amin(0))
        most = torch.maximum(data.before.amax(0), data.after.amax(0))
        scale, shift = moments(data.before)
        scale = torch.where(  # rare values would be far out
            self.categories.categorical,
            torch.maximum(scale, RARE * (most - least)),
            scale,
        )
        change_scale, change_shift = moments(change)
        margin = FAR * (most - least)
        scales = (
            (self.shift, shift), (self.scale, scale), (self.change_shift, change_shift),
            (self.change_scale, change_scale), (self.gaussian, gaussian),
            (self.low, torch.where(gaussian, least - margin, -torch.inf)),
            (self.high, torch.where(gaussian, most + margin, torch.inf)),
        )  # fmt: skip
        before = {name: value.clone() for name, value in self.named_buffers()}
        for buffer, value in scales:
            buffer.copy_(value)
        self.reward_scale.learn(data.rewards)
        if bool(self.prepared):
            self._compensate(before)
            for columns in (0, self.numbers):
                self.dynamics.blank_outputs(columns + fresh.nonzero().flatten())
        self.prepared.fill_(True)

    def _compensate(self, before: Mapping[str, Tensor]) -> None:
        """Change the weights such that the networks mean what they meant before, in new scales."""
        numbers, features = self.numbers, self.spec.action.features
        self.dynamics.shift_inputs(0, before["shift"], before["scale"], self.shift, self.scale)
        for first in (0, numbers + features):
            self.head.shift_inputs(first, before["shift"], before["scale"], self.shift, self.scale)
        ratio = before["change_scale"] / self.change_scale
        moved = (before["change_shift"] - self.change_shift) / self.change_scale
        self.dynamics.shift_outputs(slice(0, numbers), ratio, moved)
        log = 2 * ratio.log()
        self.dynamics.biases[-1][..., numbers : 2 * numbers] += log
        self.dynamics.logvar_min.add_(log)
        self.dynamics.logvar_max.add_(log)
        old = before["reward_scale.spread"], before["reward_scale.mean"]
        scale: RewardScale = self.reward_scale
        ratio, moved = old[0] / scale.spread, (old[1] - scale.mean) / scale.spread
        self.head.shift_outputs(slice(0, 1), ratio, moved)
