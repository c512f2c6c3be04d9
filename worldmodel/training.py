"""The one training loop: any model, any source, on Lightning Fabric."""

from __future__ import annotations

import hashlib
import math
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.data import atomic
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import SceneBatch, SceneSource

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STATE = "training.pt"
COLLAPSED_KL = 0.1
"""Nats below which a latent counts as unused."""
COLLAPSE_AFTER = 0.25
COLLAPSE_STEPS = 500
"""Share of the training, and steps, after which an unused latent is worth a warning."""


@dataclass(frozen=True)
class Progress:
    """What a callback sees.

    Attributes:
        step: training steps done.
        model: the model as it is now.
        writer: TensorBoard's, or None without a folder.
        parts: the losses of this step.
    """

    step: int
    model: WorldModel
    writer: SummaryWriter | None
    parts: dict[str, float]


Callback = Callable[[Progress], None]


def fit(
    model: WorldModel,
    source: SceneSource,
    steps: int,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    accelerator: str | None = None,
    devices: int = 1,
    strategy: str = "auto",
    precision: Any = "32-true",
    clip: float = 100.0,
    log_every: int = 50,
    save_minutes: float = 5.0,
    callbacks: Sequence[Callback] = (),
    training: dict[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Train ``model`` in place for ``steps`` steps in all and return the last losses.

    The learning rate runs linearly from ``config.learning_rate`` to ``learning_rate_end``; models
    scale their own schedules to ``steps``.

    Args:
        model: a registered world model; it is moved to the device.
        source: an env's scene stream, or ``Episodes.windows(...)``; training runs on its device.
        steps: the whole run's, including those done before a resume; the schedules are scaled to
            it, so a resumed run keeps it.
        folder: where the checkpoint, the training state and TensorBoard's scalars go; None keeps
            nothing.
        resume: go on from the training state in ``folder``; bit-exact on one device.
        seed: of the training draws; the source has its own.
        accelerator, devices, strategy, precision: as in ``lightning.fabric.Fabric``; None takes
            the kind of device that the source's batches are on.
        clip: gradient norm above which gradients are scaled down.
        log_every: steps between logs, callbacks and checks of the loss.
        save_minutes: time between checkpoints; one is also written at the end and on SIGINT or
            SIGTERM.
        callbacks: called at every log.
        training: facts to keep in the checkpoint beside steps and seed.
        progress: show a progress bar, or a line every 30 s where there is no terminal.

    Raises:
        ValueError: ``steps`` is below 1; the source's scenes are not what the model was made for;
            ``resume`` without a folder, or of another run.
        FileExistsError: ``folder`` holds a checkpoint and ``resume`` is False.
        FileNotFoundError: ``resume``, but there is no training state.
        FloatingPointError: loss, gradient or weights are not finite; the last good checkpoint is
            kept.
        KeyboardInterrupt: a signal came; the checkpoint has been written.
    """
    from lightning.fabric import Fabric  # importing takes seconds

    if steps < 1 or log_every < 1:
        raise ValueError(f"steps, log_every: expected at least 1, got {steps} and {log_every}")
    scenes = source.batch(0)
    check_source(model.spec, source, scenes)
    device = scenes.lengths.device.type
    settings = {"seed": seed, "steps": steps, "clip": clip, "precision": str(precision)}
    run = _Run(model, folder, {**settings, "source": _fingerprint(scenes)}, training or {})
    run.check_folder(resume)
    fabric = Fabric(
        accelerator=accelerator or device, devices=devices, strategy=strategy, precision=precision
    )
    if fabric.device.type != device:
        raise ValueError(
            f"source: its batches are on {device}, training runs on {fabric.device.type}; make the "
            f"source with device={fabric.device.type!r}"
        )
    if fabric.world_size > 1:
        fabric.launch()
    module, optimizer = fabric.setup(_Step(model, source, seed), run.optimizer)
    done = 0
    if resume:
        done = run.resume()
    else:
        model.prepare(source)
    lead = fabric.is_global_zero
    logger = _Logger(run, callbacks if lead else (), lead, lead and progress, done)
    saved = time.monotonic()
    model.train()
    with _stop_signals() as stopped, logger:
        while done < steps and not stopped.is_set():
            rate = run.set_rate(optimizer, done / steps)
            index = done * fabric.world_size + fabric.global_rank
            total, parts = module(index, done / steps)
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(total)
            parts["gradient"] = fabric.clip_gradients(
                module, optimizer, max_norm=clip, error_if_nonfinite=False
            )
            optimizer.step()
            done += 1
            logger.bar.update()
            if done % log_every == 0 or done == steps:
                logger.log(done, parts, rate)
            if lead and time.monotonic() - saved > save_minutes * 60:
                run.save(done)
                saved = time.monotonic()
        if lead:  # however the loop ended; a signal may come at any point of it
            run.save(done)
    model.eval()
    if done < steps:
        raise KeyboardInterrupt(
            f"stopped after step {done}; resume=True (--resume) goes on from there"
        )
    return logger.parts


def check_source(spec: Spec, source: SceneSource, scenes: SceneBatch) -> None:
    """Raise ValueError unless a source, of which ``scenes`` is a batch, fits a model's spec."""
    first = torch.zeros_like(scenes.lengths).unsqueeze(1)
    if spec.pose:  # poses say all that its actions could
        poses = scenes.poses(first)
        numbers = 0 if poses is None else poses.shape[-1]
        if numbers != spec.pose:
            raise ValueError(
                f"source: its poses have {numbers} numbers, the model was made for {spec.pose}"
            )
    elif ActionSpec.from_space(source.action_space) != spec.action:
        raise ValueError(
            f"source: its action space is {source.action_space}, the model was made for "
            f"{spec.action.to_space()}"
        )
    steps = scenes.actions.shape[1]
    frames = scenes.observations(first)
    shape, dtype = spec.border
    found = str(frames.dtype).removeprefix("torch.")
    if found != dtype.name or tuple(frames.shape[2:]) != shape:
        raise ValueError(
            f"source: its observations are {found} {tuple(frames.shape[2:])}, the model was made "
            f"for {dtype.name} {shape}"
        )
    if steps > spec.window:
        raise ValueError(
            f"source: its windows have {steps} steps, more than the model's {spec.window}"
        )


def _fingerprint(scenes: SceneBatch) -> str:
    """Tells sources apart by their first batch's actions and ends, on whatever device."""
    actions = np.ascontiguousarray(scenes.actions.cpu().numpy())
    digest = hashlib.sha256(repr(actions.shape).encode() + actions.tobytes())
    digest.update(scenes.lengths.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class _Step(nn.Module):
    """One training step as a module, so that no batch travels through Fabric's conversions."""

    def __init__(self, model: WorldModel, source: SceneSource, seed: int) -> None:
        super().__init__()
        self.model, self.source, self.seed = model, source, seed

    def forward(self, index: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        # The step's randomness is a function of seed and index alone: resuming needs no RNG state.
        generator = torch.Generator(self.model.device)
        generator.manual_seed((self.seed * 0x9E3779B1 + index * 0x85EBCA77) % 2**63)
        losses = self.model(self.source.batch(index), progress, generator)
        return losses.total, losses.parts


class _Run:
    """Optimizer, checkpoint and training state of one run."""

    def __init__(
        self,
        model: WorldModel,
        folder: str | Path | None,
        settings: dict[str, Any],
        training: dict[str, Any],
    ) -> None:
        self.model, self.training = model, training
        self.optimizer = torch.optim.Adam(model.parameters(), lr=model.config.learning_rate)
        self.folder = None if folder is None else Path(folder)
        self.identity = {
            "model": model.name,
            "config": asdict(model.config),
            "spec": model.spec.to_dict(),
            **settings,
        }
        self.began, self.seconds = time.monotonic(), 0.0

    def check_folder(self, resume: bool) -> None:
        """Refuse to lose an older checkpoint, or to resume from nothing."""
        if resume and self.folder is None:
            raise ValueError("resume: needs the folder of the run to go on with")
        if self.folder is None:
            return
        if resume and not (self.folder / STATE).is_file():
            raise FileNotFoundError(
                f"resume: {self.folder / STATE} is missing; nothing was trained there"
            )
        if not resume and (self.folder / "config.json").exists():
            raise FileExistsError(
                f"folder: {self.folder} already holds a checkpoint; pass resume=True (--resume) to "
                "go on, or another folder (--out)"
            )

    def set_rate(self, optimizer: Any, share: float) -> float:
        """The learning rate after that share of the steps."""
        first, last = self.model.config.learning_rate, self.model.config.learning_rate_end
        rate = float(first + share * (last - first))
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def resume(self) -> int:
        """Restore weights and optimizer; returns the steps done.

        Raises:
            ValueError: the file is corrupt or belongs to another run.
        """
        assert self.folder is not None
        path = self.folder / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"resume: {path} is corrupt or truncated ({error})") from error
        for name, value in self.identity.items():
            before = state["run"].get(name)
            if before != value:
                raise ValueError(
                    f"resume: {path} was trained with {name} = {before!r}, now it is {value!r}"
                )
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds, self.training = float(state["seconds"]), state["training"]
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write the checkpoint and, after it, the training state."""
        if self.folder is None:
            return
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise FloatingPointError(
                f"the weights are not finite at step {step}; the last good checkpoint is kept"
            )
        seconds = self.seconds + time.monotonic() - self.began
        facts = {"step": step, "minutes": round(seconds / 60, 1), **self.training}
        facts |= {name: self.identity[name] for name in ("steps", "seed")}
        checkpoint.save(self.model, self.folder, facts)
        state = {
            "run": self.identity,
            "step": step,
            "seconds": seconds,
            "training": self.training,
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic(self.folder / STATE) as path:
            torch.save(state, path)


class _Logger:
    """Progress bar, TensorBoard scalars and callbacks; checks that the losses are finite."""

    def __init__(
        self, run: _Run, callbacks: Sequence[Callback], lead: bool, bar: bool, done: int
    ) -> None:
        self.run, self.callbacks = run, callbacks
        self.writer: SummaryWriter | None = None
        if lead and run.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run.folder), purge_step=done + 1 if done else None)
        self.bar = tqdm(
            total=run.identity["steps"],
            initial=done,
            desc=f"fit {run.model.name}",
            unit="step",
            disable=not bar,
            mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds; a log file is no terminal
        )
        self.parts: dict[str, float] = {}
        self.warned = False

    def __enter__(self) -> _Logger:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

    def log(self, step: int, parts: dict[str, Tensor], rate: float) -> None:
        """Log one step's losses; raises FloatingPointError where they are not finite."""
        self.parts = {name: float(value) for name, value in parts.items()}
        if not all(math.isfinite(value) for value in self.parts.values()):
            raise FloatingPointError(
                f"the loss is not finite at step {step}: {self.parts}; the last good checkpoint is "
                "kept. Lower the learning rate, or look for NaN in the observations and rewards"
            )
        self._watch_latent(step)
        shown = {name: f"{value:.4g}" for name, value in self.parts.items()}
        self.bar.set_postfix(shown, refresh=sys.stderr.isatty())
        if self.writer is not None:
            for name, value in {**self.parts, "learning_rate": rate}.items():
                self.writer.add_scalar(f"train/{name}", value, step)
        model = self.run.model
        for callback in self.callbacks:
            callback(Progress(step, model.eval(), self.writer, self.parts))
        model.train()

    def _watch_latent(self, step: int) -> None:
        """Warn once if the latent says nothing well into the training: it seldom wakes up again."""
        late = step >= max(COLLAPSE_AFTER * self.run.identity["steps"], COLLAPSE_STEPS)
        if self.warned or not late or self.parts.get("kl", math.inf) >= COLLAPSED_KL:
            return
        self.warned = True
        warnings.warn(
            f"KL is {self.parts['kl']:.2g} nats at step {step}: the latent is not used, all "
            "sampled worlds will look alike. Right if the context tells the whole scene; else "
            "lower the pixel variance (variance_start, variance_end, or variance_steps that go "
            "down and up again) or show smaller contexts (context_min)",
            stacklevel=4,
        )


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event, so that a step is never torn apart."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # only the main thread may handle signals
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
