"""Stable-Baselines3 callbacks."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from agents.beside import real_beside_imagined
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
