"""The one training loop: any model, any source, on Lightning Fabric."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.base import WorldModel
from worldmodel.common.config_checks import check_seed
from worldmodel.common.signals import stop_signals
from worldmodel.data.episodes import Episodes
from worldmodel.training.compiled import compile_parts
from worldmodel.training.early_stopping import EarlyStopping
from worldmodel.training.monitor import Callback, Monitor
from worldmodel.training.precision import FABRIC, Choice, Precision, choose
from worldmodel.training.run import Run
from worldmodel.training.source import (
    brightness,
    check_source,
    fingerprint,
    pass_length,
    training_sources,
)
from worldmodel.training.validation import Validation
from worldmodel.types import SceneBatch, SceneSource


def fit(
    model: WorldModel,
    source: SceneSource | Episodes,
    steps: int,
    *,
    batch_size: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    accelerator: str | None = None,
    devices: int | None = None,
    strategy: Any = "auto",
    precision: Precision = "auto",
    clip: float = 100.0,
    ema: float | None = None,
    compile: bool = False,
    validation: SceneSource | None = None,
    validate_every: int = 1000,
    holdout: SceneSource | None = None,
    holdout_every: int | None = None,
    patience: int = 5,
    log_every: int = 50,
    save_minutes: float = 5.0,
    callbacks: Sequence[Callback] = (),
    training: dict[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Train ``model`` in place for ``steps`` steps in all and return the last losses.

    A run that was complete already returns none.

    The learning rate runs linearly from ``config.learning_rate`` to ``learning_rate_end``, unless
    the model says otherwise; models scale their own schedules to ``steps``.

    Args:
        model: a registered world model; it is moved to the device.
        source: recorded ``Episodes``; or an env's scene stream, or ``Episodes.windows(...)``, and
            training runs on its device. Episodes are cut into windows as the model's
            ``training_window`` says, and some are held out if its ``holdout_share`` says so. A
            model without an ``env_id`` takes that of its source, if it has one.
        steps: of the whole run, including those done before a resume; with ``holdout`` at most so
            many. The schedules are scaled to it, so a resumed run has the same.
        batch_size: windows in a batch, of Episodes; None for the model's ``training_batch``.
        folder: where the checkpoint, the training state and TensorBoard's scalars go; None writes
            nothing.
        resume: go on from the training state in ``folder``; bit-exact on one device.
        seed: of the training draws; the source has its own.
        accelerator, strategy: as in ``lightning.fabric.Fabric``; None takes the kind of device that
            the source's batches are on.
        precision: of the networks; losses, weights and the optimizer are float32 always. "bf16"
            computes products and convolutions in bfloat16 (``torch.autocast``). "auto" takes it for
            observations with an image where it is clearly faster: on GPUs that have it, and on a
            CPU on which one process measures it to be. A resumed run goes on as it began.
        devices: processes to start on this machine; None for one, or for as many as ``torchrun``
            started, on however many machines. Each draws batches of its own.
        clip: gradient norm above which gradients are scaled down. If that happens often, rare
            events, such as large rewards, count for less than they should.
        ema: decay of a running average of the weights, such as 0.999: the checkpoint, the
            validation and the trained model are then of the average. 0: of the last weights. None
            takes ``config.ema``, 0 if the model has none.
        compile: run the model's blocks through ``torch.compile``; a warning says if that failed.
        validation: scenes that are not trained on. Their losses are logged, and the weights with
            the lowest are saved as a checkpoint in ``folder/best``.
        validate_every: steps between validations; the last step is validated too.
        holdout: scenes that are not trained on. If the error on them (``model.holdout_errors``) no
            longer falls, training stops early; the model then has the weights with the lowest
            error, of an ensemble each member its own.
        holdout_every: steps between measurements on them; None for one pass through the recorded
            steps, at least 50.
        patience: measurements without an improvement of 1% after which training stops.
        log_every: steps between logs, callbacks and checks of the loss.
        save_minutes: time between checkpoints; one is also written at the end and on SIGINT or
            SIGTERM.
        callbacks: called at every log.
        training: further facts for the checkpoint, which has steps and seed.
        progress: show a progress bar, or a line every 30 s where there is no terminal.

    Raises:
        TypeError: ``source`` is neither a source nor Episodes.
        ValueError: a number is out of range; the model has no weights, or is of
            ``optimise_for_inference``; the source's scenes are not
            what the model was made for; ``batch_size`` for a source that makes its own batches;
            ``ema`` with ``holdout``; ``resume`` without a folder, or of another run, or another
            precision.
        FileExistsError: ``folder`` holds a checkpoint and ``resume`` is False.
        BlockingIOError: another run is at work in ``folder``.
        OSError: the disk is full, say; the last good checkpoint is kept.
        FileNotFoundError: ``resume``, but there is no training state.
        FloatingPointError: loss, gradient or weights are not finite; the last good checkpoint is
            kept.
        KeyboardInterrupt: a signal came; the checkpoint has been written.
        ConnectionError: another process of the run died, or was silent for as long as the strategy
            waits (half an hour by default); the last checkpoint is kept.
    """
    source, holdout = training_sources(model, source, holdout, batch_size, seed, accelerator)
    if steps < 1 or log_every < 1:
        raise ValueError(f"steps, log_every: expected at least 1, got {steps} and {log_every}")
    if devices is not None and devices < 1:
        raise ValueError(f"devices: expected at least 1, got {devices}")
    if not clip > 0:
        raise ValueError(f"clip: expected a gradient norm above 0 (or infinity), got {clip}")
    check_seed(seed)
    model.check_not_optimised("be trained")
    if not model.trainable:
        raise ValueError(f"model: {model.name} has nothing to learn; use it as it is")
    scenes = _first_batch(model, source, validation=validation, holdout=holdout)
    model.env_id = model.env_id or getattr(source, "env_id", None)
    checks = Validation(validation, validate_every, seed)
    stopping = None
    if holdout is not None:
        if ema:
            raise ValueError("ema: with a holdout the best weights are taken, not an average")
        ema = 0.0
        every = pass_length(source) if holdout_every is None else holdout_every
        stopping = EarlyStopping(model, holdout, every, patience, seed)
    ema = getattr(model.config, "ema", 0.0) if ema is None else ema
    settings: dict[str, Any] = {"seed": seed, "steps": steps, "clip": clip, "ema": ema}
    local, nodes = (devices, 1) if devices is not None else _launched()
    settings |= {"devices": local * nodes, "source": fingerprint(scenes)}
    settings |= {"first observations": brightness(scenes)}
    run = Run(model, folder, settings, training or {}, stopping)
    with run.claimed(resume):
        device = scenes.lengths.device.type
        begun = run.begun_precision() if resume else None
        choice = choose(precision, model.spec, device, local * nodes, begun)
        run.set_precision(choice)
        fabric = _fabric(
            device, accelerator or device, local, nodes, strategy, choice, model.trains_in_parts
        )
        module, optimizer = fabric.setup(_Step(model, source, seed), run.optimizer)
        done = run.resume() if resume else 0
        model.prepare(source)
        lead = fabric.is_global_zero
        monitor = Monitor(run, callbacks if lead else (), lead, lead and progress, done)
        monitor.tell_precision(choice, done)
        saved = time.monotonic()
        model.train()
        if compile:
            compile_parts(model, lambda: fabric.backward(module(0, 0.0)[0]))
        with stop_signals() as stopped, monitor, _lost_process(fabric, run):
            while not (
                _over(stopping, done, steps)
                or _agree_to_stop(fabric, stopped, done % log_every == 0)
            ):
                rate = run.set_rate(optimizer, done, steps)
                total, parts = module(done * fabric.world_size + fabric.global_rank, done / steps)
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(total)
                parts["gradient"] = fabric.clip_gradients(
                    module, optimizer, max_norm=clip, error_if_nonfinite=False
                )
                optimizer.step()
                run.average.update()
                done += 1
                monitor.bar.update()
                if stopping is not None and stopping.due(done, steps):
                    monitor.log_holdout(done, stopping.measure())
                if done % log_every == 0 or _over(stopping, done, steps):
                    monitor.log(done, parts, rate)
                if lead and checks.due(done, steps):
                    with run.average.swapped():
                        losses = checks.measure(model)
                        run.save_best(done, losses["loss"])
                    monitor.log_validation(done, losses)
                    model.train()
                if lead and time.monotonic() - saved > save_minutes * 60:
                    run.save(done)
                    saved = time.monotonic()
            complete = _over(stopping, done, steps)
            if stopping is not None and complete:
                stopping.apply()
                if monitor.parts:
                    monitor.parts["holdout"] = stopping.lowest
            if lead:  # however the loop ended; a signal may come at any point of it
                run.save(done)
            if fabric.world_size > 1:
                fabric.barrier()  # who returns may load what the lead has saved
        run.average.apply()
        model.eval()
        if lead and monitor.parts and validation is None and monitor.late(done):
            monitor.watch_spread(done, Validation(source, 1, seed).spread(model))
        if not complete or stopped.is_set():  # a signal at the end is for whoever called, too
            more = run.folder and not complete
            further = "; resume=True (--resume) goes on from there" if more else ""
            raise KeyboardInterrupt(f"stopped after step {done}{further}")
        return monitor.parts


def _over(stopping: EarlyStopping | None, done: int, steps: int) -> bool:
    """Whether the run is complete after ``done`` of at most ``steps`` steps."""
    return done >= steps or (stopping is not None and stopping.over)


def _first_batch(
    model: WorldModel, source: SceneSource, **others: SceneSource | None
) -> SceneBatch:
    """The first batch of ``source``, after it and ``others`` were checked."""
    scenes = source.batch(0)
    check_source(model.spec, source, scenes)
    for name, other in others.items():
        if other is None:
            continue
        first = other.batch(0)
        check_source(model.spec, other, first)
        there, here = first.lengths.device.type, scenes.lengths.device.type
        if there != here:
            raise ValueError(f"{name}: its batches are on {there}, those of source on {here}")
    return scenes


def _launched() -> tuple[int, int]:
    """Processes on each machine, and machines: as ``torchrun`` says, else one."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return local, int(os.environ.get("WORLD_SIZE", local)) // local


def _fabric(
    device: str, accelerator: str, devices: int, nodes: int, strategy: Any, choice: Choice,
    parts: bool,
) -> Any:  # fmt: skip
    """Fabric, with all its processes started; ``parts``: see ``WorldModel.trains_in_parts``.

    Raises:
        ValueError: the batches are on another device than training.
    """
    from lightning.fabric import Fabric  # importing takes seconds

    if parts and strategy == "auto" and devices * nodes > 1 and not hasattr(sys, "ps1"):
        strategy = "ddp_find_unused_parameters_true"  # not in notebooks, which have their own
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=FABRIC[choice.name],
    )
    if fabric.device.type != device:
        raise ValueError(
            f"source: its batches are on {device}, training runs on {fabric.device.type}; make the "
            f"source with device={fabric.device.type!r}"
        )
    if fabric.world_size > 1:
        fabric.launch()
    return fabric


def _agree_to_stop(fabric: Any, stopped: threading.Event, now: bool) -> bool:
    """Whether to stop. Of several processes all stop at the same step, if one got a signal.

    They would wait for each other forever else. It costs communication: only at some steps.
    """
    if fabric.world_size == 1:
        return stopped.is_set()
    if not now:
        return False
    stop = torch.tensor(float(stopped.is_set()), device=fabric.device)
    return bool(fabric.all_reduce(stop, reduce_op="max") > 0)


@contextmanager
def _lost_process(fabric: Any, run: Run) -> Iterator[None]:
    """Raise ConnectionError when another process is gone; torch names a socket or a timeout."""
    try:
        yield
    except RuntimeError as error:
        gone = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if fabric.world_size == 1 or not gone:
            raise
        hint = "nothing was kept" if run.folder is None else f"go on from {run.folder}: --resume"
        raise ConnectionError(
            f"process {fabric.global_rank} of {fabric.world_size}: another one died or fell "
            f"silent, and this one stops with it; {hint} ({error})"
        ) from error


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
