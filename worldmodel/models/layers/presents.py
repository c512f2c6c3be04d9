"""Where in a training window the present lies, so that no step counts for more than another."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_present(
    steps: Tensor, window: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Half of the presents at time 0, where most plans begin, the others at any step, all alike.

    A window of few steps has few presents to choose from. If each window counted the same, the
    presents near an end would be too frequent, and with them the ends that soon follow. Weighted,
    every present is as frequent as it is among windows that are long enough to have it.

    Args:
        steps: int64 (B,), how many presents each window has, 0 .. steps - 1; at least 1.
        window: the most that any window can have.
        generator: on the device of ``steps``.

    Returns:
        the presents, int64 (B,), and what each window counts in the loss, float32 (B,) in (0, 1]:
        1 if it has all ``window`` presents.
    """
    chance = torch.rand(2, len(steps), generator=generator, device=steps.device)
    weights = (1 + steps / window) / 2
    return torch.where(chance[0] * weights < 0.5, 0, (chance[1] * steps).long()), weights


def subset_weights(frames: Tensor, sizes: Tensor, most: int) -> Tensor:
    """What windows count in the loss if a subset of their first frames was drawn uniformly.

    For the same reason: a subset is likelier in a window with fewer frames to choose from.

    Args:
        frames: int64 (B,), how many each window has to choose from, at most ``most``.
        sizes: int64 (B,), of the subsets, at most ``frames``.
        most: frames that a long window has to choose from.

    Returns:
        float32 (B,): the chance of a subset of ``most`` frames to lie among the first ``frames``.
    """
    index = torch.arange(most, device=frames.device)
    ratio = (frames[:, None] - index) / (most - index)
    return torch.where(index < sizes[:, None], ratio, 1.0).prod(1)
