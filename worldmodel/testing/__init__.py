"""Checks of the contract, for a model of your own; the models of this library pass the same ones.

testing.check_world_model(lambda spec: Mine(spec, MineConfig()), testing.SPECS["discrete"])
"""

from __future__ import annotations

from collections.abc import Callable

from worldmodel.base import WorldModel
from worldmodel.spec import Spec
from worldmodel.testing.checks import CHECKS
from worldmodel.testing.noise import (
    SPECS,
    VIEWS,
    random_actions,
    random_context,
    random_episodes,
    random_poses,
    random_source,
)

__all__ = [
    "CHECKS",
    "SPECS",
    "VIEWS",
    "check_world_model",
    "random_actions",
    "random_context",
    "random_episodes",
    "random_poses",
    "random_source",
]


def check_world_model(make: Callable[[Spec], WorldModel], spec: Spec) -> None:
    """Run all ``CHECKS``, each on a model of its own.

    Args:
        make: returns a fresh model, always with the same weights; it need not be trained.
        spec: what for, such as one of ``SPECS`` or ``VIEWS``; its window has room for six strides
            after three frames (8 steps, if the model's stride is 1).

    Raises:
        AssertionError: a promise is broken; the message says which.
        TypeError: ``make`` returned no ``WorldModel``.
        ValueError: the spec has too short a window.
    """
    for check in CHECKS:
        model = make(spec)
        if not isinstance(model, WorldModel):
            raise TypeError(f"make: expected a WorldModel, got {type(model).__name__}")
        if spec.window < 2 + 6 * model.stride:
            raise ValueError(
                f"spec: expected a window of at least {2 + 6 * model.stride} steps, got "
                f"{spec.window}"
            )
        check(model.eval())
