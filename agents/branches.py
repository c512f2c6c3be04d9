"""A batch of imagined episodes that share every forward pass of the world model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs
from torch import Tensor

from agents import actions as action_border
from agents.history import Frames, to_context
from agents.imagination import check_finite
from agents.known_functions import KnownFunctions, as_observed
from agents.starts import DictObservation, StartSampler
from worldmodel.base import WorldModel
from worldmodel.types import Queries, Worlds

Outcome = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Reward, survival and disagreement of one decision in each of n episodes, (n,) each."""


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
    ) -> None:
        self.model, self.hold, self.worlds = model, hold, worlds
        self.parts, self.known = parts, known
        shape, dtype = model.spec.border
        self.frames: Frames = np.zeros((0, *shape), dtype)
        self._start = start
        self._constants: dict[str, NDArray[Any]] = {}
        self._latest: Tensor | None = None  # of all worlds, where outcomes are known functions
        self._generator = torch.Generator(model.device)
        self.seed(seed)

    def seed(self, seed: int | list[int]) -> None:
        """Seed the starts and the worlds of episodes that begin from now on."""
        self.rng = np.random.default_rng(seed)
        self._generator.manual_seed(int(self.rng.integers(2**62)))

    def begin(self, count: int, *options: Any) -> None:
        """Begin ``count`` episodes in place of all; ``options`` are for live starts."""
        self.frames, self._constants, self.sampled = self._sample(count, *options)
        self._latest = self._begun(self.frames)

    def restart(self, rows: NDArray[np.int64]) -> None:
        """Begin the episodes ``rows`` anew."""
        frames, constants, fresh = self._sample(len(rows))
        self.frames = self.frames.copy()
        self.frames[rows] = frames
        begun = self._begun(frames)
        if self._latest is not None and begun is not None:
            self._latest[torch.from_numpy(rows).to(begun.device)] = begun
        for name, values in constants.items():
            self._constants[name][rows] = values
        if len(rows) == len(self.frames):
            self.sampled = fresh
        else:
            where = torch.from_numpy(rows).to(fresh.present.device)
            self.sampled = self.sampled.put(where, fresh)

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
        queries = Queries((worlds.present + self.hold)[:, None], chosen[:, None])
        every: Tensor | None = None
        if self.known.outcomes:
            first = self.known.predict(self.model, worlds, queries, self._latest)
            assert first.observations is not None
            self._latest = as_observed(self.model.spec, first.observations[:, :, 0, 0])
            every = first.rewards
        else:
            first = self.model.predict(worlds.some(slice(1)), queries)
        assert first.observations is not None
        check_finite(self.model, first.observations, first.rewards, first.alive)
        self.frames = self.model.spec.to_numpy(first.observations[:, 0, 0, 0])
        rewards, alive = (
            value[:, 0, 0, 0].float().cpu().numpy() for value in (first.rewards, first.alive)
        )
        disagreement = np.zeros_like(rewards)
        if self.worlds > 1:
            if every is None:
                others = self.model.predict(worlds.some(slice(1, None)), queries, frames=False)
                every = torch.cat([first.rewards, others.rewards], 1)
            disagreement = every[:, :, 0, 0].float().std(1, correction=0).cpu().numpy()
        self.sampled = self.model.advance(worlds, chosen)
        return rewards, alive, disagreement

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
    def _sample(self, count: int, *options: Any) -> tuple[Frames, dict[str, NDArray[Any]], Worlds]:
        """The present's frames (count, \\*observation), constant parts, and sampled worlds."""
        starts, spec = self._start(count, self.rng, *options), self.model.spec
        indices = [range(len(history.frames)) for history in starts.histories]
        context = to_context(spec, starts.histories, indices, self.model.device)
        worlds = self.model.sample(self.model.observe(context), self.worlds, self._generator)
        frames = np.stack([history.frames[-1] for history in starts.histories])
        if not spec.parts:
            frames = frames.astype(spec.observation_space().dtype, copy=False)
        return frames, starts.constants, worlds

    def _begun(self, frames: Frames) -> Tensor | None:
        """The first frames in all worlds, (n, S, \\*observation), for known functions."""
        if not self.known.outcomes:
            return None
        spec = self.model.spec
        first = spec.to_model(torch.from_numpy(frames).to(self.model.device))[:, None]
        return first.repeat(1, self.worlds, *[1] * (first.dim() - 2))
