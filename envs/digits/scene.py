"""How the digits move and look.

Rules, on a canvas of 64 x 64 whatever the frame size: digits of 32 x 32; a corner anywhere in
0 .. 31, a velocity of -4 .. 4 on each axis, both uniform integers. Before a frame is drawn each
digit is held inside: one above the top (below the bottom) is set to the wall's pixel, and gets a
new velocity, 1 .. 4 away from the wall and -4 .. 4 along it; then the same for left and right,
which may draw anew. Then it is drawn, then it moves. Digits add up, clipped at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import interpolate

from envs.handwriting import load_digits
from envs.randomness import SPLIT_BIT, hash_ids, integers
from envs.simulator import Simulator, State, check_size

CANVAS: Final = 64
DIGIT: Final = 32
"""Height and width of a digit on the canvas."""
ROOM: Final = CANVAS - DIGIT
"""Corners (left, top) lie in 0 .. ROOM - 1."""
FASTEST: Final = 4

_IMAGE_STREAM: Final = 0
_PLACE_STREAM: Final = 1
_VELOCITY_STREAM: Final = 2
_BOUNCE_STREAM: Final = 3
_CHUNK: Final = 1 << 17
"""Pixels of frames that are drawn at once: stays in a CPU's cache."""


@dataclass(frozen=True)
class MovingDigitsState(State):
    """D digits, as they are drawn now.

    Attributes:
        images: ``(B, D)`` int64, which digit of the split's ``load_digits``.
        positions: ``(B, D, 2)`` int64, x and y of the left upper corner, 0 .. 31.
        velocities: ``(B, D, 2)`` int64, of the move to the next frame.
    """

    images: Tensor
    positions: Tensor
    velocities: Tensor


class StochasticMovingDigits(Simulator[MovingDigitsState]):
    """One or two digits bounce; nature decides, nothing is at stake.

    Train scenes show digits of ``load_digits("train")``, test scenes of ``load_digits("test")``.

    Args:
        digits: how many, 1 or 2.
        max_steps: cut-off; None for 19 (20 frames). A scene never ends by itself.

    Raises:
        TypeError: an argument is not an int.
        ValueError: ``digits`` is neither 1 nor 2, or ``max_steps`` below 1.
    """

    fps: ClassVar[int] = 10

    def __init__(self, digits: int = 2, max_steps: int | None = None) -> None:
        if isinstance(digits, bool) or not isinstance(digits, int):
            raise TypeError(f"digits must be an int, got {type(digits).__name__}")
        if digits not in (1, 2):
            raise ValueError(f"digits must be 1 or 2, got {digits}")
        super().__init__(spaces.Discrete(1), 19 if max_steps is None else max_steps)
        self.digits = digits
        self._drawn: dict[tuple[int, torch.device], Tensor] = {}
        # Rows 0 .. train - 1 are for training, the others for tests.
        train, test = load_digits("train"), load_digits("test")
        self._train = len(train.labels)
        self._images = torch.cat([train.images, test.images])
        self._labels = torch.cat([train.labels, test.labels])

    def begin(self, scene_ids: Tensor) -> MovingDigitsState:
        """Digits anywhere, moving anyhow."""
        test = ((scene_ids >> SPLIT_BIT) & 1)[:, None]
        counts = torch.tensor([self._train, len(self._labels) - self._train])
        high = counts.to(scene_ids.device)[test]
        drawn = integers(scene_ids, _IMAGE_STREAM, self.digits, 1 << 24)
        shape = (self.digits, 2)
        speed = integers(scene_ids, _VELOCITY_STREAM, shape, 2 * FASTEST + 1) - FASTEST
        place = integers(scene_ids, _PLACE_STREAM, shape, ROOM)
        return MovingDigitsState(
            scene_ids=scene_ids,
            steps=torch.zeros_like(scene_ids),
            ended=torch.zeros_like(scene_ids, dtype=torch.bool),
            images=(drawn * high >> 24) + test * self._train,
            positions=place,
            velocities=speed,
        )

    def advance(
        self, state: MovingDigitsState, actions: Tensor
    ) -> tuple[MovingDigitsState, Tensor]:
        """Move, and bounce off the walls that were crossed."""
        names = hash_ids(state.scene_ids, _BOUNCE_STREAM, state.steps)
        along = integers(names, 0, (2, self.digits), 2 * FASTEST + 1) - FASTEST
        away = integers(names, 1, (2, self.digits), FASTEST) + 1
        x, y = (state.positions + state.velocities).unbind(-1)
        dx, dy = state.velocities.unbind(-1)
        y, dy, dx = _bounce(y, dy, dx, away[:, 0], along[:, 0])
        x, dx, dy = _bounce(x, dx, dy, away[:, 1], along[:, 1])
        after = MovingDigitsState(
            scene_ids=state.scene_ids,
            steps=state.steps,
            ended=state.ended,
            images=state.images,
            positions=torch.stack([x, y], -1),
            velocities=torch.stack([dx, dy], -1),
        )
        return after, torch.zeros(len(x), device=x.device)

    def render(self, state: MovingDigitsState, size: int) -> Tensor:
        """The present frames, ``(B, size, size, 3)`` uint8, grey.

        At 64 pixels (or multiples) digits lie on whole pixels; smaller frames are those of 64,
        averaged.
        """
        check_size(size)
        batch, device = len(state.scene_ids), state.scene_ids.device
        times = max(1, -(-size // CANVAS))
        # The smallest canvas of whole digit pixels from which frames can be averaged.
        inner = CANVAS * times
        patches = self._patches(times, device)
        frames = torch.empty((batch, size, size), dtype=torch.uint8, device=device)
        step = max(1, _CHUNK // (inner * inner)) if device.type == "cpu" else max(1, batch)
        for start in range(0, batch, step):
            part = slice(start, start + step)
            canvas = self._paint(patches, state.images[part], state.positions[part] * times, inner)
            if inner != size:
                canvas = interpolate(canvas[:, None], (size, size), mode="area")[:, 0]
            frames[part] = (canvas * 255).add_(0.5).to(torch.uint8)
        return frames[..., None].expand(-1, -1, -1, 3).contiguous()

    def labels(self, state: MovingDigitsState) -> Tensor:
        """Classes 0-9 of the digits, ``(B, D)`` int64."""
        return self._labels.to(state.images.device)[state.images]

    def patches(self, state: MovingDigitsState) -> Tensor:
        """The digits as they are drawn at 64 pixels, ``(B, D, 32, 32)`` float32 in [0, 1]."""
        return self._patches(1, state.images.device)[state.images]

    def _patches(self, times: int, device: torch.device) -> Tensor:
        """All digits of both splits, (N, 32 times, 32 times), made once."""
        if (times, device) not in self._drawn:
            side = DIGIT * times
            drawn = interpolate(self._images[:, None], (side, side), mode="bilinear")[:, 0]
            self._drawn[times, device] = drawn.clamp(0, 1).to(device)
        return self._drawn[times, device]

    def _paint(self, patches: Tensor, images: Tensor, corners: Tensor, inner: int) -> Tensor:
        """Canvases (F, inner, inner) float32 with digits (F, D) at corners (F, D, 2)."""
        frames, side, device = len(images), patches.shape[-1], patches.device
        canvas = torch.zeros((frames, inner * inner), device=device)
        within = torch.arange(side, device=device)
        for digit in range(self.digits):
            x, y = (corners[:, digit, :, None] + within).unbind(1)  # (F, side)
            index = (y[:, :, None] * inner + x[:, None, :]).flatten(1)
            canvas.scatter_add_(1, index, patches[images[:, digit]].flatten(1))
        return canvas.clamp_(max=1.0).view(frames, inner, inner)


def _bounce(
    here: Tensor, speed: Tensor, other: Tensor, away: Tensor, along: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Hold one axis inside: its place and speed, and the other axis's speed, all (B, D)."""
    low, high = here < 0, here >= ROOM
    speed = torch.where(low, away, torch.where(high, -away, speed))
    other = torch.where(low | high, along, other)
    return here.clamp(0, ROOM - 1), speed, other
