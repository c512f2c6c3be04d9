"""What an ensemble learns of its data before the first training step: scales, and categories."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel.models.frame_by_frame.ensemble_nets import Group
from worldmodel.models.layers.moments import every_frame
from worldmodel.rewards import PREPARE_BATCHES
from worldmodel.spec import Spec
from worldmodel.types import RecordedSource, SceneBatch, SceneSource

MOST_STEPS = 200_000
"""Recorded steps that are read."""
ROWS_PER_VALUE = 20
"""A number has few values if each occurs that often, on average."""


@dataclass(frozen=True)
class Recorded:
    """n recorded steps.

    Attributes:
        before, after: float64 (n, D), observations.
        rewards: float64 (n,).
    """

    before: Tensor
    after: Tensor
    rewards: Tensor

    @classmethod
    def of(cls, source: SceneSource, spec: Spec) -> Recorded:
        """All steps of a recorded source, up to ``MOST_STEPS``; of another, its first batches."""
        parts = [_steps(scenes, spec) for scenes in _batches(source)]
        return cls(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def groups(self, values: int, slots: int) -> list[Group]:
        """The categorical groups of numbers: one-hot groups, and numbers of few values.

        A number that never changes within an episode belongs to none, but to a one-hot group with
        others that do.

        Args:
            values: the most that a number may take to have few.
            slots: for numbers of few values. If there are more, it warns and leaves some away.
        """
        every = torch.cat([self.before, self.after])
        groups = _one_hot(every)
        grouped = {number for group in groups for number in group.numbers}
        moving = (self.before != self.after).any(0)
        left: list[int] = []
        for number in range(every.shape[1]):
            if number in grouped or not bool(moving[number]):
                continue
            levels = every[:, number].unique()
            if len(levels) > values or len(self.before) < ROWS_PER_VALUE * len(levels):
                continue
            if len(levels) > slots:
                left.append(number)
                continue
            slots -= len(levels)
            groups.append(Group((number,) * len(levels), tuple(levels.tolist())))
        if left:
            warnings.warn(
                f"observations: the numbers {left} take few values each, but there are no slots "
                "for them: they are predicted as Gaussians. Give the config more slots",
                stacklevel=5,
            )
        return groups


def _batches(source: SceneSource) -> Iterator[SceneBatch]:
    if isinstance(source, RecordedSource):
        return source.sweep(MOST_STEPS)
    return (source.batch(index) for index in range(PREPARE_BATCHES))


def _steps(scenes: SceneBatch, spec: Spec) -> tuple[Tensor, Tensor, Tensor]:
    """The steps before the scenes' ends: observations before and after, and rewards, float64."""
    frames, there = every_frame(scenes, spec)
    frames, valid = frames.double(), there[:, 1:]
    return frames[:, :-1][valid], frames[:, 1:][valid], scenes.rewards[valid].double()


def _one_hot(every: Tensor) -> list[Group]:
    """Neighbouring numbers (n, D) of which always one is 1 and the others are 0.

    Numbers behind such a group that were always 0 belong to it: values that did not occur yet.
    """
    binary = ((every == 0) | (every == 1)).all(0).tolist()
    ever = (every == 1).any(0).tolist()
    groups, first, numbers = [], 0, every.shape[1]
    while first < numbers:
        last, total = first, torch.zeros_like(every[:, 0])
        while last < numbers and binary[last]:
            total = total + every[:, last]
            last += 1
            if bool((total >= 1).all()) or bool((total > 1).any()):
                break
        if not bool((total == 1).all()):
            first += 1
            continue
        while last < numbers and binary[last] and not ever[last]:
            last += 1
        members = tuple(range(first, last))
        if sum(ever[number] for number in members) > 1:
            groups.append(Group(members, (1.0,) * len(members)))
        first = last
    return groups


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Spread and mean (D,) of values (n, D); a spread that is only rounding counts as 1."""
    spread, mean = torch.std_mean(values, 0, correction=0)
    return torch.where(spread > 1e-7 * (1e-5 + mean.abs()), spread, 1.0), mean
