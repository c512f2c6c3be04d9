"""Progress of a run: progress bar, TensorBoard, callbacks, warnings."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.common.progress import on_terminal, progress_bar
from worldmodel.training.precision import Choice
from worldmodel.training.run import Run
from worldmodel.training.tensorboard_help import TRAINING, TRAINING_CHARTS, explain

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COLLAPSED_KL = 0.1
"""Nats below which a latent counts as unused."""
COLLAPSE_AFTER = 0.25
COLLAPSE_STEPS = 500
"""Share of the training, and steps, after which an unused latent is worth a warning."""

NARROW = 0.5
"""Spread (``validation.spread``) below which sampled worlds differ too little."""


@dataclass(frozen=True)
class Progress:
    """What a callback gets.

    Attributes:
        step: training steps done.
        model: the model as it is now.
        writer: TensorBoard's, or None without a folder.
        parts: the losses; of a model that trains in parts each as it was when last computed.
    """

    step: int
    model: WorldModel
    writer: SummaryWriter | None
    parts: dict[str, float]


Callback = Callable[[Progress], None]


class Monitor:
    """Progress bar, TensorBoard scalars and callbacks; checks that the losses are finite."""

    def __init__(
        self, run: Run, callbacks: Sequence[Callback], lead: bool, bar: bool, done: int
    ) -> None:
        self.run, self.callbacks = run, callbacks
        self.writer: SummaryWriter | None = None
        if lead and run.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run.folder), purge_step=done + 1 if done else None)
            if not done:
                explain(self.writer, "world_model", TRAINING, "World model", TRAINING_CHARTS)
        what, steps = f"fit {run.model.name}", run.identity["steps"]
        self.bar = progress_bar(what, "step", steps, initial=done, show=bar)
        self.parts: dict[str, float] = {}
        self._holdout: dict[str, float] = {}
        self.warned = self.spread_warned = False

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.bar.close()
        if self.writer is None:
            return
        try:
            self.writer.close()
        except OSError:  # of a full disk, say, which may have ended the training already
            if kind is None:
                raise

    def tell_precision(self, choice: Choice, step: int) -> None:
        """Say and log in which precision the networks compute, and why, unless users chose."""
        if not choice.reason:
            return
        if not self.bar.disable:
            self._say(f"precision: {choice.line}", sys.stderr)
        if self.writer is not None:
            self.writer.add_text("world_model/precision", choice.line, step)

    def log(self, step: int, parts: dict[str, Tensor], rate: float) -> None:
        """Log one step's losses; raises FloatingPointError where they are not finite."""
        fresh = {name: float(value) for name, value in parts.items()} | self._holdout
        if not all(math.isfinite(value) for value in fresh.values()):
            raise FloatingPointError(
                f"the loss is not finite at step {step}: {fresh}; the last good checkpoint is "
                "kept. Lower the learning rate, or look for NaN in the observations and rewards"
            )
        self.parts = {**self.parts, **fresh}
        self._watch_latent(step)
        postfix = {name: f"{value:.4g}" for name, value in self.parts.items()}
        self.bar.set_postfix(postfix, refresh=on_terminal())
        if self.writer is not None:
            for name, value in {**fresh, "learning_rate": rate}.items():
                self.writer.add_scalar(f"world_model/{name}", value, step)
        model = self.run.model
        for callback in self.callbacks:
            callback(Progress(step, model.eval(), self.writer, self.parts))
        model.train()

    def log_holdout(self, step: int, error: float) -> None:
        """Log an error on what is held out; ``parts`` have it from now on, as ``holdout``."""
        self._holdout = {"holdout": error}
        if self.writer is not None:
            self.writer.add_scalar("validation/holdout", error, step)

    def log_validation(self, step: int, losses: dict[str, float]) -> None:
        """Log the losses of a validation, and warn of worlds that are all alike."""
        self.watch_spread(step, losses.get("spread"))
        if self.writer is not None:
            for name, value in losses.items():
                self.writer.add_scalar(f"validation/{name}", value, step)

    def _say(self, text: str, file: TextIO) -> None:
        """Print a line; on a terminal above the bar, which tqdm would else draw into logs, too."""
        if on_terminal():
            self.bar.write(text, file=file)
        else:
            file.write(f"{text}\n")
            file.flush()

    def watch_spread(self, step: int, spread: float | None) -> None:
        """Warn once, late in the training, if sampled worlds differ much less than they err."""
        if self.spread_warned or spread is None or spread >= NARROW or not self.late(step):
            return
        self.spread_warned = True
        text = (
            f"sampled worlds differ by {spread:.2g} of what they are off at step {step} (1 if they "
            "are calibrated): what happens by chance is averaged, or not learned yet. Compare "
            "imagined with recorded observations before an agent learns from them; train for "
            "longer, or try a model or settings whose worlds differ more"
        )
        self._say(text, sys.stdout)
        warnings.warn(text, stacklevel=3)

    def late(self, step: int) -> bool:
        """Whether training is so far that its faults will not pass by themselves."""
        steps: int = self.run.identity["steps"]
        return step >= max(COLLAPSE_AFTER * steps, COLLAPSE_STEPS)

    def _watch_latent(self, step: int) -> None:
        """Warn once if the latent is unused late in the training: that seldom changes later."""
        if self.warned or not self.late(step) or not self.run.model.stochastic:
            return
        if self.parts.get("kl", math.inf) >= COLLAPSED_KL:
            return
        self.warned = True
        warnings.warn(
            f"KL is {self.parts['kl']:.2g} nats at step {step}: the latent is not used, all "
            "sampled worlds will look alike. Right if the context determines the scene; else "
            f"let the KL weigh less{self._hint()}",
            stacklevel=4,
        )

    def _hint(self) -> str:
        """The settings of this model that weigh a nat against a pixel."""
        hints = {
            "variance_start": ": lower the pixel variance (variance_start, variance_end, or "
            "variance_steps that go down and up again) or show smaller contexts (context_min)",
            "variance": ": lower the pixel variance (variance)",
            "beta": " (beta)",
            "kl_weight": " (kl_weight)",
        }
        config = self.run.model.config
        return next((text for name, text in hints.items() if hasattr(config, name)), "")
