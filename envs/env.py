"""Scenes as Gymnasium environments, one at a time."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from envs.randomness import Split, check_scene_id, check_split, draw_scene_id
from envs.registry import make_simulator
from envs.simulator import State, check_size
from envs.stream import SceneStream

Frame = NDArray[np.uint8]

METADATA: Final[dict[str, Any]] = {"render_modes": ["rgb_array"]}


def check_render_mode(render_mode: str | None) -> str | None:
    """Return ``render_mode`` if it is one of ours; else raise ValueError."""
    if render_mode is not None and render_mode not in METADATA["render_modes"]:
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
    return render_mode


def check_options(options: dict[str, Any] | None) -> dict[str, Any]:
    """Return reset options as a dict; raise ValueError on any other key than ``scene``."""
    options = options or {}
    unknown = sorted(set(options) - {"scene"})
    if unknown:
        raise ValueError(f"options may have the key 'scene' only, got {unknown}")
    return options


def check_action(space: gym.Space[Any], action: Any, name: str) -> Tensor:
    """Return an element of ``space`` as int64 or float32; else raise ValueError with ``name``."""
    taken = np.asarray(action)
    if isinstance(space, spaces.Box) and taken.dtype.kind in "fiu":
        taken = taken.astype(np.float32)  # Box itself refuses Python's own floats
    # Discrete takes scalars only, not arrays without dimensions.
    if not space.contains(taken[()] if isinstance(space, spaces.Discrete) else taken):
        raise ValueError(f"{name} must be an element of {space}, got {action!r}")
    return torch.tensor(taken if isinstance(space, spaces.Box) else taken.astype(np.int64))


class SceneEnv(gym.Env[Frame, Any]):
    """One scene of a simulator.

    Observation: ``uint8 (size, size, 3)``. Action and reward: see the simulator. ``reset`` draws a
    scene of the split and names it in ``info["scene"]``; ``reset(options={"scene": id})`` begins a
    certain one. Where a camera moves, ``info["key"]`` is its pose, ``float32 (P,)``. ``truncated``
    is set at the simulator's ``max_steps``.

    Args:
        simulator: its name, see ``envs.SCENES``.
        size: height and width of the frames in pixels, a multiple of 8.
        split: ``train`` or ``test``; they share no scene.
        max_steps: cut-off in steps; None for the simulator's own.
        render_mode: ``rgb_array`` or None.
        settings: the simulator's own, such as a story's ``controlled``.

    Raises:
        TypeError: an argument has the wrong type, or the simulator no such setting.
        ValueError: an argument has an impossible value.
    """

    metadata: dict[str, Any] = METADATA

    def __init__(
        self,
        simulator: str,
        size: int = 64,
        split: Split = "train",
        max_steps: int | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.simulator = make_simulator(simulator, max_steps=max_steps, **settings)
        self.size = check_size(size)
        self.split: Split = check_split(split)
        self.render_mode = check_render_mode(render_mode)
        self.metadata = {**METADATA, "render_fps": self.simulator.fps}
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = self.simulator.action_space
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Begin a scene: a random one, or ``options["scene"]``."""
        options = check_options(options)
        super().reset(seed=seed)
        if "scene" in options:
            scene = check_scene_id(options["scene"])
        else:
            scene = draw_scene_id(self.np_random, self.split)
        self._state = self.simulator.begin(torch.tensor([scene]))
        return self._frame(), {"scene": scene, **self._key()}

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Take one action."""
        actions = check_action(self.action_space, action, "action")[None]
        state, reward, terminated = self.simulator.step(self.state, actions)
        self._state = state
        over = bool(terminated)
        truncated = not over and int(state.steps) >= self.simulator.max_steps
        return self._frame(), float(reward), over, truncated, self._key()

    def render(self) -> Frame | None:
        """The present frame, if ``render_mode`` is ``rgb_array``."""
        return self._frame() if self.render_mode == "rgb_array" else None

    @property
    def state(self) -> State:
        """The present scene as a batch of one."""
        if self._state is None:
            raise RuntimeError("reset() must be called before the scene is used")
        return self._state

    def scenes(
        self,
        batch_size: int = 32,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        hold: int | None = None,
    ) -> SceneStream:
        """A stream of batches of this environment's scenes, of its simulator, split and size."""
        stream = SceneStream(
            self.simulator,
            batch_size,
            split=self.split,
            size=self.size,
            device=device,
            seed=seed,
            hold=hold,
        )
        if self.spec is not None:
            stream.env_id = f"envs:{self.spec.id}"
        return stream

    def _frame(self) -> Frame:
        frame: Frame = self.simulator.render(self.state, self.size)[0].numpy()
        return frame

    def _key(self) -> dict[str, Any]:
        poses = self.simulator.poses(self.state)
        return {} if poses is None else {"key": poses[0].numpy()}
