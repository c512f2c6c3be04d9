"""Settings of Stable-Baselines3's algorithms on real steps, as RL Baselines3 Zoo tuned them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from worldmodel.common.config_checks import above_zero, at_least
from worldmodel.data.make_env import EnvLike, make_env

Algorithm = Literal["ppo", "dqn", "sac"]
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "dqn": DQN, "sac": SAC}


@dataclass(frozen=True)
class Linear:
    """A schedule of SB3: ``initial`` at first, and 0 after the last step.

    Attributes:
        initial: above 0.
    """

    initial: float

    def __post_init__(self) -> None:
        above_zero(self, "initial")

    def __call__(self, remaining: float) -> float:
        """The value with this share of the steps left, from 1 down to 0."""
        return self.initial * remaining


@dataclass(frozen=True)
class ModelFree:
    """An algorithm that learns from real steps alone.

    Attributes:
        algorithm: "ppo", "dqn" or "sac".
        steps: real steps that RL Zoo trains for; schedules such as ``Linear`` refer to them.
        num_envs: environments side by side.
        normalise: let ``VecNormalize`` standardise observations and scale rewards.
        settings: arguments of the algorithm that differ from SB3's defaults.
    """

    algorithm: Algorithm
    steps: int
    num_envs: int = 1
    normalise: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "num_envs")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: expected {', '.join(ALGORITHMS)}, got {self.algorithm!r}")

    def make(
        self, env: EnvLike, seed: int = 0, tensorboard_log: str | None = None
    ) -> BaseAlgorithm:
        """The algorithm, untrained, in ``num_envs`` environments of its own.

        Args:
            env: Gymnasium id, or function that makes the environment.
            seed: of the algorithm and of its environments.
            tensorboard_log: folder of TensorBoard's log.

        Raises:
            ValueError: ``env`` is one environment, and more than one is needed.
        """
        if self.num_envs > 1 and not (isinstance(env, str) or callable(env)):
            raise ValueError(
                f"env: {self.num_envs} environments are needed; give an id or a function that "
                "makes one"
            )
        venv: VecEnv = VecMonitor(DummyVecEnv([partial(make_env, env)] * self.num_envs))
        if self.normalise:
            venv = VecNormalize(venv, gamma=self.settings.get("gamma", 0.99))
        return ALGORITHMS[self.algorithm](
            "MlpPolicy", venv, seed=seed, tensorboard_log=tensorboard_log, device="cpu",
            **self.settings,
        )  # fmt: skip


def normaliser(agent: BaseAlgorithm) -> Callable[[VecEnv], VecEnv] | None:
    """The ``wrap`` of ``agents.evaluate`` for an agent that learned in ``VecNormalize``.

    Observations are standardised with the statistics of training, which do not change by it. None
    if the agent learned without.
    """
    trained = agent.get_vec_normalize_env()
    if trained is None:
        return None

    def wrap(venv: VecEnv) -> VecEnv:
        wrapped = VecNormalize(venv, training=False, norm_reward=False)
        wrapped.obs_rms = trained.obs_rms
        return wrapped

    return wrap


def _mlp(*sizes: int, **more: Any) -> dict[str, Any]:
    return {"policy_kwargs": {"net_arch": [*sizes], **more}}


_RELU_256: dict[str, Any] = {
    "log_std_init": -2.0,
    "ortho_init": False,
    "activation_fn": torch.nn.ReLU,
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}

_LANDER_DQN = ModelFree(  # tuned for Acrobot and LunarLander alike
    "dqn", 100_000,
    settings={
        "learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000, "learning_starts": 0,
        "gamma": 0.99, "target_update_interval": 250, "train_freq": 4, "gradient_steps": -1,
        "exploration_fraction": 0.12, "exploration_final_eps": 0.1, **_mlp(256, 256),
    },
)  # fmt: skip
_LANDER_PPO = ModelFree(
    "ppo", 1_000_000, num_envs=16,
    settings={
        "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4,
        "ent_coef": 0.01,
    },
)  # fmt: skip
_MUJOCO_SAC = ModelFree("sac", 1_000_000, settings={"learning_starts": 10_000})
_SMALL_SAC = ModelFree("sac", 100_000, settings={"learning_starts": 1000})  # not of RL Zoo


def _mujoco_ppo(**settings: Any) -> ModelFree:
    return ModelFree("ppo", 1_000_000, normalise=True, settings=settings)


TUNED: dict[str, tuple[ModelFree, ...]] = {
    "CartPole-v1": (
        ModelFree(
            "ppo", 100_000, num_envs=8,
            settings={
                "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
                "ent_coef": 0.0, "learning_rate": Linear(1e-3), "clip_range": Linear(0.2),
            },
        ),
        ModelFree(
            "dqn", 50_000,
            settings={
                "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000,
                "learning_starts": 1000, "gamma": 0.99, "target_update_interval": 10,
                "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
                "exploration_final_eps": 0.04, **_mlp(256, 256),
            },
        ),
    ),
    "Acrobot-v1": (
        _LANDER_DQN,
        ModelFree(
            "ppo", 1_000_000, num_envs=16, normalise=True,
            settings={
                "n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0
            },
        ),
    ),
    "Pendulum-v1": (
        ModelFree("sac", 20_000, settings={"learning_rate": 1e-3}),
        ModelFree(
            "ppo", 100_000, num_envs=4,
            settings={
                "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "ent_coef": 0.0,
                "learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True, "sde_sample_freq": 4,
            },
        ),
    ),
    "MountainCar-v0": (
        ModelFree(
            "dqn", 120_000,
            settings={
                "learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000,
                "learning_starts": 1000, "gamma": 0.98, "target_update_interval": 600,
                "train_freq": 16, "gradient_steps": 8, "exploration_fraction": 0.2,
                "exploration_final_eps": 0.07, **_mlp(256, 256),
            },
        ),
        ModelFree(
            "ppo", 1_000_000, num_envs=16, normalise=True,
            settings={
                "n_steps": 16, "gae_lambda": 0.98, "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0
            },
        ),
    ),
    "MountainCarContinuous-v0": (
        ModelFree(
            "sac", 50_000,
            settings={
                "learning_rate": 3e-4, "buffer_size": 50_000, "batch_size": 512, "ent_coef": 0.1,
                "train_freq": 32, "gradient_steps": 32, "gamma": 0.9999, "tau": 0.01,
                "learning_starts": 0, "use_sde": True, **_mlp(64, 64, log_std_init=-3.67),
            },
        ),
        ModelFree(
            "ppo", 20_000, normalise=True,
            settings={
                "batch_size": 256, "n_steps": 8, "gamma": 0.9999, "learning_rate": 7.77e-5,
                "ent_coef": 0.00429, "clip_range": 0.1, "n_epochs": 10, "gae_lambda": 0.9,
                "max_grad_norm": 5.0, "vf_coef": 0.19, "use_sde": True,
                "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
            },
        ),
    ),
    "LunarLander-v3": (_LANDER_DQN, _LANDER_PPO),
    "LunarLanderContinuous-v3": (
        ModelFree(
            "sac", 500_000,
            settings={
                "learning_rate": Linear(7.3e-4), "batch_size": 256, "tau": 0.01,
                "learning_starts": 10_000, **_mlp(400, 300),
            },
        ),
        _LANDER_PPO,
    ),
    "InvertedPendulum-v5": (
        _SMALL_SAC,
        _mujoco_ppo(
            batch_size=64, n_steps=32, gamma=0.999, learning_rate=2.22425e-4,
            ent_coef=1.37976e-7, clip_range=0.4, n_epochs=5, gae_lambda=0.9, max_grad_norm=0.3,
            vf_coef=0.19816,
        ),
    ),
    "Reacher-v5": (
        _SMALL_SAC,
        _mujoco_ppo(
            batch_size=32, n_steps=512, gamma=0.9, learning_rate=1.04019e-4, ent_coef=7.52585e-8,
            clip_range=0.3, n_epochs=5, gae_lambda=1.0, max_grad_norm=0.9, vf_coef=0.950368,
        ),
    ),
    "Hopper-v5": (
        _MUJOCO_SAC,
        _mujoco_ppo(
            batch_size=32, n_steps=512, gamma=0.999, learning_rate=9.80828e-5, ent_coef=0.00229519,
            clip_range=0.2, n_epochs=5, gae_lambda=0.99, max_grad_norm=0.7, vf_coef=0.835671,
            policy_kwargs=_RELU_256,
        ),
    ),
    "HalfCheetah-v5": (
        _MUJOCO_SAC,
        _mujoco_ppo(
            batch_size=64, n_steps=512, gamma=0.98, learning_rate=2.0633e-5, ent_coef=0.000401762,
            clip_range=0.1, n_epochs=20, gae_lambda=0.92, max_grad_norm=0.8, vf_coef=0.58096,
            policy_kwargs=_RELU_256,
        ),
    ),
}  # fmt: skip
"""RL Zoo's settings by environment, the algorithm that needs the fewest real steps first.

From rl-baselines3-zoo: SAC and DQN of 22e3ff2, PPO of 208b6fd, where the MuJoCo environments are
older versions of the same tasks. RL Zoo has no SAC for InvertedPendulum and Reacher; those are
SB3's defaults, which begin to learn after 1,000 steps.
"""
