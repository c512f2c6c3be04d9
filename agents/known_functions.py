"""Rewards, ends and legal actions that are known as functions, in place of what a model learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.spec import Spec
from worldmodel.types import Prediction, Queries, StepPrediction, Worlds

StepFunction = Callable[[Any, Tensor, Any], Any]
"""P steps: observations, actions and next observations, (P, ...) each, to P values."""

MaskFunction = Callable[[Any], Any]
"""P observations to bool (P, n): which of n choices are legal."""


@dataclass(frozen=True)
class KnownFunctions:
    """What is known of an environment, used by agents in imagination instead of the model's heads.

    Functions are given torch tensors of P steps on the model's device: observations as the
    environment shows them, float32 (P, D), images float32 (P, C, H, W) in [0, 1], or a dict of
    such by part; actions (P, \\*action), int64 where they are choices, float32 where they are
    numbers or bits.

    ``reward`` and ``terminated`` need the observation after **every** step: with held actions and
    in plans a model predicts them all, where its heads would render none. The first observation
    is the one that was observed; for worlds that were advanced by hand it is the model's.

    Attributes:
        reward: (observation, action, next observation) to the rewards of these steps, (P,).
        terminated: the same to bool (P,): whether these steps end the episode.
        action_mask: observations to bool (P, n): which actions are legal there, in the convention
            of sb3-contrib: n choices of a Discrete space, or those of all entries of a
            MultiDiscrete one after the other (of a MultiBinary one: 0 and 1 of each bit). Models
            do not learn masks: without this function, imagined steps have none. ``LegalActions``
            is one that was learned from recorded masks.

    Raises:
        TypeError: one of them is not callable.

    Example::

        def upright(observation, action, following):
            return following[:, 2].abs() < 0.2


        known = KnownFunctions(terminated=lambda *step: ~upright(*step))
        ImaginedVecEnv(model, starts, known=known)
    """

    reward: StepFunction | None = None
    terminated: StepFunction | None = None
    action_mask: MaskFunction | None = None

    def __post_init__(self) -> None:
        for name in ("reward", "terminated", "action_mask"):
            function = getattr(self, name)
            if not (function is None or callable(function)):
                raise TypeError(
                    f"known.{name}: expected a function, or None, got {type(function).__name__}"
                )

    @property
    def outcomes(self) -> bool:
        """Whether rewards or ends are known."""
        return self.reward is not None or self.terminated is not None

    def predict(
        self,
        model: WorldModel,
        worlds: Worlds,
        queries: Queries,
        now: Tensor | None = None,
        frames: bool = True,
    ) -> Prediction:
        """As ``model.predict``, with the functions in place of the heads.

        Args:
            model, worlds, queries, frames: as there.
            now: (B, 1 or S, \\*observation), what the worlds show at their present; None lets the
                model predict it.

        Raises:
            TypeError, ValueError: a function returns something else than it should.
        """
        if not self.outcomes or queries.ahead(worlds.present) < 1:
            return model.predict(worlds, queries, frames)
        if now is None:
            now = present_frames(model, worlds)
        steps = model.predict_steps(worlds, self._every_step(model, worlds, queries, frames))
        return self._answer(model, worlds, queries, now, frames, steps)

    def step(
        self, model: WorldModel, worlds: Worlds, queries: Queries, now: Tensor | None = None
    ) -> tuple[Prediction, Worlds]:
        """As ``WorldModel.step``, with the functions in place of the heads.

        Args:
            model, worlds, queries: as there.
            now: as in ``predict``.

        Raises:
            TypeError, ValueError: a function returns something else than it should.
        """
        ahead = (queries.times - worlds.present[:, None]).clamp_min(0)
        if not self.outcomes or queries.ahead(worlds.present) < 1:
            steps, after = model.step(worlds, queries)
            return steps.at(ahead // model.stride, queries.plans), after
        if now is None:
            now = present_frames(model, worlds)
        steps, after = model.step(worlds, self._every_step(model, worlds, queries, True))
        return self._answer(model, worlds, queries, now, True, steps), after

    def _every_step(
        self, model: WorldModel, worlds: Worlds, queries: Queries, frames: bool
    ) -> Queries:
        """The time after each step up to the farthest query, and the queries if they are needed."""
        ahead = queries.times - worlds.present[:, None]
        every = torch.arange(1, queries.ahead(worlds.present) + 1, device=ahead.device)
        times = (worlds.present[:, None] + every).clamp_max(model.spec.window)
        between = bool((ahead >= 1).all()) or not frames
        chosen = times if between else torch.cat([times, queries.times], 1)
        return Queries(chosen, queries.actions)

    def _answer(
        self,
        model: WorldModel,
        worlds: Worlds,
        queries: Queries,
        now: Tensor,
        frames: bool,
        steps: StepPrediction,
    ) -> Prediction:
        """The functions' outcomes of what the model predicts at ``_every_step``."""
        ahead = queries.times - worlds.present[:, None]
        length = queries.ahead(worlds.present)
        between = bool((ahead >= 1).all()) or not frames
        assert steps.observations is not None
        if queries.actions is None:
            lead = (len(ahead), 1, length)
            actions = torch.zeros(*lead, *model.spec.action.shape, device=ahead.device).long()
        else:
            actions = queries.actions[:, :, :length]
        rewards, logits = steps.rewards[..., :length], steps.logits[..., :length]
        path = steps.observations[:, :, :, :length]
        inputs = _inputs(model.spec, now, actions, path)
        size = (*path.shape[:2], queries.plans, length)
        if self.reward is not None:
            rewards = _rewards(self.reward(*inputs), math.prod(size)).to(path.device).view(size)
        if self.terminated is not None:
            ends = _ends(self.terminated(*inputs), math.prod(size)).to(path.device).view(size)
            logits = torch.where(ends, -torch.inf, torch.inf)
        observations = None
        if frames and between:
            rows = torch.arange(len(ahead), device=ahead.device)[:, None]
            observations = path[rows, :, :, ahead - 1].movedim(1, 3)
        elif frames:
            observations = steps.observations[:, :, :, length:]
        size = torch.broadcast_shapes(rewards.shape, logits.shape)
        answer = StepPrediction(rewards.expand(size), logits.expand(size), observations)
        return answer.at(ahead.clamp_min(0), queries.plans)

    def masks(self, observations: Tensor, spec: Spec) -> Tensor:
        """What ``action_mask`` returns, checked: bool (P, n).

        Args:
            observations: P of them, as models take them.
            spec: of the model.

        Raises:
            TypeError, ValueError: the function returns something else.
        """
        assert self.action_mask is not None
        returned = _boolean(self.action_mask(spec.split(observations)), "action_mask")
        shape = len(observations), sum(spec.action.choices)
        if returned.shape != shape:
            raise ValueError(
                f"known.action_mask: expected bool {shape}, a row for each observation, got shape "
                f"{tuple(returned.shape)}"
            )
        return returned.to(observations.device)


def check_known(known: KnownFunctions | None, model: WorldModel) -> KnownFunctions:
    """The functions to use; none where ``known`` is None.

    Raises:
        TypeError: it is something else.
        ValueError: the model cannot do with them.
    """
    if known is None:
        return KnownFunctions()
    if not isinstance(known, KnownFunctions):
        raise TypeError(f"known: expected a KnownFunctions, got {type(known).__name__}")
    if known.outcomes and model.stride > 1:
        raise ValueError(
            f"known: reward and terminated need the observation after every step, but {model.name} "
            f"takes {model.stride} at once; give action_mask alone, or use a model of stride 1"
        )
    if known.action_mask is not None and not model.spec.action.choices:
        raise ValueError(
            "known: action_mask is for Discrete, MultiDiscrete and MultiBinary actions; the "
            f"model's are {model.spec.action.to_space()}: leave it away"
        )
    return known


def present_frames(model: WorldModel, worlds: Worlds) -> Tensor:
    """What the worlds show at their present, (B, S, \\*observation), as the model predicts it."""
    predicted = model.predict(worlds, Queries(worlds.present[:, None])).observations
    assert predicted is not None
    return as_observed(model.spec, predicted[:, :, 0, 0])


def as_observed(spec: Spec, predicted: Tensor) -> Tensor:
    """Predicted observations as the environment would show them: within bounds, images in 256
    steps; still as models take them.
    """
    return spec.to_model(torch.from_numpy(spec.to_numpy(predicted)).to(predicted.device))


def _inputs(spec: Spec, now: Tensor, actions: Tensor, path: Tensor) -> tuple[Any, Tensor, Any]:
    """Observations, actions and next observations of all steps: (B x S x N x L, ...) each."""
    batch, samples = path.shape[:2]
    plans, length = actions.shape[1:3]
    after = as_observed(spec, path).expand(-1, -1, plans, *path.shape[3:])
    begin = now[:, :, None, None].expand(batch, samples, plans, 1, *now.shape[2:])
    before = torch.cat([begin, after[:, :, :, :-1]], 3)
    taken = actions[:, None].expand(-1, samples, *actions.shape[1:])
    return spec.split(before.flatten(0, 3)), taken.flatten(0, 3), spec.split(after.flatten(0, 3))


def _rewards(returned: Any, count: int) -> Tensor:
    values = _tensor(returned, "reward").detach()
    if values.dtype.is_complex or values.shape != (count,):
        raise ValueError(
            f"known.reward: expected one number for each of {count} steps, shape ({count},), got "
            f"{values.dtype} {tuple(values.shape)}"
        )
    values = values.float()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("known.reward: returned NaN or infinity")
    return values


def _ends(returned: Any, count: int) -> Tensor:
    values = _boolean(returned, "terminated")
    if values.shape != (count,):
        raise ValueError(
            f"known.terminated: expected one value for each of {count} steps, shape ({count},), "
            f"got {tuple(values.shape)}"
        )
    return values


def _tensor(returned: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(returned)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise TypeError(
            f"known.{name}: expected a tensor, or an array or list of numbers, got "
            f"{type(returned).__name__} ({error})"
        ) from error


def _boolean(returned: Any, name: str) -> Tensor:
    values = _tensor(returned, name)
    if values.dtype != torch.bool:
        raise TypeError(
            f"known.{name}: expected bool, got {values.dtype}; compare, as in `values > 0.5`"
        )
    return values
