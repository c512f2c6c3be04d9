"""A world model as a Stable-Baselines3 vectorised environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn
from torch import Tensor

from agents import actions as action_border
from agents.history import Frames, check_frames
from worldmodel.base import WorldModel
from worldmodel.types import Context, Queries, Worlds

Starts = Callable[[int, np.random.Generator], Frames] | Frames | Sequence[Frames]


class ImaginedVecEnv(VecEnv):
    """Episodes that a world model imagines, at one frame per decision.

    An episode begins at a start frame, for which one world is sampled. An action is held for
    ``jump`` steps, which cost **one** rendered frame; the rewards of these steps are summed. The
    episode is terminated where the world says that it has ended (alive < 0.5), and truncated after
    ``horizon`` decisions, so that SB3 bootstraps the value. Spaces equal the real environment's:
    what is trained here runs on ``HoldAction(env, jump)`` unchanged.

    The first episodes after ``reset()`` are cut short by different amounts (``stagger``), so that
    the environments do not all end in the same step.

    Each info holds ``steps`` (= jump), ``alive`` and ``TimeLimit.truncated``; at an episode's end
    also ``terminal_observation``.

    Args:
        model: any world model; it is put into evaluation mode.
        starts: frames uint8 (n, H, W, C) to begin from, or a function ``(num, numpy generator)``
            to ``num`` of them.
        num_envs: how many episodes run side by side.
        jump: steps that an action is held.
        horizon: decisions after which an episode is truncated; None takes what fits the window.
        seed: of the starts and the worlds; ``seed()`` before ``reset()`` replaces it.
        stagger: whether to shorten the first episodes.
        fps: frames (decisions) per second of recorded videos.

    Raises:
        TypeError: ``model`` is not a ``WorldModel``, or the starts are not uint8.
        ValueError: a number is below 1, ``horizon * jump`` exceeds the model's window, ``jump`` is
            no multiple of its stride, or the starts have another size than the model's frames.

    Example::

        venv = VecMonitor(ImaginedVecEnv(model, frames, num_envs=16, jump=5, horizon=8))
        PPO("CnnPolicy", venv, policy_kwargs={"features_extractor_class": SmallCnn}).learn(10_000)
    """

    def __init__(
        self,
        model: WorldModel,
        starts: Starts,
        num_envs: int = 16,
        jump: int = 1,
        horizon: int | None = None,
        seed: int = 0,
        stagger: bool = True,
        fps: int = 4,
    ) -> None:
        if not isinstance(model, WorldModel):
            raise TypeError(f"model: expected a WorldModel, got {type(model).__name__}")
        self.horizon = check_horizon(model.spec.window, jump, horizon)
        if jump % model.stride:
            raise ValueError(
                f"jump: {model.name} takes {model.stride} steps at once; expected a multiple of "
                f"that, got {jump}"
            )
        for name, value in (("num_envs", num_envs), ("fps", fps)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.model = model.eval()
        self.starts: Callable[[int, np.random.Generator], Frames] | Frames
        if callable(starts):
            self.starts = starts
        else:
            self.starts = check_frames(model.spec, starts, "starts").copy()
        self.jump = jump
        self.stagger = stagger
        self.render_mode = "rgb_array"  # VecEnv.__init__ asks for it
        super().__init__(num_envs, model.spec.observation_space(), model.spec.action.to_space())
        # only now: VecEnv.__init__ replaces the metadata
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": fps}

        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator(model.device)
        self._generator.manual_seed(int(self._rng.integers(2**62)))
        self._worlds: Worlds | None = None
        self._held: Tensor | None = None
        space = model.spec.observation_space()
        self._frames: Frames = np.zeros((num_envs, *space.shape), space.dtype)
        self._decisions = np.zeros(num_envs, np.int64)
        self._limits = np.full(num_envs, self.horizon, np.int64)

    # -- the episode -----------------------------------------------------------------------------

    def reset(self) -> Frames:
        """Begin an episode in every environment: (num_envs, *observation)."""
        seeds = [seed for seed in self._seeds if seed is not None]
        if seeds:
            self._rng = np.random.default_rng(seeds)
            self._generator.manual_seed(int(self._rng.integers(2**62)))
        self._reset_seeds()
        self._reset_options()
        self._frames, self._worlds = self._begin(self.num_envs)
        self._decisions[:] = 0
        cut = np.arange(self.num_envs) * self.horizon // self.num_envs
        self._limits = self.horizon - cut * int(self.stagger)
        return self._frames.copy()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take one action per environment, (num_envs, *action)."""
        spec, count = self.model.spec.action, self.num_envs
        chosen = action_border.to_tensor(spec, actions, (count,), self.model.device, "actions")
        held = chosen.unsqueeze(1)
        self._held = held.expand(-1, self.jump, *held.shape[2:])

    @torch.no_grad()
    def step_wait(self) -> VecEnvStepReturn:
        """Imagine the ``jump`` steps; environments that end begin anew.

        Raises:
            RuntimeError: ``reset()`` or ``step_async()`` was not called before.
        """
        if self._worlds is None or self._held is None:
            raise RuntimeError("ImaginedVecEnv: call reset(), then step(actions)")
        worlds, held, self._held = self._worlds, self._held, None
        arrival = worlds.present + self.jump
        seen = self.model.predict(worlds, Queries(arrival[:, None], held[:, None]))
        self._worlds = self.model.advance(worlds, held)
        assert seen.observations is not None
        self._frames = self.model.spec.to_numpy(seen.observations[:, 0, 0, 0])
        rewards = seen.rewards[:, 0, 0, 0].cpu().numpy().astype(np.float32)
        alive = seen.alive[:, 0, 0, 0].cpu().numpy()

        self._decisions += 1
        terminated = alive < 0.5
        truncated = (self._decisions >= self._limits) & ~terminated
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [
            {
                "steps": self.jump,
                "alive": float(alive[i]),
                "TimeLimit.truncated": bool(truncated[i]),
            }
            for i in range(self.num_envs)
        ]
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = self._frames[i].copy()
        if dones.any():
            self._restart(np.flatnonzero(dones))
        return self._frames.copy(), rewards, dones, infos

    def close(self) -> None:
        """Nothing to close."""

    def _restart(self, rows: NDArray[np.int64]) -> None:
        frames, fresh = self._begin(len(rows))
        self._frames = self._frames.copy()
        self._frames[rows] = frames
        self._decisions[rows] = 0
        self._limits[rows] = self.horizon
        if len(rows) == self.num_envs:
            self._worlds = fresh
        else:
            assert self._worlds is not None
            where = torch.from_numpy(rows).to(fresh.present.device)
            self._worlds = self._worlds.put(where, fresh)

    @torch.no_grad()
    def _begin(self, count: int) -> tuple[Frames, Worlds]:
        """Start frames (count, H, W, C), and one world for each."""
        if callable(self.starts):
            frames = check_frames(
                self.model.spec, self.starts(count, self._rng), "starts(num, rng)", count
            ).copy()
        else:
            frames = self.starts[self._rng.integers(len(self.starts), size=count)]
        device = self.model.device
        seen = self.model.spec.to_model(torch.from_numpy(frames).to(device)).unsqueeze(1)
        times = torch.zeros(count, 1, dtype=torch.long, device=device)
        belief = self.model.observe(Context(seen, times))
        shown = frames.astype(self.observation_space.dtype, copy=False)
        return shown, self.model.sample(belief, 1, self._generator)

    # -- what VecEnv wants -----------------------------------------------------------------------

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """The current frames, RGB uint8 (H, W, 3) each; None for vectors."""
        if not self.model.spec.is_image:
            return [None] * self.num_envs
        colours = 3 // self._frames.shape[-1]
        return [frame.repeat(colours, -1) for frame in self._frames]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The batch's attribute, once for each environment."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole batch.

        Raises:
            ValueError: only some environments were named; they share their attributes.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(
                f"indices: {attr_name!r} is shared by all environments of the batch; leave indices "
                "away"
            )
        setattr(self, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Only ``render``: the environments of a batch are no objects of their own.

        Raises:
            AttributeError: another method.
        """
        if method_name != "render":
            raise AttributeError(
                f"env_method: imagined environments have no {method_name!r}, only 'render'; call "
                "methods of the batch on venv.unwrapped"
            )
        images = self.get_images()
        return [images[i] for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Never: there are no Gymnasium wrappers inside."""
        return [False for _ in self._get_indices(indices)]


def check_horizon(window: int, jump: int, horizon: int | None) -> int:
    """The number of decisions of an episode; None means as many as fit.

    Raises:
        ValueError: a number is below 1, or ``horizon * jump`` exceeds the window.
    """
    if jump < 1 or (horizon is not None and horizon < 1):
        raise ValueError(f"jump, horizon: expected at least 1, got {jump}, {horizon}")
    fits = window // jump
    if fits < 1:
        raise ValueError(f"jump: {jump} steps exceed the model's window of {window}")
    if horizon is not None and horizon > fits:
        raise ValueError(
            f"horizon: {horizon} decisions of {jump} steps exceed the model's window of {window}; "
            f"at most {fits} fit"
        )
    return fits if horizon is None else horizon
