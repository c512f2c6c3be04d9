"""Numbers at the edge: refused with a sentence where they come in, or handled right to the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import (
    Cem,
    CemConfig,
    Imagination,
    ImaginedVecEnv,
    Mppi,
    MppiConfig,
    RandomShooting,
    RandomShootingConfig,
    RecordEpisodes,
)
from worldmodel import MODELS, ActionSpec, Episode, Episodes, Spec, collect, fit, make
from worldmodel.models.jumpy.jump import JumpConfig

IMAGE = spaces.Box(0, 255, (16, 16, 3), np.uint8)
VECTOR = spaces.Box(-np.inf, np.inf, (2,), np.float32)
DISCRETE = ActionSpec("discrete", (), (2,))
HUGE = float(np.finfo(np.float32).max)
PLANS = {"plans": 8, "worlds": 2, "horizon": 3}


class Edge(gym.Env[Any, Any]):
    """Shows one value or one observation, pays one reward, ends after some steps."""

    def __init__(
        self,
        observation: gym.Space[Any] = VECTOR,
        action: gym.Space[Any] | None = None,
        value: float | None = None,
        reward: Any = 0.0,
        steps: int = 3,
        shown: Any = None,
    ) -> None:
        self.observation_space = observation
        self.action_space = spaces.Discrete(2) if action is None else action
        self.value, self.reward, self.steps, self.shown = value, reward, steps, shown

    def _seen(self) -> Any:
        space = self.observation_space
        if self.shown is not None:
            return self.shown
        if self.value is None:
            return space.sample()
        return np.full(space.shape, self.value, space.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.count = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._seen(), self.reward, self.count >= self.steps, False, {}


def learnt(env: Edge, name: str = "jump", window: int = 8) -> tuple[Any, Episodes]:
    episodes = collect(env, 3, progress=False)
    spec = episodes.spec(window)
    preset = "small" if spec.is_image else "vector"
    model = make(name, spec, preset, seed=0)
    if model.trainable:
        losses = fit(model, episodes.windows(window, 4), 2, log_every=1, progress=False)
        assert all(map(math.isfinite, losses.values()))
    return model, episodes


def lived(model: Any, episodes: Episodes) -> None:
    """Imagined decisions are of the spaces, and finite."""
    venv = ImaginedVecEnv(model, episodes, 3, hold=model.stride, horizon=2 // model.stride or 1)
    seen = venv.reset()
    for _ in range(3):
        chosen = np.stack([venv.action_space.sample() for _ in range(3)])
        seen, rewards, _, _ = venv.step(chosen)
        assert seen.dtype == venv.observation_space.dtype
        assert np.isfinite(seen).all() and np.isfinite(rewards).all()


REFUSED = {
    "NaN seen": ({"value": np.nan}, "observations: hold NaN"),
    "infinity seen": ({"value": -np.inf}, "observations: hold NaN"),
    "NaN paid": ({"reward": np.nan}, "rewards: hold NaN"),
    "infinity paid": ({"reward": np.inf}, "rewards: hold NaN"),
    "nothing paid": ({"reward": None}, "seed 0, step 1: .* reward of type NoneType"),
    "several paid": ({"reward": np.zeros(2)}, "seed 0, step 1: .* reward of type ndarray"),
    "text paid": ({"reward": "3"}, "seed 0, step 1: .* reward of type str"),
    "too much paid": ({"reward": 10**400}, "seed 0, step 1: .* reward of type int"),
    "parts of a grey": (
        {"observation": IMAGE, "shown": np.full((16, 16, 3), 0.7)},
        "env: Edge, episode of seed 0, reset: .* float64 that holds 0.7, its space is Box.*uint8",
    ),
    "an image of NaN": ({"observation": IMAGE, "shown": np.full((16, 16, 3), np.nan)}, "holds nan"),
    "a negative grey": ({"observation": IMAGE, "shown": np.full((16, 16, 3), -1)}, "holds -1"),
    "whiter than white": (
        {"observation": IMAGE, "shown": np.full((16, 16, 3), 300).tolist()},
        "int64 that holds 300",
    ),
    "another size": (
        {"observation": IMAGE, "shown": np.zeros((24, 24, 3), np.uint8)},
        r"seed 0, reset: returned an observation of uint8 \(24, 24, 3\), its space is Box",
    ),
    "no array": ({"shown": [[1], [1, 2]]}, "seed 0, reset: returned no array"),
    "words": ({"shown": ["1", "2"]}, r"seed 0, reset: returned an observation of <U1 \(2,\)"),
    "a vector of bytes": ({"observation": spaces.Box(0, 255, (5,), np.uint8)}, "agents.adapt"),
    "a number alone": ({"observation": spaces.Box(-1, 1, ())}, "agents.adapt"),
    "no number": ({"observation": spaces.Box(-1, 1, (0,))}, r"of shape \(D,\).*pixels=True"),
    "one row": ({"observation": spaces.Box(0, 255, (1, 16, 3), np.uint8)}, "at least 16"),
    "one column": ({"observation": spaces.Box(0, 255, (64, 1, 3), np.uint8)}, "at least 16"),
    "float images": ({"observation": spaces.Box(0, 1, (16, 16, 3))}, "uint8 Box of shape"),
    "one that starts at 3": ({"action": spaces.Discrete(1, start=3)}, "leaves no choice"),
    "nothing to set": ({"action": spaces.Box(-1, 1, (0,))}, "at least one number"),
    "bounds too far apart": ({"action": spaces.Box(-HUGE, HUGE, (1,))}, "float32 ends"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_when_recorded(case: str, tally) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        collect(Edge(**settings), 1, progress=False)
    with pytest.raises(ValueError, match=message):
        recorder = RecordEpisodes(Edge(**settings))
        recorder.reset(seed=0)
        for _ in range(3):
            recorder.step(0)
        recorder.episodes()
    tally.add("numbers", "refused", 2)


HANDLED = {
    "constant": {"value": 5.0},
    "all zero": {"value": 0.0},
    "constant and large": {"value": HUGE},
    "denormal": {"value": 1e-40},
    "reward 1e30": {"reward": 1e30},
    "large rewards": {"reward": 1e36},
    "low rewards": {"reward": -1e36},
    "one step": {"steps": 1},
    "starts at 2": {"action": spaces.Discrete(3, start=2)},
    "one option": {"action": spaces.MultiDiscrete([1])},
    "one option of two": {"action": spaces.MultiDiscrete([1, 3])},
    "a bit": {"action": spaces.MultiBinary(1)},
    "a number": {"action": spaces.Box(-1, 1, ())},
    "whole numbers": {"action": spaces.Box(0, 5, (2,), np.int32)},
    "bytes": {"action": spaces.Box(0, 255, (2,), np.uint8)},
    "float64": {"action": spaces.Box(-1, 1, (2,), np.float64)},
    "float16": {"action": spaces.Box(-1, 1, (2,), np.float16)},
    "float64 seen": {"observation": spaces.Box(-1, 1, (2,), np.float64)},
    "infinite on one side": {"observation": spaces.Box(0, np.inf, (2,), np.float32)},
}


@pytest.mark.parametrize("name", ["jump", "ensemble"])
@pytest.mark.parametrize("case", HANDLED)
def test_from_recording_to_a_decision(case: str, name: str, tally) -> None:
    model, episodes = learnt(Edge(**HANDLED[case]), name)
    lived(model, episodes)
    space = model.spec.action.to_space()
    for planner in (
        RandomShooting(model, RandomShootingConfig(**PLANS)),
        Cem(model, CemConfig(**PLANS)),
        Mppi(model, MppiConfig(**PLANS)),
    ):
        actions, _ = planner.predict(episodes.starts()[:2])
        assert len(actions) == 2 and all(action in space for action in np.asarray(actions))
    tally.add("numbers", "handled")


@pytest.mark.parametrize("name", ["jump", "ensemble"])
@pytest.mark.parametrize("reward", [HUGE, -HUGE])
def test_rewards_whose_sums_leave_float32_are_refused(reward: float, name: str, tally) -> None:
    with pytest.raises(ValueError, match=r"rewards: up to 3\.4e\+38, whose sums leave float32"):
        learnt(Edge(reward=reward), name)
    tally.add("numbers", "refused")


@pytest.mark.parametrize(
    "settings",
    [{"steps": 1, "value": 7}, {"reward": 1e36}, {"action": spaces.Discrete(1)}],
    ids=["one step", "large rewards", "no choice"],
)
def test_every_model(settings: dict[str, Any], size: Callable[[int, int], int], tally: Any) -> None:
    image = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    for name in sorted(MODELS.keys() - {"replay"})[:: size(4, 1)]:
        lived(*learnt(Edge(image, **settings), name))
        tally.add("numbers", "models at the edge")


def test_a_gradient_of_nan_stops() -> None:
    """The loss is fine; the last step's gradient is not."""
    model, episodes = learnt(Edge())
    next(model.parameters()).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(FloatingPointError, match="not finite at step 2: .*'gradient': nan"):
        fit(model, episodes.windows(8, 4), 2, log_every=2, progress=False)


def test_actions_are_those_of_the_space() -> None:
    seen, paid = np.zeros((3, 2), np.float32), np.zeros(2, np.float32)
    for kind, actions in [
        (DISCRETE, np.array([0, 2])),
        (DISCRETE, np.array([-1, 0])),
        (DISCRETE, np.array([0.7, 0.0])),
        (ActionSpec("multi_binary", (2,)), np.full((2, 2), 2, np.int8)),
        (ActionSpec("multi_discrete", (2,), (3, 2)), np.full((2, 2), 2)),
    ]:
        with pytest.raises(ValueError, match=r"episodes\[0\]: actions are not all of"):
            Episodes([Episode(seen, actions, paid, True)], kind)
    whole = Episodes([Episode(seen, np.array([1.0, 0.0]), paid, True)], DISCRETE)
    venv = ImaginedVecEnv(make("jump", whole.spec(4), "vector"), seen, 2)
    venv.reset()
    for action, message in ((0.7, "whole numbers"), (np.nan, "NaN"), (-1, "must lie"), (2, "must")):
        with pytest.raises(ValueError, match=f"actions: .*{message}"):
            venv.step(np.array([action, 0]))


def test_numbers_beyond_float32() -> None:
    seen, paid = np.zeros((2, 2), np.float32), np.zeros(1)
    with pytest.raises(ValueError, match="rewards: hold .*more than float32"):
        Episode(seen, np.zeros(1, int), paid + 1e39, True)
    with pytest.raises(ValueError, match="actions: hold .*more than float32"):
        Episode(seen, np.full((1, 1), 1e300), paid, True)


def test_settings_that_are_no_numbers() -> None:
    model = make("jump", Spec((2,), DISCRETE, 4, low=(-1, -1), high=(1, 1)), "vector")
    starts = np.zeros((2, 2), np.float32)
    episodes = Episodes(
        [Episode(starts, np.zeros(1, int), np.zeros(1, np.float32), True)] * 4, DISCRETE
    )
    windows = episodes.windows(4, 2)
    for name, call in {
        "learning_rate": lambda bad: JumpConfig(learning_rate=bad),
        "variance_start": lambda bad: JumpConfig(variance_start=bad),
        "plans": lambda bad: RandomShootingConfig(plans=bad),
        "temperature": lambda bad: MppiConfig(temperature=bad),
        "penalty": lambda bad: ImaginedVecEnv(model, starts, 2, worlds=2, penalty=bad),
        "share": episodes.split,
        "ema": lambda bad: fit(model, windows, 1, ema=bad, progress=False),
        "clip": lambda bad: fit(model, windows, 1, clip=-1 / bad, progress=False),
    }.items():
        for bad in (math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name}: expected"):
                call(bad)


def test_a_model_of_nan_decides_nothing() -> None:
    """Of weights, and of observations so large that what follows from them is no number."""
    for poison in (math.nan, math.inf):
        model = make("jump", Spec((2,), DISCRETE, 4, low=(-1, -1), high=(1, 1)), "vector")
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(poison)
        starts = np.zeros((2, 2), np.float32)
        venv = ImaginedVecEnv(model, starts, 2)
        venv.reset()
        with pytest.raises(FloatingPointError, match="jump: imagines NaN"):
            venv.step(np.array([0, 1]))
        with pytest.raises(FloatingPointError, match="jump: imagines NaN"):
            RandomShooting(model, RandomShootingConfig(**PLANS)).predict(starts)
        imagination = Imagination(model)
        imagination.reset(starts)
        with pytest.raises(FloatingPointError, match="jump: imagines NaN"):
            imagination.score(imagination.worlds(1), np.zeros((2, 1, 2), np.int64))
