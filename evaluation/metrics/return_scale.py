"""The two ends of every scale of returns: random play, and the best that could be got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envs.reference_returns import best_return, random_return
from evaluation.runner.progress import shown

WITH_AN_AGENT = (
    "narratives/TravelingSalesman-v0:5",
    "narratives/TravelingSalesman-v0:1",
    "narratives/ColorReaction-v0:1",
    "narratives/DAGChase-v0:1",
    "narratives/Intercept-v0:1",
    "dice/FindDigit-v0:1",
)
"""Environments in which something is at stake, each with the steps that an action is held."""


def scales(envs: Sequence[str], scenes: int = 1024, seed: int = 0) -> list[dict[str, Any]]:
    """Rows ``env, hold, metric (random | best), value, low, high, n``; 95% of the normal mean.

    Args:
        envs: ids of ours, each with ``:`` and the steps that a random action is held; the best
            return does not depend on them.
        scenes: of the test split.
        seed: of scenes and actions.

    Raises:
        ValueError: an entry is not ``ID:STEPS``, or fewer than 2 scenes.
    """
    rows = []
    for entry in shown(envs, "returns", "env"):
        env, _, hold = entry.rpartition(":")
        if not (env and hold.isdecimal() and int(hold) >= 1):
            raise ValueError(f"envs: expected ID:STEPS such as {WITH_AN_AGENT[0]}, got {entry!r}")
        for metric, (value, error) in {
            "random": random_return(env, hold=int(hold), scenes=scenes, seed=seed),
            "best": best_return(env, scenes=scenes, seed=seed),
        }.items():
            ends = {"low": value - 1.96 * error, "high": value + 1.96 * error}
            row = {"env": env, "hold": int(hold), "metric": metric, "value": value}
            rows.append({**row, **ends, "n": scenes})
    return rows
