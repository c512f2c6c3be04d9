"""Past one process: what comes out depends on the seeds alone, and the dead are replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents import RandomAgent
from evaluation.measurements import control as control_module
from evaluation.measurements.control import Control
from evaluation.measurements.efficiency import Efficiency
from evaluation.runner.trained_agents import Contestant
from tests.stress.conftest import Tally
from worldmodel import collect
from worldmodel.common import cluster
from worldmodel.common.cluster import scatter

ENV = "narratives/TravelingSalesman-v0"
BROKEN = 5
QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A small Ray, which ``scatter`` finds; it ends with the tests."""
    module = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    module.init(
        "local", num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False,
        logging_level="error", log_to_driver=False,
    )  # fmt: skip
    yield module
    module.shutdown()


def make() -> gym.Env[Any, Any]:
    return gym.make(f"envs:{ENV}", size=16)


def square(number: int) -> int:
    if number == BROKEN:
        raise ValueError(f"number: expected another than {BROKEN}")
    return number**2


def once(folder: Path, kill: Callable[[int], bool], number: int) -> int:
    """Its square; a process that meets a number to die of for the first time is killed."""
    with (folder / f"{number}").open("a") as tries:
        tries.write("x")
    if kill(number) and (folder / f"{number}").stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def always(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_address_where_nobody_answers() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConnectionError, match="address: no Ray cluster answers at 127.0.0.1:1 "):
        list(scatter(square, [1], 1, "127.0.0.1:1"))


STOPPED = """
import os, signal
from worldmodel.common.cluster import scatter
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as every command does
results = scatter(abs, [-1, -2], 1)
next(results)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("as Ctrl-C")
"""


def test_sigterm_is_still_that_of_the_caller() -> None:
    """Ray has one of its own, which aborts the process: nothing could be kept."""
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "as Ctrl-C\n"), done.stderr


def test_no_other_cluster_than_the_one_asked_for(ray: Any) -> None:
    with pytest.raises(ValueError, match=r"address: this process is connected to .* not to 127"):
        list(scatter(square, [1], 1, "127.0.0.1:1"))
    assert list(scatter(square, [2], 1, "auto")) == [4]


def test_the_same_episodes_with_0_1_2_workers(
    ray: Any, tmp_path: Path, size: Callable[[int, int], int], tally: Tally
) -> None:
    count = size(9, 300)
    files = []
    for workers in (0, 1, 2):
        episodes = collect(make, count, seed=3, workers=workers, **QUIET)
        folder = episodes.save(tmp_path / str(workers))
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
        tally.add("cluster", "episodes compared", len(episodes))
    assert files[0] == files[1] == files[2] and len(files[0]) > 1
    later = collect(make, 1, seed=3 + count - 1, **QUIET)[0]  # any of them by itself
    assert (later.actions == episodes[count - 1].actions).all()


def test_killed_workers_are_replaced(
    ray: Any, tmp_path: Path, size: Callable[[int, int], int], tally: Tally
) -> None:
    """Nothing is lost or doubled: each dying number is tried twice, results come once, in order.

    A neighbour of the dead, on another worker, is tried once.
    """
    items, every = [n for n in range(size(8, 200)) if n != BROKEN], size(6, 9)
    dying = [n for n in items if n % every == 1]
    assert dying
    task = partial(once, tmp_path, lambda number: number % every == 1)
    assert list(scatter(task, items, 2)) == [n**2 for n in items]
    tries = {int(path.name): path.stat().st_size for path in tmp_path.iterdir()}
    assert tries == {n: 2 if n in dying else 1 for n in items}
    tally.add("cluster", "workers killed", len(dying))


def test_errors_are_those_of_the_function(ray: Any) -> None:
    """Here and there alike; and what came before it is told."""
    for workers in (0, 2):
        found = scatter(square, range(4, 9), workers)
        assert next(found) == 16
        with pytest.raises(ValueError, match=r"^number: expected another than 5$"):
            list(found)


def test_who_always_dies_is_named(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "RETRIES", 0)
    with pytest.raises(ChildProcessError, match="item 0: its process died 1 times"):
        list(scatter(always, [7], 1))


def test_the_same_returns_with_0_1_2_workers(
    ray: Any, monkeypatch: pytest.MonkeyPatch, size: Callable[[int, int], int], tally: Tally
) -> None:
    """Those of agents that are there, in blocks, and of one that is made where it plays."""
    monkeypatch.setattr(control_module, "BLOCK", 3)
    space, episodes = make().action_space, size(7, 60)
    rows = []
    for workers in (0, 1, 2):
        players = {
            "random": Contestant(RandomAgent(space)),
            "made": lambda: Contestant(RandomAgent(space, 1), real_steps=7),
        }
        control = Control(env=ENV, episodes=episodes, workers=workers)
        rows.append(control.play(players, size=16))
        tally.add("cluster", "returns compared", 2 * episodes)
    assert rows[0] == rows[1] == rows[2]
    assert [(row["agent"], row["real_steps"], row["episodes"]) for row in rows[0]] == [
        ("random", 0, episodes), ("made", 7, episodes),
    ]  # fmt: skip


def test_the_same_runs_with_0_2_workers(
    ray: Any, size: Callable[[int, int], int], tally: Tally
) -> None:
    """Whole runs, with world models and agents that learn."""
    if not size(0, 1):
        pytest.skip("only with --stress")
    efficiency = Efficiency(
        budget=256, sizes=(30, 60), seeds=2, window=6, fit_steps=2, imagined_steps=64, episodes=2,
        points=1, plans=4,
    )  # fmt: skip
    rows = [replace(efficiency, workers=workers).measure() for workers in (0, 2)]
    assert rows[0] == rows[1]
    tally.add("cluster", "runs compared", 2 * 3)


def test_mistakes_are_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="workers: expected at least 0 .* got -1"):
        scatter(square, [1], -1)
    with pytest.raises(ValueError, match="workers: expected at least 1 with address here:1"):
        scatter(square, [1], 0, "here:1")
    with pytest.raises(TypeError, match="env: workers make their own"):
        collect(make(), 2, workers=1, **QUIET)
    with pytest.raises(ValueError, match="workers: need a number of episodes"):
        collect(make, steps=2, workers=1, **QUIET)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"workers: need Ray; pip install .*\[cluster\]"):
        list(scatter(square, [1], 1))
