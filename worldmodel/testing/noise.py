"""Scenes of noise for any spec, and a small spec for each kind of action and of key."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worldmodel.common.camera import Camera
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import Context, SceneBatch, SceneSource

WINDOW = 8
_IMAGE = (3, 32, 32)
SPECS: dict[str, Spec] = {
    "passive": Spec(_IMAGE, ActionSpec("none"), WINDOW),
    "discrete": Spec(_IMAGE, ActionSpec("discrete", (), (3,)), WINDOW),
    "box": Spec(_IMAGE, ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 4.0)), WINDOW),
    "multi_discrete": Spec(_IMAGE, ActionSpec("multi_discrete", (2,), (3, 2)), WINDOW),
    "multi_binary": Spec(_IMAGE, ActionSpec("multi_binary", (4,)), WINDOW),
    "vector": Spec(
        (5,), ActionSpec("discrete", (), (3,)), WINDOW, low=(-math.inf,) * 5, high=(math.inf,) * 5
    ),
}
"""A small spec for each kind of action, with images; and one with vectors."""
CAMERA = Camera(1.0, 1.0, 6.0, ((-1.0, -1.0, 0.0), (1.0, 1.0, 1.0)))
"""A camera outside of a box that looks at it; ``random_poses`` are its poses."""
VIEWS: dict[str, Spec] = {
    "poses": Spec(_IMAGE, ActionSpec("none"), WINDOW, pose=5),
    "camera": Spec(_IMAGE, ActionSpec("none"), WINDOW, pose=CAMERA.pose, camera=CAMERA),
}
"""Small specs whose keys are poses: numbers of any meaning, and those of a known camera."""


def random_actions(spec: Spec, *lead: int, seed: int = 1) -> Tensor | None:
    """Actions (\\*lead, \\*action), sampled from the spec's action space; None for passive scenes.

    Args:
        spec: whose actions they are.
        lead: the axes before an action's own, such as B, N, L.
        seed: of the samples.
    """
    if spec.passive:
        return None
    space = spec.action.to_space()
    space.seed(seed)
    samples = [space.sample() for _ in range(math.prod(lead))]  # none, where a length is 0
    return torch.from_numpy(np.array(samples, space.dtype)).view(*lead, *spec.action.shape)


def random_poses(spec: Spec, times: Tensor) -> Tensor | None:
    """The poses of views, which follow from their numbers; None where times are the keys.

    Args:
        spec: whose poses they are. A known camera circles its region and looks at its middle.
        times: int64 (B, n), numbers of the views.

    Returns:
        float32 (B, n, P).
    """
    if not spec.pose:
        return None
    if spec.camera is None:
        return ((times[..., None] + 1.0) * (torch.arange(spec.pose) + 1)).sin()
    camera, angle = spec.camera, 2.0 * times
    low, high = torch.tensor(camera.region)
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    outwards = torch.stack([cos, sin, none], -1)
    position = (low + high) / 2 + (camera.near + camera.far) / 2 * outwards
    if camera.layout == "position_yaw_pitch":
        return torch.cat([position, -outwards[..., :2], torch.stack([none + 1, none], -1)], -1)
    right, down = torch.stack([-sin, cos, none], -1), torch.stack([none, none, none - 1], -1)
    return torch.stack([right, down, -outwards, position], -1).flatten(-2)


def random_context(spec: Spec, batch: int = 2, frames: int = 3, seed: int = 0) -> Context:
    """The first frames of scenes of noise, and the actions between them.

    Args:
        spec: whose observations and actions they are.
        batch: scenes, B.
        frames: of each scene, M, at the times 0 .. M - 1; 0 for an empty context.
        seed: of the noise.
    """
    times = torch.arange(frames).expand(batch, frames)
    shape = (batch, frames, *spec.observation)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    actions = random_actions(spec, batch, max(frames - 1, 0))
    poses = random_poses(spec, times)
    return Context(noise, times, actions, poses=poses)


def random_episodes(spec: Spec, count: int = 4, seed: int = 0) -> Episodes:
    """Episodes of noise, as long as the window; every other one terminates.

    Args:
        spec: whose observations and actions they are.
        count: how many.
        seed: of the noise.
    """
    random = np.random.default_rng(seed)
    shape, dtype = spec.border
    actions = random_actions(spec, count, spec.window)
    taken = np.zeros((count, spec.window), np.int64) if actions is None else actions.numpy()
    recorded = []
    for number in range(count):
        if spec.parts:
            numbers = random.random((spec.window + 1, *spec.observation), np.float32)
            noise = spec.to_numpy(torch.from_numpy(numbers))
        else:
            noise = random.random((spec.window + 1, *shape), np.float32)
            noise = (255 * noise).astype(dtype) if spec.is_image else noise
        rewards = random.random(spec.window, np.float32)
        recorded.append(Episode(noise, taken[number], rewards, number % 2 == 0))
    return Episodes(recorded, spec.action, spec.observation_space())


def random_source(spec: Spec, batch_size: int = 4) -> SceneSource:
    """Windows of ``random_episodes``, with ``random_poses`` where poses are the keys.

    Args:
        spec: whose observations, actions and poses they are.
        batch_size: windows in a batch.
    """
    source = random_episodes(spec).windows(spec.window, batch_size, whole=True)
    return source if not spec.pose else _PosedSource(source, spec)


class _PosedSource:
    """A source whose scenes are given poses."""

    def __init__(self, source: SceneSource, spec: Spec) -> None:
        self.source, self.spec, self.action_space = source, spec, source.action_space

    def batch(self, index: int) -> _PosedBatch:
        """The batch of that index."""
        return _PosedBatch(self.source.batch(index), self.spec)


class _PosedBatch:
    """A batch of scenes that are given poses."""

    def __init__(self, scenes: SceneBatch, spec: Spec) -> None:
        self.actions, self.rewards = scenes.actions, scenes.rewards
        self.terminated, self.lengths = scenes.terminated, scenes.lengths
        self.observations, self.spec = scenes.observations, spec

    def poses(self, times: Tensor) -> Tensor | None:
        """Of the views."""
        return random_poses(self.spec, times)
