"""Verbs that measure world models by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import tyro

import worldmodel
from evaluation.commands.base import Command, OfCheckpoints, OfWorlds, Row
from evaluation.measurements import dice_consistency as dice
from evaluation.measurements.ablation import VARIANTS, options
from evaluation.measurements.dynamics import dynamics
from evaluation.measurements.elbo import bound
from evaluation.measurements.fidelity import fidelity
from evaluation.measurements.imagination import FRAMES, PLAN_STEPS, imagination, named
from evaluation.measurements.model_comparison import draw, peers
from evaluation.measurements.perceptual import perceptual
from evaluation.measurements.speed import speed, wide
from evaluation.measurements.story_consistency import consistency
from evaluation.runner.partial_results import Ledger
from worldmodel import MODELS, WorldModel
from worldmodel.common import results

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
NATURE_CHECKPOINT = "traveling-salesman-nature"
INTERVAL = ("value", "low", "high", "n")


@dataclass(frozen=True)
class Speed(Command):
    """Seconds to the frame at distance T: jumpy or frame by frame."""

    benchmark = "speed"
    models: tuple[str, ...] = PAPERS
    """model:preset, the first is what the others are compared with."""
    distances: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
    batches: tuple[int, ...] = (1,)
    size: int = 64
    frames: int = 6
    """Context frames."""
    repeats: int = 5
    """Timed rounds; medians count, and from 6 rounds on their intervals are of 95%."""
    device: str = "cpu"

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure."""
        models = [results.name_and_preset(model) for model in self.models]
        return speed(
            models, self.distances, self.batches,
            size=self.size, frames=self.frames, repeats=self.repeats, device=self.device,
        )  # fmt: skip

    def text(self, rows: list[Row]) -> str:
        """Seconds, ratios to the first model, and exponents."""
        columns = ["model", "preset", "batch", *(f"T={t}" for t in self.distances)]
        parts = [
            f"seconds to the frame at distance T ({self.size} px, {self.device})",
            results.table(wide(rows), columns),
        ]
        if len(self.models) > 1:
            slower = results.table(wide(rows, "ratio", interval=True), columns)
            parts += [f"\ntimes slower than {self.models[0]}", slower]
        grown = [row for row in rows if row["kind"] == "exponent"]
        power = results.table(grown, ["model", "preset", "batch", "exponent", "low", "high"])
        return "\n".join([*parts, "\ncost ~ T^exponent (0: jumpy, 1: frame by frame)", power])


@dataclass(frozen=True)
class Imagination(Command):
    """Frames and scored plan steps per second."""

    benchmark = "imagination"
    columns = ("model", "preset", "size", "horizon", "plans", "worlds")
    models: tyro.conf.Positional[tuple[str, ...]] = (
        "jump:small", "jump:narrative", "sssm:small", "svg-lp:small",
    )  # fmt: skip
    """model:preset with fresh weights, or checkpoints: folders, shipped names or hub ids."""
    horizons: tuple[int, ...] = (5, 10, 20, 40)
    """Steps of a plan."""
    plans: tuple[int, ...] = (1, 64)
    """Imagined at once, in each of the worlds."""
    worlds: int = 1
    size: int = 64
    """Of frames, where weights are fresh."""
    repeats: int = 7
    """Timed rounds; medians count, and from 6 rounds on their intervals are of 95%."""
    seed: int = 0
    device: str = "cpu"

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure."""
        models = {
            name: named(name, self.size, max(self.horizons), self.device) for name in self.models
        }
        rows = imagination(
            models, self.horizons, self.plans,
            worlds=self.worlds, repeats=self.repeats, seed=self.seed,
        )  # fmt: skip
        for row in rows:
            row["model"], _, preset = row["model"].partition(":")
            row["preset"] = preset or None  # a checkpoint
        return rows

    def text(self, rows: list[Row]) -> str:
        """A table of each kind."""
        titles = {
            FRAMES: ("frames per second", "per_second"),
            PLAN_STEPS: ("scored plan steps per second", "per_second"),
            "ratio": ("rendering each plan's last frame takes .. times as long as scoring all its "
                      "steps", "ratio"),
        }  # fmt: skip
        parts = []
        for kind, (title, column) in titles.items():
            of_kind = [row for row in rows if row["kind"] == kind]
            columns = [*self.columns, column, "low", "high", "n"]
            parts.append(f"{title} ({self.device})\n{results.table(of_kind, columns)}")
        return "\n\n".join(parts)


@dataclass(frozen=True)
class Consistency(OfWorlds):
    """Does a sampled world agree with itself? Stories of Traveling Salesman, digits of the dice."""

    benchmark = "consistency"
    columns = ("checkpoint", "model", "metric", *INTERVAL)
    scenes: int = 200
    worlds: int = 8
    picture: Path | None = None
    """PNG file with what each model of the dice imagines on the side that was not shown."""

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure, draw."""

        def measure(model: WorldModel) -> list[Row]:
            found = dice.dice_consistency if model.spec.pose else consistency
            return found(model, self.scenes, self.worlds, self.seed)

        rows = self.each(measure, ledger)
        if self.picture is not None:
            dice.draw({name: worldmodel.load(name) for name in self.checkpoints}, self.picture)
        return rows


@dataclass(frozen=True)
class Fidelity(OfWorlds):
    """The sampled future that comes closest: error (Traveling Salesman), SSIM and PSNR (digits)."""

    benchmark = "fidelity"
    columns = ("checkpoint", "model", "metric", "worlds", *INTERVAL)
    checkpoints: tyro.conf.Positional[tuple[str, ...]] = (NATURE_CHECKPOINT,)
    """Folders, shipped names or hub ids."""
    env: str | None = None
    """narratives/TravelingSalesmanNature-v0 or digits/StochasticMovingDigits-v0; by default the one
    whose scenes are as long as the model's window."""
    scenes: int = 200
    worlds: int | None = None
    """Sampled of each scene; by default the published 30 (Traveling Salesman) or 100 (digits)."""

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure."""
        return self.each(
            lambda model: fidelity(model, self.scenes, self.worlds, self.seed, self.env), ledger
        )


@dataclass(frozen=True)
class Bound(OfCheckpoints):
    """Negative ELBO, KL, reconstruction at one pixel variance."""

    benchmark = "bound"
    columns = ("checkpoint", "model", "env", "metric", *INTERVAL)
    checkpoints: tyro.conf.Positional[tuple[str, ...]] = (NATURE_CHECKPOINT,)
    """Folders, shipped names or hub ids."""
    env: str | None = None
    """One of our environments; by default dice/Views-v0 for models of camera poses, else the
    Traveling Salesman of the model's actions."""
    pixel_variance: float = 0.1
    """For all models alike, and as in their configs: squared errors are divided by it, so the
    likelihood is a Gaussian of half of it."""
    context: int = 3
    """Frames that are shown: the first ones."""
    targets: int = 3
    """Frames to explain, all at once: random later ones, the same for every model."""
    scenes: int = 200

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure."""
        return self.each(
            lambda model: bound(
                model, self.env, pixel_variance=self.pixel_variance, context=self.context,
                targets=self.targets, scenes=self.scenes, seed=self.seed,
            ),
            ledger,
        )  # fmt: skip


@dataclass(frozen=True)
class Perceptual(OfWorlds):
    """LPIPS and FVD of passive scenes; both need weights of yours (see --lpips and --i3d)."""

    benchmark = "perceptual"
    columns = ("checkpoint", "model", "env", "metric", "worlds", *INTERVAL)
    checkpoints: tyro.conf.Positional[tuple[str, ...]] = (NATURE_CHECKPOINT,)
    """Folders, shipped names or hub ids."""
    env: str | None = None
    """As for fidelity."""
    lpips: bool = False
    """Needs torchvision (the extra "perceptual") and its AlexNet weights in torch's hub folder."""
    i3d: Path | None = None
    """For FVD: TorchScript file of an I3D trained on Kinetics-400. It can run code: take only one
    that you trust."""
    scenes: int = 200
    """FVD is biased upwards where they are few; papers take 256 to 2,048."""
    worlds: int = 5

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure."""
        return self.each(
            lambda model: perceptual(
                model, self.env, lpips=self.lpips, i3d=self.i3d, scenes=self.scenes,
                worlds=self.worlds, seed=self.seed,
            ),
            ledger,
        )  # fmt: skip


@dataclass(frozen=True)
class Dynamics(Command):
    """Error of a jump of k steps on vectors, and of its peers."""

    benchmark = "dynamics"
    columns = ("env", "model", "k", "mse", "low", "high", "n")
    envs: tuple[str, ...] = ("CartPole-v1", "Pendulum-v1")
    episodes: int = 2000
    steps: int = 10_000
    """Of training, for each model."""
    distances: tuple[int, ...] = (1, 5, 20)
    seed: int = 0

    def rows(self, ledger: Ledger) -> list[Row]:
        """Collect, train, measure."""

        def measure(env: str) -> list[Row]:
            return dynamics(env, self.episodes, self.steps, self.distances, seed=self.seed)

        parts = {env: env for env in self.envs}
        return list(chain(*ledger.each(measure, parts, self.benchmark, "environment")))


@dataclass(frozen=True)
class Options(Command):
    """JUMP's options beyond the paper, at equal steps and at equal time."""

    benchmark = "options"
    columns = (
        "equal", "variant", "parameters", "step", "seconds", "seen", "min-of-n", "mean-of-n",
        "copy-last", "kl", "negative_elbo",
    )  # fmt: skip
    variants: tuple[str, ...] = tuple(VARIANTS)
    steps: int = 2000
    seconds: float = 300.0
    """Of CPU time."""
    scenes: int = 128
    seed: int = 0

    def rows(self, ledger: Ledger) -> list[Row]:
        """Train all, measure."""
        rows = options(self.variants, self.steps, self.seconds, self.scenes, self.seed, ledger)
        return sorted(rows, key=lambda row: str(row["equal"]))


@dataclass(frozen=True)
class Peers(Command):
    """Every model on nature's Traveling Salesman, trained for the same time on the same scenes."""

    benchmark = "peers"
    columns = (
        "model", "preset", "parameters", "steps", "seconds", "mse", "free_mse", "kl", "min-of-n",
        "low", "high", "ends", "coherent", "new", "orders", "T=40",
    )  # fmt: skip
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

    def rows(self, ledger: Ledger) -> list[Row]:
        """Train, measure, draw."""
        models = [results.name_and_preset(model) for model in self.models]
        rows = peers(
            models, self.seconds, self.folder,
            scenes=self.scenes, worlds=self.worlds, seed=self.seed, ledger=ledger,
        )  # fmt: skip
        if self.picture is not None:
            draw(models, self.folder, self.picture, seed=self.seed)
        return rows

    def text(self, rows: list[Row]) -> str:
        """A table, and where the picture is."""
        drawn = "" if self.picture is None else f"\n\ntwo futures by each model: {self.picture}"
        return super().text(rows) + drawn
