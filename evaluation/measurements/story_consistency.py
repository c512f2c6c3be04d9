"""Do sampled futures tell one story? Traveling Salesman, judged by the environment's oracle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs import SceneBatch, play, sample_scenes
from envs.narratives.motion import LEG_STEPS
from envs.narratives.oracle import coherent_story, visited_city
from envs.narratives.traveling_salesman import ABSENT, CITIES, TravelingSalesmanState
from evaluation.metrics import statistics
from evaluation.metrics.contradictions import contradictions
from worldmodel import Context, Queries, WorldModel, to_float, to_uint8

NATURE = "narratives/TravelingSalesmanNature-v0"
AGENT = "narratives/TravelingSalesman-v0"
LEG_ENDS = tuple(LEG_STEPS * leg for leg in range(1, CITIES + 1))
"""Frames 6, 11, 16 and 21 of the paper, counted from 0."""


def env_of(model: WorldModel) -> str:
    """The Traveling Salesman that a model was made for.

    Raises:
        ValueError: its actions are those of neither mode.
    """
    if model.spec.passive:
        return NATURE
    action = model.spec.action
    if action.kind == "discrete" and action.categories == (CITIES,):
        return AGENT
    raise ValueError(f"model: its actions are {action}; Traveling Salesman has none or 4")


def leg_ends(
    model: WorldModel, scenes: int, worlds: int, seed: int
) -> tuple[SceneBatch, Tensor, Tensor]:
    """Sample futures of test scenes, and show them at the ends of the four legs.

    Nature's scenes show the first six frames (seed 001, section 4.1), where the first visit is
    made. The agent's show only the first, and the plan is a tour in random order.

    Args:
        model: of either mode.
        scenes, worlds: B and S.
        seed: of scenes, tours and worlds.

    Returns:
        the scenes, in agent mode with the tour as actions; frames uint8 (B, S, 4, H, W, C); and the
        share of them that change when they are asked for again (B,).
    """
    env_id = env_of(model)
    size = model.spec.observation[1]
    batch = sample_scenes(env_id, scenes, split="test", size=size, seed=seed)
    random = torch.Generator().manual_seed(seed)
    if env_id == AGENT:
        tours = torch.rand(scenes, CITIES, generator=random).argsort(1)
        actions = tours.repeat_interleave(LEG_STEPS, 1)
        batch = play(batch.simulator, batch.scene_ids, actions, size)
    seen = torch.arange(LEG_STEPS + 1 if env_id == NATURE else 1).expand(scenes, -1)
    shown = torch.tensor(LEG_ENDS).expand(scenes, -1)

    device = model.device
    context = Context(to_float(batch.observations(seen)).to(device), seen.to(device))
    plans = None if env_id == NATURE else batch.actions[:, None].to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.inference_mode():
        sampled = model.sample(model.observe(context), worlds, generator)
        queries = Queries(shown.to(device), plans)
        frames = model.predict(sampled, queries).observations
        assert frames is not None
        frames = frames[:, :, 0]
        changed = contradictions(model, sampled, queries, frames)
    return batch, to_uint8(frames).cpu(), changed


def visits(batch: SceneBatch, frames: Tensor) -> Tensor:
    """int64 (B, S, 4): on which city the actor stands in each frame, -1 for none."""
    facts = batch.start()
    assert isinstance(facts, TravelingSalesmanState)
    return visited_city(frames.flatten(1, 2), facts).reshape(frames.shape[:3])


def consistency(
    model: WorldModel, scenes: int = 200, worlds: int = 8, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows ``model, env, metric, value, low, high, n`` (intervals over scenes).

    - ``coherent stories``: the actor visits each shape exactly once, at the ends of the four legs.
    - ``obedient stories`` (agent): it does so in the order of the plan.
    - ``new visits``: leg ends at which the actor stands on a shape where it was not before.
    - ``distinct stories`` (nature): different orders among a scene's coherent futures, of 6.
    - ``order entropy`` (nature): -ln of the share of pairs of a scene's coherent futures that tell
      the same order (Renyi's entropy of order 2, for which few futures are enough); ln 6 = 1.79
      nats if all orders are equally likely, 0 if one is always told. Left out where no scene has
      two coherent futures.
    - ``contradictions``: see ``evaluation.metrics.contradictions``.

    In nature's scenes the first leg end is shown: for all models alike it counts as it was, and
    ``new visits`` are those of the three others.

    Raises:
        ValueError: the model is not of Traveling Salesman.
    """
    batch, frames, changed = leg_ends(model, scenes, worlds, seed)
    found = visits(batch, frames)
    imagined = slice(None)
    if env_of(model) == NATURE:
        shown = batch.observations(torch.full((scenes, 1), LEG_ENDS[0]))
        found[:, :, 0] = visits(batch, shown[:, None])[:, :, 0]
        imagined = slice(1, None)
    coherent = coherent_story(found.flatten(0, 1)).view(scenes, worlds)
    before = torch.stack([(found[..., :k] == found[..., k : k + 1]).any(2) for k in range(CITIES)])
    new = (found != ABSENT) & ~before.movedim(0, 2)
    metrics: dict[str, Tensor | statistics.Interval] = {
        "coherent stories": coherent.float().mean(1),
        "new visits": new[..., imagined].float().mean((1, 2)),
        "contradictions": changed,
    }
    orders: list[Counter[Any]] = []
    if env_of(model) == AGENT:
        asked = batch.actions[:, None, [time - 1 for time in LEG_ENDS]]
        metrics["obedient stories"] = (found == asked).all(2).float().mean(1)
    else:
        orders = [
            Counter(tuple(story.tolist()) for story, good in zip(*pair, strict=True) if good)
            for pair in zip(found, coherent, strict=True)
        ]
        metrics["distinct stories"] = torch.tensor([float(len(order)) for order in orders])
    if (entropy := order_entropy(orders, seed)) is not None:
        metrics["order entropy"] = entropy
    return statistics.rows(model.name, env_of(model), metrics, seed)


def order_entropy(orders: Sequence[Counter[Any]], seed: int = 0) -> statistics.Interval | None:
    """Of each scene's coherent futures, how often each order was told; see ``consistency``."""
    pairs = np.array([math.comb(order.total(), 2) for order in orders], float)
    same = np.array([sum(math.comb(n, 2) for n in order.values()) for order in orders], float)
    told = pairs > 0
    if told.sum() < 2:
        return None
    most = math.log(pairs.sum())  # that much even if no order is told twice
    share = statistics.ratio(same[told], pairs[told], seed)
    value, high, low = (
        min(-math.log(x), most) if x > 0 else most for x in (share.value, share.low, share.high)
    )
    return statistics.Interval(value, low, high, int(told.sum()))
