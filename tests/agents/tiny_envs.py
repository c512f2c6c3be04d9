"""Environments so small that the best return can be found by trying everything."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel import make
from worldmodel.base import WorldModel
from worldmodel.models.baselines.replay import ReplayConfig
from worldmodel.spec import Spec

MOVES = {
    "discrete": gym.spaces.Discrete(3),  # left, stay, right
    "multi_discrete": gym.spaces.MultiDiscrete([2, 2]),  # step left, step right; both is neither
    "multi_binary": gym.spaces.MultiBinary(2),
}


class Tiny(gym.Env):
    """Sees (place, time) as a vector; ends after ``steps`` steps, or when told."""

    action_space: gym.Space = MOVES["discrete"]
    steps = 4

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.place, self.time = 0.0, 0

    def seen(self) -> np.ndarray:
        return np.array([self.place, self.time], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place, self.time = 0.0, 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward, ended = self.act(action)
        self.time += 1
        return self.seen(), reward, ended, self.time >= self.steps and not ended, {}

    def act(self, action: Any) -> tuple[float, bool]:
        raise NotImplementedError


class Treasure(Tiny):
    """A coin a step to the left, a treasure three to the right; each pays at every step there."""

    def __init__(self, moves: str = "discrete", steps: int = 4) -> None:
        super().__init__()
        self.action_space, self.moves, self.steps = MOVES[moves], moves, steps

    def act(self, action: Any) -> tuple[float, bool]:
        way = int(action) - 1 if self.moves == "discrete" else int(action[1]) - int(action[0])
        self.place = float(np.clip(self.place + way, -1, 3))
        return {-1.0: 1.0, 3.0: 10.0}.get(self.place, 0.0), False


class Aim(Tiny):
    """Be at 1.5 at the end, with little effort: a box."""

    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    steps = 3

    def act(self, action: Any) -> tuple[float, bool]:
        self.place += float(action[0])
        last = self.time + 1 == self.steps
        return -0.1 * float(action[0]) ** 2 - last * (self.place - 1.5) ** 2, False


class Oven(Tiny):
    """Action 1 pays 2 and heats by 2, action 0 pays 1/2 and cools by 1; heat 4 ends it all."""

    action_space = gym.spaces.Discrete(2)
    steps = 6

    def act(self, action: Any) -> tuple[float, bool]:
        self.place = self.place + 2 if action == 1 else max(0.0, self.place - 1)
        return (2.0 if action == 1 else 0.5), self.place >= 4


class Hidden(Tiny):
    """Which side holds 10 is hidden in the seed; where one stands in the middle, 1 is sure."""

    steps = 3

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        seen, info = super().reset(seed=seed, options=options)
        self.side = self.np_random.choice([-1, 1], p=[0.3, 0.7])
        return seen, info

    def act(self, action: Any) -> tuple[float, bool]:
        self.place += float(int(action) - 1)
        if self.place == 0:
            return 1.0, False
        return (10.0 if self.place == 2 * self.side else 0.0), False


for tiny in (Treasure, Aim, Oven, Hidden):
    name = f"Tiny{tiny.__name__}-v0"
    if name not in gym.registry:
        gym.register(name, entry_point=tiny, disable_env_checker=True)


def replay(kind: type[Tiny], episodes: int = 1, spare: int = 0, **kwargs: Any) -> WorldModel:
    """The environment itself as a world model; the window is one episode and ``spare`` steps."""
    env = kind(**kwargs)
    spec = Spec.from_spaces(env.observation_space, env.action_space, env.steps + spare)
    return make("replay", spec, ReplayConfig(f"Tiny{kind.__name__}-v0", kwargs, episodes))


def choices(space: gym.Space) -> list[Any]:
    """Every action; 31 of a box of one number."""
    if isinstance(space, gym.spaces.Box):
        return [np.array([x], np.float32) for x in np.linspace(-1, 1, 31)]
    if isinstance(space, gym.spaces.Discrete):
        return [np.int64(n) for n in range(space.n)]
    return [np.array(bits) for bits in itertools.product((0, 1), repeat=2)]


Value = Callable[[np.ndarray], np.ndarray]


def play(
    env: Tiny, actions: Sequence[Any], discount: float = 1.0, value: Value | None = None
) -> float:
    """The discounted return of actions from where the environment stands, and what follows."""
    total, ended, over, seen = 0.0, False, False, env.seen()
    for step, action in enumerate(actions):
        if not over:
            seen, reward, ended, truncated, _ = env.step(action)
            total, over = total + discount**step * reward, ended or truncated
    if value is not None and not ended:
        total += discount ** len(actions) * float(value(seen[None])[0])
    return total


def returns(
    env: Tiny,
    plans: Sequence[Sequence[Any]],
    seed: int = 0,
    discount: float = 1.0,
    value: Value | None = None,
) -> np.ndarray:
    """What each plan earns from the start of the episode of that seed; equal ones play once."""
    found: dict[bytes, float] = {}
    keys = [np.asarray(plan).tobytes() for plan in plans]
    for key, plan in zip(keys, plans, strict=True):
        if key not in found:
            env.reset(seed=seed)
            found[key] = play(env, plan, discount, value)
    return np.array([found[key] for key in keys])


def every_plan(env: Tiny, decisions: int, hold: int = 1, later: int | None = None) -> list[Any]:
    """All plans of so many held decisions, cut at the episode's end: lists of actions."""
    later = hold if later is None else later
    plans = []
    for chosen in itertools.product(choices(env.action_space), repeat=decisions):
        steps = [chosen[0]] * hold + [action for action in chosen[1:] for _ in range(later)]
        plans.append(steps[: env.steps])
    return plans


def optimum(env: Tiny, hold: int = 1) -> float:
    """The best return of an episode."""
    return float(returns(env, every_plan(env, -(-env.steps // hold), hold)).max())


def to_go(env: Tiny) -> Value:
    """The exact value of what (place, time) shows, by trying everything from there."""
    actions = choices(env.action_space)

    def one(place: float, time: int) -> float:
        best = 0.0 if time >= env.steps else -np.inf
        for plan in itertools.product(actions, repeat=max(0, env.steps - time)):
            env.place, env.time = place, time
            best = max(best, play(env, plan))
        return best

    def value(observations: np.ndarray) -> np.ndarray:
        return np.array([one(float(place), int(time)) for place, time in observations])

    return value
