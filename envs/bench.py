"""Frames per second of every environment, and of an Atari game as the yardstick."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any, Final

import gymnasium as gym

from envs import ENV_IDS
from worldmodel.common.progress import progress

YARDSTICK: Final = "ALE/Pong-v5"
"""Its own settings: 210 x 160 single, 4 x 84 x 84 vector, four emulated frames a step."""


def yardstick() -> str | None:
    """The id of the Atari game, if ale-py is installed."""
    if importlib.util.find_spec("ale_py") is None:
        return None
    importlib.import_module("ale_py")  # registers its games
    return YARDSTICK


def bench(
    env_ids: Sequence[str], batches: Sequence[int], size: int, seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Rows ``env, mode, batch, frames_per_second``, for the single and the vector environment.

    Args:
        env_ids: which environments.
        batches: sizes of the vector environment.
        size: height and width of frames in pixels (ours; the yardstick keeps its own).
        seconds: how long to measure each.
        seed: of scenes and actions.
    """
    modes = [("single", 1), *(("vector", batch) for batch in batches)]
    jobs = [(env_id, mode, batch) for env_id in env_ids for mode, batch in modes]
    rows = []
    for env_id, mode, batch in progress(jobs, "bench", "row"):
        settings = {"size": size} if env_id in ENV_IDS else {}
        speed = _measure(env_id, mode, batch, settings, seconds, seed)
        rows.append({"env": env_id, "mode": mode, "batch": batch, "frames_per_second": speed})
    return rows


def _measure(
    env_id: str, mode: str, batch: int, settings: dict[str, Any], seconds: float, seed: int
) -> float:
    env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]
    if mode == "single":
        env = gym.make(env_id, **settings)
    else:
        env = gym.make_vec(env_id, num_envs=batch, **settings)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    env.step(env.action_space.sample())  # tables are loaded, caches are warm
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if mode == "single" and (terminated or truncated):
            env.reset()
        steps += 1
    speed = steps * batch / (time.perf_counter() - start)
    env.close()
    return speed
