"""What a model was made for: observations, actions and the window; and the Gymnasium border."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel import parts as part_layout
from worldmodel.common.config_checks import from_json
from worldmodel.common.space_advice import observation_advice
from worldmodel.parts import (
    LARGEST_SIDE,
    Part,
    check_bounds,
    check_image,
    to_float,
    to_uint8,
    with_infinity,
)

KINDS = ("none", "discrete", "multi_discrete", "multi_binary", "box")
LONGEST_WINDOW = 10**7
"""In steps: training windows take memory for all of it."""


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


@dataclass(frozen=True)
class Spec:
    """What a model was made for: part of its checkpoint, checked at every border.

    Attributes:
        observation: image shape (C, H, W), H and W multiples of 8; or (D,), a vector, which may be
            a Dict's parts one after another.
        action: the action space.
        window: W, the number of steps that the model covers.
        pose: P, numbers of a camera pose. Above 0 the scene stands still, poses alone are its
            keys (times count for nothing), nothing is decided and nothing is at stake.
        low, high: bounds of a vector's numbers, which may be infinite; empty for images.
        dtype: of a vector in the environment; the model computes in float32.
        parts: of a Dict observation, which have bounds and dtypes of their own; else empty.
        least, most: of a vector's numbers in recorded episodes, if some lie beyond ``low`` and
            ``high``, which the environment declares: imagined ones may, too. Else empty.
    """

    observation: tuple[int, ...]
    action: ActionSpec
    window: int
    pose: int = 0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dtype: str = "float32"
    parts: tuple[Part, ...] = ()
    least: tuple[float, ...] = ()
    most: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = len(self.bounds[0])
        if not len(self.least) == len(self.most) or len(self.least) not in (0, numbers):
            raise ValueError(
                f"least, most: expected one for each of {numbers} numbers, or none, got "
                f"{len(self.least)} and {len(self.most)}"
            )
        if self.parts:
            part_layout.check_parts(self.parts)
            numbers = sum(part.size for part in self.parts)
            if self.observation != (numbers,) or self.low or self.high:
                raise ValueError(
                    f"observation, low, high: parts of {numbers} numbers make ({numbers},) without "
                    f"bounds, got {self.observation} with {len(self.low)} and {len(self.high)}"
                )
        elif self.is_image:
            check_image(self.observation, "observation")
            if self.low or self.high:
                raise ValueError("low, high: are for vectors; images have none")
        elif len(self.observation) != 1 or not (
            len(self.low) == len(self.high) == self.observation[0] >= 1
        ):
            raise ValueError(
                "observation: expected an image (C, H, W), or a vector (D,) with D low and high "
                f"bounds, got {self.observation} with {len(self.low)} and {len(self.high)}"
            )
        check_bounds(self.low, self.high, self.dtype, "f")
        check_bounds(self.least, self.most, self.dtype, "f")
        if not 1 <= self.window <= LONGEST_WINDOW:
            raise ValueError(
                f"window: expected at least 1 step and at most {LONGEST_WINDOW:,}, got "
                f"{self.window}"
            )
        if self.pose < 0:
            raise ValueError(f"pose: expected 0 or more numbers, got {self.pose}")
        if self.pose and not self.is_image:
            raise ValueError(f"pose: cameras take images, got vectors {self.observation}")
        if self.pose and not self.passive:
            raise ValueError(
                f"pose: a scene with poses as keys stands still and takes no actions, got "
                f"{self.action.kind} actions"
            )

    @property
    def is_image(self) -> bool:
        """Whether observations are images; else they are vectors, or Dicts."""
        return len(self.observation) == 3

    @property
    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Declared bounds (D,) of a vector, or of all vectors of a Dict; empty for images."""
        if not self.parts:
            return np.array(self.low, self.dtype), np.array(self.high, self.dtype)
        low = [x for part in self.parts for x in part.low]
        return np.array(low), np.array([x for part in self.parts for x in part.high])

    @property
    def image_part(self) -> Part | None:
        """The image among the parts of a Dict observation; None if there is none."""
        return next((part for part in self.parts if part.is_image), None)

    @property
    def passive(self) -> bool:
        """Whether nothing is decided: the action space leaves no choice."""
        return self.action.kind == "none"

    @property
    def border(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of recorded observations: uint8 (H, W, C), float32 (D,), or what ``pack``
        makes of a Dict: float32 (D,), or uint8 bytes if a part is an image.
        """
        if self.is_image:
            channels, height, width = self.observation
            return (height, width, channels), np.dtype(np.uint8)
        if self.image_part is not None:
            return part_layout.packed_shape(self.parts), np.dtype(np.uint8)
        return self.observation, np.dtype(np.float32)

    def pack(self, observation: Any, owner: str = "observation") -> NDArray[Any]:
        """A Dict observation (..., \\*part) as one array (..., n), as it is recorded: ``border``.

        What is no Dict is returned as it is.

        Args:
            observation: an array for each part, or such a packed array.
            owner: whom a message names.

        Raises:
            TypeError, ValueError: it is not what ``parts`` say, or a vector holds NaN or infinity.
        """
        if not self.parts or isinstance(observation, np.ndarray):
            return np.asarray(observation)
        return part_layout.pack(self.parts, observation, owner)

    def unpack(self, recorded: NDArray[Any]) -> Any:
        """The inverse of ``pack``: the observation as the environment shows it.

        A dict of arrays by part, or the array itself if the spec has no parts.
        """
        return part_layout.unpack(self.parts, recorded) if self.parts else recorded

    def split(self, observations: Tensor) -> Any:
        """Observations (..., \\*observation) of models as a dict of (..., C, H, W) and (..., D).

        The tensor itself if the spec has no parts.
        """
        return part_layout.split(self.parts, observations) if self.parts else observations

    def to_model(self, observations: Tensor) -> Tensor:
        """From the border to what models take: float32 (..., C, H, W) in [0, 1], or (..., D)."""
        if self.image_part is not None:
            return part_layout.to_model(self.parts, observations)
        return to_float(observations) if self.is_image else observations.float()

    def to_numpy(self, observations: Tensor) -> NDArray[Any]:
        """The inverse of ``to_model``, in the environment's dtype, and within the bounds that it
        declares or, where those are wider, that recorded episodes have.

        Of Dicts what ``unpack`` takes.
        """
        if self.is_image:
            return np.asarray(to_uint8(observations).cpu().numpy())
        low, high = self.bounds
        if self.least:
            low = np.minimum(low, np.array(self.least, low.dtype))
            high = np.maximum(high, np.array(self.most, low.dtype))
        if self.parts:
            return part_layout.to_numpy(self.parts, observations, low, high)
        numbers: NDArray[Any] = observations.cpu().numpy().astype(low.dtype)
        return np.asarray(np.clip(numbers, low, high))

    @classmethod
    def from_spaces(
        cls,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        window: int,
        pose: int = 0,
    ) -> Spec:
        """Describe an environment.

        Args:
            observation_space: a Box of uint8 images (H, W, C), or of float vectors (D,); or a Dict
                of such parts, one of which may be an image.
            action_space: Discrete, MultiDiscrete, MultiBinary or a bounded Box.
            window: steps that the model shall cover.
            pose: numbers of a camera pose, if poses are the keys. The actions only move the camera
                then: they are left away, since the pose says where it is.

        Raises:
            ValueError: the observation space is neither, or the action space is not supported.
        """
        box = observation_space
        if isinstance(box, gym.spaces.Dict) and pose:
            raise ValueError("observation_space: cameras take images, got a Dict")
        action = ActionSpec("none") if pose else ActionSpec.from_space(action_space)
        if isinstance(box, gym.spaces.Dict):
            return cls.of_parts(part_layout.parts_of(box), action, window)
        if isinstance(box, gym.spaces.Box) and box.dtype == np.uint8 and len(box.shape) == 3:
            height, width, channels = box.shape
            sides = [16 <= side <= LARGEST_SIDE and side % 8 == 0 for side in (height, width)]
            if channels not in (1, 3) or not all(sides):
                raise ValueError(
                    "observation_space: expected an image of 1 or 3 channels whose height and "
                    f"width are multiples of 8, at least 16 and at most {LARGEST_SIDE}, got "
                    f"(H, W, C) = {box.shape}; {observation_advice(box)}"
                )
            return cls((channels, height, width), action, window, pose)
        if (
            isinstance(box, gym.spaces.Box)
            and np.issubdtype(box.dtype, np.floating)
            and len(box.shape) == 1
            and box.shape[0]
        ):
            low, high = (tuple(float(x) for x in bound) for bound in (box.low, box.high))
            return cls(box.shape, action, window, pose, low, high, str(box.dtype))
        raise ValueError(
            "observation_space: expected a uint8 Box of shape (H, W, C) or a float Box of shape "
            f"(D,), got {observation_space}; {observation_advice(observation_space)}"
        )

    @classmethod
    def of_parts(cls, parts: tuple[Part, ...], action: ActionSpec, window: int) -> Spec:
        """Of Dict observations with these ``parts``, an ``action`` space and a ``window``."""
        return cls((sum(part.size for part in parts),), action, window, parts=parts)

    def observation_space(self) -> gym.spaces.Box | gym.spaces.Dict:
        """The Gymnasium space that this describes."""
        if self.parts:
            return gym.spaces.Dict({part.name: part.space() for part in self.parts})
        if self.is_image:
            return gym.spaces.Box(0, 255, self.border[0], np.uint8)
        low, high = np.array(self.low, self.dtype), np.array(self.high, self.dtype)
        return gym.spaces.Box(low, high, dtype=low.dtype.type)

    def require_box(self, owner: str) -> gym.spaces.Box:
        """The observation space; raises ValueError, naming ``owner``, if it is a Dict."""
        space = self.observation_space()
        if not isinstance(space, gym.spaces.Box):
            raise ValueError(
                f"{owner}: expected images or vectors, got a Dict of "
                f"{[part.name for part in self.parts]}; gymnasium.wrappers.FlattenObservation makes"
                " one vector of an environment's vectors"
            )
        return space

    def require_images(self, owner: str) -> None:
        """Raise ValueError, naming ``owner``, if observations are vectors, not pictures."""
        if not self.is_image:
            raise ValueError(
                f"{owner}: it sees vectors {self.observation}; pictures need images, as "
                "agents.adapt(env, pixels=True) makes them"
            )

    def check_spaces(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], owner: str
    ) -> None:
        """Raise ValueError unless the spaces are the ones of this spec.

        Args:
            observation_space: must equal ``observation_space()``.
            action_space: must equal ``action.to_space()``.
            owner: whom the message names.
        """
        expected = (self.observation_space(), self.action.to_space())
        if observation_space != expected[0]:
            raise ValueError(
                f"{owner}: observation space is {observation_space}, the model was made for "
                f"{expected[0]}"
            )
        if action_space != expected[1]:
            raise ValueError(
                f"{owner}: action space is {action_space}, the model was made for {expected[1]}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``; JSON has no infinity: it is written as a string."""
        bounds = {
            name: tuple(x if math.isfinite(x) else str(x) for x in getattr(self, name))
            for name in ("low", "high")
        }
        known = {**asdict(self), **bounds, "parts": [part.to_dict() for part in self.parts]}
        if not self.parts:
            del known["parts"]
        if not self.least:
            del known["least"], known["most"]  # earlier versions know none
        if not self.action.start:
            del known["action"]["start"]  # earlier versions know none
        return known

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Spec:
        """The inverse of ``to_dict``; ``data`` may have been through JSON.

        Checkpoints from before poses, vectors or Dicts have none of their fields.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(data, dict):
            raise ValueError(f"spec: expected a JSON object, got {type(data).__name__}")
        read = dict(with_infinity(data))
        if "action" in data:
            read["action"] = ActionSpec.from_dict(data["action"])
        if isinstance(data.get("parts"), list | tuple):
            read["parts"] = tuple(map(Part.from_dict, data["parts"]))
        return from_json(cls, read, longest=None)
