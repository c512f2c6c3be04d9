"""The methods by which an agent of a run learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor

from agents.monitoring.callbacks import AgentVideo, ImaginationVideo, ModelError, RealReturns
from agents.monitoring.progress import ProgressBar
from agents.planners.base import Planner
from agents.recipes.imagined import Imagined, ImaginedPpo, ImaginedReplay
from agents.training.dyna.callback import DynaCallback, DynaConfig
from agents.training.dyna.recorder import RecordEpisodes
from agents.training.dyna.rounds import DynaResult, RoundsConfig, train_dyna
from agents.training.dyna.run_rounds import stopped_message
from agents.training.imagined_ppo import (
    make_ppo,
    policy_name,
    small_extractor,
    train_in_imagination,
)
from agents.training.online_planning import OnlineConfig, PlannerResult, train_planner
from agents.training.resume import checkpointed
from agents.training.run_config import RunConfig
from agents.wrappers import HoldAction
from worldmodel.base import WorldModel
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec

DYNA_EVERY = 1000
"""Real decisions between refits with Dyna."""
MAX_RECORDED_STEPS = 200_000
"""Real steps that Dyna records, the latest: 2.5 GB of 64 px frames."""


@dataclass(frozen=True)
class Job:
    """What a method needs: the settings, the environment's spec and, maybe, a world model and a
    recipe.
    """

    config: RunConfig
    spec: Spec
    model: WorldModel | None
    folder: Path
    evaluate_every: int
    progress: bool
    recipe: Imagined | None = None

    def learn(self, agent: BaseAlgorithm, dyna: DynaCallback | None = None) -> BaseAlgorithm:
        """Let the agent learn, with checkpoints and callbacks."""
        callbacks = ([] if dyna is None else [dyna]) + _callbacks(self)
        with checkpointed(self.folder, callbacks, dyna) as callbacks:
            bar = ProgressBar(self.config.method, self.progress)
            agent.learn(self.config.decisions, callback=[*callbacks, bar])
        return agent

    def in_rounds(self, learn: Callable[..., Any]) -> Any:
        """What ``train_dyna`` or ``train_planner`` returns, in a folder of rounds."""
        config, folder = self.config, self.folder / "rounds"
        try:
            return learn(
                env=config.make_env, real_steps=config.decisions * config.hold, folder=folder,
                resume=any(folder.glob("round-*")), tensorboard_log=str(self.folder),
                callback=_callbacks(self), progress=self.progress,
            )  # fmt: skip
        except KeyboardInterrupt as error:  # whose message names resume=True
            raise KeyboardInterrupt(stopped_message(folder, "the same command")) from error


def _imagination(job: Job) -> BaseAlgorithm:
    config, model = job.config, job.model
    assert model is not None
    starts = config.make_env if config.episodes is None else Episodes.load(config.episodes)
    with checkpointed(job.folder, _callbacks(job)) as callbacks:
        return train_in_imagination(
            model, starts, config.decisions, config.num_envs, config.hold, config.horizon,
            config.frame_stack, config.seed, callback=callbacks, tensorboard_log=str(job.folder),
            progress_bar=job.progress, wrap=config.wrap(model),
        )  # fmt: skip


def _lookahead(job: Job) -> BaseAlgorithm:
    return job.learn(make_ppo(job.spec, _real_envs(job), job.config.seed, str(job.folder)))


def _real(job: Job) -> BaseAlgorithm:
    job = replace(job, model=None)
    return job.learn(_algorithm(job, _real_envs(job)))


def _dyna(job: Job) -> BaseAlgorithm:
    config = job.config
    fit_steps = 500 if config.fit_steps is None else config.fit_steps
    shared: dict[str, Any] = {
        "first_fit_steps": 4 * fit_steps,
        "fit_steps": fit_steps,
        "hold": config.hold,
        "seed": config.seed,
    }
    return (_dyna_rounds if config.algorithm == "ppo" else _dyna_replay)(job, shared)


def _dyna_rounds(job: Job, shared: dict[str, Any]) -> BaseAlgorithm:
    config = job.config
    every = DYNA_EVERY if config.fit_every is None else config.fit_every
    rounds = RoundsConfig(
        **shared,
        num_envs=config.num_envs,
        first_collect_steps=2 * every * config.hold,
        collect_steps=every * config.hold,
        imagined_steps=config.imagined_steps,
        horizon=config.horizon,
        frame_stack=config.frame_stack,
    )
    return _rounds(job, rounds, {})


def _rounds(job: Job, rounds: RoundsConfig, arguments: Mapping[str, Any]) -> BaseAlgorithm:
    assert job.model is not None
    learn = partial(train_dyna, job.model, config=rounds, **arguments)
    result: DynaResult = job.in_rounds(learn)
    return result.agent


def _planner(job: Job) -> Planner:
    config, model = job.config, job.model
    assert model is not None
    given: dict[str, int] = {}
    if config.fit_steps is not None:
        given |= {"fit_steps": config.fit_steps, "first_fit_steps": 4 * config.fit_steps}
    if config.fit_every is not None:
        given["refit_every"] = config.fit_every * config.hold
    online = OnlineConfig(**given, seed=config.seed)
    learn = partial(train_planner, model, planner=config.planner_config, config=online)
    result: PlannerResult = job.in_rounds(learn)
    return result.planner


def _dyna_replay(job: Job, shared: dict[str, Any]) -> BaseAlgorithm:
    config, model = job.config, job.model
    assert model is not None
    recorder = RecordEpisodes(config.make_env(), max_steps=MAX_RECORDED_STEPS)
    every = DYNA_EVERY if config.fit_every is None else config.fit_every
    pictures = model.spec.is_image or model.spec.image_part is not None
    if pictures:  # 4096 branches of images at once need gigabytes
        shared["num_envs"] = config.num_envs
    settings = DynaConfig(
        **shared,
        start=every,
        every=every,
        branches=config.branches or (4 if pictures else 400),
        horizon=1 if config.horizon is None else config.horizon,
    )
    agent = _algorithm(job, _real_envs(job, recorder))
    return job.learn(agent, DynaCallback(model, recorder, settings, progress=job.progress))


def _auto(job: Job) -> BaseAlgorithm:
    """By the recipe."""
    recipe, seed, model = job.recipe, job.config.seed, job.model
    if isinstance(recipe, ImaginedPpo):
        return _rounds(job, replace(recipe.rounds, seed=seed), recipe.arguments)
    assert isinstance(recipe, ImaginedReplay) and model is not None
    recorder = RecordEpisodes(job.config.make_env(), max_steps=MAX_RECORDED_STEPS)
    agent = recipe.make(_real_envs(job, recorder), job.spec, seed, str(job.folder))
    dyna = replace(recipe.dyna, seed=seed)
    return job.learn(agent, DynaCallback(model, recorder, dyna, progress=job.progress))


METHODS: dict[str, Callable[[Job], BaseAlgorithm | Planner]] = {
    "auto": _auto,
    "imagination": _imagination,
    "dyna": _dyna,
    "planner": _planner,
    "lookahead": _lookahead,
    "real": _real,
}


def _real_envs(job: Job, recorder: RecordEpisodes | None = None) -> VecEnv:
    """Real environments as the agent sees them: the recorder, or as many as PPO learns in.

    DQN and SAC learn in one, so that they update as often for each step with Dyna and without.
    """
    config = job.config
    count = config.num_envs if config.algorithm == "ppo" else 1
    envs = [config.make_env() for _ in range(count)] if recorder is None else [recorder]
    venv: VecEnv = VecMonitor(DummyVecEnv([partial(HoldAction, env, config.hold) for env in envs]))
    wrap = config.wrap(job.model)
    if wrap is not None:
        venv = wrap(venv)
    return VecFrameStack(venv, config.frame_stack) if config.frame_stack > 1 else venv


def _algorithm(job: Job, venv: VecEnv) -> BaseAlgorithm:
    config, image = job.config, job.spec.is_image or job.spec.image_part is not None
    if config.algorithm == "ppo":
        return make_ppo(job.spec, venv, config.seed, str(job.folder))
    kwargs = {**small_extractor(job.spec), "net_arch": [64]} if image else {}
    settings: dict[str, Any] = {
        "buffer_size": 20_000 if image else 200_000,  # SB3's million of images are 25 GB and more
        "learning_starts": min(1000, config.decisions // 4),
        "policy_kwargs": kwargs,
        "seed": config.seed,
        "tensorboard_log": str(job.folder),
    }
    policy = policy_name(job.spec)
    if config.algorithm == "sac":
        return SAC(policy, venv, gradient_steps=config.updates, **settings)
    return DQN(
        policy, venv, learning_rate=5e-4, batch_size=64, train_freq=4,
        gradient_steps=4 * config.updates, target_update_interval=500, exploration_fraction=0.3,
        gamma=0.98, **settings,
    )  # fmt: skip


def _callbacks(job: Job) -> list[BaseCallback]:
    """The callbacks that write to TensorBoard; none if ``evaluate_every`` is 0."""
    config, model, every = job.config, job.model, job.evaluate_every
    if every == 0:
        return []
    settings: dict[str, Any] = {"hold": config.hold, "wrap": config.wrap(model)}
    stacked = {**settings, "frame_stack": config.frame_stack}
    callbacks: list[BaseCallback] = [RealReturns(config.make_env, every, 10, **stacked)]
    if job.spec.is_image:
        callbacks.append(AgentVideo(config.make_env, every, **stacked))
    if model is None:
        return callbacks
    callbacks.append(ModelError(config.make_env, model, every, **stacked))
    if model.spec.is_image:
        callbacks.append(ImaginationVideo(config.make_env, model, every, **settings))
    return callbacks
