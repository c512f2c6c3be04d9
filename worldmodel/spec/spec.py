"""What a model was made for: observations, actions and the window."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.common.camera import Camera
from worldmodel.common.config_checks import from_json
from worldmodel.common.space_advice import observation_advice
from worldmodel.spec import parts as part_layout
from worldmodel.spec.action import ActionSpec
from worldmodel.spec.parts import (
    LARGEST_SIDE,
    Part,
    check_bounds,
    check_image,
    require_brightness,
    to_float,
    to_uint8,
    with_infinity,
)

LONGEST_WINDOW = 10**7
"""In steps: training windows take memory for all of it."""


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
        camera: what is known of the camera besides its pose, and how a pose is read; None if
            poses are just numbers.
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
    camera: Camera | None = None

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
        if self.camera is not None and self.camera.pose != self.pose:
            raise ValueError(
                f"camera, pose: layout {self.camera.layout!r} has {self.camera.pose} numbers, got "
                f"pose={self.pose}"
            )

    @property
    def is_image(self) -> bool:
        """Whether observations are images; else they are vectors, or Dicts."""
        return len(self.observation) == 3

    @property
    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Declared bounds (D,) of a vector, or of all vectors of a Dict; empty for images."""
        if not self.parts:
            with np.errstate(over="ignore"):  # bounds that the dtype cannot hold are refused
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
        camera: Camera | None = None,
    ) -> Spec:
        """Describe an environment.

        Args:
            observation_space: a Box of uint8 images (H, W, C), or of float vectors (D,); or a Dict
                of such parts, one of which may be an image.
            action_space: Discrete, MultiDiscrete, MultiBinary or a bounded Box.
            window: steps that the model shall cover.
            pose: numbers of a camera pose, if poses are the keys. The actions only move the camera
                then: they are left away, since the pose says where it is.
            camera: its intrinsics, if they are known; ``pose`` is then its number of numbers.

        Raises:
            ValueError: the observation space is neither, or the action space is not supported; or
                the camera's poses have another number of numbers.
        """
        box = observation_space
        if isinstance(box, gym.spaces.Dict) and pose:
            raise ValueError("observation_space: cameras take images, got a Dict")
        action = ActionSpec("none") if pose else ActionSpec.from_space(action_space)
        if isinstance(box, gym.spaces.Dict):
            return cls.of_parts(part_layout.parts_of(box), action, window)
        if isinstance(box, gym.spaces.Box) and box.dtype == np.uint8 and len(box.shape) == 3:
            require_brightness(box, "observation_space")
            height, width, channels = box.shape
            sides = [16 <= side <= LARGEST_SIDE and side % 8 == 0 for side in (height, width)]
            if channels not in (1, 3) or not all(sides):
                raise ValueError(
                    "observation_space: expected an image of 1 or 3 channels whose height and "
                    f"width are multiples of 8, at least 16 and at most {LARGEST_SIDE}, got "
                    f"(H, W, C) = {box.shape}; {observation_advice(box)}"
                )
            return cls((channels, height, width), action, window, pose, camera=camera)
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
        if self.camera is None:
            del known["camera"]  # earlier versions know none
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
