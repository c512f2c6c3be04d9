"""Plan online: a planner plays, and its model is refitted to what it has played so far."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.type_aliases import MaybeCallback

from agents.known_functions import KnownFunctions
from agents.monitoring.progress import one_callback
from agents.planners import planner_of
from agents.planners.base import Agent, Planner, PlannerConfig
from agents.planners.refining import CemConfig
from agents.random_agent import RandomAgent
from agents.training.dyna.recorder import RecordEpisodes
from agents.training.dyna.refit import FitConfig, model_error, refit
from agents.training.dyna.run_rounds import RoundsRun, run_rounds
from agents.training.imagined_ppo import torch_threads
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least, numbers_at_least
from worldmodel.data.episodes import Episodes
from worldmodel.data.make_env import Env, EnvLike, open_env

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

ONLINE_CEM = CemConfig(plans=50, worlds=5, horizon=25, iterations=3)
"""The planner of ``train_planner`` if none is given."""


@dataclass(frozen=True)
class OnlineConfig(FitConfig):
    """Settings of ``train_planner``, besides the planner's own. See also ``FitConfig``.

    Attributes:
        start_steps: real steps of the first round: random plans of the planner's kind (as long, as
            held and of the same colour), before there is a model.
        refit_every: real steps after which the model is refitted, within an episode, too. A round
            ends with the episode that reaches so many, and with a fit.
        threads: of torch, on the CPU.
    """

    first_fit_steps: int = 600
    fit_steps: int = 300
    start_steps: int = 200
    refit_every: int = 100
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "start_steps", "refit_every", "threads", "first_fit_steps", "fit_steps")


@dataclass(frozen=True)
class PlannerRound:
    """The results of a round.

    Attributes:
        real_steps: steps of the environment by its end, in all.
        returns: for each episode that ended in it, the real steps by then and its undiscounted
            return.
        fits: how often the model was fitted by its end, in all.
        losses: of the world model, the last of this round's last fit.
        error: the model's losses on this round's episodes before its last fit; empty in the first
            round. Steps that it was refitted to within the round count.
    """

    real_steps: int
    returns: tuple[tuple[int, float], ...]
    fits: int
    losses: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)

    @property
    def real_return(self) -> float | None:
        """The mean return of its episodes; None if none ended."""
        return float(np.mean([value for _, value in self.returns])) if self.returns else None

    def scalars(self) -> dict[str, float]:
        """The values to plot against the real steps, by name."""
        values = {} if self.real_return is None else {"real_return": self.real_return}
        values |= {f"fit_{name}": value for name, value in self.losses.items()}
        return values | {f"error_{name}": value for name, value in self.error.items()}


@dataclass(frozen=True)
class PlannerResult:
    """The result of ``train_planner``.

    Attributes:
        planner: plays ``HoldAction(env, planner.hold)`` with the model as it is at the end.
        episodes: all real ones, with every step.
        rounds: one row for each round.
    """

    planner: Planner
    episodes: Episodes
    rounds: list[PlannerRound]

    @property
    def returns(self) -> list[tuple[int, float]]:
        """For each real episode that ended, the real steps by then and its return."""
        return [pair for row in self.rounds for pair in row.returns]


def train_planner(
    model: WorldModel,
    env: EnvLike,
    real_steps: int,
    planner: PlannerConfig | None = None,
    config: OnlineConfig | None = None,
    *,
    known: KnownFunctions | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    tensorboard_log: str | None = None,
    callback: MaybeCallback = None,
    progress: bool = True,
) -> PlannerResult:
    """Learn a world model on few real steps, by planning in it (PETS, Chua et al. 2018, alg. 1).

    It plays at random first. Then it plans every decision in the model, which is refitted to all
    episodes so far every ``config.refit_every`` steps; there is no policy to be trained. Models
    that take single steps are made for it, such as ``make("ensemble", spec)`` for vectors. The
    seeds of the real episodes follow from ``config.seed`` and differ from those of ``evaluate``.
    Where the environment has ``action_masks()`` only legal actions are taken.

    Runs with the same seed are bit-identical, also if one is stopped and resumed.

    Args:
        model: of the environment's spaces; trained in place. Its window bounds the plans.
        env: without ``HoldAction``; see ``worldmodel.EnvLike``. One that is passed in stays open.
        real_steps: steps of the environment, exactly: the last episode is cut there.
        planner: settings of any planner, such as ``CemConfig`` or ``MppiConfig``; None takes
            ``CemConfig(plans=50, worlds=5, horizon=25, iterations=3)``. With its ``curiosity`` it
            collects, without it evaluates; the one that is returned has none.
        config: see ``OnlineConfig``.
        known: functions in place of the model's heads, in all plans.
        folder: for the weights, episodes and results of each round.
        resume: continue after the last round in ``folder``, with the same arguments; ``real_steps``
            may be larger.
        tensorboard_log: folder of the TensorBoard log (``planner``, against real steps).
        callback: SB3 callbacks, such as ``RealReturns``, ``ModelError`` and the videos; steps are
            real decisions. Their ``model`` is no algorithm: it has ``predict`` (random until the
            first fit), ``num_timesteps``, ``logger`` and the spaces. Training ends early where one
            returns False.
        progress: show a progress bar of real steps, and of fits: on a terminal, else as a line
            every 30 s.

    Raises:
        ValueError: ``real_steps`` is below 1, the environment's spaces are not the model's, plans
            do not fit the model's window, the model is not trainable, or ``resume`` without a
            folder or of another run: of another config, planner, model or environment id.
        TypeError: ``planner`` is no planner's config, or ``known`` no ``KnownFunctions``.
        FileExistsError: ``folder`` holds rounds and ``resume`` is False.
        BlockingIOError: another run is at work in ``folder``.
        FileNotFoundError: ``resume``, but there is no round.
        KeyboardInterrupt: Ctrl-C; the finished rounds are in ``folder``.

    Example::

        env = gym.make("CartPole-v1")
        model = make("ensemble", Spec.from_spaces(env.observation_space, env.action_space, 30))
        result = train_planner(model, env, 1500, CemConfig(horizon=30))
        evaluate(result.planner, "CartPole-v1", 20)
    """
    numbers_at_least(1, real_steps=real_steps)
    model.check_not_optimised("be trained")
    if not model.trainable:
        raise ValueError(f"model: {model.name} has nothing to learn; plan with it as it is")
    planner = ONLINE_CEM if planner is None else planner
    config = OnlineConfig() if config is None else config
    with open_env(env) as real_env, torch_threads(config.threads):
        run = _Run(model, real_env, planner, config, known, callback)
        run_rounds(run, real_steps, folder, resume, tensorboard_log, progress)
    return PlannerResult(
        planner_of(_incurious(planner), model, known=known),
        run.to_episodes(run.episodes),
        run.rows,
    )


def _incurious(planner: PlannerConfig) -> PlannerConfig:
    """The settings for playing as well as it can."""
    return replace(planner, curiosity=0.0)


class _Stopped(Exception):
    """A callback returned False."""


class _Run(RoundsRun):
    """The state of a run. Its ``predict`` chooses the real actions."""

    name: ClassVar[str] = "planner"
    row_type: ClassVar[type[Any]] = PlannerRound

    def __init__(
        self,
        model: WorldModel,
        env: Env,
        planner: PlannerConfig,
        config: OnlineConfig,
        known: KnownFunctions | None,
        callback: MaybeCallback,
    ) -> None:
        super().__init__(model, env, known)
        self.config, self.planner_config = config, planner
        self.planner = planner_of(planner, model, known=known)
        self.random = RandomAgent(
            env.action_space, config.seed, planner.horizon, planner.noise_exponent
        )
        self.fits, self._fitted = 0, 0  # and the steps of this round at the last fit
        self.learner = _Learner(self)
        self.callback = one_callback(callback)
        self._begun = False

    # -- rounds ----------------------------------------------------------------------------------

    def play_on(self, left: int) -> bool:
        config, number = self.config, len(self.rows)
        self._begin()
        # All randomness of a round follows from its number, so that a resumed run is identical.
        seed = int(np.random.default_rng([config.seed, number, 1]).integers(2**31))
        self.planner.set_random_seed(seed)
        self.random.set_random_seed(seed)
        self._fitted, stopped = 0, False
        wanted = config.refit_every if number else config.start_steps
        if number == 0:
            left = min(left, wanted)  # exactly so many
        try:
            self.collect(
                cast(Agent, self), wanted, left, config.seed,
                self.planner.hold, deterministic=True,
            )  # fmt: skip
            stopped = not self.callback.on_step()  # of the last decision
        except _Stopped:
            stopped = True
        fresh = self.to_episodes(self.fresh)
        error = model_error(self.model, fresh, config) if self.fits else {}
        losses = self._fit()
        self.episodes += self.fresh
        self.rows.append(
            PlannerRound(
                self.real_steps + self.recorder.total, tuple(self.ended), self.fits, losses, error
            )
        )
        self.recorder = RecordEpisodes(self.env)
        self.callback.on_rollout_end()
        return not stopped

    def settings(self) -> dict[str, Any]:
        planner = {"kind": type(self.planner).__name__, **asdict(self.planner_config)}
        return {"config": asdict(self.config), "planner": planner}

    def save(self, folder: Path) -> list[str]:
        return []  # all is in the rows

    def restore(self, folder: Path) -> None:
        self.fits = self.rows[-1].fits

    def _fit(self) -> dict[str, float]:
        """Fit the model to all episodes so far, those of this round, too."""
        every = self.to_episodes([*self.episodes, *self.recorder.recorded()])
        losses = refit(self.model, every, self.config, self.fits, self.progress)
        self.fits, self._fitted = self.fits + 1, self.recorder.total
        return losses

    # -- callbacks -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Tell the callbacks that a round begins, and before the first one that training does."""
        if not self._begun:
            self._begun = True
            if self.writer is not None:
                self.learner.logger = Logger(None, [_Output(self.writer)])
            self.callback.init_callback(cast(BaseAlgorithm, self.learner))
            self.callback.on_training_start({}, {})
        self.callback.on_rollout_start()

    def end(self) -> None:
        if self._begun:
            self.callback.on_training_end()

    # -- the agent that collects -----------------------------------------------------------------

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], Any]:
        """Refit the model if it is time to, and choose an action; see ``Planner.predict``."""
        if self.recorder.total and not self.callback.on_step():
            raise _Stopped
        if not self.rows:
            return self.random.predict(observation, state, action_masks=action_masks)
        if self.recorder.total - self._fitted >= self.config.refit_every:
            self._fit()
            state = None if state is None else state.observed_anew()
        return self.planner.predict(observation, state, episode_start, action_masks=action_masks)


class _Learner:
    """What callbacks take for the algorithm that learns.

    It plans with random numbers of its own, anew in each evaluation: what is measured changes
    nothing in the run, and is the same for the same weights.
    """

    def __init__(self, run: _Run) -> None:
        self.run, self.hold, self.seed = run, run.planner.hold, run.config.seed
        self.planner = planner_of(_incurious(run.planner_config), run.model, known=run.known)
        self.observation_space = self.planner.observation_space
        self.action_space = self.planner.action_space
        self.random = RandomAgent(self.action_space)
        self.logger = Logger(None, [])

    @property
    def num_timesteps(self) -> int:
        """Real steps so far."""
        return self.run.real_steps + self.run.recorder.total

    def get_env(self) -> None:
        """None: there are no environments side by side."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], Any]:
        """See ``Planner.predict``; random actions before the first fit."""
        agent: Planner | RandomAgent = self.planner if self.run.fits else self.random
        if state is None:
            agent.set_random_seed(self.seed)
        return agent.predict(observation, state, episode_start, deterministic, action_masks)


class _Output(TensorBoardOutputFormat):
    """SB3's output to a writer that is there already."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer, self._is_closed = writer, False
