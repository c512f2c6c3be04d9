"""The four ways in which an agent of a run learns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor

from agents.lookahead import LookaheadExtractor
from agents.monitoring.callbacks import AgentVideo, ImaginationVideo, ModelError, RealReturns
from agents.policies import SmallCnn
from agents.training.dyna import DynaCallback, DynaConfig, RecordEpisodes, RoundsConfig, train_dyna
from agents.training.dyna.rounds import stopped
from agents.training.resume import kept
from agents.training.run_config import RunConfig
from agents.training.train import make_ppo, train_in_imagination
from agents.wrappers import HoldAction
from worldmodel.base import WorldModel
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec

RECORDED = 200_000
"""Real steps that Dyna keeps, the latest: 2.5 GB of 64 px frames."""


def _imagination(
    config: RunConfig, spec: Spec, model: WorldModel, folder: Path, every: int, progress: bool
) -> BaseAlgorithm:
    starts = config.make_env() if config.episodes is None else Episodes.load(config.episodes)
    callbacks = _callbacks(config, model, every)
    with kept(folder, callbacks) as callbacks:
        return train_in_imagination(
            model, starts, config.steps, config.num_envs, config.hold, config.horizon,
            config.frame_stack, config.seed, callback=callbacks, tensorboard_log=str(folder),
            progress_bar=progress,
        )  # fmt: skip


def _lookahead(
    config: RunConfig, spec: Spec, model: WorldModel, folder: Path, every: int, progress: bool
) -> BaseAlgorithm:
    venv = _real_envs(config, model)
    policy = {"features_extractor_class": LookaheadExtractor, "net_arch": {"pi": [64], "vf": [64]}}
    agent = make_ppo(
        spec, venv, config.seed, str(folder), policy="MultiInputPolicy", policy_kwargs=policy
    )
    with kept(folder, _callbacks(config, model, every)) as callbacks:
        agent.learn(config.steps, callback=callbacks, progress_bar=progress)
    return agent


def _real(
    config: RunConfig,
    spec: Spec,
    model: WorldModel | None,
    folder: Path,
    every: int,
    progress: bool,
) -> BaseAlgorithm:
    venv = _real_envs(config, None)
    agent = _algorithm(config, spec, venv, folder)
    with kept(folder, _callbacks(config, None, every)) as callbacks:
        agent.learn(config.steps, callback=callbacks, progress_bar=progress)
    return agent


def _dyna(
    config: RunConfig, spec: Spec, model: WorldModel, folder: Path, every: int, progress: bool
) -> BaseAlgorithm:
    first = 4 * config.fit_steps
    if config.algorithm == "ppo":
        rounds = RoundsConfig(
            first_fit_steps=first,
            fit_steps=config.fit_steps,
            hold=config.hold,
            num_envs=config.num_envs,
            seed=config.seed,
            first_collect_steps=2 * config.fit_every * config.hold,
            collect_steps=config.fit_every * config.hold,
            imagined_steps=config.imagined_steps,
            horizon=config.horizon,
            frame_stack=config.frame_stack,
        )
        place = folder / "rounds"
        try:
            return train_dyna(
                model, config.make_env, config.steps * config.hold, rounds, folder=place,
                resume=any(place.glob("round-*")), tensorboard_log=str(folder),
                callback=_callbacks(config, model, every), progress=progress,
            ).agent  # fmt: skip
        except KeyboardInterrupt as error:  # which speaks of resume=True
            raise KeyboardInterrupt(stopped(place, "the same command")) from error
    recorder = RecordEpisodes(config.make_env(), max_steps=RECORDED)
    venv = _real_envs(config, None, recorder)
    agent = _algorithm(config, spec, venv, folder)
    settings = DynaConfig(
        first_fit_steps=first,
        fit_steps=config.fit_steps,
        hold=config.hold,
        num_envs=config.num_envs,
        seed=config.seed,
        start=config.fit_every,
        every=config.fit_every,
        ratio=config.ratio,
        horizon=2 if config.horizon is None else config.horizon,
    )
    dyna = DynaCallback(model, recorder, settings)
    with kept(folder, [dyna, *_callbacks(config, model, every)], dyna) as callbacks:
        agent.learn(config.steps, callback=callbacks, progress_bar=progress)
    return agent


WAYS: dict[str, Callable[..., BaseAlgorithm]] = {
    "imagination": _imagination,
    "dyna": _dyna,
    "lookahead": _lookahead,
    "real": _real,
}


def _real_envs(
    config: RunConfig, model: WorldModel | None, recorder: RecordEpisodes | None = None
) -> VecEnv:
    """Real environments as the agent sees them: the recorder, or as many as PPO learns in.

    DQN and SAC learn in one, so that they update as often for each step with Dyna and without.
    """
    count = config.num_envs if config.algorithm == "ppo" else 1
    envs = [config.make_env() for _ in range(count)] if recorder is None else [recorder]
    makers = [partial(HoldAction, env, config.hold) for env in envs]
    venv: VecEnv = VecMonitor(DummyVecEnv([*makers]))
    wrap = config.wrap(model)
    if wrap is not None:
        venv = wrap(venv)
    if config.frame_stack > 1:
        venv = VecFrameStack(venv, config.frame_stack)
    return venv


def _algorithm(config: RunConfig, spec: Spec, venv: VecEnv, folder: Path) -> BaseAlgorithm:
    if config.algorithm == "ppo":
        return make_ppo(spec, venv, config.seed, str(folder))
    image = spec.is_image
    kwargs = {"features_extractor_class": SmallCnn, "net_arch": [64]} if image else {}
    settings: dict[str, Any] = {
        "buffer_size": 20_000 if image else 200_000,  # SB3's million of images are 25 GB and more
        "learning_starts": min(1000, config.steps // 4),
        "policy_kwargs": kwargs,
        "seed": config.seed,
        "tensorboard_log": str(folder),
    }
    policy = "CnnPolicy" if image else "MlpPolicy"
    if config.algorithm == "sac":
        return SAC(policy, venv, **settings)
    return DQN(
        policy, venv, learning_rate=5e-4, batch_size=64, train_freq=4, gradient_steps=4,
        target_update_interval=500, exploration_fraction=0.3, gamma=0.98, **settings,
    )  # fmt: skip


def _callbacks(config: RunConfig, model: WorldModel | None, every: int) -> list[BaseCallback]:
    """What TensorBoard is shown; nothing where ``every`` is 0."""
    if every == 0:
        return []
    settings = {"hold": config.hold, "frame_stack": config.frame_stack}
    shown: list[BaseCallback] = [
        RealReturns(config.make_env, every, 10, wrap=config.wrap(model), **settings)
    ]
    if config.how == "lookahead":
        return shown  # films and the model's error need a policy that sees plain observations
    shape = (env := config.make_env()).observation_space.shape
    if shape is not None and len(shape) == 3:
        shown.append(AgentVideo(env, every, config.hold, config.frame_stack))
    if model is None:
        return shown
    shown.append(ModelError(config.make_env(), model, every, **settings))
    if model.spec.is_image:
        shown.append(ImaginationVideo(config.make_env(), model, every, config.hold))
    return shown
