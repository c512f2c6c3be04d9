"""A batch of imagined episodes that share every forward pass of the world model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs
from torch import Tensor

from agents import actions as action_border
from agents.history import Frames, batch_context
from agents.imagination import check_finite
from agents.known_functions import KnownFunctions, as_observed
from agents.starts import DictObservation, StartSampler
from worldmodel.base import WorldModel
from worldmodel.types import Queries, Worlds

Outcome = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Reward, survival and disagreement of one decision in each of n episodes, (n,) each."""


@dataclass(frozen=True)
class _Begun:
    """n episodes at their beginning: frames (n, \\*observation), constant parts, n x S worlds."""

    frames: Frames
    constants: dict[str, NDArray[Any]]
    worlds: Worlds

    def some(self, rows: slice) -> _Begun:
        constants = {name: values[rows] for name, values in self.constants.items()}
        index = torch.arange(len(self.frames), device=self.worlds.present.device)[rows]
        return _Begun(self.frames[rows], constants, self.worlds.index(index))


class Branches:
    """Any number of imagined episodes, one step of all of them at a time.

    An episode takes place in the first of its sampled worlds. Neither ends nor horizons are drawn
    here: ``ImaginedVecEnv`` lets new episodes follow those that end, ``DynaCallback`` drops them.

    Args:
        model: in evaluation mode.
        start: samples where episodes begin.
        hold: steps of one decision.
        worlds: sampled for each episode.
        parts: a Dict observation of which the model imagines one part; None where it imagines all.
        known: functions in place of the model's heads.
        seed: of the starts and the worlds.
        disagreement: measure that of an ensemble's members with one world, too; with several
            worlds it is always measured. See ``ImaginedVecEnv``.

    Attributes:
        frames: the current observations at the border to Gymnasium, (n, \\*observation).
        sampled: the worlds, n x ``worlds``.
    """

    sampled: Worlds

    def __init__(
        self,
        model: WorldModel,
        start: StartSampler,
        hold: int,
        worlds: int,
        parts: DictObservation | None,
        known: KnownFunctions,
        seed: int,
        disagreement: bool = False,
    ) -> None:
        self._measured = disagreement or worlds > 1
        self.model, self.hold, self.worlds = model, hold, worlds
        self.parts, self.known = parts, known
        shape, dtype = model.spec.border
        self._dtype = dtype if model.spec.parts else model.spec.observation_space().dtype
        self.frames: Frames = np.zeros((0, *shape), dtype)
        self._spare: _Begun | None = None  # episodes that have begun, for restarts
        self._used = 0  # of them
        self._start = start
        self._constants: dict[str, NDArray[Any]] = {}
        self._latest: Tensor | None = None  # of all worlds, where outcomes are known functions
        self._generator = torch.Generator(model.device)
        self.seed(seed)

    def seed(self, seed: int | list[int]) -> None:
        """Seed the starts and the worlds of episodes that begin from now on."""
        self.rng = np.random.default_rng(seed)
        self._spare = None
        self._generator.manual_seed(int(self.rng.integers(2**62)))

    def begin(self, count: int, *options: Any) -> None:
        """Begin ``count`` episodes in place of all; ``options`` are for live starts."""
        self._spare, begun = None, self._sample(count, *options)
        self.frames, self._constants, self.sampled = begun.frames, begun.constants, begun.worlds
        self._latest = self._begun(self.frames)

    def restart(self, rows: NDArray[np.int64]) -> None:
        """Begin the episodes ``rows`` anew.

        Beginnings are sampled as many at a time as there are episodes, and used one by one: of a
        few a batch would cost as much as of all.
        """
        fresh = self._take(len(rows))
        self.frames = self.frames.copy()
        self.frames[rows] = fresh.frames
        begun = self._begun(fresh.frames)
        if self._latest is not None and begun is not None:
            self._latest[torch.from_numpy(rows).to(begun.device)] = begun
        for name, values in fresh.constants.items():
            self._constants[name][rows] = values
        if len(rows) == len(self.frames):
            self.sampled = fresh.worlds
        else:
            where = torch.from_numpy(rows).to(fresh.worlds.present.device)
            self.sampled = self.sampled.put(where, fresh.worlds)

    def _take(self, count: int) -> _Begun:
        if self._spare is None or len(self._spare.frames) < self._used + count:
            self._spare, self._used = self._sample(len(self.frames)), 0
        self._used += count
        return self._spare.some(slice(self._used - count, self._used))

    def select(self, rows: NDArray[np.int64]) -> None:
        """Go on with the episodes ``rows`` alone."""
        where = torch.from_numpy(rows).to(self.sampled.present.device)
        self.frames, self.sampled = self.frames[rows], self.sampled.index(where)
        self._constants = {name: values[rows] for name, values in self._constants.items()}
        if self._latest is not None:
            self._latest = self._latest[where]

    def chosen(self, actions: Any, chunk: bool = False) -> Tensor:
        """Actions of one decision (n, \\*action), or chunks of them, as (n, hold, \\*action).

        Raises:
            ValueError: another shape, or a value that is no action.
        """
        lead = (len(self.frames), self.hold if chunk else 1)
        chosen = action_border.to_tensor(
            self.model.spec.action, actions, lead, self.model.device, "actions"
        )
        return chosen.expand(-1, self.hold, *chosen.shape[2:])

    @torch.no_grad()
    def step(self, chosen: Tensor) -> Outcome:
        """Imagine one decision in every episode, of actions (n, hold, \\*action).

        Raises:
            FloatingPointError: the model predicts NaN or infinity.
        """
        worlds = self.sampled
        spread = None
        if self._measured and self.model.disagrees:
            spread = self.model.disagreement(worlds.some(slice(1)), chosen)[:, 0]
        queries = Queries((worlds.present + self.hold)[:, None], chosen[:, None])
        # where outcomes are functions, every world's observations are needed
        if self.known.outcomes or self.worlds == 1:
            first, self.sampled = self.known.step(self.model, worlds, queries, self._latest)
            every = first.rewards
        else:
            first = self.model.predict(worlds.some(slice(1)), queries)
            others, self.sampled = self.model.step(worlds, queries, frames=False)
            ends = (queries.times - worlds.present[:, None]) // self.model.stride
            every = others.at(ends, 1).rewards
        assert first.observations is not None
        if self.known.outcomes:
            self._latest = as_observed(self.model.spec, first.observations[:, :, 0, 0])
        check_finite(self.model, first.observations, first.rewards, first.alive)
        self.frames = self.model.spec.to_numpy(first.observations[:, 0, 0, 0])
        rewards, alive = (
            value[:, 0, 0, 0].float().cpu().numpy() for value in (first.rewards, first.alive)
        )
        if spread is None:
            spread = every[:, :, 0, 0].std(1, correction=0)  # of one world: 0
        return rewards, alive, spread.float().cpu().numpy()

    def observations(self) -> VecEnvObs:
        """The current observations as fresh arrays, since SB3 holds on to what it is given."""
        frames = self.frames.copy()
        if self.parts is None:
            observations: VecEnvObs = self.model.spec.unpack(frames)
            return observations
        constants = {name: values.copy() for name, values in self._constants.items()}
        parts = {self.parts.imagined: frames, **constants}
        return {name: parts[name] for name in self.parts.space.spaces}

    @torch.no_grad()
    def _sample(self, count: int, *options: Any) -> _Begun:
        starts, spec = self._start(count, self.rng, *options), self.model.spec
        context = batch_context(
            spec, starts.frames, starts.times, starts.mask, starts.actions, starts.present,
            self.model.device,
        )  # fmt: skip
        worlds = self.model.sample(self.model.observe(context), self.worlds, self._generator)
        frames = starts.latest()
        return _Begun(frames.astype(self._dtype, copy=False), starts.constants, worlds)

    def _begun(self, frames: Frames) -> Tensor | None:
        """The first frames in all worlds, (n, S, \\*observation), for known functions."""
        if not self.known.outcomes:
            return None
        spec = self.model.spec
        first = spec.to_model(torch.from_numpy(frames).to(self.model.device))[:, None]
        return first.repeat(1, self.worlds, *[1] * (first.dim() - 2))
