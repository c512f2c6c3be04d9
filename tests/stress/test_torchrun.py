"""Training in two processes: as one would, and when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tests.stress.conftest import Tally
from worldmodel import ActionSpec, Episode, Episodes, Spec, WorldModel, make, preset
from worldmodel.common.safe_files import Tensors
from worldmodel.data.windows import WindowSource
from worldmodel.training.run import STATE

STEPS, SEED, CLIP = 12, 5, 1e9
BOUND = 240
"""Seconds within which all processes are gone, on a busy machine."""
SPEC = Spec((3, 16, 16), ActionSpec("discrete", (), (4,)), 6)
TINY = replace(preset("jump", "views"), film=8, hidden=8, tower=8, scene=16, head=8)
TRAIN = """
    import os, sys, time
    from datetime import timedelta
    from lightning.fabric.strategies import DDPStrategy
    from tests.stress.test_torchrun import CLIP, SEED, SPEC, STEPS, TINY, source
    from worldmodel import fit, make

    folder, resume, launcher, pause = sys.argv[1], sys.argv[2] == "1", sys.argv[3], sys.argv[4]

    def slowly(progress):
        open(f"{folder}/step", "w").write(f"{progress.step}")
        time.sleep(float(pause))

    rank = os.environ.get("LOCAL_RANK", "0")
    open(f"{folder}/pid-{rank}", "w").write(str(os.getpid()))
    fit(make("jump", SPEC, TINY), source(), STEPS, folder=folder, resume=resume, seed=SEED,
        clip=CLIP, devices=2 if launcher == "fit" else None, log_every=1, save_minutes=0,
        strategy=DDPStrategy(timeout=timedelta(seconds=60)), accelerator="cpu", progress=False,
        callbacks=[slowly])
"""


def source() -> WindowSource:
    """Random frames, the same in every process."""
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            random.integers(0, 256, (7, 16, 16, 3), np.uint8), random.integers(0, 4, 6),
            random.random(6, np.float32), True,
        )
        for _ in range(4)
    ]  # fmt: skip
    return Episodes(episodes, SPEC.action).windows(6, batch_size=4)


def script(folder: Path) -> Path:
    """What trains."""
    path = folder / "train.py"
    path.write_text(textwrap.dedent(TRAIN))
    return path


def start(folder: Path, launcher: str, resume: bool, pause: float = 0) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun += ["--monitor-interval", "3"]  # torchrun kills who is left: first let it speak
    words = [*(torchrun if launcher == "torchrun" else []), str(script(folder))]
    words += [str(folder), str(int(resume)), launcher, str(pause)]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([sys.executable, *words], env=env, stderr=subprocess.PIPE, text=True)


def one_process() -> tuple[WorldModel, list[float]]:
    """The same steps in this process, from the mean of both batches: its losses are the first's."""
    model, batches, told = make("jump", SPEC, TINY), source(), []
    model.prepare(batches)
    model.train()
    first, last = TINY.learning_rate, TINY.learning_rate_end
    optimizer = torch.optim.Adam(model.parameters(), lr=first)
    for step in range(STEPS):
        share = step / STEPS
        optimizer.param_groups[0]["lr"] = first + share * (last - first)
        optimizer.zero_grad()
        for rank in range(2):
            index = 2 * step + rank
            generator = torch.Generator()
            generator.manual_seed((SEED * 0x9E3779B1 + index * 0x85EBCA77) % 2**63)
            loss = model(batches.batch(index), share, generator).total
            (loss / 2).backward()
            if not rank:
                told.append(float(loss.detach()))
        optimizer.step()
    return model, told


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids: Sequence[int]) -> None:
    """Wait until they are."""
    end = time.monotonic() + BOUND
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, f"processes are left: {[p for p in pids if alive(p)]}"
        time.sleep(0.1)


def weights(folder: Path) -> dict[str, Tensor]:
    state = load_file(folder / STATE)
    return {k.removeprefix("weights."): t for k, t in state.items() if k.startswith("weights.")}


def killed(folder: Path, launcher: str, victim: int, number: signal.Signals) -> tuple[int, str]:
    """Begin, and kill one process in the midst; the checkpoint's step, and what was said.

    All processes are gone within ``BOUND``.
    """
    lead = start(folder, launcher, resume=False, pause=0.5)
    try:
        while not (folder / STATE).exists():
            assert lead.poll() is None, lead.communicate()[1]
            time.sleep(0.02)
        pids = [int((folder / f"pid-{rank}").read_text()) for rank in range(2)]
        os.kill(pids[victim], number)
        if (launcher, number) == ("fit", signal.SIGSTOP):  # whom no agent of torchrun looks after
            gone([pids[1 - victim]])
            os.kill(pids[victim], signal.SIGKILL)
        said = lead.communicate(timeout=BOUND)[1]
    finally:
        lead.kill()
    assert lead.returncode != 0
    gone(pids)
    step = int(json.loads(Tensors(folder / STATE).metadata["state"])["step"])
    assert 0 < step < STEPS
    return step, said


@pytest.mark.parametrize("launcher", ["torchrun", "fit"])
@pytest.mark.parametrize("victim", [1, 0])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "silent"])
def test_a_lost_process_ends_the_run_and_resuming_ends_as_one_process_would(
    launcher: str, victim: int, number: signal.Signals, tmp_path: Path,
    size: Callable[[int, int], int], tally: Tally,
) -> None:  # fmt: skip
    """The losses of one process with both batches, and its weights; the same bits as undisturbed.

    Of a silent process, as of a machine that is gone, the others know by their timeout.
    """
    shortest = (launcher, victim, number) == ("torchrun", 1, signal.SIGKILL)
    if not (shortest or size(0, 1)):
        pytest.skip("only with --stress")
    step, said = killed(tmp_path, launcher, victim, number)
    tally.add("cluster", "ranks killed or stopped")
    tally.add("cluster", "steps done when lost", step)
    said_by = 1 - victim
    if not (launcher == "fit" and victim == 0):
        assert f"process {said_by} of 2: another one died or fell silent" in said, said
        assert f"go on from {tmp_path}: --resume" in said
    resumed = start(tmp_path, launcher, resume=True)
    said = resumed.communicate(timeout=BOUND)[1]
    assert resumed.returncode == 0, said

    whole, losses = one_process()
    log = EventAccumulator(str(tmp_path)).Reload().Scalars("world_model/loss")
    assert [event.step for event in log] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([event.value for event in log], losses, rtol=1e-4)
    found = weights(tmp_path)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    if size(0, 1):
        undisturbed = tmp_path / "undisturbed"
        undisturbed.mkdir()
        assert start(undisturbed, launcher, resume=False).wait(BOUND) == 0
        for name, value in weights(undisturbed).items():
            assert torch.equal(found[name], value), name
        tally.add("cluster", "resumed runs with the same bits")
