"""Narratives as Gymnasium environments, one scene at a time."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from envs.narratives import make_story
from envs.narratives.randomness import Split, check_scene_id, check_split, draw_scene_id
from envs.narratives.shapes import check_size
from envs.narratives.story import StoryState
from envs.narratives.stream import SceneStream

Frame = NDArray[np.uint8]

METADATA: Final[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 5}


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


class NarrativeEnv(gym.Env[Frame, np.int64]):
    """One scene of a story.

    Observation: ``uint8 (size, size, 3)``. Action: ``Discrete``, see the story. ``reset`` draws a
    scene of the split and names it in ``info["scene"]``; ``reset(options={"scene": id})`` tells a
    certain one. ``truncated`` is set at the story's ``max_steps``.

    Args:
        story: name of the story, see ``envs.narratives.STORIES``.
        controlled: whether the agent or nature decides.
        size: height and width of the frames in pixels, a multiple of 8.
        split: ``train`` or ``test``; they share no scene.
        max_steps: cut-off in steps; None for the story's own.
        render_mode: ``rgb_array`` or None.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an impossible value.
    """

    metadata: dict[str, Any] = METADATA

    def __init__(
        self,
        story: str,
        controlled: bool = True,
        size: int = 64,
        split: Split = "train",
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.story = make_story(story, controlled=controlled, max_steps=max_steps)
        self.size = check_size(size)
        self.split: Split = check_split(split)
        self.render_mode = check_render_mode(render_mode)
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Discrete(self.story.actions)
        self._state: StoryState | None = None

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
        self._state = self.story.begin(torch.tensor([scene]))
        return self._frame(), {"scene": scene}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Take one action."""
        if not self.action_space.contains(action):
            raise ValueError(f"action must be an element of {self.action_space}, got {action!r}")
        state, reward, terminated = self.story.step(self.state, torch.tensor([int(action)]))
        self._state = state
        over = bool(terminated)
        truncated = not over and int(state.steps) >= self.story.max_steps
        return self._frame(), float(reward), over, truncated, {}

    def render(self) -> Frame | None:
        """The present frame, if ``render_mode`` is ``rgb_array``."""
        return self._frame() if self.render_mode == "rgb_array" else None

    @property
    def state(self) -> StoryState:
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
        hold: int = 5,
    ) -> SceneStream:
        """A stream of batches of this environment's scenes, same story, split and size."""
        return SceneStream(
            self.story,
            batch_size,
            split=self.split,
            size=self.size,
            device=device,
            seed=seed,
            hold=hold,
        )

    def _frame(self) -> Frame:
        frame: Frame = self.state.render(self.size)[0].numpy()
        return frame
