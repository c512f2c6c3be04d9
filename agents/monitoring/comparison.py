"""A real episode and the imagined one of the same actions, to look at side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.evaluation import play
from agents.history import Frames
from agents.imagination import Imagination
from agents.planners.base import Agent
from agents.random_agent import RandomAgent
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.common.video import tile_videos
from worldmodel.data.make_env import EnvLike, open_env
from worldmodel.types import Prediction


@dataclass(frozen=True)
class Comparison:
    """A real episode, and the same actions in S sampled worlds, given its first frame alone.

    Attributes:
        real: uint8 (T, H, W, C), the frames that the model reaches.
        imagined: uint8 (S, T, H, W, C); the first frame is the real one.
        real_return: the sum of the real rewards until the last of these frames.
        imagined_returns: float64 (S,), that sum as the worlds predict it.
    """

    real: Frames
    imagined: Frames
    real_return: float
    imagined_returns: NDArray[np.float64]

    def clips(self) -> tuple[Frames, list[str]]:
        """Rows for ``add_video(..., columns=S)``: real, imagined, and the absolute difference.

        Returns:
            uint8 (3 S, T, H, W, C), a column for each world, and as many captions. The difference
            is black where the world agrees with what really happened.
        """
        real = np.broadcast_to(self.real, self.imagined.shape)
        difference = np.abs(real.astype(np.int16) - self.imagined).astype(np.uint8)
        captions = [f"real: reward {self.real_return:.3g}"] * len(self.imagined_returns)
        captions += [f"imagined {i}: {x:.3g}" for i, x in enumerate(self.imagined_returns, 1)]
        captions += [f"difference {i + 1}" for i in range(len(self.imagined_returns))]
        return np.concatenate([real, self.imagined, difference]), captions

    def side_by_side(self, gap: int = 2) -> Frames:
        """The real episode on the left, that of the first world on the right, as one clip.

        Args:
            gap: pixels between the two.

        Returns:
            uint8 (T, H, 2 W + gap, 3).
        """
        tiled = tile_videos(np.stack([self.real, self.imagined[0]]), columns=2, gap=gap)
        return np.repeat(tiled, 3 // tiled.shape[-1], axis=-1)


def compare(
    model: WorldModel,
    env: EnvLike,
    policy: Agent | None = None,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    worlds: int = 3,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
) -> Comparison:
    """Play a real episode, and imagine the same actions in several worlds from its first frame.

    The worlds are sampled given the first frame alone; all their later frames are imagined. If the
    model has a stride, only the frames that it reaches are shown.

    Args:
        model: any world model of images.
        env: of the model's spaces, without ``HoldAction``; see ``worldmodel.EnvLike``.
        policy: decides every ``hold`` steps; None acts at random.
        seed: of the episode, the random actions and the worlds.
        hold, frame_stack, wrap: as in ``evaluate``.
        worlds: how many futures, at least 1.

    Returns:
        at most window + 1 frames.

    Raises:
        ValueError: the model is one of vectors, the environment's spaces are not the model's, or a
            number is below 1.
    """
    model.spec.require_images("model")
    numbers_at_least(1, hold=hold, frame_stack=frame_stack, worlds=worlds)
    training = model.training
    with open_env(env) as real_env:
        model.spec.check_spaces(real_env.observation_space, real_env.action_space, "env")
        policy = RandomAgent(real_env.action_space, seed) if policy is None else policy
        frames, actions, rewards = play(
            real_env, policy, seed, model.spec.window, hold, frame_stack, wrap=wrap
        )
    real = frames[:: model.stride]
    imagination = Imagination(model, seed)
    imagination.reset(frames[:1])
    times = model.stride * np.arange(len(real))
    answer = imagination.predict(imagination.worlds(worlds), times[1:], actions[None, None])
    model.train(training)
    assert answer.observations is not None
    imagined = model.spec.to_numpy(answer.observations[0, :, 0])
    first = np.broadcast_to(frames[:1], (worlds, *frames[:1].shape))
    returns = total_rewards(answer).double().cpu().numpy()
    total = float(rewards[: times[-1]].sum())
    return Comparison(real, np.concatenate([first, imagined], 1), total, returns)


def total_rewards(prediction: Prediction) -> Tensor:
    """(S,): the rewards that the worlds of one scene and plan predict, summed over the queries."""
    return (prediction.running * prediction.rewards)[0, :, 0].sum(1)
