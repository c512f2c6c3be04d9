"""One recorded episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKED = ("uint8", 4), ("float32", 2), ("uint8", 2)
"""Dtype and axes of an episode's images, vectors, and Dicts with an image."""


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps.

    Attributes:
        observations: uint8 (T + 1, H, W, C), or float32 (T + 1, D); of Dicts what ``Spec.pack``
            makes of them, float32 (T + 1, D) or uint8 (T + 1, bytes). ``Spec.unpack`` takes it.
        actions: (T, \\*action).
        rewards: float32 (T,).
        terminated: whether the last step ended it (False: it was truncated).
        masks: bool (T + 1, n), which of n choices were legal at each observation (see
            ``ActionSpec.choices``); None where the environment has no ``action_masks``. All False
            at a last observation of which they are not known.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: bool
    masks: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for name in ("observations", "actions", "rewards"):
            if not isinstance(getattr(self, name), np.ndarray):
                raise TypeError(
                    f"{name}: expected a NumPy array, got {type(getattr(self, name)).__name__}; "
                    "Episodes.from_arrays makes episodes of other arrays"
                )
        if not isinstance(self.terminated, bool | np.bool_):
            raise TypeError(
                "terminated: expected one bool, whether the last step ended the episode, got "
                f"{type(self.terminated).__name__}; Episodes.from_arrays takes one for each step"
            )
        frames, steps = self.observations, len(self.actions)
        if (str(frames.dtype), frames.ndim) not in PACKED:
            raise ValueError(
                "observations: expected uint8 (T + 1, H, W, C) or float32 (T + 1, D), or Dicts as "
                "Spec.pack packs them, got "
                f"{frames.dtype} {frames.shape}"
            )
        if steps < 1 or len(frames) != steps + 1 or self.rewards.shape != (steps,):
            raise ValueError(
                f"episode: {steps} actions need {steps + 1} observations and {steps} rewards (at "
                f"least 1 step), got {len(frames)} and {self.rewards.shape}"
            )
        masks = self.masks
        if masks is not None and (
            masks.dtype != np.bool_ or masks.ndim != 2 or len(masks) != steps + 1
        ):
            raise ValueError(
                f"masks: expected bool ({steps + 1}, n), one for each observation, got "
                f"{masks.dtype} {masks.shape}"
            )
        for name in ("observations", "rewards", "actions"):
            values = getattr(self, name)
            if not values.dtype.isnative or values.dtype.itemsize > 8:  # torch has no such numbers
                raise ValueError(
                    f"{name}: expected this machine's byte order and at most 8 bytes a number, got "
                    f"{values.dtype.str}"
                )
            with np.errstate(over="ignore"):  # all is computed in float32
                narrow = values.astype(np.float32, copy=False)
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(narrow).all():
                raise ValueError(f"{name}: hold NaN or infinity, or more than float32 can")
