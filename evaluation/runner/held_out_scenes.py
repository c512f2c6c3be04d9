"""Test scenes for a model, checked against what it was made for, and the futures it imagines."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from envs import ENV_IDS, SceneBatch, sample_scenes, simulator_of
from worldmodel import ActionSpec, WorldModel
from worldmodel.common.progress import progress
from worldmodel.imagine import imagine

VIEWS = "dice/Views-v0"
_SCENES = 2
"""Imagined at once; each has many futures."""


def held_out(
    model: WorldModel, env: str, count: int, seed: int = 0, device: torch.device | str = "cpu"
) -> SceneBatch:
    """``count`` scenes of the test split of ``env``, in the model's size.

    Raises:
        ValueError: ``env`` is not one of ours (``envs:`` in front is fine), or its frames, camera
            poses or actions are not those that the model was made for.
    """
    env = env.removeprefix("envs:")
    if env not in ENV_IDS:
        raise ValueError(f"env: expected one of {list(ENV_IDS)}, got {env!r}")
    spec = model.spec
    spec.require_images("model")
    channels, height, width = spec.observation
    if channels != 3 or height != width:
        raise ValueError(
            f"model: sees frames (C, H, W) = {spec.observation}; those of {env} are square and "
            "have 3 channels"
        )
    scenes = sample_scenes(env, count, split="test", size=height, seed=seed, device=device)
    if spec.pose:
        poses = scenes.poses(torch.zeros(count, 1, dtype=torch.int64, device=device))
        numbers = 0 if poses is None else poses.shape[-1]
        if numbers != spec.pose:
            raise ValueError(
                f"model: its keys are camera poses of {spec.pose} numbers; those of {env} have "
                f"{numbers}"
            )
        return scenes
    actions = ActionSpec.from_space(simulator_of(env).action_space)
    if actions != spec.action:
        raise ValueError(f"model: its actions are {spec.action}; those of {env} are {actions}")
    return scenes


def futures(
    model: WorldModel, env: str, context: int, scenes: int, worlds: int, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Observe the first ``context`` frames of test scenes and sample the rest, some at a time.

    Yields:
        all true frames, uint8 (b, T, H, W, C), and the imagined ones after the first ``context``,
        uint8 (b, worlds, T - context, H, W, C).

    Raises:
        ValueError: the model is not of these scenes, its window ends within the context, or it
            strides over frames.
    """
    if model.spec.window < context or model.stride != 1:
        raise ValueError(
            f"model: its window has {model.spec.window} steps and its stride is {model.stride}; "
            f"expected {context} steps or more and a stride of 1, to predict every frame after the "
            f"first {context}"
        )
    batch = held_out(model, env, scenes, seed)
    last = min(model.spec.window, int(batch.lengths.min()))
    times = torch.arange(last + 1)
    for first in progress(range(0, scenes, _SCENES), "futures", "batch"):
        rows = batch.rows(slice(first, min(first + _SCENES, scenes)))
        later = range(context, last + 1)
        imagined = imagine(model, rows, range(context), later, worlds, seed + first)
        yield rows.observations(times.expand(len(rows.lengths), -1)), imagined.worlds
