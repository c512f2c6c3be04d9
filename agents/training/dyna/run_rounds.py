"""Training in rounds, each with a folder of its own, from which a stopped run goes on."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from agents.evaluation import play
from agents.known_functions import KnownFunctions, check_known
from agents.planners.base import Agent
from agents.training.dyna.recorder import RecordEpisodes
from worldmodel.base import WorldModel
from worldmodel.checkpoint import load_weights, save
from worldmodel.common.config_checks import difference, from_json, numbers_at_least
from worldmodel.common.files import atomic, locked
from worldmodel.common.progress import progress_bar
from worldmodel.common.safe_files import read_json
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.data.make_env import Env

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RoundsRun(ABC):
    """The state of a run in rounds of real episodes, each of which ends with a fit of the model.

    All randomness of a round must follow from its number, so that a resumed run is identical.

    Args:
        model: of the environment's spaces; trained in place.
        env: the real environment.
        known: functions in place of the model's heads.

    Attributes:
        name: of the run's curves and progress bar.
        row_type: dataclass of a round's results; it has ``real_steps``, in all by the round's end,
            and ``scalars()``.
        rows: the results of all rounds.
        episodes: of all rounds; ``fresh`` those of the last one.
        ended: for each of these that ended, the real steps of the run by then and its return.
        recorder: of the round that is under way.
        writer: of TensorBoard; None without.
        progress: whether fits and imagination show theirs.
    """

    name: ClassVar[str]
    row_type: ClassVar[type[Any]]

    def __init__(self, model: WorldModel, env: Env, known: KnownFunctions | None) -> None:
        self.known = check_known(known, model)
        model.spec.check_spaces(env.observation_space, env.action_space, "env")
        self.model, self.env = model, env
        self.rows: list[Any] = []
        self.episodes: list[Episode] = []
        self.fresh: list[Episode] = []
        self.ended: list[tuple[int, float]] = []
        self.recorder = RecordEpisodes(env)
        self.writer: SummaryWriter | None = None
        self.progress = False

    @property
    def real_steps(self) -> int:
        """Real steps of all rounds."""
        return int(self.rows[-1].real_steps) if self.rows else 0

    def to_episodes(self, episodes: list[Episode]) -> Episodes:
        """The episodes with the model's spaces."""
        spec = self.model.spec
        return Episodes(episodes, spec.action, spec.observation_space())

    @abstractmethod
    def play_on(self, left: int) -> bool:
        """One more round, of at most ``left`` real steps; whether the run may go on after it."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that must not change when a run is resumed, besides those of model and env."""

    def collect(
        self,
        player: Agent,
        wanted: int,
        left: int,
        seed: int,
        hold: int = 1,
        frame_stack: int = 1,
        deterministic: bool = False,
    ) -> None:
        """Play this round's episodes, the ``fresh`` ones, and note those that ``ended``.

        It may be left by an exception of the player.

        Args:
            player, hold, frame_stack, deterministic: as in ``agents.evaluation.play``.
            wanted: steps, at least; the round ends with the episode that reaches them.
            left: steps, at most; the last episode is cut there.
            seed: of the run; the episodes' own follow from it.
        """
        self.recorder = recorder = RecordEpisodes(self.env)
        self.ended, count = [], len(self.episodes)
        try:
            while recorder.total < min(left, wanted):
                number = count + len(recorder.recorded())
                play(
                    recorder, player, episode_seed(seed, number), left - recorder.total, hold,
                    frame_stack, deterministic,
                )  # fmt: skip
                if not recorder.under_way:
                    total = float(recorder.recorded()[-1].rewards.sum())
                    self.ended.append((self.real_steps + recorder.total, total))
        finally:
            self.fresh = recorder.recorded()

    @abstractmethod
    def save(self, folder: Path) -> list[str]:
        """Write what the next round needs besides model and episodes; the names of its files."""

    @abstractmethod
    def end(self) -> None:
        """Called after the last round."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """Read what ``save`` wrote, with ``rows`` and ``episodes`` in place."""


def run_rounds(
    run: RoundsRun,
    real_steps: int,
    folder: str | Path | None,
    resume: bool,
    tensorboard_log: str | None,
    progress: bool,
) -> None:
    """Play rounds until ``real_steps`` are taken in all; arguments are those of ``train_dyna``.

    Raises:
        ValueError, FileExistsError, FileNotFoundError, BlockingIOError, KeyboardInterrupt: as
            ``train_dyna`` says.
    """
    numbers_at_least(1, real_steps=real_steps)
    path = None if folder is None else Path(folder)
    with ExitStack() as opened:
        if path is not None:
            opened.enter_context(locked(path))
            _check_folder(path, resume)
            if resume:
                _read_rounds(path, run)
        elif resume:
            raise ValueError("resume: needs the folder of the run to go on with")
        if tensorboard_log is not None:
            from torch.utils.tensorboard import SummaryWriter

            log = str(Path(tensorboard_log) / run.name)
            run.writer = SummaryWriter(log, purge_step=run.real_steps + 1)
            opened.callback(run.writer.close)
        done, run.progress = run.real_steps, progress
        with progress_bar(run.name, "step", real_steps, initial=done, show=progress) as bar:
            try:
                more = True
                while more and run.real_steps < real_steps:
                    more = run.play_on(real_steps - run.real_steps)
                    row = run.rows[-1]
                    if path is not None:
                        _write_round(path, run)
                    if run.writer is not None:
                        for name, value in row.scalars().items():
                            run.writer.add_scalar(f"{run.name}/{name}", value, row.real_steps)
                    bar.update(row.real_steps - bar.n)
                run.end()
            except KeyboardInterrupt as error:  # maybe of a fit, whose message is about its steps
                if path is None:
                    raise
                raise KeyboardInterrupt(stopped_message(path, "resume=True")) from error


def stopped_message(folder: Path, how: str) -> str:
    """The message of a run that was stopped: from which round, and ``how``, it is resumed."""
    done = sum(1 for _ in folder.glob("round-*"))
    if done == 0:
        return "stopped in the first round, of which nothing is kept; begin anew"
    return f"stopped; {how} goes on after round {done}"


def episode_seed(seed: int, number: int) -> int:
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


def _write_round(folder: Path, run: RoundsRun) -> None:
    """Write the round that just ended."""
    before = sorted(folder.glob("round-*"))
    facts = {**_fixed_settings(run), "rounds": [asdict(row) for row in run.rows]}
    with atomic(folder / f"round-{len(run.rows) - 1:04d}") as partial:
        run.to_episodes(run.fresh).save(partial / "episodes")
        names = run.save(partial)
        if run.model.trainable:
            save(run.model, partial / "model", {"real steps": run.real_steps})
        (partial / "rounds.json").write_text(json.dumps(facts, indent=1) + "\n")
    for path in before:
        shutil.rmtree(path / "model", ignore_errors=True)
        for name in names:
            (path / name).unlink(missing_ok=True)


def _read_rounds(folder: Path, run: RoundsRun) -> None:
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
    run.rows = [from_json(run.row_type, row, longest=None) for row in rows]
    run.episodes = [episode for path in rounds for episode in Episodes.load(path / "episodes")]
    if run.model.trainable:
        load_weights(run.model, last / "model" / "model.safetensors")
    run.restore(last)


def _fixed_settings(run: RoundsRun) -> dict[str, dict[str, Any]]:
    """The settings that must not change when a run is resumed, as JSON reads them back."""
    model, env = run.model, run.env.unwrapped.spec
    facts = {
        **run.settings(),
        "known": asdict(run.known),
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
