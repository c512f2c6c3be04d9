"""Tiny environments with Dict observations: a goal environment, and an image beside a vector."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

SIZE = 16


class Reach(gym.Env):
    """A point in the unit square moves to a goal, as FetchReach does in space."""

    steps = 8

    def __init__(self) -> None:
        box = gym.spaces.Box
        self.observation_space = gym.spaces.Dict(
            {
                "observation": box(-np.inf, np.inf, (4,), np.float64),
                "achieved_goal": box(-1.2, 1.2, (2,), np.float64),
                "desired_goal": box(-1.2, 1.2, (2,), np.float64),
            }
        )
        self.action_space = box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.point, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        self.speed, self.time = np.zeros(2), 0
        return self.parts(), {}

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        before = self.point
        self.point = np.clip(self.point + 0.3 * np.asarray(action, np.float64), -1.2, 1.2)
        self.speed, self.time = self.point - before, self.time + 1
        reward = float(self.compute_reward(self.point, self.goal, {}))
        return self.parts(), reward, False, self.time >= self.steps, {}

    def parts(self) -> dict[str, np.ndarray]:
        return {
            "observation": np.concatenate([self.point, self.speed]),
            "achieved_goal": self.point.copy(),
            "desired_goal": self.goal.copy(),
        }

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return -(np.linalg.norm(achieved - desired, axis=-1) > 0.3).astype(np.float32)


class Camera(gym.Env):
    """A bar in an image, left of which everything is white; the vector holds its place and the
    time. Actions move it left, not at all or right, and its place is the reward.
    """

    steps = 8

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Dict(
            {
                "image": gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
                "state": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )
        self.action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.column, self.time = int(self.np_random.integers(1, SIZE)), 0
        return self.parts(), {}

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        self.column = int(np.clip(self.column + 2 * (int(action) - 1), 0, SIZE))
        self.time += 1
        return self.parts(), self.column / SIZE, False, self.time >= self.steps, {}

    def parts(self) -> dict[str, np.ndarray]:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        image[:, : self.column] = 255
        return {"image": image, "state": np.array([10 * self.column, self.time], np.float32)}
