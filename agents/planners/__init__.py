"""Planners: they choose actions by imagining what follows; no training of their own."""

from agents.planners.base import Agent, Memory, Plan, Planner, RandomAgent
from agents.planners.random_shooting import RandomShooting, RandomShootingConfig

__all__ = [
    "Agent",
    "Memory",
    "Plan",
    "Planner",
    "RandomAgent",
    "RandomShooting",
    "RandomShootingConfig",
]
