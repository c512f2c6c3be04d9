"""Sources of training batches: whether they fit the model, and what identifies them."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from worldmodel.base import WorldModel
from worldmodel.data.episodes import Episodes
from worldmodel.data.windows import WindowSource
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import SceneBatch, SceneSource

SHORTEST_PASS = 50
"""Training steps between measurements on what is held out, where a pass is shorter."""


def training_sources(
    model: WorldModel,
    source: SceneSource | Episodes,
    holdout: SceneSource | None,
    batch_size: int | None,
    seed: int,
    accelerator: str | None,
) -> tuple[SceneSource, SceneSource | None]:
    """What to train on and what to stop early by; the arguments are those of ``fit``.

    Raises:
        TypeError: ``source`` is neither a source nor Episodes.
        ValueError: ``batch_size`` is not for Episodes, or there are too few of them to hold out.
    """
    if not isinstance(source, Episodes):
        if not isinstance(source, SceneSource):
            raise TypeError(
                "source: expected Episodes, or a source such as Episodes.windows(...) returns, got "
                f"{type(source).__name__}"
            )
        if batch_size is not None:
            raise ValueError(
                f"batch_size: is for Episodes, got {batch_size} and a source that makes its own "
                "batches; Episodes.windows takes a batch_size"
            )
        return source, holdout
    device = "cuda" if accelerator in ("cuda", "gpu") else model.device
    window = model.training_window or model.spec.window
    count = model.training_batch if batch_size is None else batch_size
    held = None
    if holdout is None and model.holdout_share:
        source, held = source.hold_out(model.holdout_share)
    training = source.windows(window, count, seed, device)
    return training, holdout if held is None else held.windows(window, count, seed, device)


def pass_length(source: SceneSource) -> int:
    """Training steps of one pass through what was recorded, at least ``SHORTEST_PASS``."""
    if not isinstance(source, WindowSource):
        return SHORTEST_PASS
    steps = -(-source.steps // (source.window * source.batch_size))
    return max(steps, SHORTEST_PASS)


def check_source(spec: Spec, source: SceneSource, scenes: SceneBatch) -> None:
    """Raise ValueError unless a source, of which ``scenes`` is a batch, fits a model's spec."""
    first = torch.zeros_like(scenes.lengths).unsqueeze(1)
    if spec.pose:  # actions are irrelevant then
        poses = scenes.poses(first)
        numbers = 0 if poses is None else poses.shape[-1]
        if numbers != spec.pose:
            raise ValueError(
                f"source: its poses have {numbers} numbers, the model was made for {spec.pose}"
            )
        camera = getattr(source, "camera", None)
        if None not in (camera, spec.camera) and camera != spec.camera:
            raise ValueError(f"source: its camera is {camera}, the model's {spec.camera}")
    elif ActionSpec.from_space(source.action_space) != spec.action:
        raise ValueError(
            f"source: its action space is {source.action_space}, the model was made for "
            f"{spec.action.to_space()}"
        )
    steps = scenes.actions.shape[1]
    frames = scenes.observations(first)
    shape, dtype = spec.border
    kind = str(frames.dtype).removeprefix("torch.")
    if kind != dtype.name or tuple(frames.shape[2:]) != shape:
        raise ValueError(
            f"source: its observations are {kind} {tuple(frames.shape[2:])}, the model was made "
            f"for {dtype.name} {shape}"
        )
    if steps > spec.window:
        raise ValueError(
            f"source: its windows have {steps} steps, more than the model's {spec.window}"
        )


def fingerprint(scenes: SceneBatch) -> str:
    """Identifies a source by its first batch's actions, rewards and ends, on any device."""
    actions = np.ascontiguousarray(scenes.actions.cpu().numpy())
    digest = hashlib.sha256(repr(actions.shape).encode() + actions.tobytes())
    for part in (scenes.lengths, scenes.terminated, scenes.rewards.round(decimals=2)):
        digest.update(part.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def brightness(scenes: SceneBatch) -> list[float]:
    """Means of the first observations, which identify passive scenes.

    They are compared with a tolerance: another device may render another last bit.
    """
    frames = scenes.observations(torch.zeros_like(scenes.lengths).unsqueeze(1))
    return [round(float(mean), 3) for mean in frames.float().flatten(1).mean(1)[:8]]
