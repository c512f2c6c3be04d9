"""A run of an agent: what it begins with, goes on from and leaves in its folder.

The folder holds ``agent.zip`` (SB3's own format), ``agent.json`` (the settings), TensorBoard's
logs, and with Dyna the world model as it was in the end (``model``). Until then it holds
``begun.json`` and what the run goes on with, should it be killed: ``rounds`` of PPO with Dyna, else
``kept-*``.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.training.methods import WAYS
from agents.training.run_config import ALGORITHMS, RunConfig
from agents.training.train import check_frame_stack, torch_threads
from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import from_json
from worldmodel.common.files import atomic, discard, locked
from worldmodel.common.safe_files import read_json
from worldmodel.registry import make
from worldmodel.spec import Spec

FORMAT = 1
BEGUN, DONE = "begun.json", "agent.json"
"""The settings, of a run that is not through, with the digest of its model, and of one that is;
both while it cleans up.
"""
ACTIONS: dict[str, type[gym.Space[Any]]] = {"dqn": gym.spaces.Discrete, "sac": gym.spaces.Box}
"""What they take; PPO takes any."""


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
        raise FileExistsError(
            f"folder: {folder} already holds an agent; choose another one (--out)"
        )
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
        agent = WAYS[config.how](config, spec, model, folder, evaluate_every, progress)
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
