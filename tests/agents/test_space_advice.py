"""What a refusal of ``Spec`` advises is done here, and is not refused again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FilterObservation, TransformAction, TransformObservation
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import adapt
from worldmodel import Spec, collect
from worldmodel.data.make_env import Env


class AnySpace(gym.Env[Any, Any]):
    """Samples of a space, and rendered noise."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    render_mode = "rgb_array"

    def __init__(self, observation: gym.Space[Any], action: gym.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action in self.action_space, action
        return self.observation_space.sample(), 0.0, False, False, {}

    def render(self) -> Any:
        return self.np_random.integers(256, size=(40, 50, 3)).astype(np.uint8)


class Mission(spaces.Space[str]):
    """As MiniGrid's: it does not say whether it can be flattened."""

    def __init__(self) -> None:
        super().__init__(dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go to the green key"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


def transformed(function: Callable[[Any], Any], space: gym.Space[Any]) -> Callable[[Env], Env]:
    return lambda env: TransformObservation(env, function, space)


def uint8(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


MINIGRID = spaces.Dict({"image": uint8(7, 7, 3), "mission": Mission()})
GREY, FLOATS = spaces.Box(0, 255, (16, 24, 1), np.uint8), spaces.Box(0, 1, (16, 24, 3), np.float32)
CODES = spaces.Box(0, 10, (16, 16, 3), np.uint8)
ADAPT, PIXELS = "agents.adapt(env) ", "agents.adapt(env, pixels=True)"
PICK = "gymnasium.wrappers.TransformObservation can "
ACTION = "gymnasium.wrappers.TransformAction"

OBSERVATIONS: list[tuple[gym.Space[Any], str, Callable[[Env], Env]]] = [
    (spaces.Discrete(4), ADAPT, adapt),
    (spaces.Discrete(4, start=2), ADAPT, adapt),
    (spaces.MultiDiscrete([4, 3]), ADAPT, adapt),
    (spaces.MultiBinary(5), ADAPT, adapt),
    (spaces.Tuple((spaces.Discrete(4), spaces.Box(-1, 1, (2,)))), ADAPT, adapt),
    (spaces.Box(0, 9, (3,), np.int64), ADAPT, adapt),
    (spaces.Box(0, 255, (5,), np.uint8), ADAPT, adapt),
    (spaces.Box(0, 5, (7, 7, 3), np.uint8), ADAPT, adapt),
    (spaces.Box(-1, 1, ()), ADAPT, adapt),
    (spaces.Box(-1, 1, (4, 2)), ADAPT, adapt),
    (uint8(50, 41, 3), ADAPT, adapt),
    (uint8(9000, 16, 3), ADAPT, adapt),
    (uint8(50, 40), ADAPT, adapt),
    (uint8(3, 48, 64), "its channels come first, and " + ADAPT, adapt),
    (uint8(1, 84, 84), "its channels come first, and " + ADAPT, adapt),
    (uint8(7, 7, 3), "agents.adapt(env, codes=N)", lambda env: adapt(env, codes=256)),
    (uint8(16, 24, 4), PICK + "pick 1 or 3", transformed(lambda one: one[..., :1], GREY)),
    (
        FLOATS,
        PICK + "convert images to uint8 from 0 to 255",
        transformed(lambda one: np.uint8(255 * one), uint8(16, 24, 3)),
    ),
    (FLOATS, PIXELS, lambda env: adapt(env, pixels=True)),
    (spaces.Box(-1, 1, (0,)), PIXELS, lambda env: adapt(env, pixels=True)),
    (Mission(), PIXELS, lambda env: adapt(env, pixels=True)),
    (spaces.Sequence(spaces.Discrete(2)), PIXELS, lambda env: adapt(env, pixels=True)),
    (
        spaces.Tuple((GREY, spaces.Discrete(2))),
        PICK + "pick one",
        transformed(lambda o: o[0], GREY),
    ),
    (
        spaces.Tuple((Mission(), spaces.Box(-1, 1, (2,)))),
        PICK + "pick a part",
        transformed(lambda one: one[1], spaces.Box(-1, 1, (2,))),
    ),
    (spaces.Dict({"a": uint8(50, 40, 3), "b": spaces.Box(-1, 1, (2,))}), ADAPT, adapt),
    (spaces.Dict({"a": uint8(16, 24, 3), "b": spaces.Discrete(3)}), "agents.adapt ", adapt),
    (
        spaces.Dict({"a": GREY, "b": Mission()}),
        "gymnasium.wrappers.FilterObservation leaves",
        lambda env: FilterObservation(env, ["a"]),
    ),
    (
        spaces.Dict({"a": uint8(50, 40, 3), "b": Mission()}),
        "(D,); gymnasium.wrappers.FilterObservation leaves parts away ",  # adapt refuses it
        lambda env: adapt(FilterObservation(env, ["a"])),
    ),
    (
        spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Sequence(spaces.Discrete(2))}),
        "(D,); gymnasium.wrappers.FilterObservation leaves parts away ",
        lambda env: adapt(FilterObservation(env, ["a"])),
    ),
    (CODES, "from 0 to 10; agents.adapt(env, codes=N)", lambda env: adapt(env, codes=11)),
    (
        spaces.Dict({"a": CODES, "b": spaces.Discrete(3)}),
        "part 'a': expected images from 0 to 255, got numbers from 0 to 10; agents.adapt(env, c",
        lambda env: adapt(env, codes=11),
    ),
    (
        spaces.Dict({"a": GREY, "b": GREY}),
        "gymnasium.wrappers.FilterObservation leaves",
        lambda env: FilterObservation(env, ["a"]),
    ),
    (spaces.Tuple((Mission(), GREY)), PIXELS, lambda env: adapt(env, pixels=True)),
]


@pytest.mark.parametrize(("space", "advice", "follow"), OBSERVATIONS, ids=range(len(OBSERVATIONS)))
def test_advice_for_observations(
    space: gym.Space[Any], advice: str, follow: Callable[[Env], Env]
) -> None:
    env = AnySpace(space, spaces.Discrete(2))
    with pytest.raises(ValueError, match="^observation_space: ") as refused:
        Spec.from_spaces(env.observation_space, env.action_space, 1)
    assert advice in f"{refused.value} " and "FlattenObservation" not in str(refused.value)
    made = follow(env)
    Spec.from_spaces(made.observation_space, made.action_space, 1)
    collect(made, 1, max_steps=2, progress=False)


ACTIONS: list[tuple[gym.Space[Any], Callable[[Any], Any], gym.Space[Any]]] = [
    (spaces.Box(-np.inf, np.inf, (2,)), lambda action: action, spaces.Box(-1, 1, (2,))),
    (
        spaces.Box(np.float32([0, 1]), np.float32([1, 1])),
        lambda action: np.float32([action[0], 1]),
        spaces.Box(0, 1, (1,)),
    ),
    (
        spaces.Box(-3e38, 3e38, (2,)),
        lambda action: action * np.float32(1e30),
        spaces.Box(-1, 1, (2,)),
    ),
    (spaces.Box(-1, 1, (0,)), lambda _: np.zeros(0, np.float32), spaces.Discrete(1)),
    (spaces.Discrete(1, start=3), lambda _: 3, spaces.Discrete(1)),
    (
        spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))),
        lambda action: tuple(map(int, action)),
        spaces.MultiDiscrete([2, 3]),
    ),
    (
        spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(0, 1, (1,))}),
        lambda action: {"a": action[:2], "b": action[2:]},
        spaces.Box(np.float32([-1, -1, 0]), np.float32([1, 1, 1])),
    ),
]


@pytest.mark.parametrize(("space", "function", "target"), ACTIONS, ids=range(len(ACTIONS)))
def test_advice_for_actions(space: Any, function: Callable[[Any], Any], target: Any) -> None:
    env = AnySpace(spaces.Box(-1, 1, (2,)), space)
    with pytest.raises(ValueError, match="^action_space: ") as refused:
        Spec.from_spaces(env.observation_space, env.action_space, 1)
    assert "TransformAction" in str(refused.value)
    collect(TransformAction(env, function, target), 1, max_steps=2, progress=False)


def test_of_vector_environments_each_is_adapted() -> None:
    def small() -> Env:
        return AnySpace(uint8(3, 16, 16), spaces.Discrete(2))

    with pytest.raises(ValueError, match=r"agents.adapt\(env\) .*; do so with each environment"):
        collect(DummyVecEnv([small] * 2), 1, progress=False)
    venv = DummyVecEnv([lambda: adapt(small())] * 2)
    collect(venv, 1, max_steps=2, progress=False)


def test_a_dict_without_parts() -> None:
    with pytest.raises(ValueError, match="expected a Dict of at least one part"):
        Spec.from_spaces(spaces.Dict({}), spaces.Discrete(2), 1)


def test_pictures_are_advised_where_vectors_are() -> None:
    env = AnySpace(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    spec = Spec.from_spaces(env.observation_space, env.action_space, 1)
    with pytest.raises(ValueError, match=r"agents\.adapt\(env, pixels=True\) makes them"):
        spec.require_images("video")
    made = adapt(env, pixels=True)
    assert made.observation_space.shape == (64, 64, 3)
    Spec.from_spaces(made.observation_space, made.action_space, 1).require_images("video")


def test_a_raw_minigrid_says_what_to_do() -> None:
    """A Dict with a space that cannot say whether it is flattened: NotImplementedError before."""
    env = AnySpace(MINIGRID, spaces.Discrete(2))
    with pytest.raises(ValueError, match="cannot be flattened.*TransformObservation.*pixels=True"):
        adapt(env)
    pick = TransformObservation(env, lambda one: one["image"], MINIGRID["image"])
    facing = spaces.Dict({"image": uint8(7, 7, 3), "direction": spaces.Discrete(4)})
    for made in (
        adapt(pick, codes=256),
        adapt(pick),
        adapt(env, pixels=True),
        adapt(FilterObservation(env, ["image"])),
        adapt(AnySpace(facing, spaces.Discrete(2))),
        adapt(AnySpace(facing, spaces.Discrete(2)), codes=256),
    ):
        collect(made, 1, max_steps=2, progress=False)


class Grid(AnySpace):
    """Codes 0 to 10 in what its space calls an image; the agent is a 10."""

    def __init__(self, side: int = 7) -> None:
        super().__init__(uint8(side, side, 3), spaces.Discrete(2))
        self.side = side

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        return self.look(), 0.0, False, False, {}

    def look(self) -> Any:
        grid = np.zeros((self.side, self.side, 3), np.uint8)
        if self.time:  # a picture of one colour says nothing
            grid[..., 0] = 1
            grid[self.time, 2, 0] = 10
        return grid


@pytest.mark.parametrize("side", [7, 16])
def test_codes_are_no_pictures(side: int) -> None:
    with pytest.raises(ValueError, match="numbers from 0 to 10 only.*codes=N.*pixels=True"):
        collect(adapt(Grid(side), size=64), 1, max_steps=3, progress=False)
    if side == 16:  # nothing is to be resized, or refused
        with pytest.warns(UserWarning, match="observations: .* from 0 to 10 only.*codes=N"):
            collect(adapt(Grid(side)), 1, max_steps=3, progress=False)
    made = adapt(Grid(side), codes=11)
    (episode,) = collect(made, 1, max_steps=3, progress=False)
    hot = episode.observations.reshape(4, side, side, 3, 11)
    assert (hot.sum(-1) == 1).all() and hot[2, 2, 2, 0, 10] == 1
    facing = spaces.Dict({"image": uint8(side, side, 3), "direction": spaces.Discrete(4)})
    both = TransformObservation(Grid(side), lambda one: {"image": one, "direction": 2}, facing)
    with pytest.raises(ValueError, match="numbers from 0 to 10 only.*codes=N.*pixels=True"):
        collect(adapt(both, size=64), 1, max_steps=3, progress=False)
    made = adapt(both, codes=11)
    assert made.observation_space.shape == (side * side * 3 * 11 + 4,)
    collect(made, 1, max_steps=3, progress=False)
    with pytest.raises(ValueError, match="holds 0 to 10, expected 0 to 5; give codes=11 or more"):
        collect(adapt(Grid(side), codes=6), 1, max_steps=3, progress=False)
    scaled = TransformObservation(Grid(side), lambda one: 25 * one, uint8(side, side, 3))
    collect(adapt(scaled), 1, max_steps=3, progress=False)
    collect(adapt(Grid(side), pixels=True), 1, max_steps=3, progress=False)


@pytest.mark.parametrize("codes", [1, 2.0, True])
def test_codes_are_counted(codes: Any) -> None:
    with pytest.raises(ValueError, match="codes: expected an int of at least 2"):
        adapt(Grid(), codes=codes)
    with pytest.raises(ValueError, match="codes: expected observations of a Box of integers"):
        adapt("CartPole-v1", codes=3)
    with pytest.raises(ValueError, match="codes, pixels: give one"):
        adapt(Grid(), codes=3, pixels=True)


def test_what_fits_stays_as_it_is() -> None:
    for shape in [(96, 96, 3), (16, 48, 1)]:
        env = AnySpace(uint8(*shape), spaces.Discrete(2))
        made = adapt(env)
        assert made.observation_space.shape == shape
        np.testing.assert_array_equal(made.reset(seed=3)[0], env.reset(seed=3)[0])
        assert adapt(env, size=64).observation_space.shape == (64, 64, shape[2])
    assert adapt("envs:narratives/TravelingSalesman-v0").observation_space.shape == (64, 64, 3)
