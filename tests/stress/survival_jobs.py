"""What is killed in ``test_survival``: each job runs in a child of multiprocessing's fork server.

The server has imported everything, so that a child costs no more than its work.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

MODULES = ("worldmodel.__main__", "agents.__main__", "evaluation.__main__", "lightning.fabric")
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [*MODULES, "torch.utils.tensorboard", "tests.agents.dyna_fakes", "tests.stress.parts"]
)
STEPS = 12
EPISODES = 12
OUTPUT = "output.txt"


def run(
    job: Callable[..., None], *arguments: Any, output: Path, kill_after: float | None = None,
    send: signal.Signals = signal.SIGKILL, once: Callable[[], bool] = lambda: True,
) -> int | None:  # fmt: skip
    """Run a job to its end, or signal it some seconds after it has begun, and ``once`` holds; its
    exit code.
    """
    begun = CONTEXT.Event()
    process = CONTEXT.Process(target=_enter, args=(begun, str(output), job, arguments))
    process.start()
    if kill_after is not None:
        begun.wait(120)
        while process.is_alive() and not once():
            time.sleep(0.05)
        process.join(kill_after)
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, send)
    process.join()
    return process.exitcode


def _enter(begun: Any, output: str, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(opened, stream)
    torch.set_num_threads(1)
    begun.set()
    job(*arguments)


def fresh(folder: Path) -> str:
    """An empty place for a run."""
    shutil.rmtree(folder, ignore_errors=True)
    return str(folder)


def no_debris(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if ".partial" in path.name]


# -- what happens at a write -----------------------------------------------------------------------


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only() -> None:
    """What a file system that was mounted again, for reading only, says; to root, too."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def at_write(number: int | None, act: Callable[[], None], forever: bool = False) -> None:
    """Let ``act`` happen at the ``number``-th call that writes, half of it done; or from it on."""
    if number is None:
        return
    calls = itertools.count()

    def due() -> bool:
        now = next(calls)
        return now >= number if forever else now == number

    def before(first: Any) -> Any:
        def call(*arguments: Any, **settings: Any) -> Any:
            if due():
                act()
            return first(*arguments, **settings)

        return call

    def amid(first: Any) -> Any:
        def call(path: Path, content: Any, *arguments: Any, **settings: Any) -> Any:
            if due():
                first(path, content[: len(content) // 2])
                act()
            return first(path, content, *arguments, **settings)

        return call

    import numpy as np

    os.fsync, os.replace = before(os.fsync), before(os.replace)
    Path.write_bytes, Path.write_text = amid(Path.write_bytes), amid(Path.write_text)  # type: ignore[method-assign]
    savez = np.savez_compressed

    def compressed(file: Any, **arrays: Any) -> None:
        if due():
            file.write(b"PK")
            file.flush()
            act()
        savez(file, **arrays)

    np.savez_compressed = compressed


# -- jobs ------------------------------------------------------------------------------------------


def train(folder: str, part: str, step: Any, number: int | None) -> None:
    """A run of ``STEPS`` steps of one of ``MODELS``, each of which is saved; resumed if there is
    something.
    """
    from tests.stress.parts import MODELS
    from worldmodel.training import STATE

    at_write(number, kill)

    def note(progress: Any) -> None:
        step.value = progress.step

    MODELS[part].fit(
        MODELS[part].make(), STEPS, folder=folder, resume=(Path(folder) / STATE).exists(),
        callbacks=[note],
    )  # fmt: skip


def recorded_envs() -> dict[str, tuple[Any, Any]]:
    """By kind, an environment and what is recorded in its place: the same episodes."""
    from gymnasium.vector import AutoresetMode, SyncVectorEnv
    from stable_baselines3.common.vec_env import DummyVecEnv

    from tests.agents.dict_envs import Camera
    from tests.agents.masked_envs import Cards

    pole = partial(gym.make, "CartPole-v1")
    by_hand = partial(SyncVectorEnv, autoreset_mode=AutoresetMode.DISABLED)
    return {
        "one": ("CartPole-v1", "CartPole-v1"),
        "masks of several": (Cards, partial(SyncVectorEnv, [Cards] * 3)),
        "several at once": (pole, partial(by_hand, [pole] * 3)),
        "Dicts of several": (Camera, partial(DummyVecEnv, [Camera] * 3)),
    }


def record(folder: str, kind: str, number: int | None) -> None:
    """A recording with a shard for each episode."""
    from worldmodel import collect

    at_write(number, kill)
    resume = (Path(folder) / "meta.json").exists()
    collect(
        recorded_envs()[kind][1], EPISODES, seed=3, folder=folder, resume=resume, save_minutes=0.0,
        progress=False,
    )  # fmt: skip


def write_results(folder: str, number: int | None) -> None:
    """Results of more and more rows, each in place of the one before."""
    from worldmodel.common import results

    at_write(number, kill)
    for count in range(1, 100):
        rows = [{"row": number} for number in range(count)]
        results.write(Path(folder) / "result.json", {"benchmark": "survival", "rows": rows})


def measure(folder: str, number: int | None) -> None:
    """``evaluation control``, each episode a part of its own; resumed if there is something."""
    from evaluation.measurements import control

    at_write(number, kill)
    control.BLOCK = 1
    result = Path(folder) / "result.json"
    verb = control.Control(json=result, resume=True, episodes=3, plans=4, worlds=1, num_threads=1)
    for _ in verb.run():
        pass


ROUNDS = ("dyna", "planner", "dyna with an explorer")


def play_rounds(folder: str, kind: str, number: int | None) -> None:
    """Round by round: Dyna with PPO, which a planner may begin, or the planner alone."""
    from agents import (
        CemConfig,
        KnownFunctions,
        OnlineConfig,
        RoundsConfig,
        train_dyna,
        train_planner,
    )
    from tests.agents.dyna_fakes import LINE, LineEnv, LineModel
    from tests.stress.parts import ENSEMBLE
    from worldmodel import make

    at_write(number, kill)
    plans = CemConfig(plans=8, worlds=2, horizon=4, iterations=2)
    online = OnlineConfig(start_steps=12, refit_every=6, first_fit_steps=4, fit_steps=4)
    dyna = RoundsConfig(
        first_collect_steps=16, collect_steps=8, first_fit_steps=4, fit_steps=4, imagined_steps=32,
        num_envs=4,
    )  # fmt: skip
    shared: dict[str, Any] = {
        "folder": folder, "resume": any(Path(folder).glob("round-*")), "progress": False
    }  # fmt: skip
    model = LineModel(0.5) if kind == "dyna" else make("ensemble", LINE, ENSEMBLE)
    env = partial(LineEnv, limit=100.0)
    if kind == "planner":
        known = KnownFunctions(reward=paid_for_place, terminated=never_ended)
        train_planner(model, env, 44, plans, online, known=known, **shared)
        return
    explorer = replace(plans, curiosity=1.0) if kind == "dyna with an explorer" else None
    train_dyna(
        model, env, 56, dyna, explorer=explorer, n_steps=4, batch_size=16, n_epochs=1,
        explorer_config=None if explorer is None else online, device="cpu", **shared,
    )  # fmt: skip


def paid_for_place(before: Any, action: Any, after: Any) -> Any:
    """The reward of ``LineEnv``, as a known function."""
    return after[:, 0]


def never_ended(before: Any, action: Any, after: Any) -> Any:
    """That a step within the limit ends nothing."""
    return after[:, 0].abs() > 100.0


def train_agent(folder: str, settings: dict[str, Any], number: int | None) -> None:
    """``agents train``; the agent is kept at every chance."""
    from agents.training import imagined_ppo, resume, run_config
    from agents.training import run as runs

    at_write(number, kill)
    if (Path(folder) / runs.DONE).exists() and not (Path(folder) / runs.BEGUN).exists():
        return  # killed when all was done: a command would be told so
    imagined_ppo.IMAGE_SETTINGS["n_steps"] = 4
    imagined_ppo.VECTOR_SETTINGS["n_steps"] = 4
    resume.AgentCheckpointCallback.__init__.__defaults__ = (None, 0.0)  # type: ignore[attr-defined]
    runs.train(run_config.RunConfig(**settings), folder, evaluate_every=0)


def command(
    package: str, words: tuple[str, ...], number: int | None = None, act: Callable[[], None] = full,
    limit: int | None = None,
) -> None:  # fmt: skip
    """``python -m package words``, on a disk on which from the ``number``-th write on ``act``
    happens, or on which no file may be longer than ``limit`` bytes.
    """
    at_write(number, act, forever=True)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python begins
    sys.argv = [package, *words]
    importlib.import_module(f"{package}.__main__").main()
