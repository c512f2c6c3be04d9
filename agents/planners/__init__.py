"""Planners: they choose actions by imagining what follows; no training of their own."""

from agents.planners.base import Agent, Memory, Plan, Planner, PlannerConfig, RandomAgent
from agents.planners.random_shooting import RandomShooting, RandomShootingConfig
from agents.planners.refining import Cem, CemConfig, Mppi, MppiConfig
from agents.planners.tree_search import TreeSearch, TreeSearchConfig

__all__ = [
    "Agent",
    "Cem",
    "CemConfig",
    "Memory",
    "Mppi",
    "MppiConfig",
    "Plan",
    "Planner",
    "PlannerConfig",
    "RandomAgent",
    "RandomShooting",
    "RandomShootingConfig",
    "TreeSearch",
    "TreeSearchConfig",
]
