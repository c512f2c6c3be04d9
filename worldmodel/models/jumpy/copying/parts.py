"""Observations of the JUMP that copies: images, or Dicts of an image and vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from worldmodel.models.layers.moments import vector_moments
from worldmodel.spec import Spec
from worldmodel.types import SceneSource


class ObservationParts(nn.Module):
    """Splits observations into an image and vectors, and standardises the vectors.

    Attributes:
        image: (C, H, W).
        pixels: numbers of the image, which come first in a Dict.
        numbers: of the vectors; 0 where an observation is an image.
        planes: channels of ``planes_of``.
    """

    shift: Tensor
    spread: Tensor
    prepared: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        part = spec.image_part
        self.spec = spec
        self.image = spec.observation if part is None else part.in_model
        self.pixels = math.prod(self.image)
        self.numbers = 0 if part is None else spec.observation[0] - self.pixels
        self.planes = self.image[0] + self.numbers
        if self.numbers:
            self.register_buffer("shift", torch.zeros(self.numbers))
            self.register_buffer("spread", torch.ones(self.numbers))
            self.register_buffer("prepared", torch.tensor(False))

    @torch.no_grad()
    def prepare(self, source: SceneSource) -> None:
        """Learn mean and spread of the vectors from a source, once."""
        if not self.numbers or bool(self.prepared):
            return
        shift, spread = vector_moments(source, self.spec, self.pixels)
        self.shift.copy_(shift)
        self.spread.copy_(spread)
        self.prepared.fill_(True)

    def standardised(self, observations: Tensor) -> Tensor:
        """(..., \\*observation), of which only the vectors change."""
        return self._vectors(observations, lambda x: (x - self.shift) / self.spread)

    def restored(self, observations: Tensor) -> Tensor:
        """The inverse of ``standardised``."""
        return self._vectors(observations, lambda x: x * self.spread + self.shift)

    def _vectors(self, frames: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        if not self.numbers:
            return frames
        return torch.cat([frames[..., : self.pixels], function(frames[..., self.pixels :])], -1)

    def split(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Images (..., C, H, W), and the vectors (..., numbers)."""
        if self.spec.is_image:
            return frames, frames.new_zeros(*frames.shape[:-3], 0)
        return frames[..., : self.pixels].unflatten(-1, self.image), frames[..., self.pixels :]

    def joined(self, images: Tensor, vectors: Tensor | None) -> Tensor:
        """The inverse of ``split``, of (P, Q, C, H, W) and (P, Q, numbers)."""
        if self.spec.is_image:
            return images
        flat = images.flatten(2)
        return flat if vectors is None else torch.cat([flat, vectors], -1)

    def planes_of(self, frames: Tensor) -> Tensor:
        """(..., planes, H, W): the image, and each number of the vectors as a plane."""
        image, vectors = self.split(frames)
        if not self.numbers:
            return image
        tiled = vectors[..., None, None].expand(*vectors.shape, *self.image[1:])
        return torch.cat([image, tiled], -3)

    def blank(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Frames (B, M, \\*observation), 0 where mask (B, M) is False; they may be NaN there."""
        missing = ~mask.view(*mask.shape, *[1] * len(self.spec.observation))
        return frames.masked_fill(missing, 0.0)


def by_time(frames: Tensor, times: Tensor, mask: Tensor, slots: int) -> dict[str, Tensor]:
    """``frames``, ``times`` and ``mask`` in the order of time, in ``slots`` slots; others are 0.

    Args:
        frames: (B, M, \\*observation).
        times: int64 (B, M).
        mask: bool (B, M), True where a pair is there, at most ``slots`` of a scene.
        slots: how many the answer has.
    """
    order = torch.where(mask, times, torch.iinfo(times.dtype).max)
    order = order.argsort(dim=1, stable=True)[:, :slots]
    rows = torch.arange(len(order), device=order.device)[:, None]
    pairs = {"frames": frames, "times": times, "mask": mask}

    def moved(value: Tensor) -> Tensor:
        padded = value.new_zeros(len(value), slots, *value.shape[2:])
        padded[:, : order.shape[1]] = value[rows, order]
        return padded

    return {name: moved(value) for name, value in pairs.items()}
