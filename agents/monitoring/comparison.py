"""A real episode beside the imagined one: the picture that says whether a model can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agents.history import Frames
from agents.imagination import Imagination
from agents.monitoring.calibration import hidden
from agents.planners.base import Agent, RandomAgent
from worldmodel.base import WorldModel
from worldmodel.common.video import tile_videos
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


@dataclass(frozen=True)
class Comparison:
    """A real episode, and the same actions in S sampled worlds, given its first frame alone.

    Attributes:
        real: uint8 (T, H, W, C), the frames that the model reaches.
        imagined: uint8 (S, T, H, W, C); the first frame is the real one.
        paid: the sum of the real rewards until the last of these frames.
        promised: float64 (S,), what the worlds expect of that sum.
    """

    real: Frames
    imagined: Frames
    paid: float
    promised: NDArray[np.float64]

    def clips(self) -> tuple[Frames, list[str]]:
        """Rows for ``add_video(..., columns=S)``: real, imagined, and the absolute difference.

        Returns:
            uint8 (3 S, T, H, W, C), a column for each world, and as many captions. Where the
            difference is black, the world agrees with what really happened.
        """
        real = np.broadcast_to(self.real, self.imagined.shape)
        difference = np.abs(real.astype(np.int16) - self.imagined).astype(np.uint8)
        captions = [f"real: reward {self.paid:.3g}"] * len(self.promised)
        captions += [f"imagined {i}: {x:.3g}" for i, x in enumerate(self.promised, 1)]
        captions += [f"difference {i + 1}" for i in range(len(self.promised))]
        return np.concatenate([real, self.imagined, difference]), captions


def compare(
    model: WorldModel,
    env: gym.Env[Any, Any],
    policy: Agent | None = None,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    worlds: int = 3,
) -> Comparison:
    """Play a real episode, and imagine the same actions in several worlds from its first frame.

    The worlds are sampled given the first frame alone; every later frame of theirs is imagined.
    Of a model that strides, only the frames that it reaches are shown.

    Args:
        model: any world model of images.
        env: a plain environment of the model's spaces, without ``HoldAction``.
        policy: decides every ``hold`` steps; None acts at random.
        seed: of the episode, the random actions and the worlds.
        hold, frame_stack: as in ``play``.
        worlds: how many futures, at least 1.

    Returns:
        at most window + 1 frames.

    Raises:
        ValueError: the model sees vectors, the environment's spaces are not the model's, or a
            number is below 1.
    """
    model.spec.require_images("model")
    model.spec.check_spaces(env.observation_space, env.action_space, "env")
    if min(hold, frame_stack, worlds) < 1:
        raise ValueError(
            f"hold, frame_stack, worlds: expected at least 1, got {hold}, {frame_stack}, {worlds}"
        )
    policy = RandomAgent(env.action_space, seed) if policy is None else policy
    training = model.training
    real, actions, rewards = play(env, policy, seed, model.spec.window, hold, frame_stack)
    shown = real[:: model.stride]
    imagination = Imagination(model, seed)
    imagination.reset(real[:1])
    times = model.stride * np.arange(len(shown))
    seen = imagination.predict(imagination.worlds(worlds), times[1:], actions[None, None])
    model.train(training)
    assert seen.observations is not None
    imagined = model.spec.to_numpy(seen.observations[0, :, 0])
    first = np.broadcast_to(real[:1], (worlds, *real[:1].shape))
    paid = float(rewards[: times[-1]].sum())
    promised = _promised(seen).double().cpu().numpy()
    return Comparison(shown, np.concatenate([first, imagined], 1), paid, promised)


def real_beside_imagined(
    model: WorldModel,
    env: gym.Env[Any, Any],
    policy: Agent | None = None,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    gap: int = 2,
) -> Frames:
    """``compare`` with one world, as one clip.

    Args:
        model, env, policy, seed, hold, frame_stack: as in ``compare``.
        gap: pixels between left and right.

    Returns:
        uint8 (T, H, 2 W + gap, 3): the real episode on the left, the imagined one on the right,
        T <= window + 1.

    Raises:
        ValueError: as ``compare``.
    """
    both = compare(model, env, policy, seed, hold, frame_stack, worlds=1)
    tiled = tile_videos(np.stack([both.real, both.imagined[0]]), columns=2, gap=gap)
    return np.repeat(tiled, 3 // tiled.shape[-1], axis=-1)


class ImaginationError(NamedTuple):
    """How far imagination is off, and whether it is as sure as it may be; see the function."""

    mse: float
    reward_error: float
    frame_calibration: float
    reward_calibration: float


LOOKS = 4
"""Frames of an episode that calibration looks at, evenly spread, the last among them."""


def imagination_error(
    model: WorldModel,
    env: gym.Env[Any, Any],
    policy: Agent,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    worlds: int = 9,
) -> ImaginationError:
    """Hold imagined episodes against a real one with the same actions and first observation.

    Args:
        model, env, policy, seed, hold, frame_stack: as in ``compare``; vectors are welcome.
        worlds: S, sampled for the calibration, at least 2.

    Returns:
        * ``mse``: the mean squared error of the observations that the model reaches, in one world,
          as the model takes them ([0, 1] for images);
        * ``reward_error``: the absolute error of the sum of their steps' rewards in that world;
        * ``frame_calibration``: of up to four of these frames, the share in which the real one is
          not the odd one out among itself and S sampled ones (``calibration.hidden``): S /
          (S + 1) on average of a model that is calibrated, lower if it is too sure or wrong;
        * ``reward_calibration``: the same of the sum of the rewards. Models tell expected rewards
          of a world: what chance adds to them later makes this lower.

        All are NaN where the episode was shorter than a stride of the model.
    """
    training = model.training
    real, actions, rewards = play(env, policy, seed, model.spec.window, hold, frame_stack)
    count = len(actions) // model.stride
    if count == 0:
        return ImaginationError(*[math.nan] * 4)
    shown = real[:: model.stride][1:]
    truth = model.spec.to_model(torch.from_numpy(shown)).to(model.device)
    paid = torch.tensor([rewards[: model.stride * count].sum()], device=model.device)
    imagination = Imagination(model, seed)
    imagination.reset(real[:1])
    every = np.arange(1, count + 1)
    seen = imagination.predict(imagination.worlds(1), model.stride * every, actions[None, None])
    looks = np.linspace(count / LOOKS, count, LOOKS).round().astype(int).clip(1)
    looks = np.unique(looks)
    several = imagination.predict(
        imagination.worlds(worlds), model.stride * looks, actions[None, None]
    )
    model.train(training)
    assert seen.observations is not None and several.observations is not None
    # As the environment would show them: images are rounded to 256 levels, like the real ones.
    frames = torch.from_numpy(model.spec.to_numpy(several.observations[0, :, 0])).to(model.device)
    return ImaginationError(
        float((seen.observations[0, 0, 0] - truth).square().mean()),
        float((_promised(seen)[0] - paid).abs()),
        float(hidden(truth[looks - 1], model.spec.to_model(frames)).mean()),
        float(hidden(paid, _promised(several)[:, None]).mean()),
    )


def _promised(seen: Prediction) -> torch.Tensor:
    """(S,): the rewards of one scene and plan that the worlds expect, summed over the queries."""
    return (seen.running * seen.rewards)[0, :, 0].sum(1)
