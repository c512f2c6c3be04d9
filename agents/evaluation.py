"""Play real episodes: the returns of many, or every frame of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack

from agents.history import Frames
from agents.legal_actions import masks_of, takes_masks
from agents.planners.base import Agent, Planner
from agents.wrappers import HoldAction
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.common.progress import progress_bar
from worldmodel.data.make_env import Env, EnvLike, make_env
from worldmodel.spec import Spec


def evaluate(
    agent: Agent,
    env: EnvLike,
    episodes: int,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    num_envs: int = 16,
    deterministic: bool = True,
    progress: bool = False,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
) -> NDArray[np.float64]:
    """Play real episodes: always the same ones for the same seed, whatever the agent.

    Episode i is reset with ``seed + i``, however many environments run side by side.

    Args:
        agent: anything with SB3's ``predict``: PPO, a planner, ``RandomAgent``. One whose
            ``predict`` takes ``action_masks`` is given those of environments that have them.
        env: Gymnasium id, function that makes the environment, or an environment (without
            ``HoldAction``). An environment plays all episodes one after the other and is left open;
            the episodes are the same, but for what the agent draws at random.
        episodes: how many.
        seed: of the first episode.
        hold: steps that an action is held, as in training, or as the planner holds them.
        frame_stack: frames that the agent sees: 1 for planners, as in training for policies.
        num_envs: environments side by side.
        deterministic: handed to ``agent.predict``.
        progress: show a progress bar on a terminal, else a line every 30 s.
        wrap: function that wraps all environments at once, before frames are stacked, such as
            ``lambda venv: LookaheadVecWrapper(venv, model, hold=5)``. What it draws at random
            depends on ``num_envs``; the episodes do not. Returns are those of the environment's
            own rewards, whatever the wrapper makes of them (``VecNormalize``).

    Returns:
        float64 (episodes,): the undiscounted return of each episode, in order.

    Raises:
        TypeError: ``env`` is none of these.
        ValueError: a number is below 1, or the agent was made for another ``hold``, frame stack,
            ``wrap`` or other spaces.
    """
    numbers_at_least(1, episodes=episodes, frame_stack=frame_stack, hold=hold, num_envs=num_envs)
    if getattr(agent, "hold", hold) != hold:
        raise ValueError(f"hold: the planner holds actions for {agent.hold} steps, got {hold}")  # type: ignore[attr-defined]
    count = 1 if isinstance(env, gym.Env) else min(num_envs, episodes)
    makers = [partial(_SeededEpisodes, env, hold, seed + i, count) for i in range(count)]
    venv: VecEnv = DummyVecEnv([*makers])
    real = venv
    if wrap is not None:
        venv = wrap(venv)
    if isinstance(agent, Planner):
        agent.model.spec.check_spaces(venv.observation_space, venv.action_space, "env")
    chosen = getattr(agent, "action_space", venv.action_space)
    if chosen != venv.action_space:
        raise ValueError(f"agent: its actions are {chosen}, the environment's {venv.action_space}")
    if frame_stack > 1:
        venv = VecFrameStack(venv, frame_stack)
    _check_observations(agent, venv, frame_stack)
    bar = progress_bar("evaluate", "episode", episodes, show=progress)
    returns = np.zeros(episodes)
    current = np.arange(count)  # the episode that each environment plays
    observations, state, starts = venv.reset(), None, np.ones(count, np.bool_)
    decide = _decider(agent, venv, deterministic)
    while (current < episodes).any():
        actions, state = decide(observations, state, starts)
        observations, _, starts, _ = venv.step(actions)
        counts = current < episodes
        returns[current[counts]] += np.array(real.get_attr("reward"))[counts]
        bar.update(int((counts & starts).sum()))
        current[starts] += count
    bar.close()
    venv.close()
    return returns


def play(
    env: Env,
    policy: Agent,
    seed: int,
    steps: int,
    hold: int = 1,
    frame_stack: int = 1,
    deterministic: bool = True,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
) -> tuple[Frames, NDArray[Any], NDArray[np.float64]]:
    """Play one episode of at most ``steps`` steps; record every frame, those between decisions too.

    Args:
        env, policy, seed, hold, deterministic, wrap: as in ``evaluate``; without ``HoldAction``.
        steps: stop after that many.
        frame_stack: frames (of decisions) that the policy sees, stacked by ``VecFrameStack``.

    Returns:
        the frames (T + 1, *observation) as in an ``Episode``, actions (T, *action) and rewards
        (T,), T <= steps.
    """
    episode = _OneEpisode(env, seed, steps)
    venv: VecEnv = DummyVecEnv([lambda: HoldAction(episode, hold)])
    if wrap is not None:
        venv = wrap(venv)
    if frame_stack > 1:
        venv = VecFrameStack(venv, frame_stack)
    decide = _decider(policy, venv, deterministic)
    observations, state, starts = venv.reset(), None, np.ones(1, np.bool_)
    while not episode.over:
        actions, state = decide(observations, state, starts)
        observations, _, starts, _ = venv.step(actions)
    return np.stack(episode.frames), np.stack(episode.actions), np.array(episode.rewards)


def _decider(
    agent: Agent, venv: VecEnv, deterministic: bool
) -> Callable[[Any, Any, NDArray[np.bool_]], tuple[Any, Any]]:
    """``agent.predict`` of observations, state and episode starts, with the masks of ``venv`` if
    both have any.
    """
    masked = takes_masks(agent)

    def decide(observations: Any, state: Any, starts: NDArray[np.bool_]) -> tuple[Any, Any]:
        masks = masks_of(venv) if masked else None
        given = {} if masks is None else {"action_masks": masks}
        return agent.predict(observations, state, starts, deterministic=deterministic, **given)

    return decide


class _OneEpisode(gym.Wrapper[Any, Any, Any, Any]):
    """Records all steps of one episode, and ends it after ``steps``. Another reset, such as that of
    a ``VecEnv`` at the end, changes nothing.
    """

    def __init__(self, env: Env, seed: int, steps: int) -> None:
        super().__init__(env)
        self.seed, self.steps, self.over = seed, steps, False
        self.frames, self.actions, self.rewards = list[Any](), list[Any](), list[float]()
        self.record: Callable[[Any], NDArray[Any]] = np.array
        if isinstance(env.observation_space, gym.spaces.Dict):
            self.record = Spec.from_spaces(env.observation_space, env.action_space, 1).pack
        self.latest: tuple[Any, dict[str, Any]]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if not self.frames:
            self.latest = self.env.reset(seed=self.seed)
            self.frames.append(self.record(self.latest[0]))
        return self.latest

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        self.actions.append(np.array(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.latest = observation, info
        self.frames.append(self.record(observation))
        self.rewards.append(float(reward))
        cut = len(self.actions) >= self.steps
        self.over = terminated or truncated or cut
        return observation, reward, terminated, truncated or (cut and not terminated), info


class _SeededEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """Holds actions; the n-th reset gets the seed ``first + n * stride``.

    Attributes:
        reward: of the latest step, which no wrapper of all environments has changed.
    """

    def __init__(self, env: EnvLike, hold: int, first: int, stride: int) -> None:
        super().__init__(HoldAction(make_env(env), hold))
        self.following, self.stride = first, stride
        self.given = isinstance(env, gym.Env)
        self.reward = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        seed, self.following = self.following, self.following + self.stride
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        self.reward = float(result[1])
        return result

    def close(self) -> None:
        if not self.given:
            super().close()


def _check_observations(agent: Agent, venv: VecEnv, frame_stack: int) -> None:
    """SB3's algorithms know the shapes that they were trained on, channels first or last."""
    space = getattr(agent, "observation_space", None)
    if space is None:
        return
    trained, played = _shapes(space), _shapes(venv.observation_space)
    if trained.keys() != played.keys():
        raise ValueError(
            f"wrap: the agent was trained on observations {space}, the environment shows "
            f"{venv.observation_space}; give the wrappers of training"
        )
    for key, shape in trained.items():
        if sorted(shape) != sorted(played[key]):
            raise ValueError(
                f"frame_stack: the agent was trained on observations {key}{shape}, with frame_stack"
                f"={frame_stack} the environment shows {played[key]}; give the frame_stack of "
                "training"
            )


def _shapes(space: gym.Space[Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each part of a Dict, or of the only part; none where a space has no shape."""
    if isinstance(space, gym.spaces.Dict):
        return {f"{key} ": part.shape or () for key, part in space.items()}
    return {"": space.shape or ()}
