"""Reactions, judged with models whose score is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from evaluation_fakes import Replay
from torch import Tensor

import worldmodel
from envs import play, sample_scenes
from evaluation.measurements.consistency import Consistency
from evaluation.metrics.reaction_consistency import AGENT, NATURE, REACTION
from worldmodel import ActionSpec, Spec

SPECS = {
    NATURE: Spec((3, 64, 64), ActionSpec("none"), 11),
    AGENT: Spec((3, 64, 64), ActionSpec("discrete", (), (3,)), 20),
}


def measured(model: worldmodel.WorldModel, env: str, scenes: int) -> dict[str, float]:
    rows = Consistency(env=env, scenes=scenes, worlds=2).of_model(model)
    return {row["metric"]: row["value"] for row in rows}


def truth(env: str, scenes: int) -> Tensor:
    """All frames of the scenes that ``Consistency`` uses."""
    batch: Any = sample_scenes(env, scenes, split="test", size=64)
    times = torch.arange(12)
    if env == AGENT:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randint(3, (scenes, 1), generator=generator)
        batch = play(batch.simulator, batch.scene_ids, chosen.expand(-1, REACTION), 64)
        times = torch.arange(REACTION + 1)
    return worldmodel.to_float(batch.observations(times.expand(scenes, -1)))


def test_the_truth_reacts_as_it_must() -> None:
    values = measured(Replay(SPECS[AGENT], truth(AGENT, 24)), AGENT, 24)
    assert values["right colours"] > 0.95 and values["unchanged colours"] > 0.95
    values = measured(Replay(SPECS[NATURE], truth(NATURE, 24)), NATURE, 24)
    assert values["coherent reactions"] == values["distinct colours"] == 1.0


def test_who_repeats_the_last_frame_never_reacts() -> None:
    values = measured(worldmodel.make("copy-last", SPECS[AGENT]), AGENT, 12)
    assert values["right colours"] < 0.1 and values["unchanged colours"] > 0.9
    values = measured(worldmodel.make("copy-last", SPECS[NATURE]), NATURE, 12)
    assert values["coherent reactions"] == values["distinct colours"] == 0.0


def test_a_reaction_comes_at_once_and_stays() -> None:
    late, back = truth(NATURE, 12), truth(NATURE, 12)
    late[:, REACTION] = late[:, REACTION - 1]
    back[:, -1] = back[:, REACTION - 1]
    for frames in (late, back):
        assert measured(Replay(SPECS[NATURE], frames), NATURE, 12)["coherent reactions"] == 0.0


def test_other_environments_are_refused() -> None:
    model = worldmodel.make("copy-last", SPECS[AGENT])
    with pytest.raises(ValueError, match="env: expected one of .*ColorReaction.*got 'CartPole-v1'"):
        Consistency(env="CartPole-v1", scenes=2).of_model(model)
    with pytest.raises(ValueError, match="model: its actions are"):
        Consistency(env=NATURE, scenes=2).of_model(model)
