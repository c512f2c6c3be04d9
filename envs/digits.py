"""Stochastic moving digits: handwritten digits that bounce off walls in new directions.

Rules, on a canvas of 64 x 64 whatever the frame size: digits of 32 x 32; a corner anywhere in
0 .. 31, a velocity of -4 .. 4 on each axis, both uniform integers. Before a frame is rendered each
digit is held inside: one above the top (below the bottom) is set to the wall's pixel, and gets a
new velocity, 1 .. 4 away from the wall and -4 .. 4 along it; then the same for left and right,
which may set new velocities again. Then the frame is rendered, then digits move. Where digits
overlap, they add up, clipped at 1.

Source: Denton and Fergus 2018, sec. 4.1 (SM-MNIST), in the rules of their published code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from envs.handwriting import load_digits
from envs.randomness import SPLIT_BIT, hash_ids, integers
from envs.simulator import Simulator, State, at_start, check_size
from envs.template_match import white_level
from worldmodel.common.config_checks import whole_number

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
_BLURS: Final = (1, 3, 5, 9)
"""Widths of the blur that digits are matched with; frames of a model are soft."""
_RIM: Final = max(_BLURS) // 2


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
        if whole_number("digits", digits) not in (1, 2):
            raise ValueError(f"digits must be 1 or 2, got {digits}")
        super().__init__(spaces.Discrete(1), 19 if max_steps is None else max_steps)
        self.digits = digits
        self._patch_cache: dict[tuple[int, torch.device], Tensor] = {}
        # Rows 0 .. train - 1 are for training, the others for tests.
        train, test = load_digits("train"), load_digits("test")
        self._train = len(train.labels)
        self._images = torch.cat([train.images, test.images])
        self._labels = torch.cat([train.labels, test.labels])

    def begin(self, scene_ids: Tensor) -> MovingDigitsState:
        """Digits at random places, with random velocities."""
        test = ((scene_ids >> SPLIT_BIT) & 1)[:, None]
        counts = torch.tensor([self._train, len(self._labels) - self._train])
        high = counts.to(scene_ids.device)[test]
        number = integers(scene_ids, _IMAGE_STREAM, self.digits, 1 << 24)
        shape = (self.digits, 2)
        return MovingDigitsState(
            **at_start(scene_ids),
            images=(number * high >> 24) + test * self._train,
            positions=integers(scene_ids, _PLACE_STREAM, shape, ROOM),
            velocities=integers(scene_ids, _VELOCITY_STREAM, shape, 2 * FASTEST + 1) - FASTEST,
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
        positions, velocities = torch.stack([x, y], -1), torch.stack([dx, dy], -1)
        after = replace(state, positions=positions, velocities=velocities)
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
        if (times, device) not in self._patch_cache:
            side = DIGIT * times
            patches = interpolate(self._images[:, None], (side, side), mode="bilinear")[:, 0]
            self._patch_cache[times, device] = patches.clamp(0, 1).to(device)
        return self._patch_cache[times, device]

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


def locate(frames: Tensor, simulator: StochasticMovingDigits, facts: MovingDigitsState) -> Tensor:
    """Where the known digits are in (generated) frames: the corners that explain them best.

    All pairs of corners are tried at once: the squared error of a pair needs only each digit's
    correlation with the frame and the two digits' with each other. (That two digits clip where
    they meet is left out.)

    Share of two digits in 2,000 test frames that are located within a pixel on both axes, sharp /
    blurred 3 and 5 pixels wide: .99 / .99, .98 at 64 pixels, .99 / .97, .88 at 32.

    Args:
        frames: ``(B, n, S, S, 3)`` uint8, or floating point in [0, 1].
        simulator: that the scenes belong to.
        facts: the scenes, B of them.

    Returns:
        ``(B, n, D, 2)`` int64, x and y of the left upper corners on the 64-pixel canvas.

    Raises:
        ValueError: wrong shape.
    """
    white = white_level(frames, len(facts.scene_ids))
    if not frames.numel():
        raise ValueError(f"frames must be (B, n, S, S, 3) with n >= 1, got {tuple(frames.shape)}")
    grey = frames.to(torch.float32).mean(-1) / white
    if grey.shape[-1] != CANVAS:
        grey = interpolate(grey, (CANVAS, CANVAS), mode="bilinear", antialias=True)
    pairs = zip(pad(grey, (_RIM,) * 4), simulator.patches(facts), strict=True)
    return torch.stack([_explain(padded, patches) for padded, patches in pairs])


def _explain(frames: Tensor, patches: Tensor) -> Tensor:
    """Corners (n, D, 2) of patches (D, 32, 32) in frames (n, 64, 64) with a rim."""
    best = torch.full((len(frames),), torch.inf, device=frames.device)
    corners = torch.zeros((len(frames), len(patches)), dtype=torch.int64, device=frames.device)
    sharp = pad(patches, (_RIM,) * 4)
    for width in _BLURS:
        soft = avg_pool2d(sharp[:, None], width, 1, width // 2)
        error, corner = _best_corners(frames[:, None], soft)
        corners = torch.where((error < best)[:, None], corner, corners)
        best = torch.minimum(best, error)
    return torch.stack([corners % ROOM, corners // ROOM], -1)


def _best_corners(frames: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Least squared error, less the frame's own, (n,), and where: (n, D) of 32 x 32 corners."""
    # |p|^2 - 2 <frame, p>, for each digit in each corner.
    errors = patches.square().sum((1, 2, 3))[:, None] - 2 * (
        conv2d(frames, patches)[:, :, :ROOM, :ROOM].flatten(2)
    )  # (n, D, 1024)
    if len(patches) == 1:
        least, corner = errors[:, 0].min(1)
        return least, corner[:, None]
    overlap = conv2d(pad(patches[:1], (ROOM - 1,) * 4), patches[1:])[0, 0]  # <a at 0, b at d - 31>
    windows = (2 * overlap).unfold(0, ROOM, 1).unfold(1, ROOM, 1)  # [i, j, y, x] at i + y, j + x
    shared = windows.flip(0, 1).reshape(ROOM * ROOM, ROOM * ROOM)  # a's corner, b's corner
    both = torch.empty_like(shared)
    values, pairs = [], []
    for one, other in errors:
        torch.add(shared, other, out=both).add_(one[:, None])
        # The least of each row, then of these: far faster than one search that keeps the index.
        row = both.amin(1).argmin()
        value, column = both[row].min(0)
        values.append(value)
        pairs.append(torch.stack([row, column]))
    return torch.stack(values), torch.stack(pairs)


def coherent_motion(corners: Tensor, tolerance: int = 0) -> Tensor:
    """Whether digits go straight on between walls, and at most 4 pixels a frame.

    Args:
        corners: ``(B, n, D, 2)`` int64, in n >= 2 consecutive frames, as of :func:`locate`.
        tolerance: pixels by which a velocity may be misread, 0 or more.

    Returns:
        ``(B,)`` bool.

    Raises:
        ValueError: wrong shape, or a negative tolerance.
    """
    if corners.ndim != 4 or corners.shape[1] < 2 or corners.shape[-1] != 2:
        raise ValueError(f"corners must be (B, n, D, 2) with n >= 2, got {tuple(corners.shape)}")
    if tolerance < 0:
        raise ValueError(f"tolerance must be at least 0 pixels, got {tolerance}")
    moves = corners[:, 1:] - corners[:, :-1]  # (B, n - 1, D, 2)
    slow = moves.abs().amax((1, 2, 3)) <= FASTEST + tolerance
    # Near a wall, read up to the tolerance, a digit may have bounced: its velocity is free there.
    inside = (corners > tolerance) & (corners < ROOM - 1 - tolerance)
    free = inside.all(-1, keepdim=True)[:, 1:-1] & inside[:, 2:]
    straight = (moves[:, 1:] - moves[:, :-1]).abs() <= 2 * tolerance
    return slow & (straight | ~free).flatten(1).all(1)
