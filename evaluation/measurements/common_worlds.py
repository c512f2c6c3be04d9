"""What is gained by scoring all plans in the same sampled worlds?

The difference between two plans' scores decides between them. Scored in the same worlds, the part
of the scores that depends on the world alone cancels; scored in different worlds, at the same cost,
it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import tyro
from torch import Tensor

import worldmodel
from agents import Imagination
from agents.actions import draw_actions
from envs import sample_scenes
from evaluation.metrics import statistics
from evaluation.runner.measurement import OfCheckpoint, Row, environment
from evaluation.runner.partial_results import PartialResults
from evaluation.runner.trained_agents import decisions
from worldmodel import WorldModel
from worldmodel.common.progress import progress


@dataclass(frozen=True)
class CommonWorlds(OfCheckpoint):
    """Variance of the difference between two plans' scores, in the same worlds and in others."""

    name = "common-worlds"
    checkpoint: tyro.conf.Positional[str] = "traveling-salesman"
    """Folder, shipped name or hub id."""
    scenes: int = 64
    """Of the test split; the first frame of each is the context."""
    pairs: int = 8
    """Of plans, in each scene."""
    worlds: int = 8
    """That each plan is scored in."""
    draws: int = 32
    """How often worlds are sampled, for the variance."""
    hold: int = 5
    """Steps for which each decision of a plan is held."""
    seed: int = 0

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Those of ``of_model``."""
        return self.of_model(worldmodel.load(self.checkpoint))

    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows ``plans, shared, independent, ratio, low, high, n``.

        ``plans`` says what is compared: "any" two random plans, or two that differ in "one"
        decision. ``shared`` and ``independent`` are the variances, over draws, of the difference
        between the mean scores of two plans, averaged over pairs and scenes; ``ratio`` is
        independent / shared, with its 95% interval over scenes.

        Args:
            model: with actions.

        Raises:
            ValueError: ``hold`` is not between 1 and the model's window, there are fewer than 2
                scenes, of which there is no interval, or no environment is known.
        """
        if self.scenes < 2:
            raise ValueError(f"scenes: expected at least 2, for an interval, got {self.scenes}")
        shape = (self.scenes, self.pairs, decisions(model, self.hold))
        env, size = environment(self.env, model.env_id), model.spec.observation[1]
        batch = sample_scenes(env, self.scenes, split="test", size=size, seed=self.seed)
        imagination = Imagination(model, self.seed)
        start = torch.zeros(self.scenes, 1, dtype=torch.int64)
        imagination.reset(batch.observations(start)[:, 0].numpy())
        first = draw_actions(model.spec.action, shape, imagination.generator)
        other = draw_actions(model.spec.action, shape, imagination.generator)
        one = _one_changed(first, other, imagination.generator)
        rows = []
        for name, second in (("any", other), ("one", one)):
            shared, independent = [], []
            for _ in progress(range(self.draws), f"plans: {name}", "draw"):
                left = _scores(imagination, first, second, self.hold, self.worlds)
                right = _scores(imagination, first, second, self.hold, self.worlds)
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
    """Scores (B, pairs) of both plans of each pair, in worlds sampled for this call."""
    sampled = imagination.worlds(worlds)
    plans = torch.cat([first, second], 1).repeat_interleave(hold, 2)
    a, b = imagination.score(sampled, plans).double().chunk(2, 1)
    return a, b


def _compared(shared: Tensor, independent: Tensor) -> Row:
    """From differences (draws, B, pairs)."""
    same, other = (each.var(0).mean(1).numpy() for each in (shared, independent))  # (B,)
    means = {"shared": float(np.mean(same)), "independent": float(np.mean(other))}
    return means | statistics.ratio(other, same).columns("ratio")
