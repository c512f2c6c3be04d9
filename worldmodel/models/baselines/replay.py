"""replay: the environment itself as a world model, an upper bound on any model.

It knows some episodes by their reset seeds. A context is recognised by its observations, a world is
one of the episodes that fit, and an answer comes from the environment, which is reset with that
episode's seed and taken through the actions. So its worlds are the exact posterior over the
episodes that it knows, as long as the environment is a function of seed and actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from worldmodel.base import UnsupportedQuery
from worldmodel.common.config_checks import at_least
from worldmodel.models.baselines.copy_last import Untrained
from worldmodel.spec import Spec
from worldmodel.types import Belief, Context, Queries, StepPrediction, Worlds


@dataclass(frozen=True)
class ReplayConfig:
    """Which episodes it knows.

    Attributes:
        env: Gymnasium id; ``module:namespace/Name-v0`` imports the module first.
        kwargs: of ``gymnasium.make``.
        episodes: how many.
        seed: the episodes are those that begin with ``reset(seed=seed + i)``.
    """

    env: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    episodes: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "episodes")
        at_least(0, self, "seed")


class _Trajectory(NamedTuple):
    """L steps of an episode along some actions; behind its end the last observation repeats."""

    observations: Tensor  # (L + 1, *observation), as models take them
    rewards: Tensor  # (L,), 0 behind the end
    continues: Tensor  # (L,), 0 at the step that terminates and after it, else 1


class Replay(Untrained):
    """The true simulator behind the interface; see ``ReplayConfig``.

    Contexts must hold time 0, so the window should hold a whole episode. A query costs as many
    steps of the environment as lead there, for every plan and every different episode among the
    worlds; the past is reached, too. A truncated episode repeats its last observation from then on,
    without rewards, and still counts as alive.

    Raises:
        ValueError: the environment's spaces are not those of ``spec``, or it has camera poses.
    """

    name: ClassVar[str] = "replay"
    jumpy: ClassVar[bool] = False
    takes_vectors: ClassVar[bool] = True
    takes_image_parts: ClassVar[bool] = True
    config: ReplayConfig

    def __init__(self, spec: Spec, config: ReplayConfig) -> None:
        super().__init__(spec, config)
        if spec.pose:
            raise ValueError("spec: replay follows actions, and cannot look from camera poses")
        self.env: gym.Env[Any, Any] = gym.make(config.env, **config.kwargs)
        made = Spec.from_spaces(self.env.observation_space, self.env.action_space, spec.window)
        spec.check_spaces(made.observation_space(), made.action.to_space(), f"env {config.env}")
        self._starts: dict[bytes, list[int]] = {}
        for episode in range(config.episodes):
            start, _ = self.env.reset(seed=config.seed + episode)
            self._starts.setdefault(self._array(start).tobytes(), []).append(episode)

    # -- the three verbs -------------------------------------------------------------------------

    def _observe(self, context: Context) -> Belief:
        """Which episodes fit.

        Raises:
            UnsupportedQuery: a row lacks time 0, or fits no known episode.
        """
        present, action = context.present_times(), self.spec.action
        rows, dtype = len(present), torch.float32 if action.kind == "box" else torch.int64
        path = torch.from_numpy(action.blank(rows, self.spec.window)).to(dtype)
        possible = torch.zeros(rows, self.config.episodes, dtype=torch.bool)
        for row, steps in enumerate(present.tolist()):
            if context.actions is not None and not self.spec.passive:
                path[row, :steps] = context.actions[row, :steps].cpu()
            mask = context.full_mask()[row]
            frames, times = context.observations[row, mask].cpu(), context.times[row, mask].cpu()
            possible[row, self._matching(row, frames, times, path[row, :steps])] = True
        state = {"possible": possible, "path": path}
        return Belief(present, {name: value.to(self.device) for name, value in state.items()})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        weights = belief.state["possible"].float()
        episode = weights.multinomial(n, replacement=True, generator=generator)
        return Worlds(belief.present, {"episode": episode}, {"path": belief.state["path"]})

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        path = worlds.scene["path"].clone()
        if not self.spec.passive:
            for row, start in enumerate(worlds.present.tolist()):
                path[row, start : start + actions.shape[1]] = actions[row].to(path)
        return Worlds(worlds.present + actions.shape[1], worlds.state, {"path": path})

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        times, length = queries.times.cpu(), queries.ahead(worlds.present)
        observations, rewards, continues = [], [], []
        for row, now in enumerate(worlds.present.tolist()):
            last = max(int(times[row].max()), now)
            for played in self._play_all(worlds, row, queries.actions, last):
                padding = (0, length - len(played.rewards[now:]))
                observations.append(played.observations[times[row]])
                rewards.append(pad(played.rewards[now:], padding))
                continues.append(pad(played.continues[now:], padding))
        lead = (*worlds.shape, queries.plans)
        reward, alive, frame = (
            torch.stack(part).unflatten(0, lead).to(self.device)
            for part in (rewards, continues, observations)
        )
        return StepPrediction(reward, alive.logit(), frame if frames else None)

    # -- the environment -------------------------------------------------------------------------

    def _play_all(
        self, worlds: Worlds, row: int, plans: Tensor | None, steps: int
    ) -> list[_Trajectory]:
        """One scene's S x N trajectories up to time ``steps``, those of equal worlds made once."""
        now, made = int(worlds.present[row]), {}
        path = worlds.scene["path"][row].cpu()
        paths = [path]
        if plans is not None:
            paths = [torch.cat([path[:now], plan]) for plan in plans[row].cpu().to(path)]
        trajectories = []
        for episode in worlds.state["episode"][row].tolist():
            for number, actions in enumerate(paths):
                if (episode, number) not in made:
                    made[episode, number] = self._play(episode, actions, steps)
                trajectories.append(made[episode, number])
        return trajectories

    def _play(self, episode: int, actions: Tensor, steps: int) -> _Trajectory:
        """The episode along the first ``steps`` of actions (T, \\*action)."""
        observation, _ = self.env.reset(seed=self.config.seed + episode)
        observations, rewards, continues = [self._array(observation)], [], []
        space, over, alive = self.env.action_space, False, 1.0
        for step in range(steps):
            reward = 0.0
            if not over:
                action: Any = 0  # of Discrete(1)
                if not self.spec.passive:
                    action = np.array(actions[step].numpy(), space.dtype)
                observation, earned, terminated, truncated, _ = self.env.step(action)
                over, reward = terminated or truncated, float(earned)
                alive = 0.0 if terminated else 1.0
            observations.append(self._array(observation))
            rewards.append(reward)
            continues.append(alive)
        frames = self.spec.to_model(torch.from_numpy(np.stack(observations)))
        return _Trajectory(frames, torch.tensor(rewards), torch.tensor(continues))

    def _matching(self, row: int, frames: Tensor, times: Tensor, path: Tensor) -> list[int]:
        """The episodes that have the observations (m, \\*observation) at times (m,)."""
        first = (times == 0).nonzero().flatten()
        if len(first) == 0:
            raise UnsupportedQuery(
                f"context.times: replay recognises an episode by time 0, scene {row} shows "
                f"{times.tolist()}"
            )
        start = frames[first[0]]
        exact = self.spec.is_image or self.spec.parts  # other vectors are as they were recorded
        array = torch.from_numpy(self.spec.to_numpy(start)) if exact else start
        matching = []
        for episode in self._starts.get(array.numpy().tobytes(), []):
            played = self._play(episode, path, int(times.max()))
            if torch.allclose(played.observations[times], frames, atol=1e-3):
                matching.append(episode)
        if not matching:
            raise UnsupportedQuery(
                f"context: scene {row} is none of the {self.config.episodes} episodes that replay "
                f"knows (seeds {self.config.seed} .. {self.config.seed + self.config.episodes - 1})"
            )
        return matching

    def _array(self, observation: Any) -> NDArray[Any]:
        """A copy in the border's dtype: environments may reuse their buffer."""
        packed = self.spec.pack(observation, f"env {self.config.env}")
        return np.array(packed, self.spec.border[1])
