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
from agents.values import Value, beyond
from worldmodel.base import WorldModel
from worldmodel.spec import Spec
from worldmodel.types import Context, Prediction, Queries, Worlds

Frames = NDArray[Any]
"""uint8 images (..., H, W, C), or float32 vectors (..., D)."""

FRAME = 32
"""A rendered frame counts as that many steps of a plan, where work is cut into chunks."""


@dataclass(frozen=True)
class History:
    """What has been seen and done in one scene since the origin of its window. Immutable.

    Attributes:
        frames: uint8 (H, W, C), or float32 (D,), each.
        times: ascending steps from the origin, one per frame; the last is the present.
        actions: one (*action) per step from the origin to the present.
    """

    frames: tuple[Frames, ...]
    times: tuple[int, ...]
    actions: tuple[NDArray[Any], ...] = ()

    @classmethod
    def start(cls, frame: Frames) -> History:
        """A window that begins at this frame."""
        return cls((np.array(frame),), (0,))

    @property
    def present(self) -> int:
        """Steps taken since the origin."""
        return len(self.actions)

    def add(self, actions: Sequence[NDArray[Any]], frame: Frames) -> History:
        """The actions that followed, and the frame that they led to."""
        taken = (*self.actions, *(np.array(action) for action in actions))
        frames = (*self.frames, np.array(frame))
        return History(frames, (*self.times, len(taken)), taken)

    def latest(self, count: int) -> History:
        """The window that begins at the ``count``-th latest frame: the re-anchored history."""
        origin = self.times[-count]
        times = tuple(time - origin for time in self.times[-count:])
        return History(self.frames[-count:], times, self.actions[origin:])


def check_frames(spec: Spec, observations: Any, argument: str, count: int | None = None) -> Frames:
    """Return uint8 images (B, H, W, C) of the model's size, or float32 vectors (B, D).

    Raises:
        TypeError: images that are not uint8, vectors that are not numbers.
        ValueError: another shape (says so if the channels come first), or NaN.
    """
    shape, dtype = spec.border
    frames = np.asarray(observations)
    numbers = np.issubdtype(frames.dtype, np.floating)
    if frames.dtype != dtype and not (numbers and not spec.is_image):
        kind = "images (B, H, W, C)" if spec.is_image else "vectors (B, D)"
        raise TypeError(f"{argument}: expected {dtype} {kind}, got {frames.dtype} {frames.shape}")
    if frames.shape[1:] != shape or frames.shape[0] < 1:
        hint = ""
        if spec.is_image and frames.shape[1:] == spec.observation:
            hint = "; the channels come first: leave VecTransposeImage away"
        expected = ", ".join(str(n) for n in shape)
        raise ValueError(f"{argument}: expected shape (B, {expected}), got {frames.shape}{hint}")
    if numbers and not np.isfinite(frames).all():
        raise ValueError(f"{argument}: holds NaN or infinity")
    frames = frames.astype(dtype, copy=False)
    if count is not None and len(frames) != count:
        raise ValueError(f"{argument}: expected {count} observations, got {len(frames)}")
    return frames


class Imagination:
    """B scenes as far as they have been seen, and a world model that says what may follow.

    Nothing here knows how the model works. Scenes may have different presents.

    A model looks across a window of ``model.spec.window`` steps. When fewer than ``ahead`` steps
    of it are left, the scene is **re-anchored**: the latest frame becomes time 0 of a new window,
    so that as many steps as possible are left, and what was before is forgotten. Longer histories
    than ``model.max_context`` are subsampled: the first frame and the most recent ones stay; they
    are encoded anew at each call.

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
        self.histories: list[History] = []

    # -- what has been seen ----------------------------------------------------------------------

    @property
    def present(self) -> NDArray[np.int64]:
        """int64 (B,): steps since each window's origin."""
        return np.array([history.present for history in self.histories], np.int64)

    @property
    def left(self) -> NDArray[np.int64]:
        """int64 (B,): steps that are left of each window, at least ``ahead``."""
        return np.asarray(self.spec.window - self.present)

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
            self.histories = [History.start(frame) for frame in frames]
            return
        rows = self._rows(rows)
        frames = check_frames(self.spec, observations, "observations", len(rows))
        for row, frame in zip(rows, frames, strict=True):
            self.histories[row] = History.start(frame)

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
        for row, frame, own in zip(rows, frames, taken, strict=True):
            self.histories[row] = self.extend(self.histories[row], list(own), frame)

    def extend(self, history: History, actions: Sequence[NDArray[Any]], frame: Frames) -> History:
        """The history with a frame more, re-anchored where the rules of this class say so."""
        gap = self.model.gap is not None and len(actions) not in (1, self.model.gap)
        if gap or history.present + len(actions) + self.ahead > self.spec.window:
            return History.start(frame)
        longer = history.add(actions, frame)
        limit = self.model.max_context
        if not self.model.jumpy and limit is not None and len(longer.frames) > limit:
            return longer.latest(limit)
        return longer

    def context(self) -> Context:
        """All scenes as one batch for ``model.observe``.

        Raises:
            ValueError: nothing has been seen yet.
        """
        if not self.histories:
            raise ValueError("Imagination: nothing seen yet; call reset(observations) first")
        chosen = [self._subset(history) for history in self.histories]
        slots = max(len(times) for _, times in chosen)
        batch, spec = len(chosen), self.spec
        shape, dtype = spec.border
        frames = np.zeros((batch, slots, *shape), dtype)
        times = np.zeros((batch, slots), np.int64)
        mask = np.zeros((batch, slots), np.bool_)
        for row, (own, when) in enumerate(chosen):
            frames[row, : len(own)] = own
            times[row, : len(when)] = when
            mask[row, : len(when)] = True
        device = self.model.device
        present = self.present
        return Context(
            spec.to_model(torch.from_numpy(frames).to(device)),
            torch.from_numpy(times).to(device),
            self._taken(int(present.max())),
            torch.from_numpy(mask).to(device),
            torch.from_numpy(present).to(device),
        )

    # -- what may follow -------------------------------------------------------------------------

    @torch.no_grad()
    def worlds(self, n: int, generator: torch.Generator | None = None) -> Worlds:
        """``n`` worlds for each scene, from ``generator`` or this object's own."""
        belief = self.model.observe(self.context())
        return self.model.sample(belief, n, self.generator if generator is None else generator)

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
            before = torch.cat([torch.ones_like(seen.alive[..., :1]), seen.alive[..., :-1]], -1)
            total = (weight[:, None, None] * before * seen.rewards).sum(-1)  # (B, S, N)
            if value is not None:
                at_once = self.chunk // FRAME
                later = beyond(self.model, worlds, times[:, -1:], part, value, at_once)
                end = discount ** ahead[:, -1:, None].float() * seen.alive[..., -1]
                total = total + end * later
            if risk < 1:
                total = total.sort(1).values[:, : math.ceil(risk * samples)]
            scores.append(total.mean(1))
        return torch.cat(scores, 1)

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
        """Observations of the worlds: uint8 (B, S, [N,] K, H, W, C), or float32 (B, S, [N,] K, D).

        Arguments as in ``predict``.
        """
        seen = self.predict(worlds, times, plans).observations
        assert seen is not None
        return self.spec.to_numpy(seen)

    # -- helpers ---------------------------------------------------------------------------------

    def _rows(self, rows: Sequence[int] | None) -> list[int]:
        count = len(self.histories)
        chosen = list(range(count)) if rows is None else [int(row) for row in rows]
        if not chosen or any(not 0 <= row < count for row in chosen):
            raise ValueError(f"rows: expected some of the {count} scenes, got {chosen}")
        return chosen

    def _plans(self, plans: Any) -> Tensor:
        lead = tuple(plans.shape[:3])
        return action_border.to_tensor(self.spec.action, plans, lead, self.model.device, "plans")

    def _subset(self, history: History) -> tuple[tuple[Frames, ...], tuple[int, ...]]:
        limit = self.model.max_context
        if limit is None or len(history.frames) <= limit:
            return history.frames, history.times
        recent = len(history.frames) - (limit - 1)
        keep = [len(history.frames) - 1]
        if limit > 1:
            keep = [0, *range(recent, len(history.frames))]
        return tuple(history.frames[i] for i in keep), tuple(history.times[i] for i in keep)

    def _taken(self, steps: int) -> Tensor | None:
        """The actions so far, padded: (B, steps, *action); None if there are none."""
        action = self.spec.action
        if action.kind == "none" or steps == 0:
            return None
        lead = (len(self.histories), steps)
        taken = np.zeros((*lead, *action.shape), action.to_space().dtype)
        for row, history in enumerate(self.histories):
            if history.actions:
                taken[row, : history.present] = np.stack(history.actions)
        return action_border.to_tensor(action, taken, lead, self.model.device, "actions")
