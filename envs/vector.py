"""Scenes as one Gymnasium vector environment: all advance and are drawn together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.env import METADATA, Frame, check_action, check_options, check_render_mode
from envs.randomness import Split, check_scene_id, check_split, draw_scene_id
from envs.registry import make_simulator
from envs.simulator import State, check_size

Flags = NDArray[np.bool_]


class SceneVectorEnv(VectorEnv[Frame, NDArray[Any], NDArray[Any]]):
    """``num_envs`` scenes of a simulator, equal to as many ``SceneEnv`` in a ``SyncVectorEnv``.

    Args:
        num_envs: number of scenes.
        autoreset_mode: what happens when a scene is over: ``NextStep`` (the next step ignores the
            action and begins a new scene) or ``SameStep`` (a new scene begins at once; the last
            frame and info are ``info["final_obs"]`` and ``info["final_info"]``).
        simulator, size, split, max_steps, render_mode, settings: as in ``SceneEnv``.

    Raises:
        TypeError: an argument has the wrong type, or the simulator no such setting.
        ValueError: an argument has an impossible value.
    """

    def __init__(
        self,
        num_envs: int,
        simulator: str,
        size: int = 64,
        split: Split = "train",
        max_steps: int | None = None,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **settings: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if self.autoreset_mode is AutoresetMode.DISABLED:
            raise ValueError("autoreset_mode must be 'NextStep' or 'SameStep', got 'Disabled'")
        self.simulator = make_simulator(simulator, max_steps=max_steps, **settings)
        self.metadata = {
            **METADATA,
            "render_fps": self.simulator.fps,
            "autoreset_mode": self.autoreset_mode,
        }
        self.size = check_size(size)
        self.split: Split = check_split(split)
        self.render_mode = check_render_mode(render_mode)
        self.single_observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.single_action_space = self.simulator.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._state: State | None = None
        self._over: Flags = np.zeros(num_envs, np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Frame, dict[str, Any]]:
        """Begin all scenes; environment i is seeded with ``seed + i`` (or ``seed[i]``)."""
        options = check_options(options)
        if isinstance(seed, int):
            seed = [seed + i for i in range(self.num_envs)]
        if seed is not None:
            if len(seed) != self.num_envs:
                raise ValueError(f"seed must have {self.num_envs} entries, got {len(seed)}")
            for i, one in enumerate(seed):
                if one is not None:
                    self._generators[i] = seeding.np_random(one)[0]
        everyone: Flags = np.ones(self.num_envs, np.bool_)
        if "scene" in options:
            scenes = np.full(self.num_envs, check_scene_id(options["scene"]))
        else:
            scenes = self._draw_scenes(everyone)
        self._state = self.simulator.begin(torch.from_numpy(scenes))
        self._over = ~everyone
        return self._frames(), {"scene": scenes, "_scene": everyone, **self._keys()}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Frame, NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Take one action in every scene: ``(num_envs, *action)``."""
        taken = check_action(self.action_space, actions, "actions")
        state, rewards, ended = self.simulator.step(self.state, taken)
        self._state = state
        # Scenes that were over before this step (NextStep) are begun anew instead of stepped.
        fresh = self._over
        terminated: Flags = ended.numpy() & ~fresh
        cut = state.steps.numpy() >= self.simulator.max_steps
        truncated: Flags = cut & ~state.ended.numpy() & ~fresh
        reward = np.where(fresh, 0.0, rewards.numpy().astype(np.float64))
        over = terminated | truncated

        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            fresh = over
            if over.any():
                frames, keys = self._frames(), self._keys().get("key")
                for i in np.flatnonzero(over):
                    info = {} if keys is None else {"key": keys[i]}
                    last = {"final_obs": frames[i].copy(), "final_info": info}
                    infos = self._add_info(infos, last, int(i))
        else:
            self._over = over
        if fresh.any():
            infos.update(self._renew(fresh))
        infos.update(self._keys())
        return self._frames(), reward, terminated, truncated, infos

    def render(self) -> tuple[Frame, ...] | None:
        """The present frames, if ``render_mode`` is ``rgb_array``."""
        return tuple(self._frames()) if self.render_mode == "rgb_array" else None

    @property
    def state(self) -> State:
        """The present scenes."""
        if self._state is None:
            raise RuntimeError("reset() must be called before the scenes are used")
        return self._state

    def _renew(self, which: Flags) -> dict[str, Any]:
        """Begin new scenes where ``which``; the infos that their resets give."""
        scenes = self._draw_scenes(which)
        begun = self.simulator.begin(torch.from_numpy(scenes[which]))
        self._state = self.state.put(torch.from_numpy(np.flatnonzero(which)), begun)
        return {"scene": scenes, "_scene": which.copy()}

    def _draw_scenes(self, which: Flags) -> NDArray[np.int64]:
        """A scene id from the own generator of each environment in ``which``, 0 elsewhere."""
        scenes = np.zeros(self.num_envs, np.int64)
        for i in np.flatnonzero(which):
            generator = self._generators[i]
            if generator is None:
                generator = self._generators[i] = seeding.np_random()[0]
            scenes[i] = draw_scene_id(generator, self.split)
        return scenes

    def _frames(self) -> Frame:
        frames: Frame = self.simulator.render(self.state, self.size).numpy()
        return frames

    def _keys(self) -> dict[str, Any]:
        poses = self.simulator.poses(self.state)
        if poses is None:
            return {}
        return {"key": poses.numpy(), "_key": np.ones(self.num_envs, np.bool_)}
