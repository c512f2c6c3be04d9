"""Imagination for planners and Stable-Baselines3 agents; works with any world model.

>>> from agents import ImaginedVecEnv, RandomShooting, RandomShootingConfig
"""

from agents.beside import real_beside_imagined
from agents.callbacks import ImaginationVideo
from agents.imagination import Imagination
from agents.inverse_policy import InversePolicy, InversePolicyConfig
from agents.planners import (
    Cem,
    CemConfig,
    Mppi,
    MppiConfig,
    Plan,
    Planner,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    TreeSearch,
    TreeSearchConfig,
)
from agents.policies import SmallCnn
from agents.train import evaluate, train_in_imagination
from agents.values import critic
from agents.vec_env import ImaginedVecEnv
from agents.wrappers import HoldAction

__all__ = [
    "Cem",
    "CemConfig",
    "HoldAction",
    "Imagination",
    "ImaginationVideo",
    "ImaginedVecEnv",
    "InversePolicy",
    "InversePolicyConfig",
    "Mppi",
    "MppiConfig",
    "Plan",
    "Planner",
    "RandomAgent",
    "RandomShooting",
    "RandomShootingConfig",
    "SmallCnn",
    "TreeSearch",
    "TreeSearchConfig",
    "critic",
    "evaluate",
    "real_beside_imagined",
    "train_in_imagination",
]
