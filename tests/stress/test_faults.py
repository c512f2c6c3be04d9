"""A full disk, a read-only one, two runs in a folder, signals: one clear line, nothing lost."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import worldmodel
from tests.stress import survival_jobs as jobs
from tests.stress.conftest import Tally
from tests.stress.survival_jobs import fresh, no_debris
from worldmodel import collect
from worldmodel.common.files import atomic, check_writable, locked
from worldmodel.training import STATE

Size = Callable[[int, int], int]
AREA = "survival"


def ends_in_one_line(output: Path, code: int | None, *parts: str) -> None:
    """An exit status of 1, and an error in one line that says these parts."""
    said = output.read_text()
    assert code == 1 and "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert said.rstrip().endswith(line), said
    for part in parts:
        assert part in line, line


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes to train on."""
    folder = tmp_path_factory.mktemp("survival") / "episodes"
    return collect("CartPole-v1", 12, progress=False).save(folder)


def verbs(recorded: Path, out: Path) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Package, words and what is written, of commands that keep something."""
    agent = ("train", "--env", "CartPole-v1", "--steps", "40", "--num-envs", "2", "--fit-every",
             "20", "--fit-steps", "1", "--window", "8", "--imagined-steps", "8", "--eval-episodes",
             "1", "--evaluate-every", "0", "--out", str(out))  # fmt: skip
    model = ("train", "--episodes", str(recorded), "--window", "8", "--steps", "2",
             "--batch-size", "2", "--out", str(out))  # fmt: skip
    collecting = ("collect", "--env", "CartPole-v1", "--episodes", "4", "--out", str(out))
    measuring = ("control", "--episodes", "2", "--plans", "4", "--worlds", "1", "--json",
                 str(out / "result.json"))  # fmt: skip
    return {
        "train": ("worldmodel", model, "config.json"),
        "collect": ("worldmodel", collecting, "meta.json"),
        "agents": ("agents", (*agent, "--method", "real"), "agent.json"),
        "dyna": ("agents", (*agent, "--method", "dyna"), "agent.json"),
        "evaluation": ("evaluation", measuring, "result.json"),
    }


KEEPING = ("train", "collect", "agents", "dyna")


def test_a_disk_that_refuses(recorded: Path, tmp_path: Path, size: Size, tally: Tally) -> None:
    for verb in (*KEEPING, "evaluation")[: size(2, 5)]:
        (tmp_path / verb).mkdir()
        a_disk_that_refuses(verb, recorded, tmp_path / verb, size, tally)


def a_disk_that_refuses(
    verb: str, recorded: Path, tmp_path: Path, size: Size, tally: Tally
) -> None:
    """From some write on it is full, or for reading only; the same command works once it is not."""
    dice, output = random.Random(3), tmp_path / jobs.OUTPUT
    for _ in range(size(1, 8)):
        out = tmp_path / "out"
        fresh(out)
        package, words, last = verbs(recorded, out)[verb]
        act, said = dice.choice(
            [(jobs.full, "No space left"), (jobs.read_only, "Read-only file system")]
        )
        number = dice.randrange(6)
        code = jobs.run(jobs.command, package, words, number, act, output=output)
        tally.add(AREA, "faults injected")
        ends_in_one_line(output, code, said, str(out))
        assert no_debris(out)
        tally.add(AREA, "faults that ended in one clear line")
        begun = (out / STATE).exists() or (out / "meta.json").exists()
        goes_on = package == "evaluation" or (package == "worldmodel" and begun)
        resume = ("--resume",) if goes_on else ()
        code = jobs.run(jobs.command, package, (*words, *resume), output=output)
        assert code == 0, output.read_text()
        assert (out / last).is_file()


def test_files_that_cannot_grow(recorded: Path, tmp_path: Path, size: Size, tally: Tally) -> None:
    for verb in KEEPING[: size(1, len(KEEPING))]:
        (tmp_path / verb).mkdir()
        files_that_cannot_grow(verb, recorded, tmp_path / verb, size, tally)


def files_that_cannot_grow(
    verb: str, recorded: Path, tmp_path: Path, size: Size, tally: Tally
) -> None:
    """The operating system's own refusal, of TensorBoard's and SB3's writing, too."""
    out = tmp_path / "out"
    for limit in (4000, 0, 100, 20_000, 60_000)[: size(1, 5)]:
        fresh(out)
        package, words, last = verbs(recorded, out)[verb]
        wide = tmp_path / "wide.txt"  # what is said is a file, too
        code = jobs.run(jobs.command, package, words, None, jobs.full, limit, output=wide)
        if code == 0:  # all that it writes is shorter
            assert (out / last).is_file()
            continue
        tally.add(AREA, "faults injected")
        assert not (out / last).exists() and no_debris(out)
        if limit < 4000:  # what is said goes to a file, too, and has no room there
            tally.add(AREA, "faults whose line had no room")
            continue
        ends_in_one_line(wide, code, "File too large")
        tally.add(AREA, "faults that ended in one clear line")


def test_a_folder_that_is_a_file(recorded: Path, tmp_path: Path, size: Size, tally: Tally) -> None:
    """Root may write anywhere, but not below a file; found out before anything is played."""
    output, blocked = tmp_path / jobs.OUTPUT, tmp_path / "file"
    blocked.write_text("kept")
    for verb in ("evaluation", *KEEPING)[: size(2, 5)]:
        package, words, _ = verbs(recorded, blocked / "below")[verb]
        tally.add(AREA, "faults injected")
        code = jobs.run(jobs.command, package, words, output=output)
        ends_in_one_line(output, code, str(blocked))
        assert blocked.read_text() == "kept"
        tally.add(AREA, "faults that ended in one clear line")


def test_a_second_run_is_refused(recorded: Path, tmp_path: Path, size: Size, tally: Tally) -> None:
    output, out = tmp_path / jobs.OUTPUT, tmp_path / "out"
    for verb in KEEPING[: size(2, len(KEEPING))]:
        package, words, last = verbs(recorded, out)[verb]
        tally.add(AREA, "faults injected")
        with locked(out):
            code = jobs.run(jobs.command, package, words, output=output)
        ends_in_one_line(output, code, str(out), "in use by another run")
        assert not (out / last).exists()
        tally.add(AREA, "faults that ended in one clear line")


def test_a_data_folder_that_vanished(recorded: Path, tmp_path: Path, tally: Tally) -> None:
    output, out, data = tmp_path / jobs.OUTPUT, tmp_path / "out", tmp_path / "data"
    shutil.copytree(recorded, data)
    package, words, _ = verbs(data, out)["train"]
    assert jobs.run(jobs.command, package, words, output=output) == 0
    before = (out / STATE).read_bytes()
    (data / "episodes-00000.npz").unlink()
    for said in ("the shard is missing", "holds no meta.json"):
        tally.add(AREA, "faults injected")
        code = jobs.run(jobs.command, package, (*words, "--resume"), output=output)
        ends_in_one_line(output, code, str(data), said)
        assert (out / STATE).read_bytes() == before
        tally.add(AREA, "faults that ended in one clear line")
        shutil.rmtree(data, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_training_with_a_checkpoint(
    number: signal.Signals, recorded: Path, tmp_path: Path
) -> None:
    """One line, exit status 1; for agents, too."""
    cases = {
        ("worldmodel", "train", "1000000"): "stopped after step",
        ("agents", "agents", "1000000"): "stopped; the same command goes on from decision",
    }
    for (package, verb, steps), said in cases.items():
        output, out = tmp_path / jobs.OUTPUT, tmp_path / verb
        _, words, _ = verbs(recorded, out)[verb]
        place = words.index("--steps") + 1
        words = (*words[:place], steps, *words[place + 1 :])
        code = jobs.run(
            jobs.command, package, words, output=output, kill_after=1, send=number,
            once=lambda out=out: any(out.rglob("events.out.tfevents*")),
        )  # fmt: skip
        *_, line = output.read_text().splitlines()
        assert code == 1 and line.startswith(said), output.read_text()
        if verb == "train":
            worldmodel.load(out)
        else:
            assert len(list(out.glob("checkpoint-*/agent.zip"))) == 1


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")
    for error in (ValueError("wrong"), KeyboardInterrupt()):
        with pytest.raises(type(error)), atomic(path) as partial:
            partial.write_text("half")
            raise error
    with pytest.raises(OSError, match=r"file\.txt"), atomic(path) as partial:
        jobs.full()
    assert path.read_text() == "before" and no_debris(tmp_path)


def test_a_link_leads_on_and_a_device_stays(tmp_path: Path) -> None:
    """Root might replace /dev/null by a file."""
    real, link, pipe = (tmp_path / name for name in ("real.txt", "link.txt", "pipe"))
    real.write_text("before")
    link.symlink_to(real)
    with atomic(link) as partial:
        partial.write_text("after")
    assert link.is_symlink() and real.read_text() == "after"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="pipe: expected a regular file"), atomic(pipe):
        raise AssertionError
    with pytest.raises(ValueError, match="pipe: expected a regular file"):
        check_writable(pipe)
    assert pipe.is_fifo() and no_debris(tmp_path)


def test_the_system_speaks_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(OSError) as full, atomic(path) as partial:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial))
    assert str(full.value) == f"[Errno 28] No space left on device: '{path}'"
    with pytest.raises(OSError) as long:
        check_writable(tmp_path / f"{'x' * 300}.txt")
    assert "partial" not in str(long.value)


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic(path) as one:
        one.write_text("one")
        with atomic(path) as other:
            other.write_text("two, longer")
        assert path.read_text() == "two, longer"
    assert path.read_text() == "one" and no_debris(tmp_path)
