"""What has been seen of some scenes, and what may follow: the torch API under every agent.

imagination = Imagination(model, seed=0)
imagination.reset(observations)                  # uint8 (B, H, W, C), the first frames
imagination.observe(actions, observations)       # the actions (B, T) since, and what they led to
worlds = imagination.worlds(4)                   # B x 4 sampled worlds
scores = imagination.score(worlds, plans)        # (B, N), no frame is rendered
frames = imagination.render(worlds, times, plans)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import actions as action_border
from agents.history import Frames, History, check_frames, to_context
from agents.values import Value, beyond
from worldmodel.base import WorldModel
from worldmodel.types import Belief, Context, Prediction, Queries, Worlds

FRAME = 32
"""A rendered frame counts as that many steps of a plan, where work is cut into chunks."""


@dataclass(frozen=True)
class Seen:
    """All that an ``Imagination`` knows of its scenes, to go on from later. Immutable.

    Attributes:
        histories: one per scene.
        belief: what the model makes of them; None where that is not yet computed.
    """

    histories: tuple[History, ...]
    belief: Belief | None = None


class Imagination:
    """B scenes as far as they have been seen, and a world model that says what may follow.

    Nothing here knows how the model works. Scenes may have different presents.

    A model looks across a window of ``model.spec.window`` steps. When fewer than ``ahead`` steps
    of it are left, the scene is **re-anchored**: the latest frame becomes time 0 of a new window,
    so that as many steps as possible are left, and what was before is forgotten. Of more frames
    than ``model.max_context`` the first and the most recent ones count.

    A belief is kept, and a frame more costs its encoding (and that of the frame which is forgotten
    for it, if one is), however many were seen before; models that cannot add to a belief
    (``model.extends``) encode all that counts once for each new frame.

    A frame-by-frame model needs consecutive frames. Observe every frame and it is given all of
    them (at most the latest ``max_context``); where frames in between are hidden, as ``HoldAction``
    hides them, the scene is re-anchored at the latest frame (unless ``model.gap`` allows as many).

    Args:
        model: any world model; it is put into evaluation mode.
        seed: of the generator that worlds are drawn from.
        ahead: the steps that shall always be left for plans.
        chunk: ``score`` hands the model at most about that many worlds x plans x steps at once;
            a frame that is rendered for a value counts as 32 steps.

    Raises:
        TypeError: ``model`` is not a ``WorldModel``.
        ValueError: ``ahead`` is not in [1, window], or ``chunk`` is below 1.
    """

    def __init__(
        self, model: WorldModel, seed: int = 0, ahead: int = 1, chunk: int = 2**15
    ) -> None:
        if not isinstance(model, WorldModel):
            raise TypeError(f"model: expected a WorldModel, got {type(model).__name__}")
        if not 1 <= ahead <= model.spec.window:
            raise ValueError(
                f"ahead: expected between 1 and the model's window of {model.spec.window} steps, "
                f"got {ahead}"
            )
        if chunk < 1:
            raise ValueError(f"chunk: expected at least 1, got {chunk}")
        self.model = model.eval()
        self.spec = model.spec
        self.ahead = ahead
        self.chunk = chunk
        self.generator = torch.Generator(model.device).manual_seed(seed)
        self._histories: list[History] = []
        self._belief: Belief | None = None

    # -- what has been seen ----------------------------------------------------------------------

    @property
    def present(self) -> NDArray[np.int64]:
        """int64 (B,): steps since each window's origin."""
        return np.array([history.present for history in self._histories], np.int64)

    @property
    def left(self) -> NDArray[np.int64]:
        """int64 (B,): steps that are left of each window, at least ``ahead``."""
        return np.asarray(self.spec.window - self.present)

    @property
    def seen(self) -> Seen:
        """What is known by now; assign it to go on from there."""
        return Seen(tuple(self._histories), self._belief)

    @seen.setter
    def seen(self, seen: Seen) -> None:
        self._histories, self._belief = list(seen.histories), seen.belief

    def reset(self, observations: Any, rows: Sequence[int] | None = None) -> None:
        """Begin new scenes: all of them, or those of ``rows``.

        Args:
            observations: uint8 (B, H, W, C) or float32 (B, D), or one per row.
            rows: which scenes; None replaces all, and their number.

        Raises:
            TypeError, ValueError: bad images, or rows that are not there.
        """
        if rows is None:
            frames = check_frames(self.spec, observations, "observations")
            self._histories = [History.start(frame) for frame in frames]
            self._belief = None
            return
        rows = self._rows(rows)
        frames = check_frames(self.spec, observations, "observations", len(rows))
        for row, frame in zip(rows, frames, strict=True):
            self._histories[row] = History.start(frame)
        self._renew(rows)

    def observe(self, actions: Any, observations: Any, rows: Sequence[int] | None = None) -> None:
        """Add one frame to each scene (or to those of ``rows``), T steps after the last.

        Args:
            actions: (B, T, *action), what was done since the last frame, T >= 1.
            observations: uint8 (B, H, W, C) or float32 (B, D), what was seen then.
            rows: which scenes; None means all.

        Raises:
            TypeError, ValueError: bad images or actions, or rows that are not there.
        """
        rows = self._rows(rows)
        frames = check_frames(self.spec, observations, "observations", len(rows))
        taken = np.asarray(actions)
        if taken.ndim < 2 or taken.shape[0] != len(rows) or taken.shape[1] < 1:
            raise ValueError(
                f"actions: expected shape ({len(rows)}, T, *action) with T >= 1, got {taken.shape}"
            )
        if taken.shape[2:] != self.spec.action.shape:
            raise ValueError(
                f"actions: expected {self.spec.action.shape} as the shape of one action, got "
                f"{taken.shape[2:]}"
            )
        before = {row: len(self._histories[row].frames) for row in rows}
        for row, frame, own in zip(rows, frames, taken, strict=True):
            self._histories[row] = self.extend(self._histories[row], list(own), frame)
        longer = [row for row in rows if len(self._histories[row].frames) > before[row]]
        self._update(longer)
        self._renew([row for row in rows if row not in set(longer)])

    def extend(self, history: History, actions: Sequence[NDArray[Any]], frame: Frames) -> History:
        """The ``history`` with a ``frame`` more, to which the ``actions`` led.

        It is re-anchored where the rules of this class say so.
        """
        gap = self.model.gap is not None and len(actions) not in (1, self.model.gap)
        if gap or history.present + len(actions) + self.ahead > self.spec.window:
            return History.start(frame)
        longer = history.add(actions, frame)
        limit = self.model.max_context
        if not self.model.jumpy and limit is not None and len(longer.frames) > limit:
            return longer.latest(limit)
        return longer

    def context(self, rows: Sequence[int] | None = None) -> Context:
        """All scenes (or those of ``rows``) as one batch for ``model.observe``.

        Raises:
            ValueError: nothing has been seen yet.
        """
        if not self._histories:
            raise ValueError("Imagination: nothing seen yet; call reset(observations) first")
        chosen = self._rows(rows)
        return self._pairs(chosen, [self._kept(len(self._histories[row].frames)) for row in chosen])

    @torch.no_grad()
    def belief(self) -> Belief:
        """What the model makes of all that was seen; computed once for each frame."""
        if self._belief is None:
            self._belief = self.model.observe(self.context())
        return self._belief

    def _pairs(self, rows: Sequence[int], pairs: Sequence[Sequence[int]]) -> Context:
        histories = [self._histories[row] for row in rows]
        return to_context(self.spec, histories, pairs, self.model.device)

    def _kept(self, count: int) -> list[int]:
        """Which of that many frames count: the first and the latest."""
        limit = self.model.max_context
        if limit is None or count <= limit:
            return list(range(count))
        first = [0] if limit > 1 else []
        return [*first, *range(count - limit + len(first), count)]

    @torch.no_grad()
    def _renew(self, rows: Sequence[int]) -> None:
        """The belief of these rows from all their frames."""
        if self._belief is None or not rows:
            return
        if not self.model.extends or len(rows) == len(self._histories):
            self._belief = None
            return
        fresh = self.model.observe(self.context(rows))
        self._belief = self._belief.put(self._where(rows), fresh)

    @torch.no_grad()
    def _update(self, rows: Sequence[int]) -> None:
        """The belief of these rows with their latest frame, without the one that gave way."""
        if self._belief is None or not rows:
            return
        if not self.model.extends:
            self._belief = None
            return
        counts = [len(self._histories[row].frames) for row in rows]
        where = self._where(rows)
        longer = self.model.update(
            self._belief.index(where), self._pairs(rows, [[count - 1] for count in counts])
        )
        self._belief = self._belief.put(where, longer)
        lost = [
            (row, sorted(set(self._kept(count - 1)) - set(self._kept(count))))
            for row, count in zip(rows, counts, strict=True)
        ]
        gone = [(row, pairs) for row, pairs in lost if pairs]
        if gone:
            fewer, pairs = zip(*gone, strict=True)
            where = self._where(fewer)
            less = self.model.forget(self._belief.index(where), self._pairs(fewer, pairs))
            self._belief = self._belief.put(where, less)

    def _where(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(list(rows), device=self.model.device)

    # -- what may follow -------------------------------------------------------------------------

    @torch.no_grad()
    def worlds(self, n: int, generator: torch.Generator | None = None) -> Worlds:
        """``n`` worlds for each scene, from ``generator`` or this object's own."""
        own = self.generator if generator is None else generator
        return self.model.sample(self.belief(), n, own)

    @torch.no_grad()
    def score(
        self,
        worlds: Worlds,
        plans: Any,
        discount: float = 1.0,
        risk: float = 1.0,
        value: Value | None = None,
    ) -> Tensor:
        """How good plans are: the mean over worlds of ``sum_t discount^t alive_t r_t``.

        All plans meet the same worlds. Steps beyond the window's end count nothing; of a model that
        strides, neither do steps behind the last whole stride, and a stride's rewards are
        discounted as if they came at its end.

        Args:
            worlds: B x S worlds.
            plans: (B, N, L, *action), from each scene's present on.
            discount: per step, in [0, 1].
            risk: the mean is over this share of the worlds, for each plan those worst for it
                (CVaR); above 0, and 1 takes all.
            value: of observations (n, *observation): what follows the last step that counts. Adds
                ``discount^L alive_L value(frame)``; one frame per world and plan is rendered.

        Returns:
            float32 (B, N).

        Raises:
            ValueError: shapes do not fit, discount or risk lie outside of their ranges, or the
                value is not one finite number per observation.
            FloatingPointError: the model imagines NaN or infinity.
        """
        plans = self._check_score(worlds, plans, discount, risk)
        (batch, samples), present, stride = worlds.shape, worlds.present, self.model.stride
        left = (self.spec.window - present[:, None]) // stride * stride
        steps = min(plans.shape[2] // stride * stride, int(left.max()))
        ahead = torch.arange(stride, steps + 1, stride, device=present.device)
        weight = discount ** (ahead - 1).float() * (ahead <= left)  # (B, L / stride)
        ahead = torch.minimum(ahead, left)
        times = present[:, None] + ahead
        share = max(1, self.chunk // (batch * samples * steps))
        scores = []
        for part in plans[:, :, :steps].split(share, 1):
            seen = self.model.predict(worlds, Queries(times, part), frames=False)
            total = (weight[:, None, None] * seen.running * seen.rewards).sum(-1)  # (B, S, N)
            if value is not None:
                at_once = self.chunk // FRAME
                later = beyond(self.model, worlds, times[:, -1:], part, value, at_once)
                end = discount ** ahead[:, -1:, None].float() * seen.alive[..., -1]
                total = total + end * later
            if risk < 1:
                total = total.sort(1).values[:, : math.ceil(risk * samples)]
            scores.append(total.mean(1))
        found = torch.cat(scores, 1)
        check_finite(self.model, found)
        return found

    def _check_score(self, worlds: Worlds, plans: Any, discount: float, risk: float) -> Tensor:
        if not 0 <= discount <= 1:
            raise ValueError(f"discount: expected between 0 and 1, got {discount}")
        if not 0 < risk <= 1:
            raise ValueError(f"risk: expected above 0 and at most 1, got {risk}")
        batch, stride = worlds.shape[0], self.model.stride
        dims = 3 + len(self.spec.action.shape)
        size = tuple(plans.shape)
        if len(size) != dims or size[0] != batch or min(size[1:3]) < 1:
            raise ValueError(
                f"plans: expected shape ({batch}, N, L, *action) with N, L >= 1, got {size}"
            )
        left = self.spec.window - int(worlds.present.min())
        if min(size[2], left) < stride:
            raise ValueError(
                f"worlds, plans: the model takes {stride} steps at once; {size[2]} are "
                f"planned, {left} are left of its window"
            )
        return self._plans(plans)

    @torch.no_grad()
    def predict(
        self, worlds: Worlds, times: Any, plans: Any = None, frames: bool = True
    ) -> Prediction:
        """``model.predict`` with numpy or torch input.

        Args:
            worlds: B x S worlds.
            times: integers (K,) or (B, K), steps from each window's origin.
            plans: (B, N, L, *action) or None.
            frames: whether to render.
        """
        when = torch.as_tensor(times, device=self.model.device)
        if when.dim() == 1:
            when = when.expand(worlds.shape[0], -1)
        plans = None if plans is None else self._plans(plans)
        return self.model.predict(worlds, Queries(when, plans), frames)

    def render(self, worlds: Worlds, times: Any, plans: Any = None) -> Frames:
        """Observations of the worlds: uint8 (B, S, N, K, H, W, C), or float32 (B, S, N, K, D).

        Args:
            worlds, times, plans: as in ``predict``.
        """
        seen = self.predict(worlds, times, plans).observations
        assert seen is not None
        return self.spec.to_numpy(seen)

    # -- helpers ---------------------------------------------------------------------------------

    def _rows(self, rows: Sequence[int] | None) -> list[int]:
        count = len(self._histories)
        chosen = list(range(count)) if rows is None else [int(row) for row in rows]
        if not chosen or any(not 0 <= row < count for row in chosen):
            raise ValueError(f"rows: expected some of the {count} scenes, got {chosen}")
        return chosen

    def _plans(self, plans: Any) -> Tensor:
        lead = tuple(plans.shape[:3])
        return action_border.to_tensor(self.spec.action, plans, lead, self.model.device, "plans")


def check_finite(model: WorldModel, *answers: Tensor) -> None:
    """Raise FloatingPointError if a model's answers are not all finite: no choice rests on NaN."""
    if not all(bool(torch.isfinite(answer).all()) for answer in answers):
        raise FloatingPointError(
            f"{model.name}: imagines NaN or infinity; its weights may have been trained on such, "
            "or it is shown observations or actions far beyond those that it was trained on"
        )
