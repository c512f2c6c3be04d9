"""Scenes in batches, made on the device that trains on them.

A stream is endless and has no state: batch ``index`` always holds the same scenes and actions, so
a training run resumes exactly by remembering one number. Trajectories are simulated, pixels are
drawn only for the frames that are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import gymnasium as gym
import torch
from torch import Tensor

from envs.narratives import make_story
from envs.narratives.randomness import Split, check_split, hash_ids, integers, to_split
from envs.narratives.shapes import check_size, render
from envs.narratives.story import Story, StoryState

_ACTION_STREAM: Final = 10
_BLOCK_SCENES: Final = 512
"""Batches are simulated this many scenes at a time: a step of few scenes costs as much."""
_SCENE_SALT: Final = 1
_ACTION_SALT: Final = 2


@dataclass(frozen=True)
class SceneBatch:
    """B scenes from beginning to end; T = ``story.max_steps``.

    Attributes:
        story: the story that is told.
        size: height and width of the frames in pixels.
        scene_ids: ``(B,)`` int64.
        actions: ``(B, T)`` int64.
        rewards: ``(B, T)`` float32; ``rewards[:, t]`` follows ``actions[:, t]``, 0 after the end.
        terminated: ``(B, T)`` bool; true at the one step that ends the story, if any does.
        lengths: ``(B,)`` int64, steps until the end or the cut-off; frames ``0 .. lengths`` belong
            to the scene, later ones repeat the last.
        positions: ``(B, T + 1, N, 2)`` float32, centres in canvas units.
        colours: ``(B, T + 1, N)`` int64.
        kinds, sizes: ``(B, N)`` int64.
    """

    story: Story[Any]
    size: int
    scene_ids: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    lengths: Tensor
    positions: Tensor
    colours: Tensor
    kinds: Tensor
    sizes: Tensor

    def observations(self, times: Tensor) -> Tensor:
        """Draw the frames at ``times`` ``(B, n)`` int64, 0 .. T: uint8 ``(B, n, H, W, 3)``.

        Raises:
            TypeError: ``times`` is not int64.
            ValueError: wrong shape, or a time outside the scene (checked on the CPU only; on a GPU
                the check would wait for the device, and such a time is an error of indexing).
        """
        batch, moments, shapes, _ = self.positions.shape
        if times.dtype != torch.int64:
            raise TypeError(f"times must be int64, got {times.dtype}")
        if times.ndim != 2 or times.shape[0] != batch:
            raise ValueError(f"times must be ({batch}, n), got {tuple(times.shape)}")
        outside = times.device.type == "cpu" and ((times < 0) | (times >= moments)).any()
        if outside:
            raise ValueError(f"times must lie in 0 .. {moments - 1}, got {times.tolist()}")
        rows = torch.arange(batch, device=times.device)[:, None]
        cast = (self.kinds[:, None], self.sizes[:, None])
        return render(self.positions[rows, times], self.colours[rows, times], *cast, self.size)

    def start(self) -> StoryState:
        """The scenes at their first moment, with all that the story knows about them."""
        state: StoryState = self.story.begin(self.scene_ids)
        return state

    def rows(self, part: slice) -> SceneBatch:
        """Some of the scenes."""
        tensors = {
            field.name: getattr(self, field.name)[part]
            for field in fields(self)
            if field.name not in ("story", "size")
        }
        return replace(self, **tensors)


def play(story: Story[Any], scene_ids: Tensor, actions: Tensor, size: int) -> SceneBatch:
    """Tell scenes ``(B,)`` under actions ``(B, T)``, both int64 on the device to work on."""
    state = story.begin(scene_ids)
    positions, colours = [state.positions], [state.colours]
    rewards, terminated = [], []
    for t in range(actions.shape[1]):
        state, reward, over = story.step(state, actions[:, t])
        positions.append(state.positions)
        colours.append(state.colours)
        rewards.append(reward)
        terminated.append(over)
    return SceneBatch(
        story=story,
        size=size,
        scene_ids=scene_ids,
        actions=actions,
        rewards=torch.stack(rewards, dim=1),
        terminated=torch.stack(terminated, dim=1),
        lengths=state.steps,
        positions=torch.stack(positions, dim=1),
        colours=torch.stack(colours, dim=1),
        kinds=state.kinds,
        sizes=state.sizes,
    )


class SceneStream:
    """An endless, deterministic source of scene batches.

    Args:
        source: a story, or a registered id of one, such as ``narratives/TravelingSalesman-v0``.
        batch_size: scenes in a batch.
        split: ``train`` or ``test``; they share no scene.
        size: height and width of frames in pixels, a multiple of 8.
        device: where scenes are made and drawn.
        seed: another seed, another stream.
        hold: actions are uniformly random and each is kept for so many steps.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an impossible value.
    """

    def __init__(
        self,
        source: Story[Any] | str,
        batch_size: int = 32,
        *,
        split: Split = "train",
        size: int = 32,
        device: torch.device | str = "cpu",
        seed: int = 0,
        hold: int = 5,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("hold", hold, 1),
            ("seed", seed, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {type(value).__name__}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.story = source if isinstance(source, Story) else story_of(source)
        self.action_space = gym.spaces.Discrete(self.story.actions)
        self.batch_size = batch_size
        self.split = check_split(split)
        self.size = check_size(size)
        self.device = torch.device(device)
        self.seed = seed
        self.hold = hold
        self._block: tuple[int, SceneBatch] | None = None

    def batch(self, index: int) -> SceneBatch:
        """Batch number ``index`` (>= 0): always the same one."""
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"index must be an int, got {type(index).__name__}")
        if index < 0:
            raise ValueError(f"index must be at least 0, got {index}")
        batches = max(1, _BLOCK_SCENES // self.batch_size)
        block, place = divmod(index, batches)
        if self._block is None or self._block[0] != block:
            self._block = (block, self._play(block * batches, batches))
        return self._block[1].rows(slice(place * self.batch_size, (place + 1) * self.batch_size))

    def _play(self, first: int, batches: int) -> SceneBatch:
        """Tell the scenes of batches ``first .. first + batches - 1``, one after the other."""
        rows = torch.arange(self.batch_size, device=self.device)
        indices = torch.arange(first, first + batches, device=self.device)[:, None]
        names = hash_ids(rows, indices, self.seed).reshape(-1)
        scene_ids = to_split(hash_ids(names, _SCENE_SALT), self.split)
        steps = self.story.max_steps
        decisions = -(-steps // self.hold)
        keys = hash_ids(names, _ACTION_SALT, scene_ids)
        drawn = integers(keys, _ACTION_STREAM, decisions, self.story.actions)
        actions = drawn.repeat_interleave(self.hold, dim=1)[:, :steps]
        return play(self.story, scene_ids, actions, self.size)


def story_of(env_id: str) -> Story[Any]:
    """The story of a registered environment id (``envs:`` in front is fine).

    Raises:
        ValueError: the environment tells no story.
    """
    kwargs = dict(gym.spec(env_id.removeprefix("envs:")).kwargs)
    if "story" not in kwargs:
        raise ValueError(f"source must be the id of a narrative, got {env_id!r}")
    return make_story(kwargs.pop("story"), **kwargs)


def sample_scenes(
    env_id: str,
    batch_size: int,
    *,
    split: Split = "train",
    size: int = 32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    index: int = 0,
    hold: int = 5,
) -> SceneBatch:
    """One batch of scenes: ``SceneStream(env_id, batch_size, ...).batch(index)``."""
    stream = SceneStream(
        env_id, batch_size, split=split, size=size, device=device, seed=seed, hold=hold
    )
    return stream.batch(index)
