"""Every model on the paper's task, each trained for the same time on the same scenes.

Nature's Traveling Salesman, with the first six of 21 frames as the context (seed 001, section 4.1).
The time is CPU time of the training process, measured over some steps first, so that each schedule
runs to its end within it. Checkpoints that are there already are not trained again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym

import worldmodel
from envs import SceneStream, sample_scenes
from evaluation.measurements.consistency import Consistency
from evaluation.measurements.fidelity import CONTEXT_FRAMES, Fidelity
from evaluation.measurements.speed import FIRST, STILL, Speed
from evaluation.metrics.story_consistency import LEG_ENDS, NATURE
from evaluation.report.pictures import save_sheets
from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults
from worldmodel import Progress, Spec, WorldModel
from worldmodel.checkpoint import read_config
from worldmodel.common import results
from worldmodel.imagine import imagine
from worldmodel.training.validation import Validation

SIZE, BATCH, WINDOW = 32, 16, 20
WARM_UP, TIMED = 4, 12
"""Steps before and while a training step is timed."""
TRAINED = (  # not gqn: its 256 channels take an hour; not cvg: it knows no context
    *(f"{name}:small" for name in FIRST if name not in ("gqn", "cvg", "vim", *STILL)),
    "vim:stories",  # small has slots for three objects
    "jump:jumpy",
    "sssm:jumpy",
)


@dataclass(frozen=True)
class ModelComparison(Measurement):
    """Every model on nature's Traveling Salesman, trained for the same time on the same scenes."""

    name = "model-comparison"
    columns = (
        "model", "preset", "parameters", "steps", "seconds", "mse", "free_mse", "kl", "min-of-n",
        "low", "high", "ends", "coherent", "new", "orders", "T=40",
    )  # fmt: skip
    models: tuple[str, ...] = TRAINED
    """model:preset."""
    seconds: float = 300.0
    """Of CPU time, to train each."""
    folder: Path = Path("runs/model-comparison")
    """For checkpoints, one folder for each model; those that are there are not trained again."""
    picture: Path | None = None
    """PNG file with two futures by each model."""
    scenes: int = 100
    """Of the test split."""
    worlds: int = 30
    """Sampled of each scene."""
    seed: int = 0

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``model, preset, parameters, steps, seconds, mse, free_mse, kl``; ``min-of-n`` with
        ``low`` and ``high``, and ``copy-last``, of frames 7 to 21; ``ends`` and ``ends-copied``,
        the same of frames 11, 16 and 21, which models that stride reach, too; ``coherent``, ``new``
        and ``orders`` of ``Consistency``; ``T=40``, seconds to a frame 40 steps ahead, one scene.

        ``mse`` is of frames for which a model is given the truth as in its training, and
        ``free_mse`` of one freely imagined world: compare them within a row. JUMP's posterior gets
        the frame itself, SVG's decoder the frame before, and one sample of an honest model is
        seldom the truth.

        Raises:
            ValueError: an unknown model or preset; ``seconds`` is not above 0.
            FileExistsError: a checkpoint in ``folder`` was trained with other settings.
        """
        if self.seconds <= 0:
            raise ValueError(f"seconds: expected above 0, got {self.seconds}")
        timing = Speed(models=self.models, distances=(40,), size=SIZE, repeats=7).measure()
        timed = {
            f"{row['model']}:{row['preset']}": row["seconds"]
            for row in timing
            if row["kind"] == "seconds"
        }
        parts = {" ".join(results.name_and_preset(model)): model for model in self.models}
        rows = partial_results.each(self._of_model, parts, self.name, "model")
        if self.picture is not None:
            self.draw(self.picture)
        # Times are compared, so they are those of this run for all.
        return [{**row, "T=40": timed.get(m)} for row, m in zip(rows, parts.values(), strict=True)]

    def text(self, rows: list[Row]) -> str:
        """A table, and where the picture is."""
        where = "" if self.picture is None else f"\n\ntwo futures by each model: {self.picture}"
        return super().text(rows) + where

    def train(self, model: str) -> WorldModel:
        """The model from its folder, trained first if it is not there.

        Args:
            model: as model:preset.

        Raises:
            ValueError, FileExistsError: as for ``rows``.
        """
        new, home = self._new(model), self._home(model)
        if not new.trainable:
            return new.eval()
        settings = {"budget": self.seconds, "seed": self.seed}
        if (home / "config.json").is_file():
            facts, existing = read_config(home)["training"], worldmodel.load(home)
            same = (existing.config, existing.spec) == (new.config, new.spec)
            if not same or {key: facts.get(key) for key in settings} != settings:
                raise FileExistsError(
                    f"{home}: was trained with {facts}, {existing.config}, not with {settings}, "
                    f"{new.config}; choose another folder"
                )
            return existing
        source = SceneStream(NATURE, BATCH, size=SIZE, seed=self.seed)
        steps = max(1, round(self.seconds / _seconds_per_step(self._new(model, 0), source)))
        began = time.process_time()
        worldmodel.fit(new, source, steps, seed=self.seed)
        spent = time.process_time() - began
        worldmodel.save(new, home, training={**settings, "steps": steps, "spent": spent})
        return new

    def draw(self, out: Path, scene: int = 0) -> None:
        """Write a picture like the paper's figure 4: truth, and two futures by each trained model.

        The context ends with frame 6, in yellow; frames 11, 16 and 21 (ends of legs) are imagined.

        Args:
            out: a PNG file.
            scene: number of the scene in the test split.

        Raises:
            FileNotFoundError: a model is not in ``folder``; ``train`` makes it.
        """
        scenes = sample_scenes(NATURE, 1, split="test", size=SIZE, seed=self.seed, index=scene)
        imagined = {}
        for model in self.models:
            new = self._new(model)
            one = worldmodel.load(self._home(model)) if new.trainable else new.eval()
            imagined["\n".join(results.name_and_preset(model))] = imagine(
                one, scenes, range(CONTEXT_FRAMES), LEG_ENDS, worlds=2, seed=self.seed
            )
        save_sheets(imagined, out)

    def _home(self, model: str) -> Path:
        return self.folder / "-".join(results.name_and_preset(model))

    def _new(self, model: str, seed: int | None = None) -> WorldModel:
        name, preset = results.name_and_preset(model)
        env = gym.make(f"envs:{NATURE}", size=SIZE)
        spec = Spec.from_spaces(env.observation_space, env.action_space, WINDOW)
        return worldmodel.make(name, spec, preset, self.seed if seed is None else seed)

    def _of_model(self, model: str) -> Row:
        name, preset = results.name_and_preset(model)
        one = self.train(model)
        facts = {"steps": 0, "spent": 0.0}
        if one.trainable:
            facts = read_config(self._home(model))["training"]
        row: Row = {"model": name, "preset": preset}
        row["parameters"] = sum(weights.numel() for weights in one.parameters())
        row |= {"steps": facts["steps"], "seconds": facts["spent"]}
        return row | self._losses(one) | self._samples(one)

    def _losses(self, model: WorldModel) -> Row:
        """Of test scenes: the error with the truth given, and that of what is freely imagined."""
        if not model.trainable:
            return {}
        test = SceneStream(NATURE, BATCH, size=SIZE, seed=self.seed, split="test")
        losses = Validation(test, 1, self.seed).measure(model)
        forced = losses.get("forced_mse", losses["mse"])
        return {"mse": forced, "free_mse": losses["free_mse"], "kl": losses["kl"]}

    def _samples(self, model: WorldModel) -> Row:
        """Errors and stories of sampled worlds."""
        fidelity = Fidelity(env=NATURE, scenes=self.scenes, worlds=self.worlds, seed=self.seed)
        error = {row["metric"]: row for row in fidelity.of_model(model)}
        row: Row = {}
        if model.stride == 1:
            best = error["mse, min-of-n"]
            row = {"min-of-n": best["value"], "low": best["low"], "high": best["high"]}
            row["copy-last"] = error["mse, copy-last"]["value"]
        row["ends"] = error["mse, leg ends, min-of-n"]["value"]
        row["ends-copied"] = error["mse, leg ends, copy-last"]["value"]
        consistency = Consistency(env=NATURE, scenes=self.scenes, worlds=8, seed=self.seed)
        story = {row["metric"]: row["value"] for row in consistency.of_model(model)}
        row |= {"coherent": story["coherent stories"], "new": story["new visits"]}
        return {**row, "orders": story["distinct stories"]}


def _seconds_per_step(model: WorldModel, source: SceneStream) -> float:
    """CPU seconds of one training step, of a model that is thrown away."""
    marks: list[float] = []

    def mark(progress: Progress) -> None:
        marks.append(time.process_time())

    steps = WARM_UP + TIMED
    worldmodel.fit(model, source, steps, log_every=1, callbacks=[mark], progress=False)
    return (marks[-1] - marks[WARM_UP - 1]) / TIMED
