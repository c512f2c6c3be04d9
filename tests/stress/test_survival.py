"""SIGKILL at any moment: nothing is lost, and what is resumed ends at the same bits."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import worldmodel
from agents import CemConfig
from agents.training import run as runs
from tests.stress import survival_jobs as jobs
from tests.stress.conftest import Tally
from tests.stress.parts import ENSEMBLE, MODELS
from tests.stress.survival_jobs import fresh, no_debris
from worldmodel import Episodes, checkpoint, collect, make
from worldmodel.common.safe_files import Tensors
from worldmodel.training import BEST, STATE

Size = Callable[[int, int], int]
AREA = "survival"


def killed_often(
    tally: Tally, job: Callable[..., None], path: Path, arguments: tuple[Any, ...], wanted: int,
    writes: int, check: Callable[[], None], finished: Callable[[], None],
) -> None:  # fmt: skip
    """Kill a job until it has happened ``wanted`` times, and resume it until it is through.

    Every other time a number of writes (of at most ``writes``) is what it dies of, in the midst of
    the last one; else, the time.
    """
    dice, killed, output = random.Random(7), 0, path.parent / jobs.OUTPUT
    place = fresh(path)
    while killed < wanted:
        number = dice.randrange(writes) if dice.random() < 0.6 else None
        seconds = dice.uniform(0.0, 1.5) if number is None else None
        code = jobs.run(job, place, *arguments, number, output=output, kill_after=seconds)
        check()
        if code == 0:  # through before it died: once more from the beginning
            finished()
            place = fresh(path)
            continue
        assert code == -signal.SIGKILL, output.read_text()
        killed += 1
        tally.add(AREA, "kills tried")
        tally.add(AREA, f"kills of {job.__name__}")
    assert jobs.run(job, place, *arguments, None, output=output) == 0, output.read_text()
    check()
    finished()
    tally.add(AREA, "kills survived", killed)


def test_a_killed_training_ends_at_the_same_bits(tmp_path: Path, size: Size, tally: Tally) -> None:
    """Of every kind: weights, their average, moments, what was measured, what a prior replays."""
    for part in list(MODELS)[: size(2, len(MODELS))]:
        (tmp_path / part).mkdir()
        a_killed_training_ends_at_the_same_bits(part, tmp_path / part, size, tally)


def a_killed_training_ends_at_the_same_bits(
    part: str, tmp_path: Path, size: Size, tally: Tally
) -> None:
    step, folder, reached = jobs.CONTEXT.Value("i", 0, lock=False), tmp_path / "run", 0
    whole = tmp_path / "whole"
    code = jobs.run(jobs.train, str(whole), part, step, None, output=tmp_path / "o")
    assert code == 0, (tmp_path / "o").read_text()
    expected = {path: load_file(path) for path in sorted(whole.rglob("*.safetensors"))}
    assert len(expected) >= 2

    def check() -> None:
        nonlocal reached
        for one in (folder, folder / BEST):
            if (one / "config.json").exists():
                worldmodel.load(one)
        if (folder / STATE).exists():
            reached = json.loads(Tensors(folder / STATE).metadata["state"])["step"]
        else:
            assert not (folder / "config.json").exists()  # else it could neither begin nor go on
            reached = 0
        assert step.value - 1 <= reached <= step.value  # at most one interval is lost
        step.value = reached

    def finished() -> None:
        for path, tensors in expected.items():
            found = load_file(folder / path.relative_to(whole))
            assert found.keys() == tensors.keys()
            assert all(torch.equal(found[name], tensors[name]) for name in tensors)
        tally.add(AREA, "tensors compared", sum(map(len, expected.values())))
        assert no_debris(folder)
        step.value = 0

    killed_often(tally, jobs.train, folder, (part, step), size(1, 12), 40, check, finished)


def test_a_killed_recording_goes_on(tmp_path: Path, size: Size, tally: Tally) -> None:
    """In a folder of several environments at once, too, it is that of one."""
    for kind, (env, _) in list(jobs.recorded_envs().items())[: size(2, 4)]:
        whole = collect(env, jobs.EPISODES, seed=3, progress=False)
        a_killed_recording_goes_on(kind, whole, tmp_path / kind, size, tally)


def a_killed_recording_goes_on(
    kind: str, whole: Episodes, folder: Path, size: Size, tally: Tally
) -> None:
    def same(count: int) -> None:
        found = Episodes.load(folder)
        assert len(found) >= count
        for one, other in zip(found, whole, strict=False):
            for name in ("observations", "actions", "rewards", "masks", "terminated"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))

    def check() -> None:
        if (folder / "meta.json").exists():
            same(1)
        for shard in folder.glob("episodes-*.npz"):
            with np.load(shard) as arrays:
                assert all(len(arrays[name]) for name in arrays.files)

    def finished() -> None:
        same(jobs.EPISODES)
        assert no_debris(folder)

    killed_often(tally, jobs.record, folder, (kind,), size(2, 25), 40, check, finished)


def test_a_result_is_whole_or_not_there(tmp_path: Path, size: Size, tally: Tally) -> None:
    path = tmp_path / "results" / "result.json"

    def check() -> None:
        if path.exists():
            rows = json.loads(path.read_text())["rows"]
            assert rows == [{"row": i} for i in range(len(rows))]

    def finished() -> None:
        assert len(json.loads(path.read_text())["rows"]) == 99

    killed_often(tally, jobs.write_results, path.parent, (), size(3, 30), 300, check, finished)


def test_a_killed_measurement_goes_on(tmp_path: Path, size: Size, tally: Tally) -> None:
    """It costs the part that was under way; rows are those of a run that nothing disturbed."""
    assert jobs.run(jobs.measure, str(tmp_path / "whole"), None, output=tmp_path / "o") == 0
    whole = json.loads((tmp_path / "whole" / "result.json").read_text())["rows"]
    folder, kept = tmp_path / "results", dict[str, Any]()

    def check() -> None:
        found = {path.name: json.loads(path.read_text()) for path in folder.glob("*/*.part.json")}
        if not (folder / "result.json").exists():
            assert kept.items() <= found.items()
        kept.update(found)

    def finished() -> None:
        assert json.loads((folder / "result.json").read_text())["rows"] == whole
        assert [path.name for path in folder.iterdir()] == ["result.json"]
        kept.clear()

    killed_often(tally, jobs.measure, folder, (), size(2, 40), 40, check, finished)


def test_killed_rounds_end_at_the_same_bits(tmp_path: Path, size: Size, tally: Tally) -> None:
    for kind in jobs.ROUNDS[: size(2, len(jobs.ROUNDS))]:
        (tmp_path / kind).mkdir()
        killed_rounds_end_at_the_same_bits(kind, tmp_path / kind, size, tally)


def killed_rounds_end_at_the_same_bits(kind: str, tmp_path: Path, size: Size, tally: Tally) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "rounds"
    code = jobs.run(jobs.play_rounds, str(whole), kind, None, output=tmp_path / "o")
    assert code == 0, (tmp_path / "o").read_text()

    def check() -> None:
        for number, one in enumerate(sorted(folder.glob("round-*"))):
            assert one.name == f"round-{number:04d}"
            Episodes.load(one / "episodes")
            json.loads((one / "rounds.json").read_text())
        if found := sorted(folder.glob("round-*")):
            load_file(found[-1] / "model" / "model.safetensors")
            assert (found[-1] / "agent.zip").is_file() or kind == "planner"

    def finished() -> None:
        for expected in sorted(whole.glob("round-*")):
            one = folder / expected.name
            assert (one / "rounds.json").read_text() == (expected / "rounds.json").read_text()
            for a, b in zip(
                Episodes.load(one / "episodes"), Episodes.load(expected / "episodes"), strict=True
            ):
                np.testing.assert_array_equal(a.observations, b.observations)
        last = expected.name
        for name, tensor in load_file(whole / last / "model" / "model.safetensors").items():
            found = load_file(folder / last / "model" / "model.safetensors")
            assert torch.equal(found[name], tensor)
        assert no_debris(folder)

    killed_often(tally, jobs.play_rounds, folder, (kind,), size(1, 20), 80, check, finished)


PLANS = CemConfig(plans=4, worlds=2, horizon=3, iterations=1)
WAYS: dict[str, dict[str, Any]] = {
    "dqn with Dyna": {"method": "dyna", "algorithm": "dqn", "fit_every": 20, "branches": 1},
    "ppo": {"method": "real"},
    "ppo with Dyna": {"method": "dyna", "fit_every": 20, "imagined_steps": 8},
    "sac": {"method": "real", "algorithm": "sac", "env": "Pendulum-v1"},
    "lookahead": {"method": "lookahead", "jumps": 1},
    "planner": {"method": "planner", "fit_every": 10, "planner": PLANS},
}


def test_a_killed_agent_goes_on(tmp_path: Path, size: Size, tally: Tally) -> None:
    for way in list(WAYS)[: size(1, len(WAYS))]:
        (tmp_path / way).mkdir()
        a_killed_agent_goes_on(way, tmp_path / way, size, tally)


def a_killed_agent_goes_on(way: str, tmp_path: Path, size: Size, tally: Tally) -> None:
    usual = {"env": "CartPole-v1", "steps": 48, "num_envs": 2, "window": 8, "fit_steps": 1}
    folder, settings = tmp_path / "agent", {**usual, **WAYS[way]}
    if way == "lookahead":
        spec = collect(str(usual["env"]), 1, progress=False).spec(8)
        model = checkpoint.save(make("ensemble", spec, ENSEMBLE), tmp_path / "model")
        settings["model"] = str(model)
    reached = 0

    def check() -> None:
        nonlocal reached
        assert len([p for p in folder.glob("checkpoint-*") if not (p / "agent.zip").is_file()]) == 0
        steps = [int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")]
        assert max(steps, default=0) >= reached or (folder / "agent.json").exists()
        reached = max(steps, default=0)
        if (folder / "agent.json").exists():
            runs.load(folder)

    def finished() -> None:
        nonlocal reached
        agent, config = runs.load(folder)
        assert config.steps == 48
        assert way in ("ppo with Dyna", "planner") or agent.num_timesteps >= 48
        assert no_debris(folder) and not list(folder.glob("checkpoint-*"))
        reached = 0

    killed_often(tally, jobs.train_agent, folder, (settings,), size(1, 15), 60, check, finished)
