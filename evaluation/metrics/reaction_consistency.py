"""Do imagined reactions end as they must? Color Reaction, read by the environment's oracle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs import SceneBatch, play
from envs.narratives.color_reaction import NATURE_STEPS, REAGENTS, ColorReactionState
from envs.narratives.motion import LEG_STEPS
from envs.narratives.oracle import coherent_reaction, reagent_colours
from evaluation.metrics import statistics
from evaluation.metrics.similarity import contradictions
from evaluation.runner.held_out_scenes import held_out
from worldmodel import WorldModel, to_uint8
from worldmodel.imagine import sample_frames

NATURE = "narratives/ColorReactionNature-v0"
AGENT = "narratives/ColorReaction-v0"
REACTION = LEG_STEPS + 1
"""The frame in which a reagent has its new colour, counted from 0."""
AGENT_FRAMES = 3
"""Of an agent's context: one alone does not say which shape is the actor."""


def reaction_consistency(
    model: WorldModel, env: str, scenes: int, worlds: int, seed: int
) -> list[dict[str, Any]]:
    """Rows ``model, env, metric, value, low, high, n`` (intervals over scenes).

    An agent names one random reagent at every step; its context is the first three frames, in which
    the actor has begun to walk, and what the sixth step leads to is asked for:

    - ``right colours``: the reagent that was touched has the colour that follows from the rule.
    - ``unchanged colours``: the two others have theirs.

    Nature's context is the first six frames, up to the touch, and the six frames after it are asked
    for:

    - ``coherent reactions``: the reagent changes its colour once, at once, and then wears it.
    - ``distinct colours``: how many differ among a scene's coherent futures, of 11.

    Both have ``contradictions``, see ``similarity.contradictions``.

    Args:
        model: of the scenes.
        env: ``NATURE`` or ``AGENT``.
        scenes: of the test split.
        worlds: sampled of each scene.
        seed: of scenes, plans, worlds and bootstraps.

    Raises:
        ValueError: the model's frames or actions are not those of the scenes, or its window or
            context is shorter than what is asked.
        UnsupportedQuery: the model does not reach single steps.
    """
    measure = _agent if env == AGENT else _nature
    metrics = measure(held_out(model, env, scenes, seed), model, worlds, seed)
    return statistics.rows(model.name, env, metrics, seed)


def _agent(batch: SceneBatch, model: WorldModel, worlds: int, seed: int) -> dict[str, Tensor]:
    scenes = len(batch.scene_ids)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(REAGENTS, (scenes, 1), generator=generator)
    batch = play(batch.simulator, batch.scene_ids, chosen.expand(-1, REACTION), batch.size)
    colours, changed = _colours(batch, model, AGENT_FRAMES, (REACTION,), worlds, seed)
    facts = batch.start()
    assert isinstance(facts, ColorReactionState)
    touched = torch.arange(REAGENTS) == chosen  # (B, R)
    right = (
        colours[:, :, 0]
        == torch.where(touched, facts.products, facts.colours[:, :REAGENTS])[:, None]
    )
    others = ~touched[:, None]
    return {
        "right colours": right[touched[:, None].expand_as(right)].view(scenes, -1).float().mean(1),
        "unchanged colours": right[others.expand_as(right)].view(scenes, -1).float().mean(1),
        "contradictions": changed,
    }


def _nature(batch: SceneBatch, model: WorldModel, worlds: int, seed: int) -> dict[str, Tensor]:
    times = tuple(range(REACTION, NATURE_STEPS + 1))
    colours, changed = _colours(batch, model, REACTION, times, worlds, seed)
    facts = batch.start()
    assert isinstance(facts, ColorReactionState)
    before = facts.colours[:, None, None, :1].expand(-1, worlds, -1, -1)
    story = torch.cat([before, colours], 2)[..., 0]  # (B, S, 1 + times)
    coherent = coherent_reaction(story.flatten(0, 1)).view(story.shape[:2])
    coherent &= story[..., 1] != story[..., 0]
    distinct = [
        float(len(set(of_scene[good].tolist())))
        for of_scene, good in zip(story[..., -1], coherent, strict=True)
    ]
    return {
        "coherent reactions": coherent.float().mean(1),
        "distinct colours": torch.tensor(distinct),
        "contradictions": changed,
    }


def _colours(
    batch: SceneBatch,
    model: WorldModel,
    context_frames: int,
    times: tuple[int, ...],
    worlds: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The reagents' colours in imagined frames, int64 (B, S, times, R), and ``contradictions``."""
    sampled = sample_frames(model, batch, range(context_frames), times, worlds, seed)
    facts = batch.start()
    assert isinstance(facts, ColorReactionState)
    read = reagent_colours(to_uint8(sampled.frames).cpu().flatten(1, 2), facts)
    return read.unflatten(1, (worlds, -1)), contradictions(model, *sampled)
