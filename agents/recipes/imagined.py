"""Settings of the methods that learn a world model from few real steps and act by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.planners.base import PlannerConfig
from agents.recipes.model_free import ALGORITHMS, Algorithm
from agents.training.dyna.callback import DynaCallback, DynaConfig
from agents.training.dyna.recorder import RecordEpisodes
from agents.training.dyna.rounds import RoundsConfig, train_dyna
from agents.training.imagined_ppo import policy_name
from agents.training.online_planning import ONLINE_CEM, OnlineConfig, train_planner
from agents.wrappers import HoldAction
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least
from worldmodel.data.make_env import Env, EnvLike, open_env
from worldmodel.registry import make
from worldmodel.spec import Spec


@dataclass(frozen=True)
class Imagined(ABC):
    """A method with a world model, which begins with a fresh one.

    Attributes:
        steps: real steps that it is to take.
        window: steps that the model looks across; at least the horizon times the hold.
        model: name, as for ``worldmodel.make``: "auto" is an ensemble for vectors, JUMP for images.
        model_settings: that replace those of the model's preset.
    """

    steps: int
    window: int
    model: str = "auto"
    model_settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "window")

    def make_model(self, env: Env, seed: int = 0) -> WorldModel:
        """A fresh model of the environment's spaces."""
        spec = Spec.from_spaces(env.observation_space, env.action_space, self.window)
        model = make(self.model, spec, seed=seed)
        if not self.model_settings:
            return model
        config: Any = replace(model.config, **self.model_settings)
        return make(model.name, spec, config, seed=seed)

    @abstractmethod
    def learn(self, env: EnvLike, seed: int = 0, callback: BaseCallback | None = None) -> Any:
        """Learn with a fresh model.

        Args:
            env: see ``EnvLike``; without ``HoldAction``.
            seed: of everything random.
            callback: of SB3; its ``model`` has ``predict``.

        Returns:
            what plays ``HoldAction(env, hold)``.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the method: "dyna-ppo", "dyna-sac", "dyna-dqn" or "planner"."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What it does, in a few words."""

    @property
    def algorithm(self) -> Algorithm | None:
        """Of the policy; None for a planner."""
        return None

    @property
    @abstractmethod
    def hold(self) -> int:
        """Steps that an action is held."""

    @abstractmethod
    def settings_by_name(self) -> dict[str, Mapping[str, Any]]:
        """Its settings in groups, to be printed."""


@dataclass(frozen=True)
class ImaginedPpo(Imagined):
    """PPO in imagination: ``train_dyna``.

    Attributes:
        rounds: without the seed.
        explorer: collects the first round, with its planner and refits; None for random play.
        settings: of PPO, in place of ``train_dyna``'s.
    """

    name = "dyna-ppo"
    label = "PPO in imagination (train_dyna)"

    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    explorer: OnlinePlanner | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def algorithm(self) -> Algorithm:
        """PPO."""
        return "ppo"

    @property
    def arguments(self) -> dict[str, Any]:
        """Of ``train_dyna``, besides the rounds."""
        if self.explorer is None:
            return dict(self.settings)
        explorer = {"explorer": self.explorer.planner, "explorer_config": self.explorer.online}
        return {**explorer, **self.settings}

    def learn(self, env: EnvLike, seed: int = 0, callback: BaseCallback | None = None) -> Any:
        """See ``Imagined.learn``."""
        with open_env(env) as made:
            return train_dyna(
                self.make_model(made, seed), made, self.steps, replace(self.rounds, seed=seed),
                callback=callback, progress=False, **self.arguments,
            ).agent  # fmt: skip

    @property
    def hold(self) -> int:
        """See ``Imagined``."""
        return self.rounds.hold

    def settings_by_name(self) -> dict[str, Mapping[str, Any]]:
        """See ``Imagined``."""
        groups: dict[str, Mapping[str, Any]] = {"rounds": asdict(self.rounds), "PPO": self.settings}
        if self.explorer is not None:
            groups["explorer of the first round"] = asdict(self.explorer.planner)
        return groups


@dataclass(frozen=True)
class ImaginedReplay(Imagined):
    """SAC or DQN with imagined transitions: ``DynaCallback``.

    Attributes:
        kind: of the algorithm: "sac" or "dqn".
        dyna: without the seed.
        settings: of the algorithm, where they differ from SB3's defaults.
    """

    kind: Literal["sac", "dqn"] = "sac"
    dyna: DynaConfig = field(default_factory=DynaConfig)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("sac", "dqn"):
            raise ValueError(f"kind: expected 'sac' or 'dqn', got {self.kind!r}")

    @property
    def algorithm(self) -> Algorithm:
        """SAC or DQN."""
        return self.kind

    def make(
        self, venv: VecEnv | Env, spec: Spec, seed: int = 0, tensorboard_log: str | None = None
    ) -> OffPolicyAlgorithm:
        """The algorithm, untrained."""
        agent = ALGORITHMS[self.kind](
            policy_name(spec), venv, seed=seed, tensorboard_log=tensorboard_log, device="cpu",
            **self.settings,
        )  # fmt: skip
        assert isinstance(agent, OffPolicyAlgorithm)
        return agent

    def learn(self, env: EnvLike, seed: int = 0, callback: BaseCallback | None = None) -> Any:
        """See ``Imagined.learn``."""
        with open_env(env) as made:
            model, recorder = self.make_model(made, seed), RecordEpisodes(made)
            agent = self.make(HoldAction(recorder, self.hold), model.spec, seed)
            dyna = DynaCallback(model, recorder, replace(self.dyna, seed=seed))
            agent.learn(self.steps // self.hold, [dyna, *([] if callback is None else [callback])])
        return agent

    @property
    def name(self) -> str:
        """See ``Imagined``."""
        return f"dyna-{self.kind}"

    @property
    def label(self) -> str:
        """See ``Imagined``."""
        return f"{self.kind.upper()} on imagined branches (DynaCallback)"

    @property
    def hold(self) -> int:
        """See ``Imagined``."""
        return self.dyna.hold

    def settings_by_name(self) -> dict[str, Mapping[str, Any]]:
        """See ``Imagined``."""
        return {"Dyna": asdict(self.dyna), self.kind.upper(): self.settings}


@dataclass(frozen=True)
class OnlinePlanner(Imagined):
    """A planner whose model is refitted to what it plays: ``train_planner``.

    Attributes:
        planner: of any kind.
        online: without the seed.
    """

    name = "planner"
    label = "planning online (train_planner)"

    planner: PlannerConfig = ONLINE_CEM
    online: OnlineConfig = field(default_factory=OnlineConfig)

    def learn(self, env: EnvLike, seed: int = 0, callback: BaseCallback | None = None) -> Any:
        """See ``Imagined.learn``."""
        with open_env(env) as made:
            return train_planner(
                self.make_model(made, seed), made, self.steps, replace(self.planner, seed=seed),
                replace(self.online, seed=seed), callback=callback, progress=False,
            ).planner  # fmt: skip

    @property
    def hold(self) -> int:
        """See ``Imagined``."""
        return self.planner.hold

    def settings_by_name(self) -> dict[str, Mapping[str, Any]]:
        """See ``Imagined``."""
        kind = type(self.planner).__name__.removesuffix("Config")
        return {kind: asdict(self.planner), "refits": asdict(self.online)}
