"""A run of an agent: its settings, its training in any of four ways, and the folder that keeps it.

The folder holds ``agent.zip`` (SB3's own format), ``agent.json`` (the settings), TensorBoard's
logs, and with Dyna the world model as it was in the end (``model``). Until then it holds
``begun.json`` and what the run goes on with, should it be killed: ``rounds`` of PPO with Dyna, else
``kept-*``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor

from agents.adapt import adapt
from agents.callbacks import AgentVideo, ImaginationVideo, ModelError, RealReturns
from agents.dyna import DynaCallback, DynaConfig, RecordEpisodes, RoundsConfig, train_dyna
from agents.dyna.rounds import stopped
from agents.keep import kept
from agents.lookahead import LookaheadExtractor, LookaheadVecWrapper
from agents.policies import SmallCnn
from agents.train import check_frame_stack, evaluate, make_ppo, torch_threads, train_in_imagination
from agents.wrappers import HoldAction
from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.data import Episodes
from worldmodel.files import atomic, discard, locked
from worldmodel.reading import read_json
from worldmodel.registry import make
from worldmodel.settings import at_least, from_json
from worldmodel.spec import Spec

FORMAT = 1
BEGUN, DONE = "begun.json", "agent.json"
"""The settings, of a run that is not through, with the digest of its model, and of one that is;
both while it cleans up.
"""
RECORDED = 200_000
"""Real steps that Dyna keeps, the latest: 2.5 GB of 64 px frames."""
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "dqn": DQN, "sac": SAC}
ACTIONS: dict[str, type[gym.Space[Any]]] = {"dqn": gym.spaces.Discrete, "sac": gym.spaces.Box}
"""What they take; PPO takes any."""
How = Literal["imagination", "dyna", "lookahead", "real"]


@dataclass(frozen=True)
class RunConfig:
    """What is trained, and how.

    Attributes:
        env: Gymnasium id; ``MODULE:ID`` imports the module first.
        how: "imagination": PPO in ``ImaginedVecEnv``, without a real step; "dyna": on few real
            steps, in a world model of what was met so far; "lookahead": PPO on real observations
            that come with imagined jumps; "real": without a world model.
        algorithm: "ppo", "dqn" or "sac"; imagination and lookahead are for PPO.
        model: checkpoint folder, shipped name or hub id of the world model. Dyna begins with a
            fresh one where None.
        episodes: folder of recorded episodes, at whose steps imagined ones begin; None begins
            them where the environment is reset. Only with how="imagination".
        steps: decisions that the agent learns from: imagined ones with how="imagination", else
            real ones.
        hold: steps that an action is held.
        horizon: decisions of an imagined episode; None takes what fits the model's window.
        frame_stack: frames that the policy sees.
        num_envs: environments side by side; imagined ones with imagination and dyna.
        jumps: of lookahead, for each candidate action.
        window: steps that a fresh model looks across.
        fit_steps: training steps of a refit with dyna; the first has four times as many. 0 leaves
            the model as it is.
        fit_every: real decisions between refits.
        imagined_steps: decisions that PPO imagines for each refit, with dyna.
        ratio: imagined transitions for each real one, of DQN and SAC with dyna.
        size, pixels, grayscale: see ``agents.adapt``.
        seed: of everything random.
    """

    env: str
    how: How = "imagination"
    algorithm: Literal["ppo", "dqn", "sac"] = "ppo"
    model: str | None = None
    episodes: str | None = None
    steps: int = 30_000
    hold: int = 1
    horizon: int | None = None
    frame_stack: int = 1
    num_envs: int = 16
    jumps: int = 2
    window: int = 20
    fit_steps: int = 500
    fit_every: int = 1000
    imagined_steps: int = 20_000
    ratio: float = 4.0
    size: int = 64
    pixels: bool = False
    grayscale: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = "steps hold frame_stack num_envs jumps window fit_every imagined_steps"
        at_least(1, self, *numbers.split())
        at_least(0, self, "fit_steps", "ratio", "seed")
        if self.how not in ("imagination", "dyna", "lookahead", "real"):
            raise ValueError(
                f"how: expected imagination, dyna, lookahead or real, got {self.how!r}"
            )
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: expected ppo, dqn or sac, got {self.algorithm!r}")
        if self.how in ("imagination", "lookahead"):
            if self.algorithm != "ppo":
                raise ValueError(f"algorithm: {self.how} is for ppo, got {self.algorithm}")
            if self.model is None:
                raise ValueError(
                    f"model: {self.how} needs a trained world model; python -m worldmodel train "
                    "makes one, and --how dyna begins without"
                )
        if self.how == "dyna" and self.model is None and self.fit_steps == 0:
            raise ValueError("fit_steps: a fresh model has to be fitted, got 0; or give a model")
        if self.episodes is not None and self.how != "imagination":
            raise ValueError(f"episodes: are for how='imagination', got {self.how!r}")

    def make_env(self) -> gym.Env[Any, Any]:
        """The real environment, without ``HoldAction``."""
        return adapt(self.env, self.size, self.pixels, self.grayscale)

    def wrap(self, model: WorldModel | None) -> Callable[[VecEnv], VecEnv] | None:
        """What goes around the real environments, for ``evaluate``; None if nothing does."""
        if self.how != "lookahead" or model is None:
            return None
        return partial(
            LookaheadVecWrapper, model=model, jumps=self.jumps, hold=self.hold, seed=self.seed
        )

    def play(self, agent: Any, model: WorldModel | None, episodes: int, seed: int) -> NDArray[Any]:
        """Returns of real episodes; see ``evaluate``."""
        return evaluate(
            agent, self.make_env, episodes, seed=seed, hold=self.hold,
            frame_stack=self.frame_stack, wrap=self.wrap(model), progress=True,
        )  # fmt: skip


def train(
    config: RunConfig,
    folder: str | Path,
    device: str = "cpu",
    threads: int = 1,
    evaluate_every: int = 10_000,
    progress: bool = False,
) -> BaseAlgorithm:
    """Train an agent as the config says, and keep it in the folder.

    A run that was stopped or killed goes on where it was kept last: PPO with Dyna after its last
    round, others with the agent of at most ``KEEP_MINUTES`` before.

    Args:
        config: see ``RunConfig``.
        folder: must not hold an agent yet.
        device: of the world model.
        threads: of torch, on the CPU.
        evaluate_every: decisions between real evaluations for TensorBoard; 0 for none.
        progress: show progress bars.

    Raises:
        FileExistsError: there is an agent in the folder already.
        BlockingIOError: another run is at work in the folder.
        FileNotFoundError: no such checkpoint, or no such episodes.
        ValueError: a number is out of range; settings, spaces, algorithm and model do not fit each
            other; the device is not there; or something of a run with other settings, or another
            checkpoint of the same name, is kept in the folder.
        OSError: the disk is full, say; what was kept last is still there.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the agent has been kept, with Dyna for PPO as it was
            after its last round.
    """
    for name, value, least in (("threads", threads, 1), ("evaluate_every", evaluate_every, 0)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    folder = Path(folder)
    with locked(folder):
        going_on = _goes_on(config, folder)
        if (folder / DONE).exists():  # killed while it cleaned up
            agent, _ = load(folder)
        else:
            spec, model = _checked(config, device)
            if not going_on:  # noted last: settings that are refused are none to go on with
                _note(config, folder / BEGUN, digest=_digest(config))
            agent = _train(config, spec, model, folder, threads, evaluate_every, progress)
        for path in folder.glob("kept-*"):
            discard(path)
        (folder / BEGUN).unlink()
        return agent


def _goes_on(config: RunConfig, folder: Path) -> bool:
    """Whether the folder holds something of a run with these settings, to go on with."""
    done, path = (folder / DONE).exists(), folder / BEGUN
    if done and not path.exists():
        raise FileExistsError(f"folder: {folder} already holds an agent; choose a new one")
    kept = any(found for what in ("kept-*", "rounds/round-*") for found in folder.glob(what))
    if not (path.exists() and (done or kept)):
        return False
    before = read_json(path)
    for name, value in asdict(config).items():
        if before.get(name) != value:
            raise ValueError(
                f"{name}: a run was begun in {folder} with {before.get(name)!r}, now it is "
                f"{value!r}; give the same to go on with it, or choose another folder"
            )
    # Earlier versions noted no digest; and who only cleans up needs no model.
    if not done and "digest" in before and before["digest"] != _digest(config):
        raise ValueError(
            f"model: what is in {config.model} has changed since the run in {folder} was begun "
            "with it; put back what was there to go on, or choose another folder"
        )
    return True


def _digest(config: RunConfig) -> str | None:
    return None if config.model is None else checkpoint.digest(config.model)


def _checked(config: RunConfig, device: str) -> tuple[Spec, WorldModel | None]:
    """What the run is about, and its world model; ValueError where they do not fit each other."""
    checkpoint.check_device(device)  # also where no world model will be on it
    model = None if config.model is None else checkpoint.load(config.model, device)
    with closing(config.make_env()) as env:
        if model is not None:
            spec = model.spec
            spec.check_spaces(env.observation_space, env.action_space, "env")
        else:
            spec = Spec.from_spaces(env.observation_space, env.action_space, config.window)
        _check_algorithm(config.algorithm, env.action_space)
    check_frame_stack(spec, config.frame_stack)
    if model is None and config.how == "dyna":
        model = make("jump", spec, seed=config.seed).to(device)
    return spec, model


def _check_algorithm(algorithm: str, actions: gym.Space[Any]) -> None:
    """SB3 itself would only fail an assertion."""
    fitting = [name for name in ALGORITHMS if isinstance(actions, ACTIONS.get(name, gym.Space))]
    if algorithm not in fitting:
        raise ValueError(
            f"algorithm: {algorithm} is for {ACTIONS[algorithm].__name__} actions, those of env "
            f"are {actions}; expected {' or '.join(fitting)}"
        )


def _note(config: RunConfig, path: Path, **more: str | None) -> None:
    facts = {"format": FORMAT, **asdict(config), **more}
    with atomic(path) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n")


def _train(
    config: RunConfig,
    spec: Spec,
    model: WorldModel | None,
    folder: Path,
    threads: int,
    evaluate_every: int,
    progress: bool,
) -> BaseAlgorithm:
    with torch_threads(threads):
        agent = _WAYS[config.how](config, spec, model, folder, evaluate_every, progress)
    with atomic(folder / "agent.zip") as path:
        agent.save(path)
    if config.how == "dyna" and model is not None:
        checkpoint.save(model, folder / "model", training={"run": str(folder.name)})
    _note(config, folder / DONE)
    return agent


def load(folder: str | Path) -> tuple[BaseAlgorithm, RunConfig]:
    """What ``train`` kept. Load only agents that you trust: this can run code.

    SB3's ``agent.zip`` is unpickled, and ``agent.json`` names an environment whose module is
    imported. To take over a stranger's policy, let them give you its weights alone: see
    ``save_policy`` and ``load_policy``.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: another format, or settings that are none.
    """
    folder = Path(folder)
    path = folder / DONE
    if not path.exists():
        raise FileNotFoundError(
            f"folder: {folder} holds no agent.json; python -m agents train makes one"
        )
    facts = read_json(path)
    if facts.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: another format than {FORMAT}")
    try:
        config = from_json(RunConfig, facts)
    except ValueError as error:
        raise ValueError(f"{path}: settings do not fit: {error}") from error
    return ALGORITHMS[config.algorithm].load(folder / "agent.zip", device="cpu"), config


# -- the four ways ------------------------------------------------------------------------------


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


_WAYS: dict[str, Callable[..., BaseAlgorithm]] = {
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
