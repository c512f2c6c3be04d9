"""Stable-Baselines3 callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from agents.beside import imagination_error, real_beside_imagined
from agents.train import evaluate
from worldmodel.base import WorldModel
from worldmodel.tensorboard import add_video


class ImaginationVideo(BaseCallback):
    """Log a clip to TensorBoard: the agent's real episode, beside the same actions imagined.

    Without TensorBoard (``tensorboard_log=None``) it warns once and does nothing.

    Args:
        env: a plain environment of the model's spaces, without ``HoldAction``; only for the clips.
        world_model: the model that imagines.
        every: environment steps between clips; one is logged at the start as well.
        hold: steps that an action is held, the ``jump`` of the training.
        play: "policy" plays the policy that is being trained, "random" random actions.
        seed: of the episode, always the same.
        tag: name of the clip in TensorBoard.
        fps: frames per second.

    Raises:
        ValueError: ``every`` or ``hold`` is below 1, ``play`` is neither, or the spaces differ from
            the model's.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        world_model: WorldModel,
        every: int = 10_000,
        hold: int = 1,
        play: Literal["policy", "random"] = "policy",
        seed: int = 0,
        tag: str = "imagination/real_imagined",
        fps: float = 8,
    ) -> None:
        super().__init__()
        if every < 1 or hold < 1:
            raise ValueError(f"every, hold: expected at least 1, got {every}, {hold}")
        if play not in ("policy", "random"):
            raise ValueError(f"play: expected 'policy' or 'random', got {play!r}")
        world_model.spec.require_images("world_model")
        world_model.spec.check_spaces(env.observation_space, env.action_space, "env")
        self.env = env
        self.world_model = world_model  # BaseCallback.model is the SB3 algorithm
        self.every = every
        self.hold = hold
        self.play = play
        self.seed = seed
        self.tag = tag
        self.fps = fps
        self._next = 0
        self._output: TensorBoardOutputFormat | None = None

    def _on_training_start(self) -> None:
        outputs = self.logger.output_formats
        found = [output for output in outputs if isinstance(output, TensorBoardOutputFormat)]
        self._output = found[0] if found else None
        if self._output is None:
            warnings.warn(
                "ImaginationVideo: no TensorBoard logger, so no clips; give the algorithm "
                "tensorboard_log='runs'",
                stacklevel=2,
            )
        self._next = self.num_timesteps

    def _on_step(self) -> bool:
        if self._output is not None and self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self.every
            self._log(self._output)
        return True

    def _log(self, output: TensorBoardOutputFormat) -> None:
        policy = None if self.play == "random" else self.model
        channels = self.world_model.spec.observation[0]
        stacked = min(self.model.observation_space.shape or (channels,))
        clip = real_beside_imagined(
            self.world_model,
            self.env,
            policy,
            self.seed,
            self.hold,
            max(1, stacked // channels) if policy is not None else 1,
        )
        add_video(output.writer, self.tag, clip, self.num_timesteps, self.fps)


class RealReturns(BaseCallback):
    """Log what the policy earns in the real environment, beside what imagination promises.

    ``real/return`` is the mean of the same real episodes each time; ``rollout/ep_rew_mean``, which
    SB3 logs by itself, is what the training environment paid, be it imagined.

    Args:
        env: Gymnasium id, or a function that makes the environment (without ``HoldAction``).
        every: environment steps between evaluations; one is made at the start and at the end.
        episodes: real episodes of one evaluation.
        seed: of the first episode.
        settings: of ``agents.evaluate``, such as ``hold``, ``frame_stack`` and ``wrap``.

    Attributes:
        history: pairs of (steps of the algorithm, returns float64 (episodes,)).

    Raises:
        ValueError: ``every`` or ``episodes`` is below 1.
    """

    def __init__(
        self,
        env: str | Callable[[], gym.Env[Any, Any]],
        every: int = 10_000,
        episodes: int = 20,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__()
        if every < 1 or episodes < 1:
            raise ValueError(f"every, episodes: expected at least 1, got {every}, {episodes}")
        self.env, self.every, self.episodes, self.seed = env, every, episodes, seed
        self.settings = settings
        self.history: list[tuple[int, NDArray[np.float64]]] = []
        self._next = 0

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps

    def _on_rollout_start(self) -> None:  # between updates: the policy is not being changed
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self.every
            self._measure()

    def _on_training_end(self) -> None:
        if not self.history or self.history[-1][0] < self.num_timesteps:
            self._measure()
            self.logger.dump(self.num_timesteps)

    def _on_step(self) -> bool:
        return True

    def _measure(self) -> None:
        returns = evaluate(self.model, self.env, self.episodes, self.seed, **self.settings)
        self.history.append((self.num_timesteps, returns))
        self.logger.record("real/return", float(returns.mean()))


class ModelError(BaseCallback):
    """Log how far imagination is off along the policy's own real episodes.

    Real episodes are played, and the same actions imagined in one world given the first
    observation alone: ``model/mse`` of the observations, in the model's range ([0, 1] for images,
    the environment's units for vectors), and ``model/reward_error``, the mean absolute error of
    the summed rewards, both of the steps that both reach.

    Args:
        env: a plain environment of the model's spaces, without ``HoldAction``; only for this.
        world_model: the model that imagines.
        every: environment steps between measurements; one is made at the start.
        episodes: real episodes of one measurement.
        hold: steps that an action is held.
        frame_stack: frames that the policy sees.
        seed: of the first episode.

    Raises:
        ValueError: a number is below 1, or the spaces differ from the model's.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        world_model: WorldModel,
        every: int = 10_000,
        episodes: int = 4,
        hold: int = 1,
        frame_stack: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("every", every), ("episodes", episodes), ("hold", hold), ("frame_stack", frame_stack)
        ):  # fmt: skip
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        world_model.spec.check_spaces(env.observation_space, env.action_space, "env")
        self.env, self.world_model = env, world_model
        self.every, self.episodes, self.seed = every, episodes, seed
        self.hold, self.frame_stack = hold, frame_stack
        self._next = 0

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self.every
            found = [
                imagination_error(
                    self.world_model, self.env, self.model, self.seed + i, self.hold,
                    self.frame_stack,
                )
                for i in range(self.episodes)
            ]  # fmt: skip
            known = [errors for errors in found if not np.isnan(errors[0])]
            if known:
                mse, reward_error = np.mean(known, 0).tolist()
                self.logger.record("model/mse", mse)
                self.logger.record("model/reward_error", reward_error)

    def _on_step(self) -> bool:
        return True
