"""Returns of random play and the best possible ones: the two ends of every scale of returns."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from envs.randomness import Split
from envs.simulator import Simulator
from envs.stream import SceneStream
from worldmodel.common.config_checks import whole_number


def random_return(
    source: Simulator[Any] | str,
    *,
    hold: int = 1,
    gamma: float = 1.0,
    scenes: int = 1024,
    split: Split = "test",
    seed: int = 0,
) -> tuple[float, float]:
    """Mean return of uniformly random actions, each held for ``hold`` steps, by playing.

    Args:
        source: a simulator or the id of an environment, as for ``SceneStream``.
        hold: steps for which an action is held.
        gamma: discount per step.
        scenes: number of scenes to play, at least 2.
        split: the scenes' split.
        seed: of the scenes and actions.

    Returns:
        The mean and its standard error.

    Raises:
        ValueError: fewer than 2 scenes.
    """
    scenes = whole_number("scenes", scenes, 2)  # for a standard error
    rewards = SceneStream(source, scenes, split=split, seed=seed, hold=hold).batch(0).rewards
    discounts = gamma ** torch.arange(rewards.shape[1], dtype=torch.float64)
    return _mean((rewards * discounts).sum(1))


def best_return(
    source: Simulator[Any] | str, *, scenes: int = 1024, split: Split = "test", seed: int = 0
) -> tuple[float, float]:
    """Mean of the simulator's ``best_return`` over random scenes; see there how exact it is.

    Args:
        source, scenes, split, seed: as for :func:`random_return`; same seed, same scenes.

    Returns:
        The mean and its standard error.

    Raises:
        ValueError: fewer than 2 scenes.
    """
    scenes = whole_number("scenes", scenes, 2)
    stream = SceneStream(source, scenes, split=split, seed=seed)
    return _mean(stream.simulator.best_return(stream.batch(0).start()))


def _mean(returns: Tensor) -> tuple[float, float]:
    returns = returns.double()
    return float(returns.mean()), float(returns.std() / math.sqrt(len(returns)))
