"""Scenes in batches, made on the device that trains on them.

A stream is endless and has no state: batch ``index`` always holds the same scenes and actions, so
a training run resumes exactly by remembering one number. Trajectories are simulated; only
the frames that are requested are rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final

import gymnasium as gym
import torch
from torch import Tensor

from envs.randomness import Split, check_split, hash_ids, integers, to_split, uniform
from envs.registry import simulator_of
from envs.simulator import Simulator, State, check_size, stack
from worldmodel.common.config_checks import whole_number

_ACTION_STREAM: Final = 10
_BLOCK_SCENES: Final = 512
"""Batches are simulated this many scenes at a time: a step of few scenes costs as much."""
_SCENE_SALT: Final = 1
_ACTION_SALT: Final = 2


@dataclass(frozen=True)
class SceneBatch:
    """B scenes from beginning to end; T steps.

    Attributes:
        simulator: what the scenes were made with.
        size: height and width of the frames in pixels.
        trajectory: all T + 1 moments; its tensors are ``(B, T + 1, ..)``.
        actions: ``(B, T, *action)``, int64 for discrete actions, float32 for boxes.
        rewards: ``(B, T)`` float32; ``rewards[:, t]`` follows ``actions[:, t]``, 0 after the end.
        terminated: ``(B, T)`` bool; true at the one step that ends the scene, if any does.
        lengths: ``(B,)`` int64, steps until the end or the cut-off; frames ``0 .. lengths`` belong
            to the scene, later ones repeat the last.
    """

    simulator: Simulator[Any]
    size: int
    trajectory: State
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    lengths: Tensor

    @property
    def scene_ids(self) -> Tensor:
        """``(B,)`` int64."""
        return self.trajectory.scene_ids[:, 0]

    def observations(self, times: Tensor) -> Tensor:
        """Draw the frames at ``times`` ``(B, n)`` int64, 0 .. T: uint8 ``(B, n, H, W, 3)``.

        Raises:
            TypeError: ``times`` is not int64.
            ValueError: wrong shape, or a time outside the scene (checked on the CPU only; on a GPU
                the check would wait for the device, and such a time is an error of indexing).
        """
        frames = self.simulator.render(self.moments(times), self.size)
        return frames.reshape(*times.shape, *frames.shape[1:])

    def poses(self, times: Tensor) -> Tensor | None:
        """Camera poses at ``times`` ``(B, n)``: float32 ``(B, n, P)``; None if there is no camera.

        Raises:
            TypeError, ValueError: as for :meth:`observations`.
        """
        poses = self.simulator.poses(self.moments(times))
        return None if poses is None else poses.reshape(*times.shape, -1)

    def moments(self, times: Tensor) -> State:
        """The scenes at ``times`` ``(B, n)`` int64, as one batch of B * n.

        Raises:
            TypeError, ValueError: as for :meth:`observations`.
        """
        batch, moments = self.trajectory.steps.shape
        if times.dtype != torch.int64:
            raise TypeError(f"times must be int64, got {times.dtype}")
        if times.ndim != 2 or times.shape[0] != batch:
            raise ValueError(f"times must be ({batch}, n), got {tuple(times.shape)}")
        if times.device.type == "cpu" and ((times < 0) | (times >= moments)).any():
            raise ValueError(f"times must lie in 0 .. {moments - 1}, got {times.tolist()}")
        rows = torch.arange(batch, device=times.device)[:, None]
        return self.trajectory.map(lambda value: value[rows, times].flatten(0, 1))

    def start(self) -> State:
        """The scenes at their first moment, with all that the simulator knows about them."""
        return self.trajectory.map(lambda value: value[:, 0])

    def rows(self, part: slice | Tensor) -> SceneBatch:
        """Some of the scenes: a slice, or their rows as int64 ``(n,)``."""
        tensors = ("actions", "rewards", "terminated", "lengths")
        return replace(
            self,
            trajectory=self.trajectory.map(itemgetter(part)),
            **{name: getattr(self, name)[part] for name in tensors},
        )


def play(
    simulator: Simulator[Any], scene_ids: Tensor, actions: Tensor, size: int = 64
) -> SceneBatch:
    """Play scenes under given actions, on the device to work on.

    Args:
        simulator: of the scenes.
        scene_ids: int64 ``(B,)``.
        actions: ``(B, T, *action)``, on the same device.
        size: of the frames, a multiple of 8 pixels.
    """
    state = simulator.begin(scene_ids)
    states, rewards, terminated = [state], [], []
    for t in range(actions.shape[1]):
        state, reward, over = simulator.step(state, actions[:, t])
        states.append(state)
        rewards.append(reward)
        terminated.append(over)
    return SceneBatch(
        simulator=simulator,
        size=check_size(size),
        trajectory=stack(states),
        actions=actions,
        rewards=torch.stack(rewards, dim=1),
        terminated=torch.stack(terminated, dim=1),
        lengths=state.steps,
    )


def random_actions(space: gym.Space[Any], keys: Tensor, n: int) -> Tensor:
    """Uniform actions ``(B, n, *action)`` that depend on nothing but ``keys`` ``(B,)`` int64.

    Raises:
        TypeError: ``space`` is neither ``Discrete`` nor a bounded ``Box``.
    """
    if isinstance(space, gym.spaces.Discrete):
        return integers(keys, _ACTION_STREAM, n, int(space.n))
    if isinstance(space, gym.spaces.Box) and space.is_bounded():
        low, high = (torch.from_numpy(end).to(keys.device) for end in (space.low, space.high))
        return low + (high - low) * uniform(keys, _ACTION_STREAM, (n, *space.shape))
    raise TypeError(f"space must be Discrete or a bounded Box, got {space}")


class SceneStream:
    """An endless, deterministic source of scene batches.

    Args:
        source: a simulator, or a registered id, such as ``narratives/TravelingSalesman-v0``.
        batch_size: scenes in a batch.
        split: ``train`` or ``test``; they share no scene.
        size: height and width of frames in pixels, a multiple of 8.
        device: where scenes are simulated and rendered.
        seed: another seed, another stream.
        hold: steps for which each uniformly random action is held; None for the simulator's own.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an impossible value.
    """

    def __init__(
        self,
        source: Simulator[Any] | str,
        batch_size: int = 32,
        *,
        split: Split = "train",
        size: int = 32,
        device: torch.device | str = "cpu",
        seed: int = 0,
        hold: int | None = None,
    ) -> None:
        self.simulator = source if isinstance(source, Simulator) else simulator_of(source)
        self.env_id: str | None = None
        if isinstance(source, str):
            self.env_id = f"envs:{source.removeprefix('envs:')}"
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.hold = whole_number("hold", self.simulator.hold if hold is None else hold, 1)
        self.seed = whole_number("seed", seed, 0)
        self.action_space = self.simulator.action_space
        self.camera = self.simulator.camera
        self.split = check_split(split)
        self.size = check_size(size)
        self.device = torch.device(device)
        self._block: tuple[int, SceneBatch] | None = None

    def batch(self, index: int) -> SceneBatch:
        """Batch number ``index``: always the same one.

        Raises:
            TypeError: ``index`` is not an int.
            ValueError: ``index`` is below 0.
        """
        batches = max(1, _BLOCK_SCENES // self.batch_size)
        block, place = divmod(whole_number("index", index, 0), batches)
        if self._block is None or self._block[0] != block:
            self._block = (block, self._play(block * batches, batches))
        return self._block[1].rows(slice(place * self.batch_size, (place + 1) * self.batch_size))

    def _play(self, first: int, batches: int) -> SceneBatch:
        """Play the scenes of batches ``first .. first + batches - 1``, one after the other."""
        rows = torch.arange(self.batch_size, device=self.device)
        indices = torch.arange(first, first + batches, device=self.device)[:, None]
        names = hash_ids(rows, indices, self.seed).reshape(-1)
        scene_ids = to_split(hash_ids(names, _SCENE_SALT), self.split)
        steps = self.simulator.max_steps
        decisions = -(-steps // self.hold)
        keys = hash_ids(names, _ACTION_SALT, scene_ids)
        actions = random_actions(self.action_space, keys, decisions)
        actions = actions.repeat_interleave(self.hold, dim=1)[:, :steps]
        return play(self.simulator, scene_ids, actions, self.size)


def sample_scenes(
    env_id: str,
    batch_size: int,
    *,
    split: Split = "train",
    size: int = 32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    index: int = 0,
    hold: int | None = None,
) -> SceneBatch:
    """One batch of scenes: ``SceneStream(env_id, batch_size, ...).batch(index)``.

    Args:
        env_id, batch_size, split, size, device, seed, hold: as for ``SceneStream``.
        index: which of its batches.

    Raises:
        TypeError, ValueError: as for ``SceneStream``.
    """
    stream = SceneStream(
        env_id, batch_size, split=split, size=size, device=device, seed=seed, hold=hold
    )
    return stream.batch(index)
