"""On two hosts with a network between them: the lines of ``docs/cluster.md``, and a host lost."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.stress.conftest import Tally
from tests.stress.hosts import NAMES, Host, possible, two_hosts
from tests.stress.test_torchrun import BOUND, STEPS, one_process, script, weights
from worldmodel import Episodes, collect
from worldmodel.common.safe_files import Tensors
from worldmodel.training.run import STATE

HEAD = f"{NAMES[0]}:6379"
ITEMS = 16
SILENCE = 600
"""Seconds: Ray finds out within seven minutes that a machine fell silent."""


@pytest.fixture
def hosts(tmp_path: Path, size: Callable[[int, int], int]) -> Iterator[Sequence[Host]]:
    if not size(0, 1):
        pytest.skip("only with --stress")
    if not possible():
        pytest.skip("needs root, and Linux with ip, unshare and nsenter")
    with two_hosts(tmp_path) as both:
        yield both


# -- torchrun --------------------------------------------------------------------------------------


def trained(
    hosts: Sequence[Host], folder: Path, resume: bool = False, pause: float = 0
) -> list[object]:
    """Begin on both; the processes."""
    folder.mkdir(exist_ok=True)
    torchrun = (
        "torchrun", "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d",
        "--rdzv-id", "story", "--rdzv-endpoint", f"{NAMES[0]}:29500",
    )  # fmt: skip
    words = (*torchrun, script(folder), folder, int(resume), "torchrun", pause)
    return [host.start(*words) for host in hosts]


def ended(processes: Sequence[object]) -> list[str]:
    """What they said, when both are through."""
    said = [process.communicate(timeout=BOUND)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said


def test_training_on_two_hosts_and_one_is_lost(
    hosts: Sequence[Host], tmp_path: Path, tally: Tally
) -> None:
    """As one process would; and when a host vanishes, the same bits once it is back."""
    ended(trained(hosts, whole := tmp_path / "whole"))
    model, losses = one_process()
    log = EventAccumulator(str(whole)).Reload().Scalars("world_model/loss")
    np.testing.assert_allclose([event.value for event in log], losses, rtol=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights(whole)[name], value, rtol=1e-3, atol=1e-5)
    tally.add("cluster", "trainings on two hosts")

    folder = tmp_path / "lost"
    first, _ = trained(hosts, folder, pause=0.5)
    while not (folder / STATE).exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.02)
    hosts[1].lost()
    said = first.communicate(timeout=BOUND)[0]
    assert first.returncode != 0
    assert "process 0 of 2: another one died or fell silent" in said, said
    step = int(json.loads(Tensors(folder / STATE).metadata["state"])["step"])
    assert 0 < step < STEPS
    hosts[0].crashed()
    hosts[1].plugged("up")
    ended(trained(hosts, folder, resume=True))
    found = weights(folder)
    assert all(torch.equal(found[name], value) for name, value in weights(whole).items())
    tally.add("cluster", "hosts lost in training, same bits after")


# -- Ray -------------------------------------------------------------------------------------------


@pytest.fixture
def ray_hosts(hosts: Sequence[Host]) -> Sequence[Host]:
    """With Ray on both, one worker each."""
    pytest.importorskip("ray")
    quiet = ("--num-cpus", 1, "--object-store-memory", 100 * 2**20, "--disable-usage-stats")
    head = ("--head", "--port", 6379, "--include-dashboard", "false")
    hosts[0].run("ray", "start", *head, "--node-ip-address", hosts[0].address, *quiet)
    hosts[1].run("ray", "start", "--address", HEAD, "--node-ip-address", hosts[1].address, *quiet)
    return hosts


def where(folder: Path, number: int) -> tuple[int, str]:
    """A while of work; on which host it was."""
    (folder / f"{number}-{socket.gethostname()}").touch()
    time.sleep(0.5)
    return number, socket.gethostname()


def scattered(folder: str) -> None:
    """What the head does: prints where each item was done."""
    from worldmodel.common.cluster import scatter

    for number, host in scatter(partial(where, Path(folder)), range(ITEMS), 2, HEAD):
        sys.stdout.write(f"{number} {host}\n")


def test_recording_on_two_hosts(ray_hosts: Sequence[Host], tmp_path: Path, tally: Tally) -> None:
    """The same files as one process writes."""
    out, count = tmp_path / "episodes", 40
    verb = ("python", "-m", "worldmodel", "collect", "--env", "CartPole-v1", "--episodes", count)
    ray_hosts[0].run(*verb, "--out", out, "--workers", 2, "--ray", HEAD)
    here = collect("CartPole-v1", count, folder=tmp_path / "here", progress=False)
    assert len(Episodes.load(out)) == len(here) == count
    for path in (tmp_path / "here").glob("[!.]*"):
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    tally.add("cluster", "episodes from two hosts", count)


@pytest.mark.parametrize("loss", [Host.crashed, Host.lost], ids=["crashed", "lost"])
def test_a_host_is_lost_at_work(
    loss: Callable[[Host], None], ray_hosts: Sequence[Host], tmp_path: Path, tally: Tally
) -> None:
    """What it had under way is done anew; nothing is lost or doubled."""
    first, second = ray_hosts
    (told := tmp_path / "told").mkdir()
    code = f"from tests.stress.test_hosts import scattered; scattered({str(told)!r})"
    running = first.start("python", "-c", code)
    while not list(told.glob(f"*-{second.name}")):
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.05)
    loss(second)
    said = running.communicate(timeout=SILENCE)[0]
    assert running.returncode == 0, said
    done = [line.split() for line in said.splitlines() if line[:1].isdigit()]
    assert [int(number) for number, _ in done] == list(range(ITEMS)), said
    twice = [n for n in range(ITEMS) if len(list(told.glob(f"{n}-*"))) == 2]
    assert twice and {host for number, host in done if int(number) in twice} == {first.name}, said
    tally.add("cluster", "hosts lost at work")
    tally.add("cluster", "items done anew elsewhere", len(twice))
