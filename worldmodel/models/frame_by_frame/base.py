"""The rollout loop of all frame-by-frame models, which pass through every step up to a query."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from worldmodel.base import UnsupportedQuery, WorldModel
from worldmodel.rewards import RewardScale
from worldmodel.spec import Spec
from worldmodel.types import Belief, Context, Queries, StepPrediction, Worlds

State = dict[str, Tensor]

# Entries of beliefs and worlds that belong to the loop; all others are the model's own.
OBSERVATION = "observation"  # (..., *obs), at the present: recorded, or after ``advance`` predicted
NOISE = "noise"  # (B, S, W, *noise_shape), the randomness of the step from time t at index t


class FrameByFrame(WorldModel):
    """A model whose state moves on one step at a time; observations are images or vectors.

    The context must hold the observations at the times of ``_history`` (by default every time from
    0 to the present of its row), in any order along M; rows may have different presents. A world
    fixes the noise of each absolute time, so any two rollouts of it that take the same actions give
    the same observations. Queries before the present raise ``UnsupportedQuery``; a query at the
    present returns the present's observation.

    Subclasses describe one step: ``noise_shape``, ``_start``, ``_step``, ``_decode`` and
    ``_feed_back``. State entries lead with the batch axis. Batch normalisation uses its running
    statistics in all three verbs, whatever the mode of the module, so that no world depends on the
    others of its batch. In the shapes below, P counts rollouts and obs is (C, H, W) or (D,).

    Attributes:
        noise_shape: of the standard normal noise of one step of one world; a subclass sets it.
        feeds_back: whether a step needs the observation of the step before. If so, all but the
            last are decoded, also with ``frames=False``; otherwise only those that are queried.
    """

    jumpy: ClassVar[bool] = False
    feeds_back: ClassVar[bool]
    noise_shape: tuple[int, ...]

    def __init__(self, spec: Spec, config: Any) -> None:
        if spec.pose:
            raise ValueError(
                f"spec: {self.name} steps through time and cannot look from camera poses; a jumpy "
                "model can"
            )
        super().__init__(spec, config)
        self.gap = 1
        self.reward_scale = RewardScale()

    # -- what a subclass implements --------------------------------------------------------------

    def _history(self, present: Tensor) -> Tensor:
        """The times (B, T) whose observations ``_start`` reads; a row ends with its present (B,).

        Times after a row's present are padding.
        """
        count = torch.arange(int(present.max()) + 1, device=present.device)
        return count.expand(len(present), -1)

    @abstractmethod
    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        """The state at the present, by teacher forcing.

        Args:
            observations: float32 (B, T, \\*obs) at the times ``_history(present)``, zeros after a
                row's present.
            actions: float32 (B, latest present, action features), zeros after a row's present.
            present: int64 (B,).
        """

    def _sample_state(self, state: State, n: int, generator: torch.Generator | None) -> State:
        """Entries (B, n, ...) of n worlds at the present, from the belief's (B, ...).

        A model overrides this to draw what is fixed for a whole world; ``noise_shape`` is each
        step's own.
        """
        return {
            name: value.unsqueeze(1).expand(-1, n, *value.shape[1:])
            for name, value in state.items()
        }

    @abstractmethod
    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        """One step: actions (P, stride * action features) and noise (P, \\*noise_shape).

        Returns:
            the state, which may have further entries for ``_decode``; the reward on its scale
            (P,) and the logit of the episode's continuation (P,).
        """

    @abstractmethod
    def _decode(self, state: State) -> Tensor:
        """The observation (P, \\*obs) of a state that ``_step`` returned."""

    def _feed_back(self, state: State, observation: Tensor) -> State:
        """The entries that the observation (P, \\*obs) of ``state`` replaces before the next step.

        Called where ``feeds_back``, and at the end of ``advance``.
        """
        return {}

    # -- the loop --------------------------------------------------------------------------------

    def _roll(
        self, worlds: Worlds, plans: Tensor, queries: Tensor, feed_last: bool = False
    ) -> tuple[State, Tensor, Tensor, Tensor]:
        """Take L steps from the present, in each of B * S * N rollouts.

        Args:
            worlds: B x S worlds.
            plans: float32 (B, N, L, stride * action features).
            queries: int64 (B, K), steps after the present whose observations are returned.
            feed_last: whether the last of them, which is queried, is fed back.

        Returns:
            the last state (B * S * N, ...); rewards on their scale and continuation logits, both
            (B, S, N, L); observations (B, S, N, K, \\*obs).
        """
        (batch, count), (n, steps) = worlds.shape, plans.shape[1:3]
        lead = (batch, count, n)
        present = worlds.state[OBSERVATION][:, :, None, None]
        observations = present.repeat(1, 1, n, queries.shape[1], *[1] * (present.dim() - 4))
        state = {
            name: value.flatten(0, 1).repeat_interleave(n, 0)
            for name, value in worlds.state.items()
            if name not in (OBSERVATION, NOISE)
        }
        names = list(state)
        actions = plans.unsqueeze(1).expand(-1, count, -1, -1, -1).flatten(0, 2)
        times = worlds.present[:, None] + self.stride * torch.arange(steps, device=plans.device)
        # a row whose queries are nearer may pass the end of the window: it repeats its last noise
        times = times.clamp_max(self.spec.window - 1)
        noise = at_times(worlds.state[NOISE].transpose(1, 2), times)  # (B, L, S, *noise_shape)
        rewards: list[Tensor] = []
        logits: list[Tensor] = []
        queries = queries.cpu()
        for step in range(1, steps + 1):
            # expanded to the plans one step at a time: all steps at once may not fit into memory
            step_noise = noise[:, step - 1].flatten(0, 1).repeat_interleave(n, 0)
            state, reward, logit = self._step(state, actions[:, step - 1], step_noise)
            rewards.append(reward)
            logits.append(logit)
            feed = self.feeds_back if step < steps else feed_last
            rows, columns = (queries == step).nonzero(as_tuple=True)
            if feed or len(rows):
                observation = self._decode(state)
            if len(rows):
                answered = observation.unflatten(0, lead)[rows]
                observations[rows, :, :, columns] = answered.to(observations.dtype)
            if feed:
                own = {name: state[name] for name in names}
                state = {**own, **self._feed_back(state, observation)}
        none = plans.new_zeros(len(actions), 0)
        reward, logit = (
            (torch.stack(each, 1) if each else none).unflatten(0, lead)
            for each in (rewards, logits)
        )
        return state, reward, logit, observations

    # -- the three verbs -------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        """Condition on the observations at the times of ``_history``.

        Raises:
            UnsupportedQuery: a row lacks one of them, or has one twice.
        """
        present = context.present_times()
        times, latest = self._history(present), present.unsqueeze(1)
        observations = self._observations_at(context, torch.minimum(times, latest))
        padding = broadcast(times > latest, observations)
        actions = self._past_actions(context.actions, present)
        with running_statistics(self):
            state = self._start(observations.masked_fill(padding, 0.0), actions, present)
        return Belief(present, {**state, OBSERVATION: observations[:, -1]})  # padding repeats it

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        own = dict(belief.state)
        present = own.pop(OBSERVATION)
        with running_statistics(self):
            state = self._sample_state(own, n, generator)
        shape = (len(present), n, self.spec.window, *self.noise_shape)
        noise = torch.randn(shape, generator=generator, device=present.device, dtype=present.dtype)
        observation = present.unsqueeze(1).expand(-1, n, *present.shape[1:])
        return Worlds(belief.present, {**state, OBSERVATION: observation, NOISE: noise})

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        if actions.shape[1] == 0:
            return worlds
        batch, steps = actions.shape[:2]
        if steps % self.stride:
            raise UnsupportedQuery(
                f"actions: {self.name} takes {self.stride} steps at once, got {steps}"
            )
        plans = self._plans(actions.unsqueeze(1), batch, steps)
        end = torch.full((batch, 1), plans.shape[2])
        with running_statistics(self):
            state, _, _, observations = self._roll(worlds, plans, end, feed_last=True)
        return self._advanced(worlds, steps, state, observations[:, :, 0, 0])

    def _advanced(self, worlds: Worlds, steps: int, state: State, latest: Tensor) -> Worlds:
        """The worlds after so many steps, in which they came to a state and its observation."""
        own = {name: value.unflatten(0, worlds.shape) for name, value in state.items()}
        return Worlds(
            worlds.present + steps, {**own, OBSERVATION: latest, NOISE: worlds.state[NOISE]}
        )

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        """Roll all B * S * N worlds from their presents to the farthest query.

        Memory: each rollout holds its own copy of the state. With ``frames=False`` no observation
        is returned, but a model that feeds back still decodes what its recurrence needs.
        """
        self._check_ahead(worlds.present, queries.times)
        ends = (queries.times - worlds.present.unsqueeze(1)) // self.stride
        plans = self._plans(queries.actions, len(ends), queries.ahead(worlds.present))
        if not frames:
            ends = ends[:, :0]
        with running_statistics(self):
            _, reward, logit, observations = self._roll(worlds, plans, ends)
        return StepPrediction(
            self.reward_scale.decode(reward), logit, observations if frames else None
        )

    def _step_on(
        self, worlds: Worlds, queries: Queries, frames: bool
    ) -> tuple[StepPrediction, Worlds]:
        assert queries.actions is not None
        batch, steps = len(worlds.present), queries.actions.shape[2]
        if steps == 0 or steps % self.stride:
            return super()._step_on(worlds, queries, frames)
        self._check_ahead(worlds.present, queries.times)
        plans = self._plans(queries.actions, batch, steps)
        ends = torch.full((batch, 1), plans.shape[2], device=queries.times.device)
        if frames:
            ahead = (queries.times - worlds.present.unsqueeze(1)) // self.stride
            ends = torch.cat([ahead, ends], 1)
        with running_statistics(self):
            state, reward, logit, path = self._roll(worlds, plans, ends, feed_last=True)
        predicted = StepPrediction(
            self.reward_scale.decode(reward), logit, path[:, :, :, :-1] if frames else None
        )
        return predicted, self._advanced(worlds, steps, state, path[:, :, 0, -1])

    # -- shapes ----------------------------------------------------------------------------------

    def _observations_at(self, context: Context, times: Tensor) -> Tensor:
        """The context's observations (B, T, \\*obs) at the times (B, T), which may repeat.

        Raises:
            UnsupportedQuery: a row does not have each of its times exactly once.
        """
        matches = (context.times.unsqueeze(1) == times.unsqueeze(2)) & context.full_mask()[:, None]
        complete = (matches.sum(2) == 1).all(1)
        if not bool(complete.all()):
            row = int((~complete).long().argmax())
            needed, given = times[row].unique().tolist(), times[row][matches[row].any(1)].tolist()
            lacking = sorted(set(needed) - set(given))
            wrong = f"lacks the times {lacking}" if lacking else "shows a time more than once"
            raise UnsupportedQuery(
                f"context.times: {self.name} needs the frames of the times {needed}, each once; "
                f"scene {row}, whose present is {int(context.present_times()[row])}, {wrong}"
            )
        return at_times(context.observations, matches.long().argmax(2))

    def _past_actions(self, actions: Tensor | None, present: Tensor) -> Tensor:
        """Features (B, latest present, ...) of the actions so far, zeros after a row's present.

        What stands there in ``actions`` (B, T, \\*action) is never read.
        """
        spec, steps = self.spec.action, int(present.max())
        if self.spec.passive or actions is None or steps == 0:
            return torch.zeros(len(present), steps, spec.features, device=self.device)
        padding = torch.arange(steps, device=present.device) >= present.unsqueeze(1)
        cleared = spec.cleared(actions[:, :steps], padding)
        return spec.encode(cleared).masked_fill(padding.unsqueeze(-1), 0.0)

    def _plans(self, actions: Tensor | None, batch: int, steps: int) -> Tensor:
        """Features (B, N, steps / stride, ...) of plans; N is 1 where nothing is decided."""
        if self.spec.passive or actions is None:
            features = self.stride * self.spec.action.features
            return torch.zeros(batch, 1, steps // self.stride, features, device=self.device)
        encoded = self.spec.action.encode(actions[:, :, :steps])
        strides: Tensor = encoded.unflatten(2, (steps // self.stride, self.stride)).flatten(3)
        return strides

    def _check_ahead(self, present: Tensor, times: Tensor) -> None:
        past = times < present.unsqueeze(1)
        if bool(past.any()):
            row = int(past.any(1).long().argmax())
            raise UnsupportedQuery(
                f"queries.times: {self.name} rolls forward only; scene {row} is asked for time "
                f"{int(times[row].min())}, before its present at {int(present[row])}"
            )
        if bool(((times - present.unsqueeze(1)) % self.stride).any()):
            raise UnsupportedQuery(
                f"queries.times: {self.name} takes {self.stride} steps at once; ask for times that "
                f"are multiples of {self.stride} after the present"
            )


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation reads its running statistics and leaves them alone."""
    training = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    for norm in training:
        norm.train(False)
    try:
        yield
    finally:
        for norm in training:
            norm.train(True)


def select_rows(rows: Tensor, new: State, old: State) -> State:
    """``new`` in the rows (B,) that are True, ``old`` in the others, entry by entry."""
    return {
        name: torch.where(broadcast(rows, value), value, old[name]) for name, value in new.items()
    }


def broadcast(mask: Tensor, like: Tensor) -> Tensor:
    """The mask with trailing axes of 1, as many as ``like`` has more axes."""
    return mask.reshape(*mask.shape, *[1] * (like.dim() - mask.dim()))


def at_times(values: Tensor, times: Tensor) -> Tensor:
    """Of values (B, T, ...) those at the times (B, \\*n), which may repeat: (B, \\*n, ...)."""
    rows = torch.arange(len(values), device=values.device)
    return values[broadcast(rows, times), times]
