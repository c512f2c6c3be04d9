"""When PPO has learned enough in imagination, and real episodes should follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from agents import actions as action_border
from agents.history import Frames, History, to_context
from agents.vec_env import ImaginedVecEnv
from worldmodel.base import WorldModel
from worldmodel.data.episodes import Episodes
from worldmodel.types import Queries

ROWS, WORLDS = 256, 5
"""Observations on which disagreement is measured, at most, and worlds sampled for each."""


class StopImagining(BaseCallback):
    """Ends a phase of learning in imagination when it no longer pays.

    Every ``every`` decisions, at the end of a rollout, it looks at the imagined episodes that ended
    since it last looked, and at the observations that the policy has come to. Learning stops

    * if in ``patience`` such looks in a row the mean return did not exceed the highest mean before
      by more than its standard error: imagined returns no longer rise; or
    * if the sampled worlds disagree ``limit`` times as much about the next step from these
      observations as from recorded ones (``one_step_spread``): the policy has come to where the
      model knows little, and only real steps help.

    A look without an episode that ended counts for neither.

    Args:
        imagined: where PPO learns.
        recorded: the real episodes that the model was fitted to.
        every: decisions between two looks.
        patience: None never stops for returns.
        limit: above 0; None never stops for disagreement.
        seed: of the worlds, and of the recorded steps to compare with.

    Attributes:
        reason: "returns" or "disagreement" after it has stopped the phase; else None.
        disagreement: at the last look, as a multiple of that at recorded steps; None before the
            first, and for models that are not stochastic.
    """

    def __init__(
        self,
        imagined: ImaginedVecEnv,
        recorded: Episodes,
        every: int,
        patience: int | None,
        limit: float | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.imagined, self.recorded = imagined, recorded
        self.every, self.patience, self.limit, self.seed = every, patience, limit, seed
        self.reason: str | None = None
        self.disagreement: float | None = None
        self._returns: list[float] = []
        self._best, self._waited, self._looked = -np.inf, 0, 0
        self._usual: Tensor | None = None

    def _on_training_start(self) -> None:
        self._looked = self.num_timesteps

    def _on_step(self) -> bool:
        self._returns += [float(i["episode"]["r"]) for i in self.locals["infos"] if "episode" in i]
        return self.reason is None

    def _on_rollout_end(self) -> None:
        if self.num_timesteps - self._looked < self.every or not self._returns:
            return
        self._looked = self.num_timesteps
        self._watch_returns(np.array(self._returns))
        self._returns = []
        self._watch_disagreement()

    def _watch_returns(self, returns: NDArray[np.float64]) -> None:
        mean, error = returns.mean(), returns.std() / np.sqrt(len(returns))
        self._waited = 0 if mean - error > self._best else self._waited + 1
        self._best = max(self._best, float(mean))
        if self.patience is not None and self._waited >= self.patience:
            self.reason = "returns"

    def _watch_disagreement(self) -> None:
        model = self.imagined.model
        if not model.stochastic:
            return
        rng = np.random.default_rng([self.seed, self.num_timesteps])
        if self._usual is None:
            frames, actions = _recorded_steps(self.recorded, rng)
            self._usual = one_step_spread(model, frames, actions, self.seed)
        chosen, _ = self.model.predict(self.locals["new_obs"])
        rows = slice(ROWS)
        frames = self.imagined.branches.frames[rows]
        spread = one_step_spread(model, frames, np.asarray(chosen)[rows], self.seed)
        valid = self._usual > 0
        ratios = spread[valid] / self._usual[valid]
        self.disagreement = float(ratios.mean()) if len(ratios) else 1.0
        self.logger.record("dyna/disagreement", self.disagreement)
        if self.limit is not None and self.disagreement > self.limit:
            self.reason = "disagreement"


@torch.no_grad()
def one_step_spread(
    model: WorldModel, frames: Frames, actions: Any, seed: int, worlds: int = WORLDS
) -> Tensor:
    """How far sampled worlds differ about the next step: a number for each entry of an observation.

    It contains the chance of the environment as well as the ignorance of the model.

    Args:
        model: in evaluation mode.
        frames: (n, \\*observation), as ``Spec.border`` has them, each the first of its window.
        actions: (n, \\*action), held for one step of the model.
        seed: of the worlds.
        worlds: sampled for each frame, at least 2.

    Returns:
        float32 (entries,): the standard deviation over worlds, as the model scales observations,
        averaged over the frames.
    """
    spec, count = model.spec, len(frames)
    context = to_context(spec, [History.start(x) for x in frames], [[0]] * count, model.device)
    generator = torch.Generator(model.device).manual_seed(seed)
    sampled = model.sample(model.observe(context), worlds, generator)
    chosen = action_border.to_tensor(spec.action, actions, (count, 1), model.device, "actions")
    plans = chosen[:, None].expand(-1, -1, model.stride, *chosen.shape[2:])
    queries = Queries(sampled.present[:, None] + model.stride, plans)
    observations = model.predict(sampled, queries).observations
    assert observations is not None
    return observations[:, :, 0, 0].float().std(1, correction=0).mean(0).flatten()


def _recorded_steps(recorded: Episodes, rng: np.random.Generator) -> tuple[Frames, NDArray[Any]]:
    """Observations and actions of random recorded steps."""
    ends = np.cumsum(recorded.lengths)
    steps = rng.integers(int(ends[-1]), size=ROWS)
    numbers = np.searchsorted(ends, steps, side="right")
    offsets = steps - (ends - recorded.lengths)[numbers]
    frames = [recorded[n].observations[t] for n, t in zip(numbers, offsets, strict=True)]
    actions = [recorded[n].actions[t] for n, t in zip(numbers, offsets, strict=True)]
    return np.stack(frames), np.stack(actions)
