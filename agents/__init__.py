"""Imagination for planners and Stable-Baselines3 agents; works with any world model.

>>> from agents import ImaginedVecEnv, RandomShooting, RandomShootingConfig
"""

from typing import TYPE_CHECKING

from worldmodel.common.packages import lazy_names

if TYPE_CHECKING:
    from agents.adapter import adapt
    from agents.evaluation import evaluate
    from agents.goals import goal_reward
    from agents.imagination import Imagination
    from agents.inverse_policy import InversePolicy, InversePolicyConfig
    from agents.known_functions import KnownFunctions
    from agents.learned_masks import LegalActions, LegalActionsConfig
    from agents.lookahead import LookaheadVecWrapper
    from agents.lookahead_policy import LookaheadExtractor, LookaheadPolicy
    from agents.monitoring.callbacks import AgentVideo, ImaginationVideo, ModelError, RealReturns
    from agents.monitoring.comparison import Comparison, compare
    from agents.monitoring.video import LoggerVideos, VideoOutputFormat
    from agents.planners.base import Plan, Planner
    from agents.planners.random_shooting import RandomShooting, RandomShootingConfig
    from agents.planners.refining import Cem, CemConfig, Mppi, MppiConfig
    from agents.planners.tree_search import TreeSearch, TreeSearchConfig
    from agents.policies import SmallCnn, SmallMultiInput, load_policy, save_policy
    from agents.random_agent import RandomAgent
    from agents.replay_buffer import from_replay_buffer
    from agents.training.dyna.callback import DynaCallback, DynaConfig
    from agents.training.dyna.recorder import RecordEpisodes, merge_episodes
    from agents.training.dyna.rounds import DynaResult, DynaRound, RoundsConfig, train_dyna
    from agents.training.imagined_ppo import train_in_imagination
    from agents.training.online_planning import (
        OnlineConfig,
        PlannerResult,
        PlannerRound,
        train_planner,
    )
    from agents.values import critic
    from agents.vec_env import ImaginedVecEnv
    from agents.wrappers import ChunkAction, HoldAction
    from worldmodel.common.tensorboard import add_video
    from worldmodel.common.video import tile_videos, write_video

__all__ = [
    "AgentVideo",
    "Cem",
    "CemConfig",
    "ChunkAction",
    "Comparison",
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
    "KnownFunctions",
    "LegalActions",
    "LegalActionsConfig",
    "LoggerVideos",
    "LookaheadExtractor",
    "LookaheadPolicy",
    "LookaheadVecWrapper",
    "ModelError",
    "Mppi",
    "MppiConfig",
    "OnlineConfig",
    "Plan",
    "Planner",
    "PlannerResult",
    "PlannerRound",
    "RandomAgent",
    "RandomShooting",
    "RandomShootingConfig",
    "RealReturns",
    "RecordEpisodes",
    "RoundsConfig",
    "SmallCnn",
    "SmallMultiInput",
    "TreeSearch",
    "TreeSearchConfig",
    "VideoOutputFormat",
    "adapt",
    "add_video",
    "compare",
    "critic",
    "evaluate",
    "from_replay_buffer",
    "goal_reward",
    "load_policy",
    "merge_episodes",
    "save_policy",
    "tile_videos",
    "train_dyna",
    "train_in_imagination",
    "train_planner",
    "write_video",
]

_NAMES = {
    "agents.adapter": "adapt",
    "agents.evaluation": "evaluate",
    "agents.goals": "goal_reward",
    "agents.imagination": "Imagination",
    "agents.inverse_policy": "InversePolicy InversePolicyConfig",
    "agents.known_functions": "KnownFunctions",
    "agents.learned_masks": "LegalActions LegalActionsConfig",
    "agents.lookahead": "LookaheadVecWrapper",
    "agents.lookahead_policy": "LookaheadExtractor LookaheadPolicy",
    "agents.monitoring.callbacks": "AgentVideo ImaginationVideo ModelError RealReturns",
    "agents.monitoring.comparison": "Comparison compare",
    "agents.monitoring.video": "LoggerVideos VideoOutputFormat",
    "agents.planners.base": "Plan Planner",
    "agents.planners.random_shooting": "RandomShooting RandomShootingConfig",
    "agents.planners.refining": "Cem CemConfig Mppi MppiConfig",
    "agents.planners.tree_search": "TreeSearch TreeSearchConfig",
    "agents.policies": "SmallCnn SmallMultiInput load_policy save_policy",
    "agents.random_agent": "RandomAgent",
    "agents.replay_buffer": "from_replay_buffer",
    "agents.training.dyna.callback": "DynaCallback DynaConfig",
    "agents.training.dyna.recorder": "RecordEpisodes merge_episodes",
    "agents.training.dyna.rounds": "DynaResult DynaRound RoundsConfig train_dyna",
    "agents.training.imagined_ppo": "train_in_imagination",
    "agents.training.online_planning": "OnlineConfig PlannerResult PlannerRound train_planner",
    "agents.values": "critic",
    "agents.vec_env": "ImaginedVecEnv",
    "agents.wrappers": "ChunkAction HoldAction",
    "worldmodel.common.tensorboard": "add_video",
    "worldmodel.common.video": "tile_videos write_video",
}
"""Public names by module, imported on first use: commands show their help without torch and SB3."""
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)
