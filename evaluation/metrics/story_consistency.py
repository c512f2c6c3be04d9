"""Do sampled futures tell one story? Traveling Salesman, checked by the environment's oracle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs import SceneBatch, play
from envs.narratives.motion import LEG_STEPS
from envs.narratives.oracle import coherent_story, visited_city
from envs.narratives.traveling_salesman import ABSENT, CITIES, TravelingSalesmanState
from evaluation.metrics import statistics
from evaluation.metrics.similarity import contradictions
from evaluation.runner.held_out_scenes import held_out
from worldmodel import WorldModel, to_uint8
from worldmodel.imagine import sample_frames

NATURE = "narratives/TravelingSalesmanNature-v0"
AGENT = "narratives/TravelingSalesman-v0"
LEG_ENDS = tuple(LEG_STEPS * leg for leg in range(1, CITIES + 1))
"""Frames 6, 11, 16 and 21 of the paper, counted from 0."""


def leg_ends(
    model: WorldModel, env: str, scenes: int, worlds: int, seed: int
) -> tuple[SceneBatch, Tensor, Tensor]:
    """Sample futures of test scenes, and predict the frames at the ends of the four legs.

    The context of nature's scenes is the first six frames (seed 001, section 4.1), in which the
    first visit is made. That of the agent's is only the first frame, and the plan is a tour in
    random order.

    Args:
        model: of the scenes.
        env: ``NATURE`` or ``AGENT``.
        scenes, worlds: B and S.
        seed: of scenes, tours and worlds.

    Returns:
        the scenes, in agent mode with the tour as actions; frames uint8 (B, S, 4, H, W, C); and the
        share of them that change when they are queried again (B,).

    Raises:
        ValueError: the model's frames or actions are not those of the scenes.
    """
    batch = held_out(model, env, scenes, seed)
    generator = torch.Generator().manual_seed(seed)
    if env == AGENT:
        tours = torch.rand(scenes, CITIES, generator=generator).argsort(1)
        actions = tours.repeat_interleave(LEG_STEPS, 1)
        batch = play(batch.simulator, batch.scene_ids, actions, batch.size)
    context = range(LEG_STEPS + 1 if env == NATURE else 1)
    sampled = sample_frames(model, batch, context, LEG_ENDS, worlds, seed)
    return batch, to_uint8(sampled.frames).cpu(), contradictions(model, *sampled)


def visits(batch: SceneBatch, frames: Tensor) -> Tensor:
    """int64 (B, S, 4): on which city the actor stands in each frame, -1 for none."""
    facts = batch.start()
    assert isinstance(facts, TravelingSalesmanState)
    return visited_city(frames.flatten(1, 2), facts).reshape(frames.shape[:3])


def story_consistency(
    model: WorldModel, env: str, scenes: int, worlds: int, seed: int
) -> list[dict[str, Any]]:
    """Rows ``model, env, metric, value, low, high, n`` (intervals over scenes).

    - ``coherent stories``: the actor visits each shape exactly once, at the ends of the four legs.
    - ``obedient stories`` (agent): it does so in the order of the plan.
    - ``new visits``: leg ends at which the actor stands on a shape where it was not before.
    - ``distinct stories`` (nature): different orders among a scene's coherent futures, of 6.
    - ``order entropy`` (nature): -ln of the share of pairs of a scene's coherent futures with the
      same order (Renyi's entropy of order 2, for which few futures are enough); ln 6 = 1.79 nats if
      all orders are equally likely, 0 if there is only one. Left out where no scene has two
      coherent futures.
    - ``contradictions``: see ``similarity.contradictions``.

    The context of nature's scenes shows the first leg end: for all models alike the true frame
    counts there, and ``new visits`` are those of the three others.

    Args:
        model: of the scenes.
        env: ``NATURE`` or ``AGENT``.
        scenes: of the test split.
        worlds: sampled of each scene.
        seed: of scenes, tours, worlds and bootstraps.

    Raises:
        ValueError: the model's frames or actions are not those of the scenes.
    """
    batch, frames, changed = leg_ends(model, env, scenes, worlds, seed)
    cities = visits(batch, frames)
    imagined = slice(None)
    if env == NATURE:
        first = batch.observations(torch.full((scenes, 1), LEG_ENDS[0]))
        cities[:, :, 0] = visits(batch, first[:, None])[:, :, 0]
        imagined = slice(1, None)
    coherent = coherent_story(cities.flatten(0, 1)).view(scenes, worlds)
    before = torch.stack(
        [(cities[..., :k] == cities[..., k : k + 1]).any(2) for k in range(CITIES)]
    )
    new = (cities != ABSENT) & ~before.movedim(0, 2)
    metrics: dict[str, Tensor | statistics.Interval] = {
        "coherent stories": coherent.float().mean(1),
        "new visits": new[..., imagined].float().mean((1, 2)),
        "contradictions": changed,
    }
    orders: list[Counter[Any]] = []
    if env == AGENT:
        planned = batch.actions[:, None, [time - 1 for time in LEG_ENDS]]
        metrics["obedient stories"] = (cities == planned).all(2).float().mean(1)
    else:
        orders = [
            Counter(tuple(story.tolist()) for story, good in zip(*pair, strict=True) if good)
            for pair in zip(cities, coherent, strict=True)
        ]
        metrics["distinct stories"] = torch.tensor([float(len(order)) for order in orders])
    if (entropy := order_entropy(orders, seed)) is not None:
        metrics["order entropy"] = entropy
    return statistics.rows(model.name, env, metrics, seed)


def order_entropy(orders: Sequence[Counter[Any]], seed: int = 0) -> statistics.Interval | None:
    """Of each scene's coherent futures, counted by their order; see ``story_consistency``."""
    pairs = np.array([math.comb(order.total(), 2) for order in orders], float)
    same = np.array([sum(math.comb(n, 2) for n in order.values()) for order in orders], float)
    valid = pairs > 0
    if valid.sum() < 2:
        return None
    most = math.log(pairs.sum())  # that much even if no order occurs twice
    share = statistics.ratio(same[valid], pairs[valid], seed)
    value, high, low = (
        min(-math.log(x), most) if x > 0 else most for x in (share.value, share.low, share.high)
    )
    return statistics.Interval(value, low, high, int(valid.sum()))
