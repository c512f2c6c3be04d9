"""Does a sampled world answer the same question twice in the same way?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from evaluation.runner.progress import shown
from worldmodel import Queries, WorldModel, Worlds

LEAST = 1 / 255
"""A difference of pixels in [0, 1] that an 8-bit frame shows."""


def contradictions(model: WorldModel, worlds: Worlds, queries: Queries, frames: Tensor) -> Tensor:
    """Share of frames that change when they are asked for again: each alone, the last one first.

    Args:
        model: of the worlds.
        worlds: B x S.
        queries: K of each scene, along one plan or none.
        frames: float32 (B, S, K, C, H, W), what was answered to all queries at once.

    Returns:
        float32 (B,), over worlds and queries, on the CPU.
    """
    changed = []
    for k in shown(range(queries.times.shape[1])[::-1], "contradictions", "query"):
        poses = None if queries.poses is None else queries.poses[:, k : k + 1]
        alone = replace(queries, times=queries.times[:, k : k + 1], poses=poses)
        again = model.predict(worlds, alone).observations
        assert again is not None
        difference = (again[:, :, 0, 0] - frames[:, :, k]).abs().flatten(2).amax(2)
        changed.append(difference > LEAST)
    return torch.stack(changed).float().mean((0, 2)).cpu()
