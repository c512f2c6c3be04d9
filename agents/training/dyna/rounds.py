"""Dyna for PPO: rounds of real episodes, a refit of the model, and learning in imagination."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import MaybeCallback

from agents.known_functions import KnownFunctions
from agents.monitoring.progress import ProgressBar, one_callback
from agents.planners import planner_of
from agents.planners.base import PlannerConfig
from agents.random_agent import RandomAgent
from agents.starts import Starts
from agents.training.dyna.early_stop import StopImagining
from agents.training.dyna.refit import RefitConfig, model_error, refit
from agents.training.dyna.run_rounds import RoundsRun, run_rounds
from agents.training.imagined_ppo import (
    check_frame_stack,
    make_ppo,
    monitor_and_stack,
    ppo_settings,
    stackable_starts,
    torch_threads,
)
from agents.training.online_planning import OnlineConfig, train_planner
from agents.vec_env import ImaginedVecEnv
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least, numbers_at_least
from worldmodel.data.episodes import Episodes
from worldmodel.data.make_env import Env, EnvLike, open_env

CHANGEABLE = ("device", "verbose")
"""Settings of PPO that may change when a run is resumed, for example on another machine."""


@dataclass(frozen=True)
class RoundsConfig(RefitConfig):
    """Settings of a round of ``train_dyna``. See also ``RefitConfig``.

    The defaults are for vectors of a few numbers and an ensemble; images want more of everything.
    Imagined episodes should be long enough to show where a policy ends up: an agent of CartPole
    that imagined 50 decisions let the cart drift off the track, with 100 or 150 it did so less.

    Attributes:
        first_collect_steps: real steps of the first round, played at random or by an explorer.
        collect_steps: real steps of every later round, played by the policy of the round before. A
            round ends with an episode: it takes at least that many.
        imagined_steps: decisions that PPO learns from in every round, unless it stops early.
        stop_every: decisions between the looks by which it may; see ``StopImagining``.
        patience: looks without a rise of the imagined returns after which it stops; None: never.
        disagreement: how often the worlds' usual disagreement stops it; None: never.
        frame_stack: frames that the policy sees. With more than 1, imagined episodes begin at the
            first frames of recorded ones, since the frames before another step would be missing.
        threads: of torch, on the CPU, while PPO learns.
    """

    first_collect_steps: int = 500
    collect_steps: int = 250
    imagined_steps: int = 40_000
    stop_every: int = 2000
    patience: int | None = 10
    disagreement: float | None = 5.0
    num_envs: int = 32
    frame_stack: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "first_collect_steps", "collect_steps", "imagined_steps", "threads")
        at_least(1, self, "stop_every", *(["patience"] if self.patience is not None else []))
        if self.disagreement is not None and not self.disagreement > 0:
            raise ValueError(f"disagreement: expected above 0, or None, got {self.disagreement}")


@dataclass(frozen=True)
class DynaRound:
    """The results of a round.

    Attributes:
        real_steps: steps of the environment by its end, in all.
        episodes: real episodes that ended in it.
        real_return: their mean undiscounted return; None if there are none.
        imagined_steps: decisions that PPO has learned from by its end, in all.
        imagined_return: mean return of its last hundred imagined episodes; None if none ended.
        losses: of the world model, the last of this round's fit.
        error: the model's losses on this round's episodes before it was fitted to them; empty in
            the first round.
        stopped: why PPO stopped early, "returns" or "disagreement"; None if it did not.
        disagreement: of the worlds at the end, as a multiple of that at recorded steps; None where
            nobody looked, or the model is not stochastic.
    """

    real_steps: int
    episodes: int
    real_return: float | None
    imagined_steps: int
    imagined_return: float | None
    losses: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None
    disagreement: float | None = None

    def scalars(self) -> dict[str, float]:
        """The values to plot against the real steps, by name."""
        values = {"real_return": self.real_return, "imagined_return": self.imagined_return}
        values["disagreement"] = self.disagreement
        values |= {f"fit_{name}": value for name, value in self.losses.items()}
        values |= {f"error_{name}": value for name, value in self.error.items()}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class DynaResult:
    """The result of ``train_dyna``.

    Attributes:
        agent: plays ``HoldAction(env, hold)``, with ``frame_stack`` stacked frames.
        episodes: all real ones, with every step.
        rounds: one row for each round.
    """

    agent: PPO
    episodes: Episodes
    rounds: list[DynaRound]


def train_dyna(
    model: WorldModel,
    env: EnvLike,
    real_steps: int,
    config: RoundsConfig | None = None,
    *,
    known: KnownFunctions | None = None,
    explorer: PlannerConfig | None = None,
    explorer_config: OnlineConfig | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    tensorboard_log: str | None = None,
    callback: MaybeCallback = None,
    progress: bool = True,
    **settings: Any,
) -> DynaResult:
    """Train PPO on few real steps: it learns in a world model of the episodes so far.

    A round plays real episodes with the current policy (at random at first), refits the model to
    all episodes so far, and lets PPO learn in imagined episodes that begin at recorded steps. World
    model, episodes and PPO carry over from round to round. The seeds of the real episodes follow
    from ``seed`` and differ from those of ``evaluate``. The final policy is not evaluated here.

    Where random play never sees what is rewarded, the model cannot learn it, and PPO has nothing to
    imagine: let an ``explorer`` collect the first round, as ``train_planner`` does.

    Runs with the same seed are bit-identical, also if one is stopped and resumed.

    Args:
        model: of the environment's spaces; trained in place. See ``RefitConfig`` for vectors.
        env: without ``HoldAction``; see ``worldmodel.EnvLike``. One that is passed in stays open.
        real_steps: steps of the environment, exactly: the last episode is cut there.
        config: see ``RoundsConfig``.
        known: functions in place of the model's heads, in all imagined episodes. PPO itself takes
            no notice of ``action_mask``.
        explorer: a planner that collects the first round, for example
            ``CemConfig(curiosity=20.0)``; None for random play.
        explorer_config: its random steps, and its refits of the model; see ``OnlineConfig``. The
            seed is that of ``config``.
        folder: for the weights, episodes and results of each round.
        resume: continue after the last round in ``folder``, with the same arguments; ``real_steps``
            may be larger.
        tensorboard_log: folder of PPO's TensorBoard log, and of the rows (``dyna``, against real
            steps).
        callback: SB3 callbacks, for PPO.
        progress: show a progress bar of real steps, and of fits and imagination: on a terminal,
            else as a line every 30 s.
        settings: further arguments of PPO; they replace those of ``ppo_settings``.

    Raises:
        ValueError: ``real_steps`` is below 1, the environment's spaces are not the model's, what is
            imagined exceeds the model's window, ``explorer_config`` without ``explorer``, an
            explorer that does not suit the model or has nothing to teach it, or ``resume``
            without a folder or of another run: of another config or explorer, other functions or
            settings of PPO, another model or environment id.
        TypeError: ``known`` is no ``KnownFunctions``, or ``explorer`` no planner's config.
        FileExistsError: ``folder`` holds rounds and ``resume`` is False.
        BlockingIOError: another run is at work in ``folder``.
        FileNotFoundError: ``resume``, but there is no round.
        KeyboardInterrupt: Ctrl-C; the finished rounds are in ``folder``.
    """
    numbers_at_least(1, real_steps=real_steps)
    with open_env(env) as real_env:
        config = RoundsConfig() if config is None else config
        explores = _Explorer.of(model, explorer, explorer_config, config.seed)
        run = _Rounds(model, real_env, config, known, callback, explores)
        run.make_agent(tensorboard_log, settings)
        run_rounds(run, real_steps, folder, resume, tensorboard_log, progress)
    return DynaResult(run.agent, run.to_episodes(run.episodes), run.rows)


@dataclass(frozen=True)
class _Explorer:
    """The planner of the first round, and its refits."""

    planner: PlannerConfig
    config: OnlineConfig

    @staticmethod
    def of(
        model: WorldModel, planner: PlannerConfig | None, config: OnlineConfig | None, seed: int
    ) -> _Explorer | None:
        if planner is None:
            if config is not None:
                raise ValueError("explorer_config: needs an explorer; give one, or leave it away")
            return None
        if not isinstance(planner, PlannerConfig):
            raise TypeError(
                "explorer: expected settings of a planner such as CemConfig(curiosity=20.0), got "
                f"{type(planner).__name__}"
            )
        if not model.trainable:
            raise ValueError(
                f"explorer: collects what {model.name} is to learn, but that has nothing to learn; "
                "leave the explorer away"
            )
        planner_of(planner, model)  # raises where it does not suit the model
        return _Explorer(planner, replace(config or OnlineConfig(), seed=seed))

    def settings(self) -> dict[str, Any]:
        return {
            "explorer": {"kind": type(self.planner).__name__, **asdict(self.planner)},
            "explorer_config": asdict(self.config),
        }


class _Rounds(RoundsRun):
    """The state of a run."""

    name: ClassVar[str] = "dyna"
    row_type: ClassVar[type[Any]] = DynaRound
    agent: PPO

    def __init__(
        self,
        model: WorldModel,
        env: Env,
        config: RoundsConfig,
        known: KnownFunctions | None,
        callback: MaybeCallback,
        explorer: _Explorer | None,
    ) -> None:
        super().__init__(model, env, known)
        check_frame_stack(model.spec, config.frame_stack)
        self.config, self.callback, self.explorer = config, callback, explorer
        self.ppo_settings: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        ppo = {name: value for name, value in self.ppo_settings.items() if name not in CHANGEABLE}
        none: dict[str, Any] = {"explorer": {}, "explorer_config": {}}
        explorer = none if self.explorer is None else self.explorer.settings()
        return {"config": asdict(self.config), "ppo": ppo, **explorer}

    def save(self, folder: Path) -> list[str]:
        self.agent.save(folder / "agent.zip")
        return ["agent.zip"]

    def restore(self, folder: Path) -> None:
        self.agent.set_parameters(str(folder / "agent.zip"))
        self.agent.num_timesteps = self.rows[-1].imagined_steps

    def end(self) -> None:
        """PPO is as its last round left it."""

    def make_agent(self, tensorboard_log: str | None, settings: dict[str, Any]) -> None:
        """Make a fresh PPO, with an environment that only has the spaces; each round makes the one
        that PPO learns in.
        """
        self.ppo_settings = {**ppo_settings(self.model.spec), **settings}
        shape, dtype = self.model.spec.border
        venv = monitor_and_stack(
            self._imagined(np.zeros((1, *shape), dtype)), self.config.frame_stack
        )
        self.agent = make_ppo(self.model.spec, venv, self.config.seed, tensorboard_log, **settings)

    def play_on(self, left: int) -> bool:
        config, number, first = self.config, len(self.rows), not self.rows
        # All randomness of a round follows from its number, so that a resumed run is identical.
        self.agent.set_random_seed(config.seed + number)
        wanted = config.first_collect_steps if first else config.collect_steps
        if first and self.explorer is not None:
            self._explore(self.explorer, min(left, wanted))
        else:
            player = RandomAgent(self.env.action_space, config.seed) if first else self.agent
            self.collect(player, wanted, left, config.seed, config.hold, config.frame_stack)
        error = model_error(self.model, self.to_episodes(self.fresh), config) if not first else {}
        self.episodes += self.fresh
        recorded = self.to_episodes(self.episodes)
        losses = refit(self.model, recorded, config, number, self.progress)
        imagined_return, stop = self._learn(recorded)
        self.rows.append(
            DynaRound(
                self.real_steps + sum(len(episode.actions) for episode in self.fresh),
                len(self.ended),
                float(np.mean([total for _, total in self.ended])) if self.ended else None,
                self.agent.num_timesteps,
                imagined_return,
                losses,
                error,
                stop.reason,
                stop.disagreement,
            )
        )
        return True

    def _explore(self, explorer: _Explorer, steps: int) -> None:
        result = train_planner(
            self.model, self.env, steps, explorer.planner, explorer.config, known=self.known,
            progress=self.progress,
        )  # fmt: skip
        self.fresh, self.ended = list(result.episodes), result.returns

    def _learn(self, recorded: Episodes) -> tuple[float | None, StopImagining]:
        """Train PPO in imagination: the mean return of its last episodes there, and its end."""
        config = self.config
        starts = stackable_starts(recorded, config.frame_stack > 1)
        imagined = self._imagined(starts)
        stop = StopImagining(
            imagined, recorded, config.stop_every, config.patience, config.disagreement,
            config.seed + len(self.rows),
        )  # fmt: skip
        self.agent.set_env(monitor_and_stack(imagined, config.frame_stack))
        if self.agent.ep_info_buffer is not None:
            self.agent.ep_info_buffer.clear()
        bar = ProgressBar("imagine", self.progress, leave=False)
        with torch_threads(config.threads):
            self.agent.learn(
                config.imagined_steps, [stop, one_callback(self.callback), bar],
                reset_num_timesteps=not self.rows,
            )  # fmt: skip
        returns = [float(info["r"]) for info in self.agent.ep_info_buffer or ()]
        return float(np.mean(returns)) if returns else None, stop

    def _imagined(self, starts: Starts) -> ImaginedVecEnv:
        return self.config.imagined_env(
            self.model, starts, len(self.rows), self.known, stagger=True
        )
