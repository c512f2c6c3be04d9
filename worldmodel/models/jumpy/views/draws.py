"""Which views of a scene a training step looks at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.views.config import ViewsConfig
from worldmodel.models.jumpy.views.geometry import Space

HIDDEN = 0.42
"""Of a scene's views, those nearest to a hidden side, which its context does without: on a circle
around a cube, an arc from which one of its sides is in view."""
NEAR = 0.25
"""Of a scene's views, those nearest to a hidden side, which show it best."""


class ViewTimes(NamedTuple):
    """Numbers of the views of B scenes that a training step looks at.

    Attributes:
        context: int64 (B, M).
        mask: bool (B, M), True where a view of the context is there.
        anchors: int64 (B, A), the views nearest to where the anchors stand, all different where
            there are enough.
        targets: int64 (B, k).
    """

    context: Tensor
    mask: Tensor
    anchors: Tensor
    targets: Tensor


def draw_views(
    space: Space,
    cameras: Cameras,
    lengths: Tensor,
    anchors: Cameras,
    config: ViewsConfig,
    generator: torch.Generator | None,
) -> ViewTimes:
    """Draw context, anchors and targets, so that often a side of the scene is hidden.

    Of ``hidden_share`` of the scenes the context is drawn from the views that are far from a random
    one, and every other target from those near to it; all else is drawn from anywhere.

    Args:
        space: of the camera.
        cameras: (B, T + 1), of all views.
        lengths: int64 (B,), the last view of each scene that is there.
        anchors: (B, A), where the anchors stand.
        config: sizes and shares.
        generator: on the device of ``lengths``.
    """
    batch, device = len(lengths), lengths.device
    views = torch.arange(cameras.position.shape[1], device=device)
    there = views <= lengths[:, None]

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    side = (chance(batch) * (lengths + 1)).long()
    rows = torch.arange(batch, device=device)
    apart = space.distance(cameras, cameras)[rows, side].masked_fill(~there, torch.inf)
    order = apart.argsort(dim=1, stable=True)  # the side itself first, missing views last
    rank = order.argsort(1)
    count = (lengths + 1)[:, None]
    hidden = (chance(batch) < config.hidden_share)[:, None]
    allowed = there & ~(hidden & (rank < (HIDDEN * count).long()))

    slots = min(config.context_max, len(views))
    low, high = config.context_min, config.context_max
    sizes = (low + chance(batch) * (high - low + 1)).long()[:, None]
    value, context = chance(batch, len(views)).masked_fill(~allowed, -1.0).topk(slots, 1)
    mask = (value >= 0) & (torch.arange(slots, device=device) < sizes)

    near = order.gather(1, (chance(batch, config.targets) * (NEAR * count).ceil()).long())
    anywhere = (chance(batch, config.targets) * count).long()
    alternate = torch.arange(config.targets, device=device) % 2 == 0
    targets = torch.where(hidden & alternate, near, anywhere)
    return ViewTimes(context, mask, _nearest(space, cameras, anchors, there), targets)


def _nearest(space: Space, cameras: Cameras, anchors: Cameras, there: Tensor) -> Tensor:
    """The view (B, A) nearest to each anchor, each of another while there are enough."""
    apart = space.distance(anchors, cameras).masked_fill(~there[:, None], torch.inf)
    taken, chosen = torch.zeros_like(there), []
    for anchor in range(apart.shape[1]):
        free = apart[:, anchor].masked_fill(taken, torch.inf)
        none = torch.isinf(free).all(1, keepdim=True)
        view = torch.where(none, apart[:, anchor], free).argmin(1, keepdim=True)
        taken = taken.scatter(1, view, True)
        chosen.append(view)
    return torch.cat(chosen, 1)
