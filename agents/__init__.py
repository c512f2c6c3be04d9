"""Imagination for planners and Stable-Baselines3 agents; works with any world model.

>>> from agents import ImaginedVecEnv, RandomShooting, RandomShootingConfig
"""

from agents.adapt import adapt
from agents.imagination import Imagination
from agents.inverse_policy import InversePolicy, InversePolicyConfig
from agents.lookahead import LookaheadExtractor, LookaheadVecWrapper
from agents.monitoring.callbacks import AgentVideo, ImaginationVideo, ModelError, RealReturns
from agents.monitoring.comparison import compare, real_beside_imagined
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
from agents.policies import SmallCnn, load_policy, save_policy
from agents.training.dyna import (
    DynaCallback,
    DynaConfig,
    DynaResult,
    DynaRound,
    RecordEpisodes,
    RoundsConfig,
    merge_episodes,
    train_dyna,
)
from agents.training.train import evaluate, train_in_imagination
from agents.values import critic
from agents.vec_env import ImaginedVecEnv
from agents.wrappers import ChunkAction, HoldAction

__all__ = [
    "AgentVideo",
    "Cem",
    "CemConfig",
    "ChunkAction",
    "DynaCallback",
    "DynaConfig",
    "DynaResult",
    "DynaRound",
    "HoldAction",
    "Imagination",
    "ImaginationVideo",
    "ImaginedVecEnv",
    "InversePolicy",
    "InversePolicyConfig",
    "LookaheadExtractor",
    "LookaheadVecWrapper",
    "ModelError",
    "Mppi",
    "MppiConfig",
    "Plan",
    "Planner",
    "RandomAgent",
    "RandomShooting",
    "RandomShootingConfig",
    "RealReturns",
    "RecordEpisodes",
    "RoundsConfig",
    "SmallCnn",
    "TreeSearch",
    "TreeSearchConfig",
    "adapt",
    "compare",
    "critic",
    "evaluate",
    "load_policy",
    "merge_episodes",
    "real_beside_imagined",
    "save_policy",
    "train_dyna",
    "train_in_imagination",
]
