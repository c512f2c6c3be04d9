"""Planners: they choose actions by imagining what follows, without training of their own."""

from __future__ import annotations

from agents.known_functions import KnownFunctions
from agents.planners.base import Planner, PlannerConfig
from agents.planners.random_shooting import RandomShooting
from agents.planners.refining import Cem, Mppi
from agents.planners.tree_search import TreeSearch
from agents.values import Value
from worldmodel.base import WorldModel

PLANNERS: dict[str, type[Planner]] = {
    "random-shooting": RandomShooting,
    "cem": Cem,
    "mppi": Mppi,
    "tree-search": TreeSearch,
}


def planner_of(
    config: PlannerConfig,
    model: WorldModel,
    value: Value | None = None,
    known: KnownFunctions | None = None,
) -> Planner:
    """The planner that the settings are for, with a model; see ``Planner`` for the arguments.

    Raises:
        TypeError: ``config`` is of no planner; else as ``Planner`` says.
    """
    for kind in PLANNERS.values():
        if type(config) is kind.config_type:
            return kind(model, config, value, known)
    expected = ", ".join(kind.config_type.__name__ for kind in PLANNERS.values())
    raise TypeError(f"planner: expected one of {expected}; got {type(config).__name__}")
