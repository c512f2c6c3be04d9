"""Learn in imagination, and evaluate any agent on the same real episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor
from tqdm import tqdm

from agents.planners.base import Agent, Planner
from agents.policies import SmallCnn
from agents.starts import Starts
from agents.vec_env import ImaginedVecEnv
from agents.wrappers import HoldAction
from worldmodel.base import WorldModel
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec

PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 128,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "ent_coef": 0.01,
    "gamma": 0.98,
}


def train_in_imagination(
    model: WorldModel,
    starts: Starts,
    steps: int,
    num_envs: int = 32,
    hold: int = 1,
    horizon: int | None = None,
    frame_stack: int = 4,
    seed: int = 0,
    terminations: Literal["threshold", "sampled"] = "sampled",
    callback: MaybeCallback = None,
    tensorboard_log: str | None = None,
    threads: int = 1,
    progress_bar: bool = False,
    imagination: Mapping[str, Any] | None = None,
    **settings: Any,
) -> PPO:
    """Train SB3's PPO in ``ImaginedVecEnv``; no real step is taken.

    The result plays ``HoldAction(env, hold)`` with ``frame_stack`` stacked frames, for example in
    ``evaluate(agent, env, episodes, hold=hold, frame_stack=frame_stack)``.

    Args:
        model, starts, num_envs, hold, horizon: as in ``ImaginedVecEnv``; recorded episodes give
            only their first frames where frames are stacked.
        steps: imagined decisions to train for.
        frame_stack: frames that the policy sees.
        seed: of imagination and PPO.
        terminations: as in ``ImaginedVecEnv``. By chance they come as often as the model expects
            them; one that is unsure when an episode ends never passes a threshold, and the agent
            learns that nothing can end it.
        callback: SB3 callbacks.
        tensorboard_log: folder of the TensorBoard log.
        threads: of torch, on the CPU, while training; more than 1 seldom helps images this small.
        progress_bar: show SB3's progress bar.
        imagination: further arguments of ``ImaginedVecEnv``, such as ``worlds`` and ``penalty``.
        settings: further arguments of PPO; they replace those of ``PPO_SETTINGS``.

    Raises:
        ValueError: a number is below 1, or more channels would be stacked than a row has pixels
            (SB3 would mistake them for rows).
    """
    for name, value in (("steps", steps), ("threads", threads)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    check_frame_stack(model.spec, frame_stack)
    starts = stackable(starts, frame_stack > 1)
    imagined = ImaginedVecEnv(
        model,
        starts,
        num_envs,
        hold,
        horizon,
        terminations=terminations,
        seed=seed,
        **(imagination or {}),
    )
    venv = monitored(imagined, frame_stack)
    with torch_threads(threads):
        agent = make_ppo(model.spec, venv, seed, tensorboard_log, **settings)
        agent.learn(steps, callback=callback, progress_bar=progress_bar)
    return agent


def check_frame_stack(spec: Spec, frame_stack: int) -> None:
    """Raise ValueError for a stack below 1, or one whose channels SB3 would mistake for rows."""
    if frame_stack < 1:
        raise ValueError(f"frame_stack: expected at least 1, got {frame_stack}")
    if spec.is_image and spec.observation[0] * frame_stack >= min(spec.observation[1:]):
        raise ValueError(
            f"frame_stack: {frame_stack} frames of {spec.observation[0]} channels must be fewer "
            f"than the {min(spec.observation[1:])} pixels of a side"
        )


def stackable(starts: Starts, stacked: bool) -> Starts:
    """Where episodes may begin whose frames are stacked: recorded ones where they began, for
    nothing is known of the frames before another step.
    """
    return starts.starts() if stacked and isinstance(starts, Episodes) else starts


def monitored(imagined: ImaginedVecEnv, frame_stack: int) -> VecEnv:
    """With the statistics of episodes, and frames stacked."""
    venv = VecMonitor(imagined)
    return VecFrameStack(venv, frame_stack) if frame_stack > 1 else venv


def make_ppo(
    spec: Spec, venv: VecEnv, seed: int, tensorboard_log: str | None, **settings: Any
) -> PPO:
    """SB3's PPO: for vectors with SB3's networks (with one hidden layer less it learns to balance
    CartPole's pole, but not where), for images with small ones.
    """
    kwargs: dict[str, Any] = {}
    if spec.is_image:
        kwargs = {"features_extractor_class": SmallCnn, "net_arch": {"pi": [64], "vf": [64]}}
    policy = "CnnPolicy" if spec.is_image else "MlpPolicy"
    chosen = {"policy": policy, "policy_kwargs": kwargs, **PPO_SETTINGS, **settings}
    return PPO(env=venv, seed=seed, tensorboard_log=tensorboard_log, **chosen)


def evaluate(
    agent: Agent,
    env: str | Callable[[], gym.Env[Any, Any]],
    episodes: int,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    num_envs: int = 16,
    deterministic: bool = True,
    progress: bool = False,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
) -> NDArray[np.float64]:
    """Play real episodes: always the same ones for the same seed, whoever plays.

    Episode i is reset with ``seed + i``, however many environments run side by side.

    Args:
        agent: anything with SB3's ``predict``: PPO, a planner, ``RandomAgent``.
        env: Gymnasium id, or a function that makes the environment (without ``HoldAction``).
        episodes: how many.
        seed: of the first episode.
        hold: steps that an action is held; as in training, or as the planner holds them.
        frame_stack: frames that the agent sees: 1 for planners, as in training for policies.
        num_envs: environments side by side.
        deterministic: handed to ``agent.predict``.
        progress: show a progress bar on a terminal.
        wrap: what goes around all environments at once, before frames are stacked, such as
            ``lambda venv: LookaheadVecWrapper(venv, model, hold=5)``. What it draws at random
            depends on ``num_envs``; the episodes do not.

    Returns:
        float64 (episodes,): the undiscounted return of each episode, in order.

    Raises:
        TypeError: ``env`` is an environment, not what makes one.
        ValueError: a number is below 1, or the agent was made for another ``hold``, frame stack,
            ``wrap`` or other spaces.
    """
    for name, value in (("episodes", episodes), ("frame_stack", frame_stack), ("hold", hold)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if num_envs < 1:
        raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
    if not (isinstance(env, str) or callable(env)):
        raise TypeError(
            "env: expected a Gymnasium id, or a function that makes the environment, got "
            f"{type(env).__name__}"
        )
    if getattr(agent, "hold", hold) != hold:
        raise ValueError(f"hold: the planner holds actions for {agent.hold} steps, got {hold}")  # type: ignore[attr-defined]
    count = min(num_envs, episodes)
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        partial(_make, env, hold, seed + i, count) for i in range(count)
    ]
    venv: VecEnv = DummyVecEnv(makers)
    if wrap is not None:
        venv = wrap(venv)
    if isinstance(agent, Planner):
        agent.model.spec.check_spaces(venv.observation_space, venv.action_space, "env")
    chosen = getattr(agent, "action_space", venv.action_space)
    if chosen != venv.action_space:
        raise ValueError(f"agent: its actions are {chosen}, the environment's {venv.action_space}")
    if frame_stack > 1:
        venv = VecFrameStack(venv, frame_stack)
    _check_stack(agent, venv, frame_stack)
    bar = tqdm(total=episodes, desc="evaluate", unit="episode", disable=None if progress else True)
    returns = np.zeros(episodes)
    current = np.arange(count)  # the episode that each environment plays
    observations, state, starts = venv.reset(), None, np.ones(count, np.bool_)
    while (current < episodes).any():
        actions, state = agent.predict(observations, state, starts, deterministic=deterministic)
        observations, rewards, starts, _ = venv.step(actions)
        counts = current < episodes
        returns[current[counts]] += rewards[counts]
        bar.update(int((counts & starts).sum()))
        current[starts] += count
    bar.close()
    venv.close()
    return returns


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run with that many threads of torch, then as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_stack(agent: Agent, venv: VecEnv, frame_stack: int) -> None:
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


class _SeededEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """The n-th reset gets the seed ``first + n * stride``."""

    def __init__(self, env: gym.Env[Any, Any], first: int, stride: int) -> None:
        super().__init__(env)
        self.following, self.stride = first, stride

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        seed, self.following = self.following, self.following + self.stride
        return self.env.reset(seed=seed, options=options)


def _make(
    env: str | Callable[[], gym.Env[Any, Any]], hold: int, first: int, stride: int
) -> gym.Env[Any, Any]:
    made = gym.make(env) if isinstance(env, str) else env()
    return _SeededEpisodes(HoldAction(made, hold), first, stride)
