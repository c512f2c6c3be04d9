"""Stable-Baselines3 callbacks: what TensorBoard shows of an agent and of the model it learns in.

Each measures when training starts, every n steps, and when training ends; and each explains what
it writes in TensorBoard's *Text* tab, once per run.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.vec_env import VecEnv

from agents.evaluation import evaluate, play
from agents.monitoring import tensorboard_help
from agents.monitoring.comparison import compare
from agents.monitoring.model_error import imagination_error
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least
from worldmodel.common.tensorboard import add_video
from worldmodel.data.make_env import EnvLike, make_env
from worldmodel.training.tensorboard_help import explain


class _PeriodicCallback(BaseCallback):
    """Measures at the start, every n steps and at the end; always between updates."""

    help_text: ClassVar[tensorboard_help.Help]

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._next = 0
        self._last = -1
        self._output: TensorBoardOutputFormat | None = None

    def _on_training_start(self) -> None:
        outputs = (o for o in self.logger.output_formats if isinstance(o, TensorBoardOutputFormat))
        self._output = next(outputs, None)
        self._next, self._last = self.num_timesteps, -1
        if self._output is not None and self.num_timesteps == 0:
            name, text, charts = self.help_text
            explain(self._output.writer, name, text, "Agent", charts)

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self.every
            self._last = self.num_timesteps
            self._measure()

    def _on_training_end(self) -> None:
        if self._last != self.num_timesteps:
            self._measure()
            self.logger.dump(self.num_timesteps)

    def _on_step(self) -> bool:
        return True

    def _record(self, name: str, value: float) -> None:
        """Log at this step; ``logger.record`` alone would wait for the logger's next dump."""
        if self._output is not None:
            self._output.writer.add_scalar(name, value, self.num_timesteps)
        self.logger.record(name, value, exclude="tensorboard")

    @abstractmethod
    def _measure(self) -> None: ...


class _VideoCallback(_PeriodicCallback):
    """Logs clips; without TensorBoard it warns once and does nothing."""

    min_height: ClassVar[int] = 128

    def __init__(self, every: int, tag: str, fps: float) -> None:
        super().__init__(every)
        self.tag, self.fps = tag, fps

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self._output is None:
            warnings.warn(
                f"{type(self).__name__}: no TensorBoard logger, so no clips; give the algorithm "
                "tensorboard_log='runs'",
                stacklevel=2,
            )

    def _measure(self) -> None:
        if self._output is None:
            return
        clips, columns, captions = self._clips()
        add_video(
            self._output.writer, self.tag, clips, self.num_timesteps, self.fps,
            min_height=self.min_height, columns=columns, captions=captions,
        )  # fmt: skip
        self._output.writer.flush()

    @abstractmethod
    def _clips(self) -> tuple[NDArray[np.uint8], int, list[str]]:
        """Clips (N, T, H, W, C), how many go in a row, and N captions."""


class ImaginationVideo(_VideoCallback):
    """Log clips to TensorBoard: the agent's real episode, and the same actions imagined.

    Three rows: the real episode, worlds sampled given its first frame, and the absolute difference
    (black where a world agrees); a column for each world. Captions give the sum of the rewards.
    Without TensorBoard (``tensorboard_log=None``) it warns once and does nothing.

    Args:
        env, every, hold, tag, fps: as in ``AgentVideo``; the spaces are those of the model.
        world_model: the model that imagines.
        play: "policy" plays the policy that is being trained, "random" random actions.
        seed: of the episode and the worlds, always the same.
        worlds: futures side by side.
        wrap: of the policy's environment, as in ``agents.evaluate``.

    Raises:
        ValueError: a number is below 1, ``play`` is neither, or the spaces differ from the model's.
    """

    help_text = tensorboard_help.IMAGINATION

    def __init__(
        self,
        env: EnvLike,
        world_model: WorldModel,
        every: int = 10_000,
        hold: int = 1,
        play: Literal["policy", "random"] = "policy",
        seed: int = 0,
        tag: str = "videos/real_imagined_difference",
        fps: float = 8,
        worlds: int = 3,
        wrap: Callable[[VecEnv], VecEnv] | None = None,
    ) -> None:
        super().__init__(every, tag, fps)
        self.hold, self.worlds, self.wrap = hold, worlds, wrap
        at_least(1, self, "every", "hold", "worlds")
        if play not in ("policy", "random"):
            raise ValueError(f"play: expected 'policy' or 'random', got {play!r}")
        world_model.spec.require_images("world_model")
        self.env = make_env(env)
        world_model.spec.check_spaces(self.env.observation_space, self.env.action_space, "env")
        self.world_model = world_model  # BaseCallback.model is the SB3 algorithm
        self.play, self.seed = play, seed

    def _clips(self) -> tuple[NDArray[np.uint8], int, list[str]]:
        policy = None if self.play == "random" else self.model
        channels = self.world_model.spec.observation[0]
        space = self.model.observation_space
        if isinstance(space, gym.spaces.Dict):  # of lookahead
            space = space.spaces.get("observation", space)
        stacked = min(space.shape or (channels,))
        frame_stack = max(1, stacked // channels) if policy is not None else 1
        clips, captions = compare(
            self.world_model, self.env, policy, self.seed, self.hold, frame_stack, self.worlds,
            None if policy is None else self.wrap,
        ).clips()  # fmt: skip
        return clips, self.worlds, captions


class AgentVideo(_VideoCallback):
    """Log a clip to TensorBoard: the agent at play in its real environment.

    The caption gives the return. With the seed of ``RealReturns`` it is the first of the episodes
    that are measured there. Without TensorBoard it warns once and does nothing.

    Args:
        env: without ``HoldAction``, used only here; see ``worldmodel.EnvLike``. With
            ``render_mode="rgb_array"`` its rendered frames are shown, else its observations.
        every: environment steps between clips; one is logged at the start and at the end as well.
        hold: steps that an action is held, as in training.
        frame_stack: frames that the policy sees.
        steps: the clip ends after that many, and its caption says so.
        seed: of the episode, always the same.
        tag: name of the clip in TensorBoard.
        fps: frames per second.
        wrap: as in ``agents.evaluate``.

    Raises:
        ValueError: a number is below 1, or the environment has vectors and renders nothing.
    """

    help_text = tensorboard_help.AGENT
    min_height = 256  # alone in its card, which is that wide

    def __init__(
        self,
        env: EnvLike,
        every: int = 10_000,
        hold: int = 1,
        frame_stack: int = 1,
        steps: int = 400,
        seed: int = 0,
        tag: str = "videos/agent_at_play",
        fps: float = 8,
        wrap: Callable[[VecEnv], VecEnv] | None = None,
    ) -> None:
        super().__init__(every, tag, fps)
        self.hold, self.frame_stack, self.steps, self.wrap = hold, frame_stack, steps, wrap
        at_least(1, self, "every", "hold", "frame_stack", "steps")
        self.env, self.seed = make_env(env), seed
        shape, render_mode = self.env.observation_space.shape, self.env.render_mode
        if render_mode != "rgb_array" and (shape is None or len(shape) != 3):
            raise ValueError(
                "env: its observations are no pictures; make it with render_mode='rgb_array', "
                f"got {render_mode!r}"
            )

    def _clips(self) -> tuple[NDArray[np.uint8], int, list[str]]:
        env = _Rendered(self.env) if self.env.render_mode == "rgb_array" else self.env
        frames, actions, rewards = play(
            env, self.model, self.seed, self.steps + 1, self.hold, self.frame_stack, wrap=self.wrap
        )
        if isinstance(env, _Rendered):
            frames = np.stack(env.pictures)
        cut = len(actions) > self.steps
        total, steps = rewards[: self.steps].sum(), min(len(actions), self.steps)
        caption = f"return {total:.3g} after {steps} steps" + (", not over yet" if cut else "")
        return frames[None, : steps + 1], 1, [caption]


class _Rendered(gym.Wrapper[Any, Any, Any, Any]):
    """Records the rendered frames of the latest episode."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.pictures: list[NDArray[np.uint8]] = []

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(**settings)
        self.pictures = [np.array(self.env.render())]
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        self.pictures.append(np.array(self.env.render()))
        return result


class RealReturns(_PeriodicCallback):
    """Log the policy's returns in the real environment.

    ``real/return`` is the mean of the same real episodes each time. Compare it with SB3's
    ``rollout/ep_rew_mean``, the return in the training environment, which may be imagined.

    Args:
        env: without ``HoldAction``; see ``worldmodel.EnvLike`` and ``agents.evaluate``.
        every: environment steps between evaluations; one is made at the start and at the end.
        episodes: real episodes of one evaluation.
        seed: of the first episode.
        settings: of ``agents.evaluate``, such as ``hold``, ``frame_stack`` and ``wrap``.

    Attributes:
        history: pairs of (steps of the algorithm, returns float64 (episodes,)).

    Raises:
        ValueError: ``every`` or ``episodes`` is below 1.
    """

    help_text = tensorboard_help.RETURNS

    def __init__(
        self,
        env: EnvLike,
        every: int = 10_000,
        episodes: int = 20,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(every)
        self.env, self.episodes, self.seed = env, episodes, seed
        at_least(1, self, "every", "episodes")
        self.settings = settings
        self.history: list[tuple[int, NDArray[np.float64]]] = []

    def _measure(self) -> None:
        returns = evaluate(self.model, self.env, self.episodes, self.seed, **self.settings)
        self.history.append((self.num_timesteps, returns))
        self._record("real/return", float(returns.mean()))


class ModelError(_PeriodicCallback):
    """Log how far imagination is off along the policy's own real episodes, and its calibration.

    Real episodes are played, and the same actions imagined given the first observation alone:

    * ``model/mse`` of the observations in one world, in the model's range ([0, 1] for images, the
      environment's units for vectors); 0 is perfect;
    * ``model/reward_error``, the mean absolute error of the summed rewards in that world, over the
      steps that both reach; 0 is perfect;
    * ``model/frame_calibration``: the share of frames (four of each episode) in which the real one
      is not the outlier among itself and those of ``worlds`` sampled worlds, that is, the farthest
      from the mean of the others. ``model/reward_calibration``: the same for the summed rewards,
      once per episode;
    * ``model/spread``: how much the worlds differ in these frames, relative to how far they are
      from the real ones: the root of the ratio of mean squares, which is 1 if the model is
      calibrated and near 0 where it averages what happens by chance;
    * ``model/calibration_ideal``, what both are on average if real episodes and sampled worlds come
      from the same distribution: ``worlds / (worlds + 1)``. Lower: the worlds are too much alike,
      or wrong; higher: they differ too much.

    Args:
        env, hold, frame_stack, wrap: as in ``AgentVideo``; the spaces are those of the model.
        world_model: the model that imagines.
        every: environment steps between measurements; one is made at the start and at the end.
        episodes: real episodes of one measurement.
        seed: of the first episode.
        worlds: sampled for the calibration, at least 2.

    Raises:
        ValueError: a number is too low, or the spaces differ from the model's.
    """

    help_text = tensorboard_help.MODEL

    def __init__(
        self,
        env: EnvLike,
        world_model: WorldModel,
        every: int = 10_000,
        episodes: int = 4,
        hold: int = 1,
        frame_stack: int = 1,
        seed: int = 0,
        worlds: int = 9,
        wrap: Callable[[VecEnv], VecEnv] | None = None,
    ) -> None:
        super().__init__(every)
        self.episodes, self.seed, self.worlds = episodes, seed, worlds
        self.hold, self.frame_stack, self.wrap = hold, frame_stack, wrap
        at_least(1, self, "every", "episodes", "hold", "frame_stack")
        at_least(2, self, "worlds")
        self.env, self.world_model = make_env(env), world_model
        world_model.spec.check_spaces(self.env.observation_space, self.env.action_space, "env")

    def _measure(self) -> None:
        errors = [
            imagination_error(
                self.world_model, self.env, self.model, self.seed + i, self.hold,
                self.frame_stack, self.worlds, self.wrap,
            )
            for i in range(self.episodes)
        ]  # fmt: skip
        errors = [error for error in errors if not np.isnan(error.mse)]
        if not errors:
            return
        for name, value in zip(errors[0]._fields, np.mean(errors, 0).tolist(), strict=True):
            self._record(f"model/{name}", value)
        self._record("model/calibration_ideal", self.worlds / (self.worlds + 1))
