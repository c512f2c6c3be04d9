"""A real episode beside the imagined one: the picture that says whether a model can be trusted."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.history import Frames
from agents.imagination import Imagination
from agents.planners.base import Agent, RandomAgent
from worldmodel.base import WorldModel
from worldmodel.tensorboard import tile_videos


def play(
    env: gym.Env[Any, Any],
    policy: Agent,
    seed: int,
    steps: int,
    hold: int = 1,
    frame_stack: int = 1,
) -> tuple[Frames, NDArray[Any]]:
    """Play one episode and record every frame, those in between decisions too.

    Args:
        env: a plain environment with images (H, W, C), without ``HoldAction``.
        policy: decides every ``hold`` steps.
        seed: of the episode.
        steps: stop after that many.
        hold: steps that an action is held.
        frame_stack: frames (of decisions) that the policy sees, stacked along the channels as
            ``VecFrameStack`` does: the newest last, zeros before the first.

    Returns:
        uint8 frames (T + 1, H, W, C) and the actions (T, *action), T <= steps.
    """
    frame = np.asarray(env.reset(seed=seed)[0])
    frames, actions = [frame.copy()], list[NDArray[Any]]()
    channels = frame.shape[-1]
    stacked = np.zeros((*frame.shape[:-1], channels * frame_stack), frame.dtype)
    state, ended = None, False
    while not ended and len(actions) < steps:
        stacked = np.concatenate([stacked[..., channels:], frame], -1)
        start = np.array([not actions])
        action, state = policy.predict(stacked[None], state, start, deterministic=True)
        for _ in range(min(hold, steps - len(actions))):
            frame, _, terminated, truncated, _ = env.step(action[0])
            frame = np.asarray(frame)
            frames.append(frame.copy())
            actions.append(np.asarray(action[0]))
            ended = terminated or truncated
            if ended:
                break
    return np.stack(frames), np.stack(actions)


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
    real, actions = play(env, policy, seed, model.spec.window, hold, frame_stack)
    imagination = Imagination(model, seed)
    imagination.reset(real[:1])
    worlds = imagination.worlds(1)
    real = real[:: model.stride]  # as much as the model reaches
    times = model.stride * np.arange(1, len(real))
    imagined = imagination.render(worlds, times, actions[None, None])[0, 0, 0]
    model.train(training)
    both = np.stack([real, np.concatenate([real[:1], imagined])])
    tiled = tile_videos(both, columns=2, gap=gap)
    return np.repeat(tiled, 3 // tiled.shape[-1], axis=-1)
