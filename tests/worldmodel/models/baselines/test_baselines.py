"""copy-last and replay: the bounds between which every model lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray
from scenes import DISCRETE, PASSIVE, VECTOR, context, generator, moving_square

from worldmodel import (
    Context,
    Episode,
    Queries,
    Spec,
    UnsupportedQuery,
    collect,
    fit,
    load,
    make,
    save,
    to_float,
)  # fmt: skip
from worldmodel.models.baselines import Replay, ReplayConfig

STEPS = 8


# -- copy-last ------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [PASSIVE, DISCRETE, VECTOR], ids=["passive", "discrete", "vector"])
def test_copy_last_shows_the_latest_observation_at_all_times(spec: Spec) -> None:
    model = make("copy-last", spec)
    given = context(spec, frames=4)
    order = torch.tensor([3, 1, 0, 2])
    mixed = replace(given, observations=given.observations[:, order], times=given.times[:, order])
    worlds = model.sample(model.observe(mixed), 2)
    plans = None if given.actions is None else torch.zeros(2, 5, 4).long()
    answer = model.predict(worlds, Queries(torch.tensor([[7, 0, 3]] * 2), plans))
    assert answer.observations is not None
    assert (answer.observations.flatten(1, -1 - len(spec.observation)) ==
            given.observations[:, 3:]).all()  # fmt: skip
    assert (answer.rewards == 0).all() and (answer.alive == 1).all()


def test_copy_last_of_views_shows_the_last_view() -> None:
    model = make("copy-last", replace(PASSIVE, pose=2))
    views = torch.rand(1, 3, 3, 32, 32, generator=generator())
    mask = torch.tensor([[True, True, False]])
    belief = model.observe(Context.views(views, torch.rand(1, 3, 2), mask))
    assert torch.equal(belief.state["last"][0], views[0, 1])


@pytest.mark.parametrize("name", ["copy-last", "replay"])
def test_baselines_learn_nothing(name: str, tmp_path: Path) -> None:
    model, _ = replay() if name == "replay" else (make(name, DISCRETE), None)
    source = moving_square().windows(8, 4)
    with pytest.raises(ValueError, match=f"{name} has nothing to learn"):
        fit(model, source, 1)
    with pytest.raises(ValueError, match="nothing to learn"):
        model(source.batch(0), 0.0)
    if name == "copy-last":
        save(model, tmp_path)
        again = load(tmp_path)
        assert (again.name, again.config, again.spec) == (name, model.config, model.spec)
    else:  # loading would import the environment that a file names
        with pytest.raises(ValueError, match="not kept in a checkpoint"):
            save(model, tmp_path)
        assert not list(tmp_path.iterdir())


# -- replay ---------------------------------------------------------------------------------------


def replay(**settings: Any) -> tuple[Replay, list[Episode]]:
    """CartPole under a time limit, and random episodes of it."""
    env = TimeLimit(gym.make("CartPole-v1").unwrapped, 12)
    episodes = collect(env, 4, seed=10, progress=False)
    spec = Spec.from_spaces(env.observation_space, env.action_space, 20)
    config = ReplayConfig("CartPole-v1", {"max_episode_steps": 12}, episodes=8, seed=8, **settings)
    model = make("replay", spec, config)
    assert isinstance(model, Replay)
    return model, list(episodes.episodes)


@pytest.mark.parametrize("present", [0, 3])
def test_replay_is_the_environment(present: int) -> None:
    """Observations, rewards and ends of recorded episodes, from any present on."""
    model, episodes = replay()
    for episode in episodes:
        length = len(episode.actions)
        seen = torch.from_numpy(episode.observations[None, : present + 1])
        actions = torch.from_numpy(episode.actions)[None]
        given = Context(seen, torch.arange(present + 1)[None], actions[:, :present])
        worlds = model.sample(model.observe(given), 2, generator())
        times = torch.arange(present, length + 1)[None]
        answer = model.predict(worlds, Queries(times, actions[:, None, present:]))
        truth = torch.from_numpy(episode.observations[present:])
        assert answer.observations is not None
        torch.testing.assert_close(answer.observations[0, 1, 0], truth)
        rewards = torch.from_numpy(episode.rewards[present:])
        torch.testing.assert_close(answer.rewards[0, 0, 0, 1:], rewards)
        alive = torch.ones(length + 1 - present)
        alive[-1] = 0.0 if episode.terminated else 1.0
        assert torch.equal(answer.alive[0, 0, 0], alive)
        moved = model.advance(worlds, actions[:, present : present + 2])
        rest = actions[:, None, present + 2 :]
        there = model.predict(moved, Queries(torch.tensor([[length]]), rest))
        assert there.observations is not None
        torch.testing.assert_close(there.observations[0, 0, 0, 0], truth[-1])


def test_replay_looks_back_and_behind_the_end() -> None:
    model, episodes = replay()
    length = len(episodes[0].actions)
    seen = torch.from_numpy(episodes[0].observations[None, :3])
    given = Context(seen, torch.arange(3)[None], torch.from_numpy(episodes[0].actions)[None, :2])
    worlds = model.sample(model.observe(given), 1)
    plan = torch.zeros(1, 1, 18).long()
    plan[0, 0, : length - 2] = torch.from_numpy(episodes[0].actions[2:])
    times = torch.tensor([[20, 1, length]])
    answer = model.predict(worlds, Queries(times, plan))
    assert answer.observations is not None
    shown = answer.observations[0, 0, 0]
    torch.testing.assert_close(shown[1], seen[0, 1])
    assert torch.equal(shown[0], shown[2]) and answer.rewards[0, 0, 0, 0] == 0
    past = model.predict(worlds, Queries(torch.tensor([[0, 2]])))
    assert past.observations is not None
    torch.testing.assert_close(past.observations[0, 0, 0], seen[0, [0, 2]])
    assert (past.rewards == 0).all() and (past.alive == 1).all()


def test_replay_refuses_what_it_does_not_know() -> None:
    model, episodes = replay()
    seen = torch.from_numpy(episodes[0].observations[None, :3])
    actions = torch.from_numpy(episodes[0].actions)[None, :2]
    with pytest.raises(UnsupportedQuery, match="recognises an episode by time 0"):
        model.observe(Context(seen[:, 1:], torch.tensor([[1, 2]]), actions))
    with pytest.raises(UnsupportedQuery, match="none of the 8 episodes"):
        model.observe(Context(seen, torch.arange(3)[None], 1 - actions))
    with pytest.raises(UnsupportedQuery, match=r"seeds 8 .. 15"):
        model.observe(Context(seen[:, :1] + 1, torch.zeros(1, 1).long()))
    with pytest.raises(ValueError, match="action space is Discrete\\(2\\)"):
        make("replay", replace(model.spec, action=DISCRETE.action), model.config)
    with pytest.raises(ValueError, match="cannot look from camera poses"):
        make("replay", replace(PASSIVE, pose=2), model.config)
    with pytest.raises(ValueError, match="pass a config object"):
        make("replay", model.spec)
    with pytest.raises(ValueError, match="^episodes: expected at least 1, got 0"):
        ReplayConfig("CartPole-v1", episodes=0)


class Coin(gym.Env[NDArray[np.uint8], np.int64]):
    """A picture that turns white or stays black at step 2, as the seed decided."""

    observation_space = gym.spaces.Box(0, 255, (16, 16, 1), np.uint8)
    action_space = gym.spaces.Discrete(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.heads, self.time = int(self.np_random.integers(2)), 0
        return self.look(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.look(), float(self.heads), self.time == 4, False, {}

    def look(self) -> NDArray[np.uint8]:
        return np.full((16, 16, 1), 255 * self.heads * (self.time >= 2), np.uint8)


@pytest.fixture
def coin() -> Any:
    gym.register("Coin-v0", Coin)
    yield "Coin-v0"
    gym.registry.pop("Coin-v0")


def test_replay_samples_the_posterior(coin: str) -> None:
    """Before the coin shows, the share of worlds with heads is that of the known episodes."""
    env = gym.make(coin)
    spec = Spec.from_spaces(env.observation_space, env.action_space, STEPS)
    model = make("replay", spec, ReplayConfig(coin, episodes=40))
    episodes = collect(env, 40, progress=False).episodes
    share = np.mean([episode.rewards[0] for episode in episodes])
    dark = torch.zeros(1, 2, 1, 16, 16)
    worlds = model.sample(model.observe(Context(dark, torch.tensor([[0, 1]]))), 400, generator())
    answer = model.predict(worlds, Queries(torch.tensor([[3, 4]])))
    assert answer.observations is not None
    heads = answer.observations[0, :, 0, 0, 0, 0, 0]
    assert abs(float(heads.mean()) - share) < 0.08
    assert torch.equal(answer.rewards[0, :, 0, 0], 2 * heads)
    assert (answer.alive[0] == torch.tensor([1.0, 0.0])).all()
    told = to_float(torch.from_numpy(np.full((1, 1, 16, 16, 1), 255, np.uint8)))
    later = torch.cat([dark, told], 1)
    belief = model.observe(Context(later, torch.tensor([[0, 1, 2]])))
    assert (
        model.predict(model.sample(belief, 20), Queries(torch.tensor([[3]]))).rewards == 1
    ).all()
