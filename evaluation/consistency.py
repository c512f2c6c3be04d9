"""Do sampled futures tell one story? Traveling Salesman, judged by the environment's oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs import SceneBatch, sample_scenes
from envs.narratives.oracle import ABSENT, coherent_story, visited_city
from envs.narratives.stream import play
from envs.narratives.traveling_salesman import CITIES, LEG_STEPS, TravelingSalesmanState
from evaluation import statistics
from worldmodel import Context, Queries, WorldModel, to_float, to_uint8

NATURE = "narratives/TravelingSalesmanNature-v0"
AGENT = "narratives/TravelingSalesman-v0"
LEG_ENDS = tuple(LEG_STEPS * leg for leg in range(1, CITIES + 1))
"""Frames 6, 11, 16 and 21 of the paper, counted from 0."""


@dataclass(frozen=True)
class Futures:
    """Sampled futures of B test scenes, S of each.

    Attributes:
        scenes: where they come from; in agent mode the actions are a random tour.
        context: int64 (M,), the times that the model saw.
        times: int64 (K,), the times that are shown.
        frames: uint8 (B, S, K, H, W, C).
    """

    scenes: SceneBatch
    context: Tensor
    times: Tensor
    frames: Tensor


def env_of(model: WorldModel) -> str:
    """The Traveling Salesman that a model was made for.

    Raises:
        ValueError: its actions are those of neither mode.
    """
    action = model.spec.action
    if action.kind == "none":
        return NATURE
    if action.kind == "discrete" and action.categories == (CITIES,):
        return AGENT
    raise ValueError(f"model: its actions are {action}; Traveling Salesman has none or 4")


def futures(
    model: WorldModel, scenes: int, worlds: int, times: Tensor | None = None, seed: int = 0
) -> Futures:
    """Sample futures of test scenes.

    Nature's scenes show the first six frames (seed 001, section 4.1), where the first visit is
    made. The agent's show only the first, and the plan is a tour in random order.

    Args:
        model: of either mode.
        scenes, worlds: B and S.
        times: int64 (K,) to show; None shows all 21.
        seed: of scenes, tours and worlds.
    """
    env_id = env_of(model)
    size = model.spec.observation[1]
    batch = sample_scenes(env_id, scenes, split="test", size=size, seed=seed)
    random = torch.Generator().manual_seed(seed)
    if env_id == AGENT:
        tours = torch.rand(scenes, CITIES, generator=random).argsort(1)
        actions = tours.repeat_interleave(LEG_STEPS, 1)
        batch = play(batch.story, batch.scene_ids, actions, size)
    seen = torch.arange(LEG_STEPS + 1 if env_id == NATURE else 1)
    shown = torch.arange(LEG_ENDS[-1] + 1) if times is None else times
    shown = shown[shown >= seen[-1]] if not model.jumpy else shown

    def each(when: Tensor) -> Tensor:
        return when.expand(scenes, -1)

    device = model.device
    context = Context(to_float(batch.observations(each(seen))).to(device), each(seen).to(device))
    plans = None if env_id == NATURE else batch.actions[:, None].to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.inference_mode():
        sampled = model.sample(model.observe(context), worlds, generator)
        frames = model.predict(sampled, Queries(each(shown).to(device), plans)).observations
    assert frames is not None
    frames = frames if plans is None else frames[:, :, 0]
    return Futures(batch, seen, shown, to_uint8(frames).cpu())


def visits(sampled: Futures) -> Tensor:
    """int64 (B, S, K): on which city the actor stands at each shown time, -1 for none."""
    batch, worlds, shown = sampled.frames.shape[:3]
    facts = sampled.scenes.start()
    assert isinstance(facts, TravelingSalesmanState)
    found = visited_city(sampled.frames.flatten(1, 2), facts)
    return found.reshape(batch, worlds, shown)


def consistency(
    model: WorldModel, scenes: int = 200, worlds: int = 8, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows ``model, env, metric, value, low, high, n`` (intervals over scenes).

    - ``coherent stories``: the actor visits each shape exactly once, at the ends of the four legs.
    - ``obedient stories`` (agent): it does so in the order of the plan.
    - ``visits shown``: leg ends at which the actor is seen on some shape.
    - ``distinct stories`` (nature): different orders among a scene's coherent futures, of 6.

    Raises:
        ValueError: the model is not of Traveling Salesman.
    """
    sampled = futures(model, scenes, worlds, torch.tensor(LEG_ENDS), seed)
    found = visits(sampled)
    coherent = coherent_story(found.flatten(0, 1)).view(scenes, worlds)
    metrics: dict[str, Tensor] = {
        "coherent stories": coherent.float().mean(1),
        "visits shown": (found != ABSENT).float().mean((1, 2)),
    }
    if env_of(model) == AGENT:
        asked = sampled.scenes.actions[:, None, [time - 1 for time in LEG_ENDS]]
        metrics["obedient stories"] = (found == asked).all(2).float().mean(1)
    else:
        orders = [
            {tuple(story.tolist()) for story, good in zip(*pair, strict=True) if good}
            for pair in zip(found, coherent, strict=True)
        ]
        metrics["distinct stories"] = torch.tensor([float(len(order)) for order in orders])
    return [
        {"model": model.name, "env": env_of(model), "metric": name, **_interval(values, seed)}
        for name, values in metrics.items()
    ]


def _interval(values: Tensor, seed: int) -> dict[str, float]:
    array: NDArray[np.float64] = values.double().numpy()
    return statistics.mean(array, seed)._asdict()
