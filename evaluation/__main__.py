"""Measure models by one protocol; every verb writes JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

import worldmodel
from agents import (
    Cem,
    CemConfig,
    Mppi,
    MppiConfig,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    TreeSearch,
    TreeSearchConfig,
)
from agents.actions import count_choices
from evaluation import consistency
from evaluation.common_worlds import INTERCEPT, common_worlds
from evaluation.consistency import AGENT
from evaluation.control import Contestant, control
from evaluation.dynamics import dynamics
from evaluation.efficiency import Protocol, efficiency
from evaluation.fidelity import fidelity
from evaluation.learners import learners
from evaluation.options import VARIANTS, options
from evaluation.peers import draw, peers
from evaluation.planning import planning
from evaluation.speed import exponents, ratios, speed, wide
from worldmodel import MODELS, WorldModel, results

FIRST = {name: next(iter(entry.presets)) for name, entry in MODELS.items() if entry.presets}
"""Every model but replay, which needs an environment, and its preset after the paper."""
PAPERS = (
    *(f"{name}:{preset}" for name, preset in FIRST.items() if name != "hierarchical-vrnn"),
    "sssm:paper-jumpy",
    "hierarchical-vrnn:small",  # the paper's has 164 million weights: hours, on a CPU
)
TRAINED = (  # not gqn: its 256 channels take an hour
    *(f"{name}:small" for name in FIRST if name != "gqn"),
    "jump:jumpy",
    "sssm:jumpy",
)


@dataclass(frozen=True)
class Speed:
    """Seconds to the frame at distance T, all models interleaved in one process."""

    models: tuple[str, ...] = PAPERS
    """model:preset, the first is what the others are compared with."""
    distances: tuple[int, ...] = (5, 10, 20, 40, 80)
    batches: tuple[int, ...] = (1,)
    size: int = 64
    frames: int = 6
    """Context frames."""
    repeats: int = 5
    """Timed rounds; the median counts."""
    device: str = "cpu"
    num_threads: int = 2
    json: Path | None = None
    """File for the result."""

    def run(self) -> None:
        """Measure, print, write."""
        torch.set_num_threads(self.num_threads)
        models = [results.name_and_preset(model) for model in self.models]
        rows = speed(
            models, self.distances, self.batches,
            size=self.size, frames=self.frames, repeats=self.repeats, device=self.device,
        )  # fmt: skip
        columns = ["model", "preset", "batch", *(f"T={t}" for t in self.distances)]
        print(f"seconds to the frame at distance T ({self.size} px, {self.device})")
        print(results.table(wide(rows), columns))
        if len(models) > 1:
            print(f"\ntimes slower than {self.models[0]}")
            print(results.table(wide(ratios(rows), "ratio"), columns))
        print("\ncost ~ T^exponent (0 is jumpy, 1 is frame by frame)")
        print(results.table(exponents(rows), ["model", "preset", "batch", "exponent"]))
        _finish("speed", self, rows)


@dataclass(frozen=True)
class Consistency:
    """Share of sampled futures that tell one coherent Traveling Salesman story."""

    checkpoints: tuple[str, ...] = ("traveling-salesman",)
    """Checkpoint folders or shipped names."""
    scenes: int = 200
    worlds: int = 8
    seed: int = 0
    device: str = "cpu"
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Measure, print, write."""
        _measure("consistency", self, consistency.consistency, ["value", "low", "high", "n"])


@dataclass(frozen=True)
class Control:
    """Real returns of planners and agents, normalised to random play 0 and the oracle 1."""

    checkpoint: str = "traveling-salesman"
    env: str = AGENT
    """One of our environments with an agent."""
    episodes: int = 200
    plans: int = 256
    """In all, for each decision of each planner. Tree search plays where these are enough for
    every action at each of its levels."""
    worlds: int = 4
    hold: int = 5
    real_steps: int = 0
    """Agents that learn from as many real steps play, too; 0 for planners only."""
    seed: int = 0
    device: str = "cpu"
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Train if wanted, play, print, write."""
        torch.set_num_threads(self.num_threads)
        model = worldmodel.load(self.checkpoint, self.device)
        horizon = model.spec.window // self.hold
        shared: dict[str, Any] = {
            "worlds": self.worlds, "horizon": horizon, "hold": self.hold, "seed": self.seed,
        }  # fmt: skip
        rounds = 4  # of refinement: each planner draws as many plans in all
        refined = {**shared, "plans": max(1, self.plans // rounds), "iterations": rounds}
        shooting = RandomShooting(model, RandomShootingConfig(plans=self.plans, **shared))
        contestants = {
            "random": Contestant(RandomAgent(model.spec.action.to_space(), self.seed)),
            "random shooting": Contestant(shooting),
            "CEM": Contestant(Cem(model, CemConfig(**refined))),
            "MPPI": Contestant(Mppi(model, MppiConfig(**refined))),
        }
        choices = count_choices(model.spec.action)
        if choices is not None and self.plans >= choices * horizon:
            grown = TreeSearchConfig(plans=self.plans, **shared)
            contestants["tree search"] = Contestant(TreeSearch(model, grown))
        if self.real_steps:
            contestants |= learners(
                self.checkpoint, self.env, self.real_steps, hold=self.hold, seed=self.seed
            )
        size = model.spec.observation[1]
        rows = control(
            self.env, contestants,
            size=size, episodes=self.episodes, hold=self.hold, seed=self.seed,
        )  # fmt: skip
        columns = ["agent", "real_steps", "return", "normalised_return", "low", "high", "episodes"]
        print(results.table(rows, columns))
        _finish("control", self, rows)


@dataclass(frozen=True)
class Planning:
    """What a decision costs and what it is worth: one planner, several world models."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]]
    """Folders, shipped names or hub ids, all of one frame size."""
    env: str = AGENT
    budgets: tuple[int, ...] = (64, 256)
    """Plans of a decision."""
    worlds: int = 4
    hold: int = 5
    episodes: int = 100
    """Real episodes to play; 0 only takes the time."""
    repeats: int = 5
    """Timed decisions; the median counts."""
    seed: int = 0
    device: str = "cpu"
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Time, play, print, write."""
        torch.set_num_threads(self.num_threads)
        models = {name: worldmodel.load(name, self.device) for name in self.checkpoints}
        rows = planning(
            models, self.env, budgets=self.budgets, worlds=self.worlds, hold=self.hold,
            episodes=self.episodes, repeats=self.repeats, seed=self.seed,
        )  # fmt: skip
        columns = ["model", "plans", "worlds", "seconds", "plans_per_second"]
        print(results.table(rows, [*columns, "normalised_return", "low", "high", "episodes"]))
        _finish("planning", self, rows)


@dataclass(frozen=True)
class CommonWorlds:
    """Variance of the difference between two plans' scores, in the same worlds and in others."""

    checkpoint: tyro.conf.Positional[str]
    """Folder, shipped name or hub id."""
    env: str = INTERCEPT
    scenes: int = 64
    worlds: int = 8
    hold: int = 5
    seed: int = 0
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Measure, print, write."""
        torch.set_num_threads(self.num_threads)
        model = worldmodel.load(self.checkpoint)
        rows = common_worlds(
            model, self.env,
            scenes=self.scenes, worlds=self.worlds, hold=self.hold, seed=self.seed,
        )  # fmt: skip
        columns = ["plans", "shared", "independent", "ratio", "low", "high", "n"]
        print(results.table(rows, columns))
        _finish("common-worlds", self, rows)


@dataclass(frozen=True)
class Efficiency(Protocol):
    """Real steps that imagination saves: PPO with it and without, to 80% of the latter's return."""

    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Train all, measure, print, write."""
        torch.set_num_threads(self.num_threads)
        rows = efficiency(self)
        columns = ["agent", "of", "seed", "real_steps", "return", "value", "low", "high"]
        print(results.table(rows, columns))
        _finish("efficiency", self, rows)


@dataclass(frozen=True)
class Dynamics:
    """Error of one jump of k steps on vectors, beside a per-step model and copy-last."""

    envs: tuple[str, ...] = ("CartPole-v1", "Pendulum-v1")
    episodes: int = 2000
    steps: int = 10_000
    """Of training, for each model."""
    distances: tuple[int, ...] = (1, 5, 20)
    seed: int = 0
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Collect, train, measure, print, write."""
        torch.set_num_threads(self.num_threads)
        rows = []
        for env in self.envs:
            rows += dynamics(env, self.episodes, self.steps, self.distances, seed=self.seed)
        print(results.table(rows, ["env", "model", "k", "mse", "low", "high", "n"]))
        _finish("dynamics", self, rows)


@dataclass(frozen=True)
class Fidelity:
    """Error of the sampled future that comes closest, of nature's Traveling Salesman."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]]
    """Folders, shipped names or hub ids."""
    scenes: int = 200
    worlds: int = 30
    seed: int = 0
    device: str = "cpu"
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Measure, print, write."""
        _measure("fidelity", self, fidelity, ["worlds", "value", "low", "high", "n"])


@dataclass(frozen=True)
class Options:
    """JUMP's options beyond the paper, at equal steps and at equal time."""

    variants: tuple[str, ...] = tuple(VARIANTS)
    steps: int = 2000
    seconds: float = 300.0
    """Of CPU time."""
    scenes: int = 128
    seed: int = 0
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Train all, measure, print, write."""
        torch.set_num_threads(self.num_threads)
        rows = options(self.variants, self.steps, self.seconds, self.scenes, self.seed)
        rows.sort(key=lambda row: str(row["equal"]))
        columns = ["equal", "variant", "parameters", "step", "seconds", "seen", "min-of-n"]
        print(results.table(rows, [*columns, "mean-of-n", "copy-last", "kl", "negative_elbo"]))
        _finish("options", self, rows)


@dataclass(frozen=True)
class Peers:
    """Every model on nature's Traveling Salesman, trained for the same time on the same scenes."""

    models: tuple[str, ...] = TRAINED
    """model:preset."""
    seconds: float = 300.0
    """Of CPU time, to train each."""
    folder: Path = Path("runs/peers")
    """For checkpoints; those that are there are not trained again."""
    picture: Path | None = None
    """PNG file with two futures by each model."""
    scenes: int = 100
    worlds: int = 30
    seed: int = 0
    num_threads: int = 1
    json: Path | None = None

    def run(self) -> None:
        """Train, measure, print, draw, write."""
        torch.set_num_threads(self.num_threads)
        models = [results.name_and_preset(model) for model in self.models]
        rows = peers(
            models, self.seconds, self.folder,
            scenes=self.scenes, worlds=self.worlds, seed=self.seed,
        )  # fmt: skip
        columns = ["model", "preset", "parameters", "steps", "seconds", "mse", "free_mse", "kl"]
        columns += ["min-of-n", "low", "high", "ends", "coherent", "new", "orders", "T=40"]
        print(results.table(rows, columns))
        if self.picture is not None:
            draw(models, self.folder, self.picture, seed=self.seed)
            print(f"\ntwo futures by each model: {self.picture}")
        _finish("peers", self, rows)


def _finish(benchmark: str, settings: Any, rows: list[dict[str, Any]]) -> None:
    if settings.json is not None:
        result = results.envelope(benchmark, asdict(settings), rows)
        print(f"\nresult: {results.write(settings.json, result)}")


def _measure(
    benchmark: str,
    settings: Consistency | Fidelity,
    measure: Callable[[WorldModel, int, int, int], list[dict[str, Any]]],
    columns: Sequence[str],
) -> None:
    """Measure each checkpoint of ``settings``, print, write."""
    torch.set_num_threads(settings.num_threads)
    rows = []
    for name in settings.checkpoints:
        model = worldmodel.load(name, settings.device)
        found = measure(model, settings.scenes, settings.worlds, settings.seed)
        rows += [{"checkpoint": name, **row} for row in found]
    print(results.table(rows, ["checkpoint", "model", "metric", *columns]))
    _finish(benchmark, settings, rows)


COMMANDS: dict[str, Any] = {
    "speed": Speed,
    "consistency": Consistency,
    "control": Control,
    "planning": Planning,
    "common-worlds": CommonWorlds,
    "efficiency": Efficiency,
    "dynamics": Dynamics,
    "fidelity": Fidelity,
    "options": Options,
    "peers": Peers,
}


def main() -> None:
    """Run the command line; errors of usage end with one line, not a traceback."""
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, description=__doc__, prog="python -m evaluation"
    )
    try:
        command.run()
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
