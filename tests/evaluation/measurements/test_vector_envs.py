"""The README's recipes for vector environments, at a size that says nothing about returns."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.measurements.vector_envs import RECIPES, SAC_SETTINGS, VectorEnvs

README = (Path(__file__).parents[3] / "README.md").read_text()
CARTPOLE, PENDULUM = RECIPES


def test_settings_are_the_snippets() -> None:
    section = README.partition("## Plug in a custom environment")[2].partition("## Train")[0]
    _, pendulum = re.findall(r"```python\n(.*?)```", section, re.S)
    pairs = [(hold, first) for _, hold, first in PENDULUM.recorded]
    for text in (
        f'collect("{PENDULUM.env}", {PENDULUM.recorded[0][0]}, hold=k, seed=s)', str(pairs),
        f"window={PENDULUM.window}, batch_size=32", f"steps={PENDULUM.fit_steps:_}",
        f"num_envs=16, horizon={PENDULUM.horizon}", f"learn({PENDULUM.imagined_steps[0]:_})",
        f"episodes={PENDULUM.episodes}, seed=10**6",
    ):  # fmt: skip
        assert text in pendulum
    given: dict[str, Any] = {}
    exec("".join(re.findall(r"^(?:settings|policy) \|?= .*\n", pendulum, re.M)), given)
    assert {**given["settings"], "policy_kwargs": given["policy"]} == SAC_SETTINGS


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAC_SETTINGS, "learning_starts", 8)
    small = [
        replace(CARTPOLE, recorded=((40, 1, 0),), fit_steps=2, imagined_steps=(512,), episodes=2),
        replace(PENDULUM, recorded=((1, 1, 0), (2, 4, 5)), fit_steps=2, imagined_steps=(32, 64),
                episodes=2),
    ]  # fmt: skip
    rows = VectorEnvs(seeds=1).follow(small)
    assert [(row["env"], row["agent"], row["imagined_steps"]) for row in rows] == [
        ("CartPole-v1", "random play", 0), ("CartPole-v1", "PPO", 512),
        ("Pendulum-v1", "random play", 0), ("Pendulum-v1", "SAC", 32), ("Pendulum-v1", "SAC", 64),
    ]  # fmt: skip
    assert {*rows[0]} == {
        "env", "agent", "real_steps", "imagined_steps", "seed", "return", "low", "high", "episodes",
    }  # fmt: skip
    assert rows[0]["real_steps"] == 0 < rows[1]["real_steps"]
    assert [row["real_steps"] for row in rows[2:]] == [0, 600, 600]  # Pendulum's last 200 steps
    for row in rows:
        assert row["low"] <= row["return"] <= row["high"] and row["episodes"] == 2


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="seeds: expected at least 1"):
        VectorEnvs(seeds=0).measure()
    with pytest.raises(ValueError, match="PPO is played once"):
        replace(CARTPOLE, imagined_steps=(1, 2))
