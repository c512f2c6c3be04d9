"""A real episode beside the imagined one: the picture that says whether a model can be trusted."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agents.history import Frames
from agents.imagination import Imagination
from agents.planners.base import Agent, RandomAgent
from worldmodel.base import WorldModel
from worldmodel.tensorboard import tile_videos
from worldmodel.types import Prediction


def play(
    env: gym.Env[Any, Any],
    policy: Agent,
    seed: int,
    steps: int,
    hold: int = 1,
    frame_stack: int = 1,
    deterministic: bool = True,
) -> tuple[Frames, NDArray[Any], NDArray[np.float64]]:
    """Play one episode and record every frame, those in between decisions too.

    Args:
        env: a plain environment with images (H, W, C) or vectors (D,), without ``HoldAction``.
        policy: decides every ``hold`` steps.
        seed: of the episode.
        steps: stop after that many.
        hold: steps that an action is held.
        frame_stack: frames (of decisions) that the policy sees, stacked along the channels as
            ``VecFrameStack`` does: the newest last, zeros before the first.
        deterministic: handed to ``policy.predict``.

    Returns:
        the frames (T + 1, *observation), actions (T, *action) and rewards (T,), T <= steps.
    """
    frame = np.asarray(env.reset(seed=seed)[0])
    frames, actions, rewards = [frame.copy()], list[NDArray[Any]](), list[float]()
    channels = frame.shape[-1]
    stacked = np.zeros((*frame.shape[:-1], channels * frame_stack), frame.dtype)
    state, ended = None, False
    while not ended and len(actions) < steps:
        stacked = np.concatenate([stacked[..., channels:], frame], -1)
        start = np.array([not actions])
        action, state = policy.predict(stacked[None], state, start, deterministic=deterministic)
        for _ in range(min(hold, steps - len(actions))):
            frame, reward, terminated, truncated, _ = env.step(action[0])
            frame = np.asarray(frame)
            frames.append(frame.copy())
            actions.append(np.asarray(action[0]))
            rewards.append(float(reward))
            ended = terminated or truncated
            if ended:
                break
    return np.stack(frames), np.stack(actions), np.array(rewards)


def real_beside_imagined(
    model: WorldModel,
    env: gym.Env[Any, Any],
    policy: Agent | None = None,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    gap: int = 2,
) -> Frames:
    """Play a real episode, and imagine the same actions from its first frame.

    One world is sampled given the first frame alone; every later frame on the right is imagined.
    Of a model that strides, only the frames that it reaches are shown.

    Args:
        model: any world model.
        env: a plain environment of the model's spaces, without ``HoldAction``.
        policy: decides every ``hold`` steps; None acts at random.
        seed: of the episode, the random actions and the world.
        hold, frame_stack: as in ``play``.
        gap: pixels between left and right.

    Returns:
        uint8 (T, H, 2 W + gap, 3): the real episode on the left, the imagined one on the right,
        T <= window + 1.

    Raises:
        ValueError: the environment's spaces are not the model's, or ``hold`` or ``frame_stack`` is
            below 1.
    """
    model.spec.require_images("model")
    model.spec.check_spaces(env.observation_space, env.action_space, "env")
    if min(hold, frame_stack) < 1:
        raise ValueError(f"hold, frame_stack: expected at least 1, got {hold}, {frame_stack}")
    policy = RandomAgent(env.action_space, seed) if policy is None else policy
    training = model.training
    real, actions, _ = play(env, policy, seed, model.spec.window, hold, frame_stack)
    real, seen = _follow(model, real, actions, seed)
    model.train(training)
    assert seen.observations is not None
    imagined = model.spec.to_numpy(seen.observations[0, 0, 0])
    both = np.stack([real, np.concatenate([real[:1], imagined])])
    tiled = tile_videos(both, columns=2, gap=gap)
    return np.repeat(tiled, 3 // tiled.shape[-1], axis=-1)


def imagination_error(
    model: WorldModel,
    env: gym.Env[Any, Any],
    policy: Agent,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
) -> tuple[float, float]:
    """How far one imagined episode is off a real one with the same actions and first observation.

    Arguments as for ``real_beside_imagined``; the environment may have vectors.

    Returns:
        the mean squared error of the observations that the model reaches, as it takes them
        ([0, 1] for images), and the absolute error of the sum of their steps' rewards; NaN where
        the episode was shorter than a stride of the model.
    """
    training = model.training
    real, actions, rewards = play(env, policy, seed, model.spec.window, hold, frame_stack)
    if len(actions) < model.stride:
        return math.nan, math.nan
    shown, seen = _follow(model, real, actions, seed)
    model.train(training)
    assert seen.observations is not None
    truth = model.spec.to_model(torch.from_numpy(shown[1:])).to(seen.observations)
    alive = seen.alive[0, 0, 0]
    before = torch.cat([torch.ones_like(alive[:1]), alive[:-1]])
    promised = float((before * seen.rewards[0, 0, 0]).sum())
    paid = float(rewards[: model.stride * (len(shown) - 1)].sum())
    mse = (seen.observations[0, 0, 0] - truth).square().mean()
    return float(mse), abs(promised - paid)


def _follow(
    model: WorldModel, real: Frames, actions: NDArray[Any], seed: int
) -> tuple[Frames, Prediction]:
    """The real frames that the model reaches, and what it imagines of all but the first."""
    imagination = Imagination(model, seed)
    imagination.reset(real[:1])
    worlds = imagination.worlds(1)
    shown = real[:: model.stride]
    times = model.stride * np.arange(1, len(shown))
    return shown, imagination.predict(worlds, times, actions[None, None])
