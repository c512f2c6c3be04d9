"""Dicts, masks, known functions, several environments at once and lookahead, at the edge: refused
with a sentence that names them, or handled right to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import (
    Cem,
    CemConfig,
    ImaginedVecEnv,
    KnownFunctions,
    LookaheadVecWrapper,
    RandomShooting,
    RandomShootingConfig,
    RecordEpisodes,
)
from tests.stress.parts import MODELS
from tests.stress.test_numbers import HUGE, IMAGE, PLANS, VECTOR, Edge, learnt
from worldmodel import Episodes, Queries, collect, fit, make, testing

TWO = spaces.Box(-1, 1, (2,), np.float64)
DICT = spaces.Dict({"image": IMAGE, "two": TWO})


class Shown(Edge):
    """Shows some parts otherwise, or has masks."""

    def __init__(self, parts: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(**{"observation": DICT, **settings})
        self.parts = {} if parts is None else parts

    def _seen(self) -> Any:
        return {**self.observation_space.sample(), **self.parts}


class Masked(Edge):
    """Says which actions are legal."""

    def __init__(self, masks: Any) -> None:
        super().__init__(value=0.0)
        self.legal = masks

    def action_masks(self) -> Any:
        return self.legal


OWNERS: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "one": lambda make: make(),
    "several": lambda make: SyncVectorEnv([make] * 2),
    "several of SB3": lambda make: DummyVecEnv([make] * 2),
}
ALONE = ("one",)
REFUSED: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "NaN": (partial(Edge, value=np.nan), "observations: hold NaN", tuple(OWNERS)),
    "infinity": (partial(Edge, value=np.inf), "observations: hold NaN", tuple(OWNERS)),
    "NaN paid": (partial(Edge, reward=np.nan), "rewards: hold NaN", tuple(OWNERS)),
    "infinity paid": (partial(Edge, reward=-np.inf), "rewards: hold NaN", tuple(OWNERS)),
    "NaN in a part": (partial(Shown, {"two": [np.nan, 0]}), "'two' holds NaN", tuple(OWNERS)),
    "a part of another size": (partial(Shown, {"two": np.zeros(3)}), "'two': returned", ALONE),
    "a part that is no array": (partial(Shown, {"two": "two"}), "'two': returned", ALONE),
    "a part of ragged rows": (partial(Shown, {"two": [[1], [1, 2]]}), "'two': returned", ALONE),
    "a part too many": (partial(Shown, {"three": 0}), "has the parts", ALONE),
    "parts of a grey": (
        partial(Shown, {"image": np.full((16, 16, 3), 0.7)}), "'image': returned .* 0.7", ALONE
    ),
    "no mask": (partial(Masked, None), "expected action masks", tuple(OWNERS)),
    "a mask of another size": (partial(Masked, [1, 1, 1]), "expected action masks", tuple(OWNERS)),
    "a mask of NaN": (partial(Masked, [np.nan, 1]), "expected action masks", tuple(OWNERS)),
    "a mask of shares": (partial(Masked, [0.5, 1]), "expected action masks", tuple(OWNERS)),
    "a mask of words": (partial(Masked, ["yes", "no"]), "expected action masks", tuple(OWNERS)),
    "a ragged mask": (partial(Masked, [[1], [1, 0]]), "expected action masks", tuple(OWNERS)),
    "nothing legal": (partial(Masked, [0, 0]), "leave no legal action", tuple(OWNERS)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "owner"), [(case, owner) for case, row in REFUSED.items() for owner in row[2]]
)
def test_refused_when_recorded(case: str, owner: str, tally) -> None:
    env, message, _ = REFUSED[case]
    with pytest.raises(ValueError, match=f"(Edge|Shown|Masked|VecEnv|VectorEnv).*{message}"):
        collect(lambda: OWNERS[owner](env), 3, progress=False)
    tally.add("numbers", "refused")
    if owner == "one" and case != "nothing legal":  # which a recorder leaves to the player
        with pytest.raises(ValueError, match=message):
            recorder = RecordEpisodes(env())
            recorder.reset(seed=0)
            for _ in range(3):
                recorder.step(0)
            recorder.episodes()
        tally.add("numbers", "refused")


SPACES: dict[str, tuple[gym.Space[Any], str]] = {
    "no part": (spaces.Dict({}), "part"),
    "two images": (spaces.Dict({"a": IMAGE, "b": IMAGE}), "image"),
    "a Dict within": (spaces.Dict({"a": TWO, "b": spaces.Dict({"c": TWO})}), "'b'"),
    "a choice": (spaces.Dict({"a": TWO, "b": spaces.Discrete(3)}), "'b'"),
    "a vector of bytes": (spaces.Dict({"a": spaces.Box(0, 255, (5,), np.uint8)}), "'a'"),
    "no number": (spaces.Dict({"a": TWO, "b": spaces.Box(-1, 1, (0,))}), "'b'"),
    "a number alone": (spaces.Dict({"a": TWO, "b": spaces.Box(-1, 1, ())}), "'b'"),
    "a small image": (
        spaces.Dict({"a": TWO, "b": spaces.Box(0, 255, (8, 16, 3), np.uint8)}), "'b'.*at least 16"
    ),
    "a bright image": (
        spaces.Dict({"b": spaces.Box(0, 1, (16, 16, 3), np.uint8)}), "'b'.*0 to 255"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPACES)
def test_dicts_that_are_refused(case: str, tally) -> None:
    space, message = SPACES[case]
    with pytest.raises(ValueError, match=message):
        collect(Edge(space, value=0), 1, progress=False)
    tally.add("numbers", "refused")


HANDLED: dict[str, dict[str, Any]] = {
    "constant": {"parts": {"two": np.zeros(2)}},
    "denormal": {"parts": {"two": np.full(2, 1e-40)}},
    "black": {"parts": {"image": np.zeros((16, 16, 3), np.uint8)}},
    "beyond the bounds": {"parts": {"two": np.array([5.0, -7.0])}},
    "large": {
        "observation": spaces.Dict({"large": VECTOR, "two": TWO}), "parts": {"large": [HUGE, -HUGE]}
    },
    "vectors alone": {"observation": spaces.Dict({"a": TWO, "b": VECTOR})},
    "one part": {"observation": spaces.Dict({"a": spaces.Box(-1, 1, (1,))})},
    "odd names": {"observation": spaces.Dict({"": TWO, "a b": TWO, "\n": TWO})},
    "an image alone": {"observation": spaces.Dict({"": IMAGE})},
    "one step": {"steps": 1},
    "large rewards": {"reward": 1e36},
}  # fmt: skip


@pytest.mark.parametrize("case", HANDLED)
def test_dicts_from_recording_to_a_decision(case: str, tmp_path: Path, tally) -> None:
    env = Shown(**HANDLED[case])
    collect(env, 3, folder=tmp_path, progress=False)
    episodes = Episodes.load(tmp_path)
    model = make("auto", episodes.spec(8))
    losses = fit(model, episodes.windows(8, 4), 2, log_every=1, progress=False)
    assert all(map(math.isfinite, losses.values()))
    venv = ImaginedVecEnv(model, episodes, 3, horizon=2)
    venv.reset()
    for _ in range(3):
        seen, rewards, _, _ = venv.step(np.array([0, 1, 0]))
        assert all(np.isfinite(part).all() for part in seen.values()) and seen.keys() == set(
            env.observation_space.spaces
        )
        assert np.isfinite(rewards).all()
    actions, _ = Cem(model, CemConfig(**PLANS)).predict(episodes.starts()[:2])
    assert len(actions) == 2
    tally.add("numbers", "handled")


# -- functions that are known ---------------------------------------------------------------------

WRONG: dict[str, tuple[str, Any, str]] = {
    "NaN": ("reward", lambda *step: torch.full((len(step[0]),), math.nan), "returned NaN"),
    "infinity": ("reward", lambda *step: np.full(len(step[0]), np.inf), "returned NaN"),
    "more than float32": ("reward", lambda *step: np.full(len(step[0]), 1e300), "returned NaN"),
    "one for all": ("reward", lambda *step: 1.0, "one number for each"),
    "one too few": ("reward", lambda *step: torch.zeros(len(step[0]) - 1), "one number for each"),
    "a column": ("reward", lambda *step: torch.zeros(len(step[0]), 1), "one number for each"),
    "complex": ("reward", lambda *step: np.zeros(len(step[0]), complex), "one number for each"),
    "nothing": ("reward", lambda *step: None, "known.reward"),
    "words": ("reward", lambda *step: ["a"] * len(step[0]), "known.reward"),
    "ragged": ("reward", lambda *step: [[1], [1, 2]], "known.reward"),
    "objects": ("reward", lambda *step: np.array([None] * len(step[0])), "known.reward"),
    "shares of an end": ("terminated", lambda *step: torch.zeros(len(step[0])), "expected bool"),
    "an end too few": ("terminated", lambda *step: [True], "one value for each"),
    "no end": ("terminated", lambda *step: None, "known.terminated"),
    "words of an end": ("terminated", lambda *step: "no", "known.terminated"),
    "masks of numbers": ("action_mask", lambda seen: torch.ones(len(seen), 2), "expected bool"),
    "masks too narrow": ("action_mask", lambda seen: torch.ones(len(seen), 1) > 0, "expected bool"),
    "no masks": ("action_mask", lambda seen: None, "known.action_mask"),
    "nothing is legal": ("action_mask", lambda seen: torch.zeros(len(seen), 2) > 0, "legal"),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return learnt(Edge(), "ensemble")[0]


@pytest.mark.parametrize("case", WRONG)
def test_known_functions_that_return_something_else(case: str, model: Any, tally) -> None:
    name, function, message = WRONG[case]
    known, starts = KnownFunctions(**{name: function}), np.zeros((2, 2), np.float32)
    with pytest.raises((ValueError, TypeError), match=message):
        RandomShooting(model, RandomShootingConfig(**PLANS), known=known).predict(starts)
    with pytest.raises((ValueError, TypeError), match=message):
        venv = ImaginedVecEnv(model, starts, 2, known=known)
        venv.reset()
        if name == "action_mask":
            venv.env_method("action_masks")
        venv.step(np.array([0, 1]))
    tally.add("numbers", "refused", 2)


def test_known_functions_of_large_rewards(model: Any, tally) -> None:
    """Their sums leave float32, and decide nothing; one alone is what it is."""
    known = KnownFunctions(reward=lambda *step: torch.full((len(step[0]),), HUGE))
    starts = np.zeros((2, 2), np.float32)
    venv = ImaginedVecEnv(model, starts, 2, known=known)
    venv.reset()
    _, rewards, _, _ = venv.step(np.array([0, 1]))
    assert (rewards == np.float32(HUGE)).all()
    with pytest.raises(FloatingPointError, match="ensemble: imagines NaN"):
        RandomShooting(model, RandomShootingConfig(**PLANS), known=known).predict(starts)
    tally.add("numbers", "refused")


# -- lookahead -------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no jumps": ({"jumps": 0}, "jumps"),
    "jumps of NaN": ({"jumps": math.nan}, "jumps"),
    "half a jump": ({"jumps": 1.5}, "jumps"),
    "jumps beyond the window": ({"jumps": 10**9}, "jumps"),
    "hold of nothing": ({"hold": 0}, "hold"),
    "hold beyond the window": ({"hold": 2**40}, "hold"),
    "no worlds": ({"worlds": 0}, "worlds"),
    "worlds of infinity": ({"worlds": math.inf}, "worlds"),
    "depth of words": ({"depth": "2"}, "depth"),
    "too deep": ({"depth": 30}, "depth"),
    "no seed": ({"seed": -1}, "seed"),
    "candidates of NaN": ({"candidates": [math.nan, 0]}, "candidates"),
    "candidates that are none": ({"candidates": []}, "candidates"),
    "candidates beyond": ({"candidates": [2**70]}, "candidates"),
    "candidates of words": ({"candidates": ["a"]}, "candidates"),
    "ragged candidates": ({"candidates": [[1], [1, 0]]}, "candidates"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_of_lookahead(case: str, model: Any, tally) -> None:
    settings, name = SETTINGS[case]
    venv = DummyVecEnv([Edge] * 2)
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        LookaheadVecWrapper(venv, model, **settings)
    tally.add("numbers", "refused")


@pytest.mark.parametrize("value", [math.nan, math.inf, HUGE])
def test_what_lookahead_sees(value: float, model: Any, tally) -> None:
    """What is no number is refused; from one as large as any, a model may imagine none."""
    venv = LookaheadVecWrapper(DummyVecEnv([partial(Edge, value=value)] * 2), model)
    with pytest.raises((ValueError, FloatingPointError), match="observations"):
        venv.reset()
    tally.add("numbers", "refused")


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_what_models_are_given(name: str, tally) -> None:
    """Contexts and queries of no numbers are refused by name; large numbers imagine numbers."""
    model = MODELS[name].make().eval()
    frames = 3 if model.max_context is None else min(3, model.max_context)
    good = testing.random_context(model.spec, frames=frames)
    wrong: dict[str, list[Any]] = {}
    if frames:
        seen, times = good.observations, good.times
        wrong["times"] = [times + 99, times - 1, times.float(), times[0]]
        wrong["observations"] = [seen * math.nan, seen + math.inf, seen[..., :-1], seen.byte()]
    if good.poses is not None:
        wrong["poses"] = [good.poses * math.nan, good.poses - math.inf, good.poses[..., :-1]]
    if good.actions is not None and good.actions.shape[1]:
        wrong["actions"] = [good.actions + 99, good.actions * math.nan, good.actions[:, :0]]
    for field, values in wrong.items():
        for value in values:
            with pytest.raises((ValueError, TypeError), match=field):
                model.observe(replace(good, **{field: value}))
            tally.add("numbers", "refused")
    with torch.no_grad():
        worlds = model.sample(model.observe(good), 2, torch.Generator().manual_seed(0))
    times = worlds.present[:, None]
    asked: list[tuple[str, Any]] = [("times", Queries(times + 10**6, None))]
    poses = testing.random_poses(model.spec, times)
    if poses is not None:
        asked += [("poses", Queries(times, None, bad)) for bad in (poses * math.nan, None)]
    for field, queries in asked:
        with pytest.raises((ValueError, TypeError), match=field):
            model.predict(worlds, queries)
        tally.add("numbers", "refused")
