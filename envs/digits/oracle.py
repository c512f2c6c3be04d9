"""Frames read back into facts: where the digits are, and whether they move as they must."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from envs.digits.scene import (
    CANVAS,
    FASTEST,
    ROOM,
    MovingDigitsState,
    StochasticMovingDigits,
)

_SOFTENING = (1, 3, 5, 9)
"""Widths of the blur that digits are tried with; frames of a model are soft."""
_RIM = max(_SOFTENING) // 2


def locate(frames: Tensor, simulator: StochasticMovingDigits, facts: MovingDigitsState) -> Tensor:
    """Where the known digits are in (generated) frames: the places that explain them best.

    All pairs of places are tried at once: the squared error of a pair needs only each digit's
    correlation with the frame and the two digits' with each other. (That two digits clip where
    they meet is left out.)

    Of two digits in 2,000 test frames so many are found within a pixel on both axes, sharp /
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
    batch, shape = len(facts.scene_ids), tuple(frames.shape)
    if len(shape) != 5 or shape[0] != batch or 0 in shape or shape[2:] != (shape[2], shape[2], 3):
        raise ValueError(f"frames must be ({batch}, n, S, S, 3) with n >= 1, got {shape}")
    grey = frames.to(torch.float32).mean(-1) / (1 if frames.is_floating_point() else 255)
    if grey.shape[-1] != CANVAS:
        grey = interpolate(grey, (CANVAS, CANVAS), mode="bilinear", antialias=True)
    room = pad(grey, (_RIM,) * 4)
    found = [
        _explain(one, patches) for one, patches in zip(room, simulator.patches(facts), strict=True)
    ]
    return torch.stack(found)


def _explain(frames: Tensor, patches: Tensor) -> Tensor:
    """Corners (n, D, 2) of patches (D, 32, 32) in frames (n, 64, 64) with a rim."""
    best = torch.full((len(frames),), torch.inf, device=frames.device)
    places = torch.zeros((len(frames), len(patches)), dtype=torch.int64, device=frames.device)
    sharp = pad(patches, (_RIM,) * 4)
    for width in _SOFTENING:
        soft = avg_pool2d(sharp[:, None], width, 1, width // 2)
        error, place = _best_places(frames[:, None], soft)
        places = torch.where((error < best)[:, None], place, places)
        best = torch.minimum(best, error)
    return torch.stack([places % ROOM, places // ROOM], -1)


def _best_places(frames: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Least squared error, less the frame's own, (n,), and where: (n, D) of 32 x 32 corners."""
    # |p|^2 - 2 <frame, p>, for each digit in each corner.
    errors = patches.square().sum((1, 2, 3))[:, None] - 2 * (
        conv2d(frames, patches)[:, :, :ROOM, :ROOM].flatten(2)
    )  # (n, D, 1024)
    if len(patches) == 1:
        least, place = errors[:, 0].min(1)
        return least, place[:, None]
    meeting = conv2d(pad(patches[:1], (ROOM - 1,) * 4), patches[1:])[0, 0]  # <a at 0, b at d - 31>
    windows = (2 * meeting).unfold(0, ROOM, 1).unfold(1, ROOM, 1)  # [i, j, y, x] at i + y, j + x
    shared = windows.flip(0, 1).reshape(ROOM * ROOM, ROOM * ROOM)  # a's place, b's place
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


def coherent_motion(places: Tensor, tolerance: int = 0) -> Tensor:
    """Whether digits go straight on between walls, and at most 4 pixels a frame.

    Args:
        places: ``(B, n, D, 2)`` int64, corners in n >= 2 consecutive frames, as of :func:`locate`.
        tolerance: pixels by which a velocity may be misread, 0 or more.

    Returns:
        ``(B,)`` bool.

    Raises:
        ValueError: wrong shape, or a negative tolerance.
    """
    if places.ndim != 4 or places.shape[1] < 2 or places.shape[-1] != 2:
        raise ValueError(f"places must be (B, n, D, 2) with n >= 2, got {tuple(places.shape)}")
    if tolerance < 0:
        raise ValueError(f"tolerance must be at least 0 pixels, got {tolerance}")
    moves = places[:, 1:] - places[:, :-1]  # (B, n - 1, D, 2)
    slow = moves.abs().amax((1, 2, 3)) <= FASTEST + tolerance
    # Near a wall, read up to the tolerance, a digit may have bounced: its velocity is free there.
    inside = (places > tolerance) & (places < ROOM - 1 - tolerance)
    free = inside.all(-1, keepdim=True)[:, 1:-1] & inside[:, 2:]
    straight = (moves[:, 1:] - moves[:, :-1]).abs() <= 2 * tolerance
    return slow & (straight | ~free).flatten(1).all(1)
