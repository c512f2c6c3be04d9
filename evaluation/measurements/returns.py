"""The two ends of every scale of returns: random play, and the best possible."""

from __future__ import annotations

from dataclasses import dataclass

from envs.reference_returns import best_return, random_return
from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults
from worldmodel.common.progress import progress

WITH_AN_AGENT = (
    "narratives/TravelingSalesman-v0:5",
    "narratives/TravelingSalesman-v0:1",
    "narratives/ColorReaction-v0:1",
    "narratives/DAGChase-v0:1",
    "narratives/Intercept-v0:1",
    "dice/FindDigit-v0:1",
)
"""Environments that pay a reward, each with the steps that an action is held."""


@dataclass(frozen=True)
class Returns(Measurement):
    """The scale of returns: what random play gets, and the best possible."""

    name = "returns"
    envs: tuple[str, ...] = WITH_AN_AGENT
    """Ids of ours, each with a colon and the steps that a random action is held; the best return
    does not depend on them."""
    scenes: int = 1024
    """Of the test split."""
    seed: int = 0

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``env, hold, metric (random | best), value, low, high, n``; 95% of the normal mean.

        Raises:
            ValueError: an entry is not ``ID:STEPS``, or fewer than 2 scenes.
        """
        rows = []
        for entry in progress(self.envs, "returns", "env"):
            env, _, hold = entry.rpartition(":")
            if not (env and hold.isdecimal() and int(hold) >= 1):
                raise ValueError(
                    f"envs: expected ID:STEPS such as {WITH_AN_AGENT[0]}, got {entry!r}"
                )
            for metric, (value, error) in {
                "random": random_return(env, hold=int(hold), scenes=self.scenes, seed=self.seed),
                "best": best_return(env, scenes=self.scenes, seed=self.seed),
            }.items():
                ends = {"low": value - 1.96 * error, "high": value + 1.96 * error}
                row = {"env": env, "hold": int(hold), "metric": metric, "value": value}
                rows.append({**row, **ends, "n": self.scenes})
        return rows
