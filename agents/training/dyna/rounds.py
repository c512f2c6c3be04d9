"""Dyna for PPO: rounds of real episodes, a refit of the model, and learning in imagination."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from agents.evaluate import play
from agents.known_functions import KnownFunctions, check_known
from agents.planners.base import Agent
from agents.random_agent import RandomAgent
from agents.starts import Starts
from agents.training.dyna.recorder import RecordEpisodes
from agents.training.dyna.refit import RefitConfig, model_error, refit
from agents.training.imagined_ppo import (
    PPO_SETTINGS,
    check_frame_stack,
    make_ppo,
    monitor_and_stack,
    stackable_starts,
    torch_threads,
)
from worldmodel.base import WorldModel
from worldmodel.checkpoint import load_weights, save
from worldmodel.common.config_checks import at_least, difference, from_json, numbers_at_least
from worldmodel.common.files import atomic, locked
from worldmodel.common.safe_files import read_json
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.data.make_env import Env, EnvLike, open_env

CHANGEABLE = ("device", "verbose")
"""Settings of PPO that may change when a run is resumed, for example on another machine."""


@dataclass(frozen=True)
class RoundsConfig(RefitConfig):
    """Settings of a round of ``train_dyna``. See also ``RefitConfig``.

    Attributes:
        first_collect_steps: real steps of the first round, played at random.
        collect_steps: real steps of every later round, played by the policy of the round before. A
            round ends with an episode: it takes at least that many.
        imagined_steps: decisions that PPO learns from in every round, at least.
        frame_stack: frames that the policy sees. With more than 1, imagined episodes begin at the
            first frames of recorded ones, since the frames before another step would be missing.
        threads: of torch, on the CPU, while PPO learns.
    """

    first_collect_steps: int = 2000
    collect_steps: int = 1000
    imagined_steps: int = 20_000
    frame_stack: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "first_collect_steps", "collect_steps", "imagined_steps", "threads")


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
    """

    real_steps: int
    episodes: int
    real_return: float | None
    imagined_steps: int
    imagined_return: float | None
    losses: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """The values to plot against the real steps, by name."""
        values = {"real_return": self.real_return, "imagined_return": self.imagined_return}
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

    Runs with the same seed are bit-identical, also if one is stopped and resumed.

    Args:
        model: of the environment's spaces; trained in place. See ``RefitConfig`` for vectors.
        env: without ``HoldAction``; see ``worldmodel.EnvLike``. One that is passed in stays open.
        real_steps: steps of the environment, exactly: the last episode is cut there.
        config: see ``RoundsConfig``.
        known: functions in place of the model's heads, in all imagined episodes. PPO itself takes
            no notice of ``action_mask``.
        folder: for the weights, episodes and results of each round.
        resume: continue after the last round in ``folder``, with the same arguments; ``real_steps``
            may be larger.
        tensorboard_log: folder of PPO's TensorBoard log, and of the rows (``dyna``, against real
            steps).
        callback: SB3 callbacks, for PPO.
        progress: show a progress bar of real steps on a terminal.
        settings: further arguments of PPO; they replace those of ``PPO_SETTINGS``.

    Raises:
        ValueError: ``real_steps`` is below 1, the environment's spaces are not the model's, what is
            imagined exceeds the model's window, or ``resume`` without a folder or of another run:
            of another config, other functions or settings of PPO, another model or environment id.
        TypeError: ``known`` is no ``KnownFunctions``.
        FileExistsError: ``folder`` holds rounds and ``resume`` is False.
        BlockingIOError: another run is at work in ``folder``.
        FileNotFoundError: ``resume``, but there is no round.
        KeyboardInterrupt: Ctrl-C; the finished rounds are in ``folder``.
    """
    numbers_at_least(1, real_steps=real_steps)
    if resume and folder is None:
        raise ValueError("resume: needs the folder of the run to go on with")
    with ExitStack() as opened:
        real_env = opened.enter_context(open_env(env))
        rounds = _Rounds(model, real_env, RoundsConfig() if config is None else config, known)
        rounds.make_agent(tensorboard_log, settings)
        writer, path = None, None if folder is None else Path(folder)
        if path is not None:
            opened.enter_context(locked(path))
            _check_folder(path, resume)
            if resume:
                _read_rounds(path, rounds)
        if tensorboard_log is not None:
            from torch.utils.tensorboard import SummaryWriter

            log = str(Path(tensorboard_log) / "dyna")
            writer = SummaryWriter(log, purge_step=rounds.real_steps + 1)
            opened.callback(writer.close)
        done, hide = rounds.real_steps, None if progress else True
        with tqdm(total=real_steps, initial=done, desc="dyna", unit="step", disable=hide) as bar:
            try:
                while rounds.real_steps < real_steps:
                    row = rounds.play_on(real_steps - rounds.real_steps, callback)
                    if path is not None:
                        _write_round(path, rounds)
                    if writer is not None:
                        for name, value in row.scalars().items():
                            writer.add_scalar(f"dyna/{name}", value, row.real_steps)
                    bar.update(row.real_steps - bar.n)
            except KeyboardInterrupt as error:  # maybe of a fit, whose message is about its steps
                if path is None:
                    raise
                raise KeyboardInterrupt(stopped_message(path, "resume=True")) from error
    return DynaResult(rounds.agent, rounds.to_episodes(rounds.episodes), rounds.rows)


class _Rounds:
    """The state of a run."""

    agent: PPO

    def __init__(
        self, model: WorldModel, env: Env, config: RoundsConfig, known: KnownFunctions | None
    ) -> None:
        self.known = check_known(known, model)
        model.spec.check_spaces(env.observation_space, env.action_space, "env")
        check_frame_stack(model.spec, config.frame_stack)
        self.model, self.env, self.config = model, env, config
        self.settings: dict[str, Any] = {}
        self.rows: list[DynaRound] = []
        self.episodes: list[Episode] = []
        self.fresh: list[Episode] = []  # those of the last round

    @property
    def real_steps(self) -> int:
        """Real steps of all rounds."""
        return self.rows[-1].real_steps if self.rows else 0

    def to_episodes(self, episodes: list[Episode]) -> Episodes:
        """The episodes with the model's spaces."""
        spec = self.model.spec
        return Episodes(episodes, spec.action, spec.observation_space())

    def make_agent(self, tensorboard_log: str | None, settings: dict[str, Any]) -> None:
        """Make a fresh PPO, with an environment that only has the spaces; each round makes the one
        that PPO learns in.
        """
        self.settings = {**PPO_SETTINGS, **settings}
        shape, dtype = self.model.spec.border
        venv = self._imagined(np.zeros((1, *shape), dtype))
        self.agent = make_ppo(self.model.spec, venv, self.config.seed, tensorboard_log, **settings)

    def play_on(self, left: int, callback: MaybeCallback) -> DynaRound:
        """One more round, of at most ``left`` real steps."""
        config, number = self.config, len(self.rows)
        # All randomness of a round follows from its number, so that a resumed run is identical.
        self.agent.set_random_seed(config.seed + number)
        returns = self._collect(left)
        error = model_error(self.model, self.to_episodes(self.fresh), config) if number else {}
        self.episodes += self.fresh
        recorded = self.to_episodes(self.episodes)
        losses = refit(self.model, recorded, config, number)
        imagined_return = self._learn(recorded, callback)
        self.rows.append(
            DynaRound(
                self.real_steps + sum(len(episode.actions) for episode in self.fresh),
                len(returns),
                float(np.mean(returns)) if returns else None,
                self.agent.num_timesteps,
                imagined_return,
                losses,
                error,
            )
        )
        return self.rows[-1]

    def _collect(self, left: int) -> list[float]:
        """Play this round's episodes, and return the returns of those that ended."""
        config, first = self.config, not self.rows
        player: Agent = RandomAgent(self.env.action_space, config.seed) if first else self.agent
        wanted = min(left, config.first_collect_steps if first else config.collect_steps)
        recorder, returns = RecordEpisodes(self.env), list[float]()
        while recorder.total < wanted:
            seed = _episode_seed(config.seed, len(self.episodes) + len(returns))
            steps = left - recorder.total
            play(recorder, player, seed, steps, config.hold, config.frame_stack, False)
            if not recorder.under_way:
                returns.append(float(recorder.recorded()[-1].rewards.sum()))
        self.fresh = recorder.recorded()
        return returns

    def _learn(self, recorded: Episodes, callback: MaybeCallback) -> float | None:
        """Train PPO in imagination, and return the mean return of its last episodes there."""
        starts = stackable_starts(recorded, self.config.frame_stack > 1)
        self.agent.set_env(self._imagined(starts))
        if self.agent.ep_info_buffer is not None:
            self.agent.ep_info_buffer.clear()
        with torch_threads(self.config.threads):
            self.agent.learn(
                self.config.imagined_steps, callback, reset_num_timesteps=not self.rows
            )
        returns = [float(info["r"]) for info in self.agent.ep_info_buffer or ()]
        return float(np.mean(returns)) if returns else None

    def _imagined(self, starts: Starts) -> VecEnv:
        imagined = self.config.imagined_env(
            self.model, starts, len(self.rows), self.known, stagger=True
        )
        return monitor_and_stack(imagined, self.config.frame_stack)


def stopped_message(folder: Path, how: str) -> str:
    """The message of a run that was stopped: from which round, and ``how``, it is resumed."""
    done = sum(1 for _ in folder.glob("round-*"))
    if done == 0:
        return "stopped in the first round, of which nothing is kept; begin anew"
    return f"stopped; {how} goes on after round {done}"


def _episode_seed(seed: int, number: int) -> int:
    """The seed of the ``number``-th real episode: runs with other seeds share none."""
    return int(np.random.default_rng([seed, number]).integers(2**31))


# A round is a folder, ``round-0000`` and so on, written atomically. It holds its own episodes and
# the results of all rounds so far; only the last one holds weights.


def _check_folder(folder: Path, resume: bool) -> None:
    rounds = any(folder.glob("round-*"))
    if resume and not rounds:
        raise FileNotFoundError(f"resume: {folder} holds no round; nothing was trained there")
    if rounds and not resume:
        raise FileExistsError(
            f"folder: {folder} already holds rounds; pass resume=True to go on, or another folder"
        )


def _write_round(folder: Path, run: _Rounds) -> None:
    """Write the round that just ended."""
    before = sorted(folder.glob("round-*"))
    facts = {**_fixed_settings(run), "rounds": [asdict(row) for row in run.rows]}
    with atomic(folder / f"round-{len(run.rows) - 1:04d}") as partial:
        run.to_episodes(run.fresh).save(partial / "episodes")
        run.agent.save(partial / "agent.zip")
        if run.model.trainable:
            save(run.model, partial / "model", {"real steps": run.real_steps})
        (partial / "rounds.json").write_text(json.dumps(facts, indent=1) + "\n")
    for path in before:
        shutil.rmtree(path / "model", ignore_errors=True)
        (path / "agent.zip").unlink(missing_ok=True)


def _read_rounds(folder: Path, run: _Rounds) -> None:
    """Set a fresh run to the state at the end of the last round.

    Raises:
        ValueError: the settings differ, or a file is corrupt.
    """
    rounds = sorted(folder.glob("round-*"))
    last, path = rounds[-1], rounds[-1] / "rounds.json"
    facts = read_json(path, finite=False)  # a loss may have been NaN
    rows = facts.get("rounds")
    if not ("config" in facts and isinstance(rows, list) and rows):
        raise ValueError(f"{path}: expected config and rounds, got {sorted(facts)}")
    for group, now in _fixed_settings(run).items():
        before = facts.get(group, now)  # earlier versions wrote only the config
        if not isinstance(before, dict):
            raise ValueError(f"{path}: {group}: expected settings by name, got {before!r}")
        if changed := difference(before, now):
            raise ValueError(f"resume: {last} was made with {group}: {changed}")
    run.rows = [from_json(DynaRound, row) for row in rows]
    run.episodes = [episode for path in rounds for episode in Episodes.load(path / "episodes")]
    if run.model.trainable:
        load_weights(run.model, last / "model" / "model.safetensors")
    run.agent.set_parameters(str(last / "agent.zip"))
    run.agent.num_timesteps = run.rows[-1].imagined_steps


def _fixed_settings(run: _Rounds) -> dict[str, dict[str, Any]]:
    """The settings that must not change when a run is resumed, as JSON reads them back."""
    model, env = run.model, run.env.unwrapped.spec
    facts = {
        "config": asdict(run.config),
        "known": asdict(run.known),
        "ppo": {name: value for name, value in run.settings.items() if name not in CHANGEABLE},
        "model": {"name": model.name, "spec": model.spec.to_dict()},
        "model_config": {} if model.config is None else asdict(model.config),
        # An unregistered environment has no id; its spaces are checked against the model's.
        "env": {"id": None if env is None else env.id},
    }
    settings: dict[str, dict[str, Any]] = json.loads(json.dumps(facts, default=_to_json))
    return settings


def _to_json(value: Any) -> Any:
    """NumPy's numbers as Python's; functions and classes by their name, other objects by their
    class's name, since nothing else of them is sure to be the same in the next process.
    """
    if isinstance(value, np.generic):
        return value.item()
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
