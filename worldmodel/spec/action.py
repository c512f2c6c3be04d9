"""What actions look like: of which Gymnasium space, and as features that networks read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.common.config_checks import from_json
from worldmodel.spec.parts import check_bounds

KINDS = ("none", "discrete", "multi_discrete", "multi_binary", "box")


@dataclass(frozen=True)
class ActionSpec:
    """The action space of a model.

    Attributes:
        kind: "none" (passive scenes), "discrete", "multi_discrete", "multi_binary" or "box".
        shape: shape of one action; ``()`` for discrete.
        categories: number of choices of each discrete entry; empty for binary and box.
        low, high: bounds of a box, flattened; empty otherwise.
        dtype: of a box.
        start: the first choice of each discrete entry; empty if all are 0.
    """

    kind: str
    shape: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dtype: str = "float32"
    start: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {KINDS}, got {self.kind!r}")
        if not all(1 <= n < 2**31 for n in (*self.shape, *self.categories)):
            raise ValueError(
                "shape, categories: expected at least 1 and below 2**31, got "
                f"{self.shape} and {self.categories}"
            )
        if self.start and (
            len(self.start) != len(self.categories) or not all(abs(n) < 2**31 for n in self.start)
        ):
            raise ValueError(
                f"start: expected a number below 2**31 for each of {len(self.categories)} discrete "
                f"entries, or none, got {self.start}"
            )
        entries = 0 if self.kind == "none" else math.prod(self.shape)
        choices = entries if self.kind in ("discrete", "multi_discrete") else 0
        bounds = entries if self.kind == "box" else 0
        if self.kind == "discrete" and self.categories == (1,):
            raise ValueError('categories: one leaves no choice; that is kind "none"')
        if (
            (len(self.categories), len(self.low), len(self.high)) != (choices, bounds, bounds)
            or (self.kind in ("none", "discrete") and self.shape)
            or (self.kind.startswith("multi") and not self.shape)
        ):
            raise ValueError(
                f"action: {self.kind} of shape {self.shape} does not fit {len(self.categories)} "
                f"categories, {len(self.low)} low and {len(self.high)} high bounds"
            )
        check_bounds(self.low, self.high, self.dtype, "fiu")
        if not all(-math.inf < a < b < math.inf for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError("low, high: expected finite bounds of a box, each low below its high")

    @property
    def features(self) -> int:
        """Width of the encoded action: one-hot entries, bits, or scaled numbers."""
        if self.kind == "none":
            return 0
        return sum(self.categories) if self.categories else math.prod(self.shape)

    @property
    def choices(self) -> tuple[int, ...]:
        """How many choices each entry has, 2 for a bit; empty for boxes and passive scenes. Their
        sum is the size of an action mask.
        """
        return self.categories or (2,) * (self.features if self.kind == "multi_binary" else 0)

    @property
    def whole(self) -> bool:
        """Whether the actions are a box of whole numbers."""
        return self.kind == "box" and np.dtype(self.dtype).kind in "iu"

    def encode(self, actions: Tensor) -> Tensor:
        """Actions (..., \\*shape) to float32 features (..., features); boxes are scaled to [-1, 1].

        Raises:
            ValueError: a discrete action lies outside its range.
        """
        lead = actions.shape[: actions.dim() - len(self.shape)]
        if self.kind == "none":
            return torch.zeros(*lead, 0, device=actions.device)
        if self.categories:
            entries = actions.long().reshape(*lead, len(self.categories))
            limit = torch.tensor(self.categories, device=actions.device)
            numbers = entries - self.first(actions.device)
            if bool(((numbers < 0) | (numbers >= limit)).any()):
                raise ValueError(
                    f"actions: entries must lie in {self.to_space()}, "
                    f"got values from {int(entries.min())} to {int(entries.max())}"
                )
            hot = [
                torch.nn.functional.one_hot(numbers[..., i], n)
                for i, n in enumerate(self.categories)
            ]
            return torch.cat(hot, -1).float()
        flat = actions.float().reshape(*lead, self.features)
        if self.kind == "multi_binary":
            return flat
        low = torch.tensor(self.low, device=actions.device)
        high = torch.tensor(self.high, device=actions.device)
        return (2 * flat - low - high) / (high - low)

    def first(self, device: torch.device) -> Tensor:
        """The first choice of each discrete entry, flat, int64 (entries,)."""
        return torch.tensor(self.start or (0,) * len(self.categories), device=device)

    def blank(self, *lead: int) -> NDArray[Any]:
        r"""Actions (\*lead, \*shape) for where none was taken: first choices, or zeros."""
        space = self.to_space()
        dtype = np.int64 if space.dtype is None else space.dtype
        first: Any = np.reshape(self.start, self.shape) if self.start else 0
        return np.array(np.broadcast_to(first, (*lead, *self.shape)), dtype)

    def cleared(self, actions: Tensor, empty: Tensor) -> Tensor:
        r"""Actions, but ``blank`` ones where none was taken.

        Args:
            actions: (\*lead, \*shape).
            empty: bool, of the first axes of lead: where none was taken.
        """
        rows = empty.reshape(*empty.shape, *[1] * (actions.dim() - empty.dim()))
        return torch.where(rows, torch.from_numpy(self.blank()).to(actions), actions)

    def check(self, actions: NDArray[Any], owner: str) -> None:
        """Raise ValueError, naming ``owner``, unless actions (n, \\*shape) are of this kind."""
        if self.shape != actions.shape[1:]:
            raise ValueError(
                f"{owner}: actions have shape {actions.shape[1:]}, the action space {self.shape}"
            )
        if self.kind in ("none", "box"):
            return
        limit = np.array(self.categories or 2).reshape(self.shape if self.categories else ())
        low = np.reshape(self.start, self.shape) if self.start else 0
        if not ((actions >= low) & (actions < low + limit) & (actions % 1 == 0)).all():
            raise ValueError(
                f"{owner}: actions are not all of {self.to_space()}; they go from {actions.min()} "
                f"to {actions.max()} ({actions.dtype})"
            )

    @classmethod
    def from_space(cls, space: gym.Space[Any]) -> ActionSpec:
        """Describe a Gymnasium action space. ``Discrete(1)`` leaves no choice: kind "none".

        Raises:
            ValueError: the space is of another kind, or a box without finite bounds.
        """
        if isinstance(space, gym.spaces.Discrete):
            start = (int(space.start),) if space.start else ()
            n = int(space.n)
            if n == 1 and start:
                raise ValueError(
                    f"action_space: {space} leaves no choice, which is Discrete(1): gymnasium."
                    f"wrappers.TransformAction(env, lambda action: {start[0]}, Discrete(1))"
                )
            return cls("none") if n == 1 else cls("discrete", (), (n,), start=start)
        if isinstance(space, gym.spaces.MultiDiscrete):
            counts = tuple(int(n) for n in space.nvec.flatten())
            first = tuple(int(n) for n in space.start.flatten()) if space.start.any() else ()
            return cls("multi_discrete", space.shape, counts, start=first)
        if isinstance(space, gym.spaces.MultiBinary):
            return cls("multi_binary", tuple(space.shape))
        if isinstance(space, gym.spaces.Box):
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise ValueError(
                    "action_space: a Box needs finite low and high; wrap the environment in "
                    "gymnasium.wrappers.TransformAction with a bounded Box"
                )
            if not (space.low < space.high).all():
                raise ValueError(
                    f"action_space: every low must be below its high, got {space}; gymnasium."
                    "wrappers.TransformAction can add the numbers that never change to the others"
                )
            with np.errstate(over="ignore"):
                widest = (space.high.astype(np.float32) - space.low.astype(np.float32)) * 2
            if not np.isfinite(widest).all():
                raise ValueError(
                    f"action_space: bounds must lie within 1e38, where float32 ends, got {space}; "
                    "gymnasium.wrappers.TransformAction can make such actions from a smaller Box"
                )
            if not space.low.size:
                raise ValueError(
                    f"action_space: expected at least one number, got {space}; gymnasium.wrappers."
                    "TransformAction can take Discrete(1) instead, which leaves no choice"
                )
            low = tuple(float(x) for x in space.low.flatten())
            high = tuple(float(x) for x in space.high.flatten())
            return cls("box", space.shape, (), low, high, str(space.dtype))
        raise ValueError(
            f"action_space: {space} is not supported; use Discrete, MultiDiscrete, MultiBinary "
            "or a bounded Box, from which gymnasium.wrappers.TransformAction can make such actions"
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ActionSpec:
        """From ``data``, the JSON of ``dataclasses.asdict``, which turns tuples into lists.

        Raises:
            ValueError: it is something else.
        """
        return from_json(cls, data, longest=None)

    def to_space(self) -> gym.Space[Any]:
        """The Gymnasium space that this describes (``Discrete(1)`` for "none")."""
        if self.kind == "none":
            return gym.spaces.Discrete(1)
        if self.kind == "discrete":
            return gym.spaces.Discrete(self.categories[0], start=self.start[0] if self.start else 0)
        if self.kind == "multi_discrete":
            counts = np.array(self.categories).reshape(self.shape)
            start = np.reshape(self.start, self.shape) if self.start else None
            return gym.spaces.MultiDiscrete(counts, start=start)
        if self.kind == "multi_binary":
            return gym.spaces.MultiBinary(self.shape if len(self.shape) > 1 else self.shape[0])
        low = np.array(self.low, self.dtype).reshape(self.shape)
        high = np.array(self.high, self.dtype).reshape(self.shape)
        return gym.spaces.Box(low, high, dtype=low.dtype.type)
