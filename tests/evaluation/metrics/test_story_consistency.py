"""Consistency and control, judged with models and agents whose score is known."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluation_fakes import Replay
from torch import Tensor

import worldmodel
from agents import RandomAgent
from envs import play, sample_scenes, simulator_of
from envs.narratives.traveling_salesman import best_tour
from evaluation.measurements.consistency import Consistency
from evaluation.measurements.control import Control, reference
from evaluation.metrics import story_consistency as consistency
from evaluation.runner.trained_agents import Contestant
from worldmodel import ActionSpec, Spec

NATURE = Spec((3, 32, 32), ActionSpec("none"), 20)
AGENT = Spec((3, 32, 32), ActionSpec("discrete", (), (4,)), 40)
ENVS = {NATURE: consistency.NATURE, AGENT: consistency.AGENT}


def measured(model: worldmodel.WorldModel, scenes: int) -> list[dict[str, Any]]:
    env = ENVS.get(model.spec, consistency.AGENT)
    return Consistency(env=env, scenes=scenes, worlds=2).of_model(model)


def truth(env: str, scenes: int) -> Tensor:
    """All frames of the scenes that ``Consistency`` uses."""
    batch = sample_scenes(env, scenes, split="test", size=32)
    if env == consistency.AGENT:
        tours = torch.rand(scenes, 4, generator=torch.Generator().manual_seed(0)).argsort(1)
        batch = play(batch.simulator, batch.scene_ids, tours.repeat_interleave(5, 1), 32)
    return worldmodel.to_float(batch.observations(torch.arange(21).expand(scenes, -1)))


@pytest.mark.parametrize("spec", [NATURE, AGENT], ids=["nature", "agent"])
def test_the_truth_is_coherent(spec: Spec) -> None:
    rows = measured(Replay(spec, truth(ENVS[spec], 16)), 16)
    values = {row["metric"]: row["value"] for row in rows}
    assert values["coherent stories"] == values["new visits"] == 1.0
    if spec is AGENT:
        assert values["obedient stories"] == 1.0
    else:
        assert values["distinct stories"] == 1.0  # two worlds, one truth


def test_who_stays_visits_nothing_new() -> None:
    """copy-last: in nature's scenes the first visit is shown, to all models alike."""
    for spec in (NATURE, AGENT):
        rows = measured(worldmodel.make("copy-last", spec), 8)
        values = {row["metric"]: row["value"] for row in rows}
        assert values["new visits"] == values["coherent stories"] == 0.0


def test_a_story_that_skips_a_shape() -> None:
    """The third leg ends where the second did: one shape is not visited, another one twice."""
    skipping = truth(consistency.NATURE, 16)
    skipping[:, 15] = skipping[:, 10]
    rows = measured(Replay(NATURE, skipping), 16)
    values = {row["metric"]: row["value"] for row in rows}
    assert values["coherent stories"] == 0.0
    assert values["new visits"] == pytest.approx(2 / 3)  # of the second, third and fourth
    assert "order entropy" not in values  # of coherent ones


def test_an_empty_stage_is_not() -> None:
    blank = Replay(NATURE, torch.zeros(16, 21, 3, 32, 32))
    rows = measured(blank, 16)
    values = {row["metric"]: row["value"] for row in rows}
    assert values["coherent stories"] == 0.0
    assert values["new visits"] < 0.2  # an actor of a city's colours vanishes on it
    other = Replay(Spec((3, 32, 32), ActionSpec("discrete", (), (5,)), 40), torch.zeros(1))
    with pytest.raises(ValueError, match="its actions are"):
        measured(other, 2)


class BestTour:
    """Cheats: knows the scenes of the episodes, and walks their best tours."""

    def __init__(self, episodes: int, envs: int) -> None:
        env = gym.make("envs:narratives/TravelingSalesman-v0", size=32, split="test")
        ids = [env.reset(seed=seed)[1]["scene"] for seed in range(episodes)]
        story = simulator_of(consistency.AGENT)
        self.tours = best_tour(story.begin(torch.tensor(ids)), story.max_steps)[1].numpy()  # type: ignore[arg-type]
        self.episode, self.leg = np.arange(envs) - envs, np.zeros(envs, int)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: Any = 0
    ) -> tuple[Any, Any]:
        self.episode += len(self.leg) * episode_start
        self.leg = np.where(episode_start, 0, self.leg + 1)
        rows = self.episode.clip(max=len(self.tours) - 1)
        return self.tours[rows, self.leg.clip(max=3)].clip(min=0), state


def test_the_scale_of_control() -> None:
    """The best tour is 1 exactly; random play is 0 within its interval."""
    contestants = {
        "best tour": Contestant(BestTour(24, envs=16)),
        "random": Contestant(RandomAgent(gym.spaces.Discrete(4), seed=1)),
    }
    best, random = Control(env=consistency.AGENT, episodes=24).play(contestants)
    assert best["normalised_return"] == pytest.approx(1.0, abs=1e-5)
    assert random["low"] <= 0.0 <= random["high"]
    assert random["episodes"] == 24 and random["normalised_return"] < 0.5


def test_the_reference_belongs_to_the_episodes() -> None:
    one, other = (
        reference(consistency.AGENT, 6, hold=5),
        reference(consistency.AGENT, 4, hold=5, seed=2),
    )
    assert np.allclose(one.oracle[2:], other.oracle)
    assert (one.oracle > one.random).all()
    assert reference(consistency.AGENT, 3, hold=5).random.shape == (3,)


@pytest.mark.parametrize("env", ["dice/FindDigit-v0", "narratives/Intercept-v0"])
def test_every_environment_with_an_agent_has_a_scale(env: str) -> None:
    found = reference(env, 5, hold=1)
    assert (found.oracle >= found.random).all() and found.oracle.mean() > found.random.mean()
