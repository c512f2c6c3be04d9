"""The named parts of Dict observations, packed into one array and taken out of it again.

Vectors are packed into one float32 vector, in the order of their names. With an image among them
the array holds bytes, so that the image takes no more memory than it does alone; it comes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.common.config_checks import from_json
from worldmodel.common.space_advice import is_vector_to_be, observation_advice

LARGEST_SIDE = 8192
"""Of images: Gymnasium's spaces take memory for all of it."""
INFINITE = {"inf": math.inf, "-inf": -math.inf}
"""JSON has no infinity: it is written as a string."""


@dataclass(frozen=True)
class Part:
    """One entry of a Dict observation, as the environment shows it.

    Attributes:
        name: its key.
        shape: (H, W, C) of an image, (D,) of a vector.
        dtype: "uint8" of an image; of a vector that of a float, which the model sees as float32.
        low, high: bounds of a vector's numbers, which may be infinite; empty for images.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.is_image:
            height, width, channels = self.shape
            check_image((channels, height, width), f"part {self.name!r}")
            if self.dtype != "uint8" or self.low or self.high:
                raise ValueError(
                    f"part {self.name!r}: expected images to be uint8 and without low and high"
                )
            return
        if len(self.shape) != 1 or not len(self.low) == len(self.high) == self.shape[0] >= 1:
            raise ValueError(
                f"part {self.name!r}: expected an image (H, W, C), or a vector (D,) with D low and "
                f"high bounds, got {self.shape} with {len(self.low)} and {len(self.high)}"
            )
        check_bounds(self.low, self.high, self.dtype, "f")

    @property
    def is_image(self) -> bool:
        """Whether it is an image; else it is a vector."""
        return len(self.shape) == 3

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def in_model(self) -> tuple[int, ...]:
        """Its shape in models: (C, H, W), or (D,)."""
        return (self.shape[2], *self.shape[:2]) if self.is_image else self.shape

    def space(self) -> Box:
        """The Gymnasium space that this describes."""
        if self.is_image:
            return Box(0, 255, self.shape, np.uint8)
        low, high = np.array(self.low, self.dtype), np.array(self.high, self.dtype)
        return Box(low, high, dtype=low.dtype.type)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        low, high = ([_finite(x) for x in bound] for bound in (self.low, self.high))
        shape = list(self.shape)
        return {"name": self.name, "shape": shape, "dtype": self.dtype, "low": low, "high": high}

    @classmethod
    def from_dict(cls, data: Any) -> Part:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: it is something else.
        """
        return from_json(cls, with_infinity(data), longest=None)


def parts_of(space: gym.spaces.Dict) -> tuple[Part, ...]:
    """The parts of a Dict space: its image, if any, and then vectors in the order of their names.

    Raises:
        ValueError: a part is neither a uint8 image nor a float vector, there is none, or more than
            one is an image.
    """
    if not space.spaces:
        raise ValueError("observation_space: expected a Dict of at least one part, got none")
    images, vectors, others = dict[str, Box](), dict[str, Box](), dict[str, gym.Space[Any]]()
    for name, part in sorted(space.spaces.items()):
        if isinstance(part, Box) and part.dtype == np.uint8 and len(part.shape) == 3:
            images[name] = part
        elif isinstance(part, Box) and part.dtype.kind == "f" and len(part.shape) == 1:
            vectors[name] = part
        else:
            others[name] = part
    # In this order what is advised is not refused in its turn.
    for name, part in others.items():
        if not is_vector_to_be(part):
            raise ValueError(f"{_unlike(name, part)} leaves parts away")
    if len(images) > 1:
        raise ValueError(
            f"observation_space: expected at most one image, got the images {list(images)} of "
            f"{list(space.spaces)}; gymnasium.wrappers.FilterObservation leaves parts away"
        )
    for name, part in images.items():
        require_brightness(part, f"observation_space: part {name!r}")
    for name, part in others.items():
        raise ValueError(f"{_unlike(name, part)} leaves parts away, agents.adapt makes vectors")
    parts = []
    for name, part in images.items():
        try:
            parts.append(Part(name, part.shape, "uint8"))
        except ValueError as error:
            raise ValueError(f"observation_space: {error}; {observation_advice(part)}") from error
    for name, part in vectors.items():
        low, high = (tuple(float(x) for x in bound) for bound in (part.low, part.high))
        parts.append(Part(name, part.shape, str(part.dtype), low, high))
    return tuple(parts)


def _unlike(name: str, part: gym.Space[Any]) -> str:
    return (
        f"observation_space: part {name!r} is {part}, expected a uint8 Box of shape (H, W, C) or a "
        "float Box of shape (D,); gymnasium.wrappers.FilterObservation"
    )


def check_parts(parts: Sequence[Part]) -> None:
    """Raise ValueError unless names differ, and no part but the first is an image."""
    names = [part.name for part in parts]
    if len(set(names)) < len(names) or holds_image(parts[1:]):
        raise ValueError(
            f"parts: expected different names, and no image but the first part, got {names} of "
            f"shapes {[part.shape for part in parts]}"
        )


def holds_image(parts: Sequence[Part]) -> bool:
    """Whether one of the parts is an image, so that they are packed as bytes."""
    return any(part.is_image for part in parts)


def packed_shape(parts: Sequence[Part]) -> tuple[int]:
    """Shape of the packed array: numbers, or bytes if there is an image."""
    image = holds_image(parts)
    return (sum(part.size * (1 if part.is_image or not image else 4) for part in parts),)


def pack(parts: Sequence[Part], observation: Any, owner: str) -> NDArray[Any]:
    """One array (..., n) of a Dict observation whose parts have shape (..., \\*part).

    Args:
        parts: in this order.
        observation: an array for each part; vectors are rounded to float32.
        owner: whom a message names.

    Raises:
        TypeError: it is no dict, an image is not uint8, or a vector's numbers are no floats.
        ValueError: parts are missing or too many, their shapes do not fit, or a vector holds NaN or
            infinity.
    """
    names = [part.name for part in parts]
    if not isinstance(observation, Mapping):
        raise TypeError(
            f"{owner}: expected a dict with the parts {names}, got {type(observation).__name__}"
        )
    if set(observation) != set(names):
        raise ValueError(f"{owner}: expected the parts {names}, got {list(observation)}")
    arrays, leads = [], []
    for part in parts:
        values = np.asarray(observation[part.name])
        kind = "uint8" if part.is_image else "float"
        if values.dtype != np.uint8 if part.is_image else values.dtype.kind != "f":
            raise TypeError(f"{owner}: expected {kind} {part.name!r}, got {values.dtype}")
        leads.append(values.shape[: max(0, values.ndim - len(part.shape))])
        if values.shape != (*leads[0], *part.shape):
            axes = ("...", *part.shape)
            raise ValueError(
                f"{owner}: expected {part.name!r} of shape {axes}, with the first axes of "
                f"{names[0]!r}, got {values.shape}"
            )
        if not part.is_image:
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
            if not np.isfinite(values).all():
                raise ValueError(
                    f"{owner}: {part.name!r} holds NaN or infinity, or more than float32 can"
                )
        arrays.append(values.reshape(*leads[0], part.size))
    if holds_image(parts):
        arrays = [np.ascontiguousarray(values).view(np.uint8) for values in arrays]
    return np.concatenate(arrays, -1)


def unpack(parts: Sequence[Part], packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The parts (..., \\*part) of what ``pack`` returned, each a copy in its own dtype."""
    lead, observation = packed.shape[:-1], {}
    for part, numbers in _slices(parts):
        values = packed[..., numbers]
        if holds_image(parts) and not part.is_image:
            values = np.ascontiguousarray(values).view(np.float32)
        values = values.reshape(*lead, *part.shape)
        wide = values.astype(part.dtype)
        if not part.is_image:  # float32 may have rounded a bound outwards
            for bound, exact in zip(_bounds(part), (part.low, part.high), strict=True):
                wide = np.where(values == bound, np.array(exact, part.dtype), wide)
        observation[part.name] = wide
    return observation


def _bounds(part: Part) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds of a vector as float32."""
    with np.errstate(over="ignore"):
        return np.array(part.low).astype(np.float32), np.array(part.high).astype(np.float32)


def vectors(parts: Sequence[Part], packed: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers of all vectors, float32 (..., V), of what ``pack`` returned."""
    if not holds_image(parts):
        return packed
    begin = sum(part.size for part in parts if part.is_image)
    return np.ascontiguousarray(packed[..., begin:]).view(np.float32)


def number_name(parts: Sequence[Part], number: int) -> str:
    """What messages call the ``number``-th number of all vectors: ``number 0 of 'goal'``."""
    for part in parts:
        if not part.is_image and number < part.size:
            return f"number {number} of {part.name!r}"
        number -= 0 if part.is_image else part.size
    return f"number {number}"


def _slices(parts: Sequence[Part]) -> Iterator[tuple[Part, slice]]:
    """Where each part stands in the packed array."""
    begin = 0
    for part in parts:
        end = begin + packed_shape([part])[0] * (
            4 if holds_image(parts) and not part.is_image else 1
        )
        yield part, slice(begin, end)
        begin = end


def split(parts: Sequence[Part], observations: Tensor) -> dict[str, Tensor]:
    """The parts (..., \\*part.in_model) of observations (..., n) as models see them."""
    pieces = observations.split([part.size for part in parts], -1)
    return {
        part.name: piece.unflatten(-1, part.in_model)
        for part, piece in zip(parts, pieces, strict=True)
    }


def to_model(parts: Sequence[Part], packed: Tensor) -> Tensor:
    """Packed bytes (..., n) to float32 numbers of all parts (..., D), images in [0, 1]."""
    numbers = []
    for part, where in _slices(parts):
        piece = packed[..., where].clone(memory_format=torch.contiguous_format)  # aligned
        if part.is_image:
            numbers.append(to_float(piece.unflatten(-1, part.shape)).flatten(-3))
        else:
            numbers.append(piece.view(torch.float32))
    return torch.cat(numbers, -1)


def to_numpy(
    parts: Sequence[Part], observations: Tensor, low: NDArray[Any], high: NDArray[Any]
) -> NDArray[Any]:
    """The inverse of ``to_model``, packed; vectors within bounds (V,) of all their numbers."""
    arrays, begin = {}, 0
    for part in parts:
        values = split(parts, observations)[part.name]
        if part.is_image:
            arrays[part.name] = to_uint8(values).cpu().numpy()
        else:
            own = slice(begin, begin + part.size)
            with np.errstate(over="ignore"):
                limits = low[own].astype(np.float32), high[own].astype(np.float32)
            arrays[part.name] = np.clip(values.float().cpu().numpy(), *limits)
            begin += part.size
    return pack(parts, arrays, "observations")


def check_image(shape: tuple[int, ...], owner: str) -> None:
    """Raise ValueError, naming ``owner``, unless (C, H, W) are an image that models take."""
    channels, *sides = shape
    fits = all(16 <= side <= LARGEST_SIDE and side % 8 == 0 for side in sides)
    if channels not in (1, 3) or not fits:
        advice = "; agents.adapt resizes images" if channels in (1, 3) else ""
        raise ValueError(
            f"{owner}: expected an image of 1 or 3 channels whose height and width are multiples "
            f"of 8, at least 16 and at most {LARGEST_SIDE}, got (C, H, W) = {shape}{advice}"
        )


def require_brightness(space: Box, owner: str) -> None:
    """Raise ValueError, naming ``owner``, unless the images of a space go from 0 to 255."""
    least, most = int(space.low.min()), int(space.high.max())
    if not ((space.low == 0).all() and (space.high == 255).all()):
        raise ValueError(
            f"{owner}: expected images from 0 to 255, got numbers from {least} to {most}; "
            f"{observation_advice(space)}"
        )


def check_bounds(low: tuple[float, ...], high: tuple[float, ...], dtype: str, kinds: str) -> None:
    """Raise ValueError unless arrays of this dtype, of one of NumPy's ``kinds``, can be bounds."""
    try:
        parsed = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"dtype: NumPy knows no {dtype!r}") from error
    if parsed.kind not in kinds or parsed.name != dtype:
        raise ValueError(f"dtype: expected the name of a number's, such as float32, got {dtype!r}")
    if not all(a <= b for a, b in zip(low, high, strict=True)):  # NaN is neither
        raise ValueError("low, high: expected every low at most as large as its high")
    limits = np.finfo(parsed) if parsed.kind == "f" else np.iinfo(parsed)
    least, most = float(limits.min), float(limits.max)  # NumPy's own would cast x
    # what lies outside would become infinite, or wrap around
    if not all(least <= x <= most for x in (*low, *high) if math.isfinite(x)):
        raise ValueError(f"low, high: expected bounds that {dtype} can hold, got {low} and {high}")


def with_infinity(data: Any) -> Any:
    """A dict of JSON whose ``low`` and ``high`` have their infinities back; others as they are."""
    if not isinstance(data, dict):
        return data
    read = {
        name: [INFINITE.get(x, x) if isinstance(x, str) else x for x in data[name]]
        for name in ("low", "high")
        if isinstance(data.get(name), list | tuple)
    }
    return {**data, **read}


def _finite(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def to_float(observations: Tensor) -> Tensor:
    """To what models take: float32 (..., C, H, W) in [0, 1].

    Args:
        observations: uint8 (..., H, W, C), as environments return them.
    """
    return observations.movedim(-1, -3).float() / 255.0


def to_uint8(observations: Tensor) -> Tensor:
    """To what environments return: contiguous uint8 (..., H, W, C).

    Args:
        observations: float (..., C, H, W), as models predict them; clamped to [0, 1].
    """
    return (observations.clamp(0, 1) * 255.0).round().byte().movedim(-3, -1).contiguous()
