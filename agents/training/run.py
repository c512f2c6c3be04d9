"""Train an agent in a folder of its own, resume it there, load it.

The folder holds ``agent.zip`` (SB3's own format; a planner has none), ``agent.json`` (the
settings), TensorBoard's logs, and with Dyna and the planner the final world model (``model``).
Until then it holds ``begun.json`` and what a killed run resumes from: ``rounds`` of PPO with Dyna
and of the planner, else ``checkpoint-*``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.planners.base import Planner
from agents.planners.refining import Cem
from agents.recipes.imagined import Imagined
from agents.recipes.recipe import recipe_for
from agents.training.imagined_ppo import check_frame_stack, torch_threads
from agents.training.methods import METHODS, Job
from agents.training.resume import PREFIX
from agents.training.run_config import ALGORITHMS, RunConfig
from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import from_json, numbers_at_least
from worldmodel.common.files import atomic, discard, locked
from worldmodel.common.safe_files import read_json
from worldmodel.data.make_env import open_env
from worldmodel.registry import AUTO, make
from worldmodel.spec import Spec

Trained = BaseAlgorithm | Planner
FORMAT = 1
BEGUN, DONE = "begun.json", "agent.json"
"""Files with the settings of a run that is not finished (and the digest of its model), and of one
that is. Both are there while the run cleans up.
"""
FITTED = ("auto", "dyna", "planner")
"""Methods that fit a world model."""
ACTIONS: dict[str, type[gym.Space[Any]]] = {"dqn": gym.spaces.Discrete, "sac": gym.spaces.Box}
"""The action spaces that algorithms take; PPO takes any."""


def train(
    config: RunConfig,
    folder: str | Path,
    device: str = "cpu",
    threads: int = 1,
    evaluate_every: int = 10_000,
    progress: bool = False,
) -> Trained:
    """Train an agent as the config says, and save it in the folder.

    A run that was stopped or killed is resumed: PPO with Dyna and the planner after the last round,
    others from their last checkpoint, at most ``resume.CHECKPOINT_MINUTES`` old.

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
        ValueError: a number is out of range; settings, spaces, algorithm, model and device do not
            fit each other; or the folder holds an unfinished run with other settings or another
            world model of the same name.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written, with Dyna for PPO and
            with the planner that of the last round.
    """
    numbers_at_least(1, threads=threads)
    numbers_at_least(0, evaluate_every=evaluate_every)
    config, folder = resolved(config), Path(folder)
    with locked(folder):
        resumed = _can_resume(config, folder)
        if (folder / DONE).exists():  # killed while it cleaned up
            agent, _ = load(folder)
        else:
            spec, model, recipe = _checked(config, device)
            if not resumed:  # written last, so that refused settings are not resumed
                _write_settings(config, folder / BEGUN, digest=_digest(config))
            job = Job(config, spec, model, folder, evaluate_every, progress, recipe)
            agent = _train(job, threads)
        for path in folder.glob(f"{PREFIX}*"):
            discard(path)
        (folder / BEGUN).unlink()
        return agent


def _can_resume(config: RunConfig, folder: Path) -> bool:
    """Whether the folder holds an unfinished run with these settings."""
    done, path = (folder / DONE).exists(), folder / BEGUN
    if done and not path.exists():
        raise FileExistsError(
            f"folder: {folder} already holds an agent; choose another one (--out)"
        )
    progress = [*folder.glob(f"{PREFIX}*"), *folder.glob("rounds/round-*")]
    if not (path.exists() and (done or progress)):
        return False
    before = read_json(path)
    for name, value in asdict(config).items():
        if before.get(name, value) != value:  # earlier versions had fewer settings
            raise ValueError(
                f"{name}: a run was begun in {folder} with {before.get(name)!r}, now it is "
                f"{value!r}; give the same to go on with it, or choose another folder"
            )
    # Earlier versions wrote no digest; and cleaning up needs no model.
    if not done and "digest" in before and before["digest"] != _digest(config):
        raise ValueError(
            f"model: what is in {config.model} has changed since the run in {folder} was begun "
            "with it; put back what was there to go on, or choose another folder"
        )
    return True


def _digest(config: RunConfig) -> str | None:
    return None if config.model is None else checkpoint.digest(config.model)


def resolved(config: RunConfig) -> RunConfig:
    """With ``method="auto"`` the settings as the recipe has them; else as they are.

    Raises:
        ValueError: one of them is set that the recipe decides on.
    """
    if config.method != "auto":
        return config
    recipe = recipe_for(config.make_env).policy
    chosen: dict[str, Any] = {"algorithm": recipe.algorithm, "hold": recipe.hold}
    fresh = RunConfig(config.env, "auto")
    free = ("env", "method", "steps", "size", "pixels", "grayscale", "seed")
    for name in (field.name for field in fields(config) if field.name not in free):
        value = getattr(config, name)
        if value not in (getattr(fresh, name), chosen.get(name)):
            raise ValueError(
                f"{name}: method='auto' takes it from the recipe, got {value!r}; leave it away, or "
                "choose a method"
            )
    steps = recipe.steps // recipe.hold if config.steps is None else config.steps
    return replace(config, steps=steps, **chosen)


def _checked(config: RunConfig, device: str) -> tuple[Spec, WorldModel | None, Imagined | None]:
    """The environment's spec, the world model and the recipe; ValueError if they do not fit each
    other.
    """
    checkpoint.check_device(device)  # even if no world model will be on it
    model = None if config.model is None else checkpoint.load(config.model, device)
    recipe = recipe_for(config.make_env).policy if config.method == "auto" else None
    with open_env(config.make_env) as env:
        if recipe is not None:
            model = recipe.make_model(env, config.seed).to(device)
        if model is not None:
            spec = model.spec
            spec.check_spaces(env.observation_space, env.action_space, "env")
        else:
            planned = config.planner_config.steps(config.planner.horizon)
            window = max(config.window, planned if config.method == "planner" else 1)
            spec = Spec.from_spaces(env.observation_space, env.action_space, window)
        _check_algorithm(config.algorithm, env.action_space)
    check_frame_stack(spec, config.frame_stack)
    if model is None and config.method in FITTED:
        model = make(AUTO, spec, seed=config.seed).to(device)
    return spec, model, recipe


def _check_algorithm(algorithm: str, actions: gym.Space[Any]) -> None:
    """Raise ValueError for actions that the algorithm cannot take; SB3 only fails an assertion."""
    fitting = [name for name in ALGORITHMS if isinstance(actions, ACTIONS.get(name, gym.Space))]
    if algorithm not in fitting:
        raise ValueError(
            f"algorithm: {algorithm} is for {ACTIONS[algorithm].__name__} actions, those of env "
            f"are {actions}; expected {' or '.join(fitting)}"
        )


def _write_settings(config: RunConfig, path: Path, **more: str | None) -> None:
    facts = {"format": FORMAT, **asdict(config), **more}
    with atomic(path) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n")


def _train(job: Job, threads: int) -> Trained:
    config, folder = job.config, job.folder
    with torch_threads(threads):
        agent = METHODS[config.method](job)
    if isinstance(agent, BaseAlgorithm):
        with atomic(folder / "agent.zip") as path:
            agent.save(path)
    if config.method in FITTED and job.model is not None:
        checkpoint.save(job.model, folder / "model", training={"run": str(folder.name)})
    _write_settings(config, folder / DONE)
    return agent


def load(folder: str | Path) -> tuple[Trained, RunConfig]:
    """Load the agent that ``train`` saved. Load only agents that you trust: this can run code.

    SB3's ``agent.zip`` is unpickled, and ``agent.json`` names an environment whose module is
    imported. To use the policy of somebody else, ask for its weights alone: see ``save_policy`` and
    ``load_policy``.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: another format, or invalid settings.
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
    if config.method == "planner":
        return Cem(checkpoint.load(folder / "model"), config.planner_config), config
    return ALGORITHMS[config.algorithm].load(folder / "agent.zip", device="cpu"), config
