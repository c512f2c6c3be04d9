"""Beliefs about scenes and samples of what may follow: the torch API under every agent.

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
from agents.curiosity import PlanCuriosity
from agents.history import Frames, History, check_frames, context_indices, to_context
from agents.known_functions import KnownFunctions, check_known
from agents.values import Value, terminal_value
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.types import Belief, Context, Prediction, Queries, Worlds

STEPS_PER_FRAME = 32
"""Steps of a plan that cost as much as one rendered frame, where work is cut into chunks."""
ROLLED_STEPS = 8
"""Steps of a plan that cost as much as one frame, where a model of vectors rolls them."""
ATTENDED_STEPS = 128
"""Steps of a plan; of longer ones, attention among the steps takes more memory than all else."""


@dataclass(frozen=True)
class ImaginationState:
    """The scenes of an ``Imagination`` at one time, to go on from later. Immutable.

    Attributes:
        histories: one for each scene.
        belief: the model's belief about them; None if it is not computed yet.
    """

    histories: tuple[History, ...]
    belief: Belief | None = None


class Imagination:
    """B scenes, each with its observations so far, and a world model that samples what may follow.

    It works with any model. Scenes may have different presents.

    A model looks across a window of ``model.spec.window`` steps. When fewer than ``ahead`` steps
    of it are left, the scene is **re-anchored**: its latest frame becomes time 0 of a new window,
    and the frames before are dropped. If there are more frames than ``model.max_context``, the
    first and the most recent ones are used.

    A new frame costs its own encoding (and that of the frame that is dropped for it, if any),
    however many there were before. Models that cannot extend a belief (``model.extends`` is False)
    encode their whole context again.

    A frame-by-frame model needs consecutive frames. If every frame is observed, it is given all of
    them (at most the latest ``max_context``); if frames in between are missing, as with
    ``HoldAction``, the scene is re-anchored at the latest frame (unless they are ``model.gap``
    steps apart).

    Args:
        model: any world model; it is put into evaluation mode.
        seed: of the generator that worlds are sampled with.
        ahead: steps of the window that are always left for plans.
        chunk: worlds x plans x steps that ``score`` hands to the model at once, about; a frame that
            is rendered for a value, or for known functions, counts as 32 steps.
        known: functions for ``score`` and ``predict`` in place of the model's heads.

    Raises:
        TypeError: ``model`` is not a ``WorldModel``, or ``known`` no ``KnownFunctions``.
        ValueError: ``ahead`` is not in [1, window], ``chunk`` is below 1, or the model cannot do
            with ``known``.
    """

    def __init__(
        self,
        model: WorldModel,
        seed: int = 0,
        ahead: int = 1,
        chunk: int = 2**15,
        known: KnownFunctions | None = None,
    ) -> None:
        check_model(model)
        if not 1 <= ahead <= model.spec.window:
            raise ValueError(
                f"ahead: expected between 1 and the model's window of {model.spec.window} steps, "
                f"got {ahead}"
            )
        numbers_at_least(1, chunk=chunk)
        self.model = model.eval()
        self.known = check_known(known, model)
        self.spec = model.spec
        self.ahead = ahead
        self.chunk = chunk
        self.generator = torch.Generator(model.device).manual_seed(seed)
        self._histories: list[History] = []
        self._belief: Belief | None = None

    # -- observations so far ---------------------------------------------------------------------

    @property
    def present(self) -> NDArray[np.int64]:
        """int64 (B,): steps since each window's origin."""
        return np.array([history.present for history in self._histories], np.int64)

    @property
    def left(self) -> NDArray[np.int64]:
        """int64 (B,): steps left in each window, at least ``ahead``."""
        return np.asarray(self.spec.window - self.present)

    @property
    def state(self) -> ImaginationState:
        """The scenes as they are now; assign it to go on from there."""
        return ImaginationState(tuple(self._histories), self._belief)

    @state.setter
    def state(self, state: ImaginationState) -> None:
        self._histories, self._belief = list(state.histories), state.belief

    def reset(self, observations: Any, rows: Sequence[int] | None = None) -> None:
        """Begin all scenes anew, or those of ``rows``.

        Args:
            observations: uint8 (B, H, W, C), float32 (B, D) or a dict of such by part, one for each
                scene.
            rows: indices of the scenes; None replaces all, and may change their number.

        Raises:
            TypeError, ValueError: bad observations, or rows out of range.
        """
        count = None if rows is None else len(self._rows(rows))
        frames = check_frames(self.spec, observations, "observations", count)
        if rows is None:
            self._histories, self._belief = [History.start(frame) for frame in frames], None
            return
        for row, frame in zip(rows, frames, strict=True):
            self._histories[row] = History.start(frame)
        self._renew(rows)

    def observe(self, actions: Any, observations: Any, rows: Sequence[int] | None = None) -> None:
        """Add one frame to each scene (or to those of ``rows``), T steps after the last.

        Args:
            actions: (B, T, *action), those since the last frame, T >= 1.
            observations: the new frames, as for ``reset``.
            rows: indices of the scenes; None means all.

        Raises:
            TypeError, ValueError: bad observations or actions, or rows out of range.
        """
        rows = self._rows(rows)
        frames = check_frames(self.spec, observations, "observations", len(rows))
        steps = np.asarray(actions)
        sizes = (len(rows), *self.spec.action.shape)
        if steps.ndim < 2 or steps.shape[1] < 1 or (len(steps), *steps.shape[2:]) != sizes:
            raise ValueError(
                f"actions: expected shape ({len(rows)}, T, *action) with T >= 1 and an action of "
                f"shape {self.spec.action.shape}, got {steps.shape}"
            )
        before = {row: len(self._histories[row].frames) for row in rows}
        for row, frame, own in zip(rows, frames, steps, strict=True):
            self._histories[row] = self.extend(self._histories[row], list(own), frame)
        longer = [row for row in rows if len(self._histories[row].frames) > before[row]]
        self._update(longer)
        self._renew([row for row in rows if row not in set(longer)])

    def extend(self, history: History, actions: Sequence[NDArray[Any]], frame: Frames) -> History:
        """``history`` with the ``actions`` since and the ``frame`` that they led to, re-anchored
        if the class says so.
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
            ValueError: nothing has been observed yet.
        """
        if not self._histories:
            raise ValueError("Imagination: nothing seen yet; call reset(observations) first")
        chosen = self._rows(rows)
        counts = [len(self._histories[row].frames) for row in chosen]
        return self._pairs(chosen, [self._context(count) for count in counts])

    @torch.no_grad()
    def belief(self) -> Belief:
        """The model's belief given all observations; it is cached until the next one."""
        if self._belief is None:
            self._belief = self.model.observe(self.context())
        return self._belief

    def _pairs(self, rows: Sequence[int], pairs: Sequence[Sequence[int]]) -> Context:
        histories = [self._histories[row] for row in rows]
        return to_context(self.spec, histories, pairs, self.model.device)

    def _context(self, count: int) -> list[int]:
        return context_indices(count, self.model.max_context)

    @torch.no_grad()
    def _renew(self, rows: Sequence[int]) -> None:
        """Compute the belief of these rows from all their frames."""
        if rows and (not self.model.extends or len(rows) == len(self._histories)):
            self._belief = None
        if self._belief is not None and rows:
            fresh = self.model.observe(self.context(rows))
            self._belief = self._belief.put(self._where(rows), fresh)

    @torch.no_grad()
    def _update(self, rows: Sequence[int]) -> None:
        """Add these rows' latest frames to their belief, and remove those that are dropped."""
        if not self.model.extends and rows:
            self._belief = None
        if self._belief is None or not rows:
            return
        counts = [len(self._histories[row].frames) for row in rows]
        where = self._where(rows)
        longer = self.model.update(
            self._belief.index(where), self._pairs(rows, [[count - 1] for count in counts])
        )
        self._belief = self._belief.put(where, longer)
        dropped = [
            (row, sorted(set(self._context(count - 1)) - set(self._context(count))))
            for row, count in zip(rows, counts, strict=True)
        ]
        dropped = [(row, pairs) for row, pairs in dropped if pairs]
        if dropped:
            fewer, pairs = zip(*dropped, strict=True)
            where = self._where(fewer)
            shorter = self.model.forget(self._belief.index(where), self._pairs(fewer, pairs))
            self._belief = self._belief.put(where, shorter)

    def _where(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(list(rows), device=self.model.device)

    # -- what may follow -------------------------------------------------------------------------

    @torch.no_grad()
    def worlds(self, n: int, generator: torch.Generator | None = None) -> Worlds:
        """Sample ``n`` worlds for each scene, with ``generator`` or this object's own."""
        chosen = self.generator if generator is None else generator
        return self.model.sample(self.belief(), n, chosen)

    @torch.no_grad()
    def score(
        self,
        worlds: Worlds,
        plans: Any,
        discount: float = 1.0,
        risk: float = 1.0,
        value: Value | None = None,
        curiosity: float = 0.0,
    ) -> Tensor:
        """Score plans: the mean over worlds of ``sum_t discount^t alive_t r_t``.

        All plans are scored in the same worlds. Steps after the window's end count nothing. If the
        model has a stride, neither do steps after the last whole stride, and the rewards of a
        stride are discounted as if they came at its end.

        Args:
            worlds: B x S worlds.
            plans: (B, N, L, *action), actions from each scene's present on.
            discount: per step, in [0, 1].
            risk: share of the worlds that the mean is over, for each plan those worst for it
                (CVaR); above 0, and 1 takes all.
            value: function of observations (n, *observation) that estimates what follows the last
                step that counts. Adds ``discount^L alive_L value(frame)``; one frame is rendered
                for each world and plan.
            curiosity: what a plan gains where its worlds differ as much as all plans do, in
                proportion; see ``agents.curiosity``. Every step of every plan is rendered for it.

        Returns:
            float32 (B, N).

        Raises:
            ValueError: shapes do not fit, discount, risk or curiosity is out of range, or the value
                is not one finite number for each observation.
            FloatingPointError: the model predicts NaN or infinity.
        """
        plans = self._check_score(worlds, plans, discount, risk, curiosity)
        (batch, samples), present, stride = worlds.shape, worlds.present, self.model.stride
        left = (self.spec.window - present[:, None]) // stride * stride
        steps = min(plans.shape[2] // stride * stride, int(left.max()))
        ahead = torch.arange(stride, steps + 1, stride, device=present.device)
        weight = discount ** (ahead - 1).float() * (ahead <= left)  # (B, L / stride)
        ahead = torch.minimum(ahead, left)
        times = present[:, None] + ahead
        images = self.spec.is_image or self.spec.image_part is not None
        rendered = self.known.outcomes or curiosity > 0
        cost: float = STEPS_PER_FRAME if rendered and images else 1
        if self.model.jumpy:
            cost *= max(1.0, steps / ATTENDED_STEPS)
        elif not images:
            cost = 1 / ROLLED_STEPS
        share = max(1, int(self.chunk / (batch * samples * steps * cost)))
        now, curious = self._now(worlds), PlanCuriosity()
        result = torch.empty(plans.shape[:2], device=plans.device)  # small pieces split the heap
        parts = plans[:, :, :steps].split(share, 1)
        for part, scores in zip(parts, result.split(share, 1), strict=True):
            queries = Queries(times, part)
            answer = self.known.predict(self.model, worlds, queries, now, curiosity > 0)
            if answer.observations is not None:
                curious.add(answer.observations, answer.running)
            total = (weight[:, None, None] * answer.running * answer.rewards).sum(-1)  # (B, S, N)
            if value is not None:
                count = self.chunk // STEPS_PER_FRAME
                last = terminal_value(self.model, worlds, times[:, -1:], part, value, count)
                weighted = discount ** ahead[:, -1:, None].float() * answer.alive[..., -1]
                total = total + weighted * last
            if risk < 1:
                total = total.sort(1).values[:, : math.ceil(risk * samples)]
            scores.copy_(total.mean(1))
        if curiosity > 0:
            result = result + curiosity * curious.disagreement()
        check_finite(self.model, result)
        return result

    def _check_score(
        self, worlds: Worlds, plans: Any, discount: float, risk: float, curiosity: float
    ) -> Tensor:
        if not 0 <= discount <= 1:
            raise ValueError(f"discount: expected between 0 and 1, got {discount}")
        if not 0 < risk <= 1:
            raise ValueError(f"risk: expected above 0 and at most 1, got {risk}")
        if not 0 <= curiosity < math.inf or (curiosity > 0 and worlds.shape[1] < 2):
            raise ValueError(
                f"curiosity: expected at least 0, and 2 worlds or more that may differ, got "
                f"{curiosity} with {worlds.shape[1]} worlds"
            )
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
        """``model.predict`` with numpy or torch input, and with ``known`` functions.

        Args:
            worlds: B x S worlds.
            times: integers (K,) or (B, K), steps from each window's origin.
            plans: (B, N, L, *action) or None.
            frames: whether to render.
        """
        queries = self._queries(worlds, times, plans)
        return self.known.predict(self.model, worlds, queries, self._now(worlds), frames)

    @torch.no_grad()
    def render(self, worlds: Worlds, times: Any, plans: Any = None) -> Any:
        """Observations of the worlds: uint8 (B, S, N, K, H, W, C), or float32 (B, S, N, K, D), or a
        dict of such by part.

        Args:
            worlds, times, plans: as in ``predict``.
        """
        observations = self.model.predict(worlds, self._queries(worlds, times, plans)).observations
        assert observations is not None
        return self.spec.unpack(self.spec.to_numpy(observations))

    # -- helpers ---------------------------------------------------------------------------------

    def _rows(self, rows: Sequence[int] | None) -> list[int]:
        count = len(self._histories)
        chosen = list(range(count)) if rows is None else [int(row) for row in rows]
        if not chosen or any(not 0 <= row < count for row in chosen):
            raise ValueError(f"rows: expected some of the {count} scenes, got {chosen}")
        return chosen

    def _queries(self, worlds: Worlds, times: Any, plans: Any) -> Queries:
        when = torch.as_tensor(times, device=self.model.device)
        if when.dim() == 1:
            when = when.expand(worlds.shape[0], -1)
        return Queries(when, None if plans is None else self._plans(plans))

    def latest(self) -> Tensor:
        """The latest observation of each scene as models take it, (B, \\*observation)."""
        frames = np.stack([history.frames[-1] for history in self._histories])
        return self.spec.to_model(torch.from_numpy(frames).to(self.model.device))

    def _now(self, worlds: Worlds) -> Tensor | None:
        """What known functions are given as the first observation: (B, 1, \\*observation) as it
        was observed; None for worlds of another present, where the model predicts it.
        """
        if not self.known.outcomes or not np.array_equal(worlds.present.cpu(), self.present):
            return None
        return self.latest()[:, None]

    def _plans(self, plans: Any) -> Tensor:
        lead = tuple(plans.shape[:3])
        return action_border.to_tensor(self.spec.action, plans, lead, self.model.device, "plans")


def check_model(model: object) -> None:
    """Raise TypeError unless ``model`` is a world model."""
    if not isinstance(model, WorldModel):
        raise TypeError(f"model: expected a WorldModel, got {type(model).__name__}")


def check_finite(model: WorldModel, *answers: Tensor) -> None:
    """Raise FloatingPointError if a model's predictions are not all finite."""
    if not all(bool(torch.isfinite(answer).all()) for answer in answers):
        raise FloatingPointError(
            f"{model.name}: imagines NaN or infinity; its weights may have been trained on such, "
            "or it is shown observations or actions far beyond those that it was trained on"
        )
