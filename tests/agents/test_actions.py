"""Actions that are not numbered from 0, and boxes of whole numbers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import (
    Cem,
    CemConfig,
    InversePolicy,
    InversePolicyConfig,
    LookaheadVecWrapper,
    Mppi,
    MppiConfig,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    TreeSearch,
    TreeSearchConfig,
    evaluate,
)
from agents.actions import all_choices, chunk_space, draw_actions, to_numpy
from agents.legal_actions import make_legal
from agents.planners.distribution import PlanDistribution
from agents.vec_env import ImaginedVecEnv
from worldmodel import ActionSpec, Episodes, Spec, collect, fit, make
from worldmodel.data.env_checks import sample_legal
from worldmodel.data.make_env import Env
from worldmodel.models.baselines.replay import ReplayConfig

SHIFTED = [
    spaces.Discrete(3, start=5),
    spaces.Discrete(2, start=-7),
    spaces.MultiDiscrete([2, 3], start=[4, -1]),
    spaces.MultiDiscrete([[2, 3]], start=[[0, 9]]),
]
WHOLE = spaces.Box(-2, 2, (1,), np.int64)


class Paid(gym.Env[Any, Any]):
    """Pays for the last choice of each entry; refuses what is not of its space."""

    observation_space = spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self, action_space: gym.Space[Any] = SHIFTED[0]) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action in self.action_space, action
        self.time += 1
        space = self.action_space
        if isinstance(space, spaces.Box):
            reward = float(np.abs(action).sum())
        else:
            counts = space.n if isinstance(space, spaces.Discrete) else space.nvec
            reward = float((action == space.start + counts - 1).all())
        return np.float32([self.time]), reward, False, self.time == 4, {}


@pytest.mark.parametrize("space", SHIFTED, ids=str)
def test_choices_keep_their_numbers(space: gym.Space[Any]) -> None:
    spec = ActionSpec.from_space(space)
    assert spec.to_space() == space
    model = Spec.from_spaces(Paid.observation_space, space, 4)
    assert Spec.from_dict(model.to_dict()) == model
    plain = ActionSpec(spec.kind, spec.shape, spec.categories)
    assert "start" not in Spec((3, 16, 16), plain, 4).to_dict()["action"]
    generator = torch.Generator().manual_seed(0)
    actions = draw_actions(spec, (200,), generator)
    assert all(action in space for action in to_numpy(spec, actions))
    plainly = draw_actions(plain, (200,), torch.Generator().manual_seed(0))
    torch.testing.assert_close(spec.encode(actions), plain.encode(plainly))
    assert len(torch.unique(actions, dim=0)) == len(all_choices(spec, torch.device("cpu")))
    assert all(action in space for action in to_numpy(spec, all_choices(spec, generator.device)))
    with pytest.raises(ValueError, match=r"^actions: entries must lie in (Multi)?Discrete"):
        spec.encode(actions - 10)
    chunks = chunk_space(spec, 2)
    assert chunks.contains(np.tile(to_numpy(spec, actions)[0].flatten(), 2))
    drawn = PlanDistribution.uniform(spec, 2, 3, generator.device)
    plans = drawn.sample(40, generator)
    assert all(action in space for action in to_numpy(spec, plans).reshape(-1, *spec.shape))
    weights = torch.zeros(2, 40)
    weights[:, 7] = 1
    best = drawn.fitted(plans, weights, 0.0, 0.0).sample(5, generator)
    assert (best == plans[:, 7:8]).all()


@pytest.mark.parametrize("space", SHIFTED, ids=str)
def test_masks_are_by_choice(space: gym.Space[Any]) -> None:
    spec, generator = ActionSpec.from_space(space), torch.Generator().manual_seed(0)
    actions = draw_actions(spec, (50,), generator)
    first = torch.zeros(sum(spec.categories), dtype=torch.bool)
    for place in np.cumsum((0, *spec.categories[:-1])):
        first[place] = True
    legal, fine = make_legal(spec, actions, first.expand(50, -1), generator)
    assert (legal == torch.from_numpy(spec.blank(50))).all() and 0 < fine.sum() < 50
    assert sample_legal(space, first.numpy(), "env") in space


@pytest.mark.parametrize("space", SHIFTED, ids=str)
def test_they_are_recorded_learned_planned_and_played(space: gym.Space[Any], tmp_path: Any) -> None:
    env = Paid(space)
    episodes = collect(env, 8, progress=False)
    episodes.save(tmp_path / "episodes")
    episodes = Episodes.load(tmp_path / "episodes")
    assert episodes.action.to_space() == space
    model = make("jump", episodes.spec(6))
    fit(model, episodes.windows(6, 8), steps=3, progress=False)
    choices = len(all_choices(model.spec.action, model.device))
    config = {"plans": 2 * choices, "horizon": 2, "worlds": 1}
    for agent in (
        RandomAgent(space),
        RandomShooting(model, RandomShootingConfig(**config)),  # type: ignore[arg-type]
        Cem(model, CemConfig(**config)),  # type: ignore[arg-type]
        Mppi(model, MppiConfig(**config)),  # type: ignore[arg-type]
        TreeSearch(model, TreeSearchConfig(**config)),  # type: ignore[arg-type]
        InversePolicy.fit(episodes, InversePolicyConfig(steps=3)),
    ):
        evaluate(agent, partial_env(space), 2, num_envs=2)
    venv = ImaginedVecEnv(model, episodes, num_envs=2)
    assert venv.action_space == space
    venv.reset()
    venv.step(np.stack([space.sample() for _ in range(2)]))
    LookaheadVecWrapper(venv, model).reset()


def partial_env(space: gym.Space[Any]) -> Any:
    return lambda: Paid(space)


def test_the_best_choice_is_the_one_that_pays(request: Any) -> None:
    gym.register("agents-tests/Paid-v0", entry_point=Paid)
    request.addfinalizer(lambda: gym.registry.pop("agents-tests/Paid-v0"))
    for space in (*SHIFTED, WHOLE):
        spec = Spec.from_spaces(Paid.observation_space, space, 4)
        config = ReplayConfig("agents-tests/Paid-v0", {"action_space": space}, episodes=1)
        model = make("replay", spec, config)
        settings = {"plans": 60, "horizon": 1, "worlds": 1}
        agents: list[Any] = [
            RandomShooting(model, RandomShootingConfig(**settings)),  # type: ignore[arg-type]
            Cem(model, CemConfig(**settings, choose="best")),  # type: ignore[arg-type]
        ]
        if space is not WHOLE:
            agents.append(TreeSearch(model, TreeSearchConfig(**settings)))  # type: ignore[arg-type]
        best = 8.0 if space is WHOLE else 4.0
        for agent in agents:
            assert evaluate(agent, partial_env(space), 1).tolist() == [best]


def test_a_single_choice_says_what_to_do() -> None:
    env: Env = Paid(spaces.Discrete(1, start=3))
    with pytest.raises(ValueError, match="^action_space: .* leaves no choice, .*TransformAction"):
        collect(env, 1, progress=False)
    env = gym.wrappers.TransformAction(env, lambda action: 3, spaces.Discrete(1))
    assert len(collect(env, 1, progress=False)[0].actions) == 4


def test_whole_numbers_are_all_as_likely() -> None:
    spec, generator = ActionSpec.from_space(WHOLE), torch.Generator().manual_seed(0)
    uniform = PlanDistribution.uniform(spec, 1, 1, generator.device)
    for actions, tolerance in (
        (draw_actions(spec, (10_000,), generator), 0.02),
        (uniform.sample(10_000, generator), 0.08),  # a bell with the uniform distribution's moments
    ):
        numbers, counts = np.unique(to_numpy(spec, actions), return_counts=True)
        assert numbers.tolist() == [-2, -1, 0, 1, 2]
        np.testing.assert_allclose(counts / 10_000, 0.2, atol=tolerance)
    assert to_numpy(spec, torch.tensor([[1.7], [-1.7], [0.4]]))[:, 0].tolist() == [2, -2, 0]
