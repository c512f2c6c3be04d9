"""replay: the environment itself as a world model. The bound that no model can pass.

It knows some episodes by their reset seeds. A context is recognised by what it shows, a world is
one of the episodes that fit, and an answer is read off the environment, which is reset with that
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
from worldmodel.models.baselines.untrained import Untrained
from worldmodel.spec import Spec, to_uint8
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


class _Film(NamedTuple):
    """What an episode shows along some actions: L steps, as far as it went and then held."""

    observations: Tensor  # (L + 1, *observation), as models take them
    rewards: Tensor  # (L,)
    going: Tensor  # (L,), 0 at the step that terminates and after it


class Replay(Untrained):
    """The true simulator behind the interface; see ``ReplayConfig``.

    Contexts must show time 0, so the window should hold a whole episode. A look costs as many steps
    of the environment as lead there, for every plan and every different episode among the worlds;
    the past is reached, too. A truncated episode shows its last observation from then on, without
    rewards, and still counts as alive.

    Raises:
        ValueError: the environment's spaces are not those of ``spec``, or it has camera poses.
    """

    name: ClassVar[str] = "replay"
    jumpy: ClassVar[bool] = False
    takes_vectors: ClassVar[bool] = True
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
            UnsupportedQuery: a row does not show time 0, or shows what no known episode shows.
        """
        present, action = context.present_times(), self.spec.action
        rows, dtype = len(present), torch.float32 if action.kind == "box" else torch.int64
        path = torch.zeros(rows, self.spec.window, *action.shape, dtype=dtype)
        possible = torch.zeros(rows, self.config.episodes, dtype=torch.bool)
        for row, steps in enumerate(present.tolist()):
            if context.actions is not None and not self.spec.passive:
                path[row, :steps] = context.actions[row, :steps].cpu()
            shown = context.full_mask()[row]
            seen, times = context.observations[row, shown].cpu(), context.times[row, shown].cpu()
            possible[row, self._fitting(row, seen, times, path[row, :steps])] = True
        state = {"possible": possible, "path": path}
        return Belief(present, {name: value.to(self.device) for name, value in state.items()})

    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds:
        weights = belief.state["possible"].float()
        episode = weights.multinomial(n, replacement=True, generator=generator)
        path = belief.state["path"].unsqueeze(1)
        path = path.expand(-1, n, *path.shape[2:])
        return Worlds(belief.present, {"episode": episode, "path": path})

    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        path = worlds.state["path"].clone()
        if not self.spec.passive:
            for row, start in enumerate(worlds.present.tolist()):
                path[row, :, start : start + actions.shape[1]] = actions[row].to(path)
        return Worlds(worlds.present + actions.shape[1], {**worlds.state, "path": path})

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        plans, times = queries.actions, queries.times.cpu()
        lead = (*worlds.shape, queries.plans)
        present = worlds.present.cpu()
        length = queries.ahead(worlds.present)
        looks, rewards, going = [], [], []
        for row, now in enumerate(present.tolist()):
            for film in self._films(worlds, row, plans, max(int(times[row].max()), now)):
                looks.append(film.observations[times[row]])
                behind = (0, length - len(film.rewards[now:]))
                rewards.append(pad(film.rewards[now:], behind))
                going.append(pad(film.going[now:], behind))
        reward, alive, shown = (
            torch.stack(part).unflatten(0, lead).to(self.device) for part in (rewards, going, looks)
        )
        return StepPrediction(reward, alive.logit(), shown if frames else None)

    # -- the environment -------------------------------------------------------------------------

    def _films(self, worlds: Worlds, row: int, plans: Tensor | None, steps: int) -> list[_Film]:
        """One scene's S x N films up to time ``steps``, those of equal worlds made once."""
        now, made = int(worlds.present[row]), {}
        paths = worlds.state["path"][row].cpu()
        ways = [None] if plans is None else list(plans[row].cpu().to(paths))
        films = []
        for episode, path in zip(worlds.state["episode"][row].tolist(), paths, strict=True):
            for number, way in enumerate(ways):
                actions = path if way is None else torch.cat([path[:now], way])
                key = (episode, number, actions.numpy().tobytes())
                if key not in made:
                    made[key] = self._film(episode, actions, steps)
                films.append(made[key])
        return films

    def _film(self, episode: int, actions: Tensor, steps: int) -> _Film:
        """What the episode shows along the first ``steps`` of actions (T, \\*action)."""
        observation, _ = self.env.reset(seed=self.config.seed + episode)
        seen, rewards, going = [self._array(observation)], [], []
        space, over, alive = self.env.action_space, False, 1.0
        for step in range(steps):
            reward = 0.0
            if not over:
                action: Any = 0  # of Discrete(1)
                if not self.spec.passive:
                    action = np.asarray(actions[step].numpy(), space.dtype)
                observation, earned, terminated, truncated, _ = self.env.step(action)
                over, reward = terminated or truncated, float(earned)
                alive = 0.0 if terminated else 1.0
            seen.append(self._array(observation))
            rewards.append(reward)
            going.append(alive)
        shown = self.spec.to_model(torch.from_numpy(np.stack(seen)))
        return _Film(shown, torch.tensor(rewards), torch.tensor(going))

    def _fitting(self, row: int, seen: Tensor, times: Tensor, path: Tensor) -> list[int]:
        """The episodes that show observations (m, \\*observation) at times (m,)."""
        first = (times == 0).nonzero().flatten()
        if len(first) == 0:
            raise UnsupportedQuery(
                f"context.times: replay recognises an episode by time 0, scene {row} shows "
                f"{times.tolist()}"
            )
        start = seen[first[0]]
        array = to_uint8(start) if self.spec.is_image else start
        found = []
        for episode in self._starts.get(array.numpy().tobytes(), []):
            film = self._film(episode, path, int(times.max()))
            if torch.allclose(film.observations[times], seen, atol=1e-3):
                found.append(episode)
        if not found:
            raise UnsupportedQuery(
                f"context: scene {row} is none of the {self.config.episodes} episodes that replay "
                f"knows (seeds {self.config.seed} .. {self.config.seed + self.config.episodes - 1})"
            )
        return found

    def _array(self, observation: Any) -> NDArray[Any]:
        """A copy in the border's dtype: environments may reuse their buffer."""
        return np.array(observation, self.spec.border[1])
