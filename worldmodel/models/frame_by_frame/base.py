"""The one rollout loop of all frame-by-frame models: to see time t, walk every step before it."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from worldmodel.base import UnsupportedQuery, WorldModel
from worldmodel.models.layers.rewards import symexp
from worldmodel.spec import Spec
from worldmodel.types import Belief, Context, Queries, StepPrediction, Worlds

State = dict[str, Tensor]

# Entries of a belief or a world that the loop keeps; all others are the model's own.
FRAME = "frame"  # (..., C, H, W), what the present shows: seen after observe, made after advance
NOISE = "noise"  # (B, S, W, *noise_shape), the randomness of the step from time t at index t


class Stride(NamedTuple):
    """One step of a rollout over P worlds.

    Attributes:
        state: entries (P, ...), before anything was fed back.
        frame: float32 (P, C, H, W), or None where nobody needs it.
        reward: float32 (P,), in symlog space.
        logit: float32 (P,), of the probability that the episode goes on.
    """

    state: State
    frame: Tensor | None
    reward: Tensor
    logit: Tensor


class FrameByFrame(WorldModel):
    """A model whose state moves on one step at a time.

    The context must hold the frames that ``_history`` names (by default every frame from time 0 to
    the present of its row), in any order along M; rows may have different presents. A world pins
    the noise of each absolute time, so any two rollouts of it that take the same actions show the
    same frames. Queries before the present raise ``UnsupportedQuery``; a query at the present shows
    the present's frame.

    Subclasses describe one step: ``noise_shape``, ``_start``, ``_step``, ``_look`` and ``_feed``.
    State entries lead with the batch axis. Batch normalisation uses its running statistics in all
    three verbs, whatever the mode of the module: no world depends on its neighbours.

    Attributes:
        feeds_back: whether a step needs the frame of the step before. Then every frame but the
            last is decoded, also with ``frames=False``; otherwise only those that are asked for.
    """

    jumpy: ClassVar[bool] = False
    feeds_back: ClassVar[bool]

    def __init__(self, spec: Spec, config: Any) -> None:
        if spec.pose:
            raise ValueError(
                f"spec: {self.name} steps through time and cannot look from camera poses; a jumpy "
                "model can"
            )
        super().__init__(spec, config)
        self.gap = 1

    # -- what a subclass says --------------------------------------------------------------------

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard normal noise of one step of one world."""

    def _history(self, present: Tensor) -> Tensor:
        """The times (B, T) whose frames ``_start`` reads; a row ends with its present (B,).

        Times behind a row's present are padding.
        """
        count = torch.arange(int(present.max()) + 1, device=present.device)
        return count.expand(len(present), -1)

    @abstractmethod
    def _start(self, frames: Tensor, actions: Tensor, present: Tensor) -> State:
        """The state at the present, by teacher forcing.

        Args:
            frames: float32 (B, T, C, H, W) of the times ``_history(present)``, zeros behind a
                row's present.
            actions: float32 (B, latest present, action features), zeros behind a row's present.
            present: int64 (B,).
        """

    def _begin(self, state: State, n: int, generator: torch.Generator | None) -> State:
        """Entries (B, n, ...) of n worlds at the present, from the belief's (B, ...).

        Here a model draws what is fixed for a whole world; ``noise_shape`` is each step's own.
        """
        return {
            name: value.unsqueeze(1).expand(-1, n, *value.shape[1:])
            for name, value in state.items()
        }

    @abstractmethod
    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        """One step: actions (P, stride * action features) and noise (P, \\*noise_shape).

        Returns:
            the state, the reward in symlog space (P,) and the logit of going on (P,).
        """

    @abstractmethod
    def _look(self, state: State) -> Tensor:
        """The frame (P, C, H, W) of a state that ``_step`` returned."""

    def _feed(self, state: State, frame: Tensor) -> State:
        """Take in the frame (P, C, H, W) that ``_look`` showed; called where ``feeds_back``, and at
        the end of ``advance`` always. Returns the entries that ``_start`` returns, no others.
        """
        return state

    # -- the loop --------------------------------------------------------------------------------

    def _roll(
        self, state: State, actions: Tensor, noise: Tensor, wanted: Collection[int]
    ) -> Iterator[Stride]:
        """Walk L steps.

        Args:
            state: entries (P, ...).
            actions: float32 (P, L, stride * action features).
            noise: float32 (Q, L, \\*noise_shape), of worlds of P / Q plans each.
            wanted: the steps, counted from 1, whose frames are asked for.
        """
        length = actions.shape[1]
        plans = len(actions) // max(len(noise), 1)
        for step in range(1, length + 1):
            drawn = noise[:, step - 1]
            if plans > 1:  # one step at a time: all steps of all plans may not fit into memory
                drawn = drawn.repeat_interleave(plans, 0)
            state, reward, logit = self._step(state, actions[:, step - 1], drawn)
            fed = self.feeds_back and step < length
            frame = self._look(state) if fed or step in wanted else None
            yield Stride(state, frame, reward, logit)
            if fed and frame is not None:
                state = self._feed(state, frame)

    # -- the three verbs -------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        """Condition on the frames that ``_history`` names.

        Raises:
            UnsupportedQuery: a row lacks one of them, or shows one twice.
        """
        present = context.present_times()
        times = self._history(present)
        behind = times > present.unsqueeze(1)
        frames = self._frames_at(context, torch.minimum(times, present.unsqueeze(1)))
        actions = self._taken(context.actions, present, int(present.max()))
        with running_statistics(self):
            hidden = behind[..., None, None, None]
            state = self._start(frames.masked_fill(hidden, 0.0), actions, present)
        return Belief(present, {**state, FRAME: frames[:, -1]})  # padding repeats the present

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        own, now = dict(belief.state), belief.state[FRAME]
        del own[FRAME]
        with running_statistics(self):
            state = self._begin(own, n, generator)
        shape = (len(now), n, self.spec.window, *self.noise_shape)
        noise = torch.randn(shape, generator=generator, device=now.device, dtype=now.dtype)
        frame = now.unsqueeze(1).expand(-1, n, -1, -1, -1)
        return Worlds(belief.present, {**state, FRAME: frame, NOISE: noise})

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        batch, steps = actions.shape[:2]
        if steps == 0:
            return worlds
        if steps % self.stride:
            raise UnsupportedQuery(
                f"actions: {self.name} takes {self.stride} steps at once, got {steps}"
            )
        plans = self._plans(actions.unsqueeze(1), batch, steps)
        with running_statistics(self):
            strides = self._roll(*self._spread(worlds, plans), wanted=(plans.shape[2],))
            last = deque(strides, maxlen=1).pop()
            assert last.frame is not None  # it was wanted
            state = self._feed(last.state, last.frame)
        moved = {**state, FRAME: last.frame}.items()
        split = {name: value.unflatten(0, worlds.shape) for name, value in moved}
        return Worlds(worlds.present + steps, {**split, NOISE: worlds.state[NOISE]})

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        """Roll all B * S * N worlds from their presents to the farthest query.

        Memory: each rollout holds its own copy of the state. With ``frames=False`` nothing is
        returned, but a model that feeds back still decodes what its recurrence needs.
        """
        present, times = worlds.present, queries.times
        self._check_ahead(present, times)
        ahead = times - present.unsqueeze(1)
        offset = ahead // self.stride
        batch, count = worlds.shape
        plans = self._plans(queries.actions, batch, int(ahead.max()))
        lead = (batch, count, plans.shape[1])
        answer = _Frames(worlds.state[FRAME], offset, lead[2]) if frames else None
        rewards, logits = [], []
        with running_statistics(self):
            wanted = answer.wanted if answer is not None else ()
            strides = self._roll(*self._spread(worlds, plans), wanted=wanted)
            for step, stride in enumerate(strides, 1):
                rewards.append(stride.reward)
                logits.append(stride.logit)
                if answer is not None and stride.frame is not None:
                    answer.put(step, stride.frame.unflatten(0, lead))
        if rewards:
            reward = symexp(torch.stack(rewards, -1).unflatten(0, lead))
            logit = torch.stack(logits, -1).unflatten(0, lead)
        else:  # all queries are at the present
            reward = logit = worlds.state[FRAME].new_zeros(*lead, 0)
        return StepPrediction(reward, logit, answer.frames if answer is not None else None)

    # -- shapes ----------------------------------------------------------------------------------

    def _frames_at(self, context: Context, times: Tensor) -> Tensor:
        """The frames (B, T, C, H, W) of the times (B, T), which may repeat.

        Raises:
            UnsupportedQuery: a row does not show each of its times exactly once.
        """
        shown = (context.times.unsqueeze(1) == times.unsqueeze(2)) & context.full_mask()[:, None]
        right = (shown.sum(2) == 1).all(1)
        if not bool(right.all()):
            row = int((~right).long().argmax())
            needed, found = times[row].unique().tolist(), shown[row].any(1)
            lacking = sorted(set(needed) - set(times[row][found].tolist()))
            wrong = f"lacks the times {lacking}" if lacking else "shows a time more than once"
            raise UnsupportedQuery(
                f"context.times: {self.name} needs the frames of the times {needed}, each once; "
                f"scene {row}, whose present is {int(context.present_times()[row])}, {wrong}"
            )
        rows = torch.arange(len(times), device=times.device).unsqueeze(1)
        return context.observations[rows, shown.long().argmax(2)]

    def _taken(self, actions: Tensor | None, lengths: Tensor, steps: int) -> Tensor:
        """Features (B, steps, ...) of actions taken; zeros behind a row's length, never read."""
        spec, batch = self.spec.action, len(lengths)
        if self.spec.passive or actions is None or steps == 0:
            return torch.zeros(batch, steps, spec.features, device=self.device)
        behind = torch.arange(steps, device=lengths.device) >= lengths.unsqueeze(1)
        shape = (batch, steps, *[1] * len(spec.shape))
        cleared = actions[:, :steps].masked_fill(behind.reshape(shape), 0)
        return spec.encode(cleared).masked_fill(behind.unsqueeze(-1), 0.0)

    def _plans(self, actions: Tensor | None, batch: int, steps: int) -> Tensor:
        """Features (B, N, steps / stride, ...) of plans; N is 1 where nothing is decided."""
        if self.spec.passive or actions is None:
            features = self.stride * self.spec.action.features
            return torch.zeros(batch, 1, steps // self.stride, features, device=self.device)
        encoded = self.spec.action.encode(actions[:, :, :steps])
        strides: Tensor = encoded.unflatten(2, (steps // self.stride, self.stride)).flatten(3)
        return strides

    def _spread(self, worlds: Worlds, plans: Tensor) -> tuple[State, Tensor, Tensor]:
        """State and actions of P = B * S * N rollouts, and the noise of the B * S worlds; plans are
        (B, N, L, features).
        """
        batch, count = worlds.shape
        n, steps = plans.shape[1:3]
        own = {name: value for name, value in worlds.state.items() if name not in (FRAME, NOISE)}
        state = {name: v.flatten(0, 1).repeat_interleave(n, 0) for name, v in own.items()}
        actions = plans.unsqueeze(1).expand(-1, count, -1, -1, -1).flatten(0, 2)
        rows = torch.arange(batch, device=plans.device).unsqueeze(1)
        strides = self.stride * torch.arange(steps, device=plans.device)
        index = worlds.present.unsqueeze(1) + strides
        # a row that is not asked so far may walk past the window: its last noise will do
        noise = worlds.state[NOISE][rows, :, index.clamp_max(self.spec.window - 1)]
        return state, actions, noise.transpose(1, 2).flatten(0, 1)

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


class _Frames:
    """The answer (B, S, N, K, C, H, W), filled as the rollout passes the queries."""

    def __init__(self, now: Tensor, offset: Tensor, plans: int) -> None:
        """``now`` (B, S, C, H, W) is the present's frame, ``offset`` (B, K) steps from there."""
        self.frames = now[:, :, None, None].repeat(1, 1, plans, offset.shape[1], 1, 1, 1)
        self.wanted: dict[int, tuple[list[int], list[int]]] = {}
        for row, line in enumerate(offset.tolist()):
            for query, step in enumerate(line):
                rows, places = self.wanted.setdefault(step, ([], []))
                rows.append(row)
                places.append(query)

    def put(self, step: int, frame: Tensor) -> None:
        """Write a step's frame (B, S, N, C, H, W) wherever it was asked for."""
        if step in self.wanted:
            rows, places = self.wanted[step]
            self.frames[rows, :, :, places] = frame[rows]


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation reads its running statistics and leaves them alone."""
    busy = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    for norm in busy:
        norm.train(False)
    try:
        yield
    finally:
        for norm in busy:
            norm.train(True)


def keep(rows: Tensor, new: State, old: State) -> State:
    """``new`` in the rows (B,) that are True, ``old`` in the others, entry by entry."""
    return {
        name: torch.where(rows.reshape(-1, *[1] * (value.dim() - 1)), value, old[name])
        for name, value in new.items()
    }
