"""What is gained by scoring all plans in the same sampled worlds?

The difference between two plans' scores decides between them. Scored in the same worlds, what
these have in common cancels; scored in worlds of their own, at the same cost, it does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents import Imagination
from agents.actions import draw_actions
from envs import sample_scenes
from evaluation.measurements.control import decisions
from evaluation.metrics import statistics
from evaluation.runner.progress import shown
from worldmodel import WorldModel

INTERCEPT = "narratives/Intercept-v0"


def common_worlds(
    model: WorldModel,
    env: str,
    *,
    scenes: int = 64,
    pairs: int = 8,
    worlds: int = 8,
    draws: int = 32,
    hold: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows ``plans, shared, independent, ratio, low, high, n``.

    ``plans`` says what is compared: "any" two random plans, or two that differ in "one" decision.
    ``shared`` and ``independent`` are the variances, over draws, of the difference between the mean
    scores of two plans, averaged over pairs and scenes; ``ratio`` is independent / shared, with its
    95% interval over scenes.

    Args:
        model: with actions, made for ``env``.
        env: id of one of our environments.
        scenes: of the test split, of which the first frame is shown.
        pairs: of plans, in each scene.
        worlds: that each plan is scored in.
        draws: times that worlds are drawn anew.
        hold: steps for which each decision of a plan is held.
        seed: of scenes, plans and worlds.

    Raises:
        ValueError: ``hold`` is not between 1 and the model's window, or there are fewer than 2
            scenes, of which there is no interval.
    """
    if scenes < 2:
        raise ValueError(f"scenes: expected at least 2, for an interval, got {scenes}")
    length = decisions(model, hold)
    size = model.spec.observation[1]
    batch = sample_scenes(env, scenes, split="test", size=size, seed=seed)
    imagination = Imagination(model, seed)
    imagination.reset(batch.observations(torch.zeros(scenes, 1, dtype=torch.int64))[:, 0].numpy())
    first = draw_actions(model.spec.action, (scenes, pairs, length), imagination.generator)
    other = draw_actions(model.spec.action, (scenes, pairs, length), imagination.generator)
    one = _one_changed(first, other, imagination.generator)
    rows = []
    for name, second in (("any", other), ("one", one)):
        shared, independent = [], []
        for _ in shown(range(draws), f"plans: {name}", "draw"):
            left = _scores(imagination, first, second, hold, worlds)
            right = _scores(imagination, first, second, hold, worlds)
            shared.append(left[0] - left[1])
            independent.append(left[0] - right[1])
        rows.append({"plans": name, **_compared(torch.stack(shared), torch.stack(independent))})
    return rows


def _one_changed(first: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """``first`` with one decision of ``other``, one that differs, wherever there is one."""
    differs = (first != other).flatten(3).any(3) if first.dim() > 3 else first != other
    chance = torch.rand(differs.shape, generator=generator, device=differs.device)
    where = (chance * differs).argmax(2, keepdim=True)
    changed = torch.arange(first.shape[2], device=where.device) == where
    return torch.where(changed.view(*changed.shape, *[1] * (other.dim() - 3)), other, first)


def _scores(
    imagination: Imagination, first: Tensor, second: Tensor, hold: int, worlds: int
) -> tuple[Tensor, Tensor]:
    """Scores (B, pairs) of both plans of each pair, in worlds drawn for this call."""
    drawn = imagination.worlds(worlds)
    plans = torch.cat([first, second], 1).repeat_interleave(hold, 2)
    a, b = imagination.score(drawn, plans).double().chunk(2, 1)
    return a, b


def _compared(shared: Tensor, independent: Tensor) -> dict[str, Any]:
    """From differences (draws, B, pairs)."""
    variances = [each.var(0).mean(1).numpy() for each in (shared, independent)]  # (B,)
    ratio = statistics.ratio(variances[1], variances[0])
    means = {
        name: float(np.mean(each))
        for name, each in zip(("shared", "independent"), variances, strict=True)
    }
    return {**means, "ratio": ratio.value, "low": ratio.low, "high": ratio.high, "n": ratio.n}
