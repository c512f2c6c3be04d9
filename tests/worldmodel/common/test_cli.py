"""What all four commands share, and what importing the packages costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from worldmodel.common import cli

TOO_LARGE = "error: this does not fit into memory; ask for less at a time"
ROOT = Path(__file__).parents[3]
HEAVY = {
    "h5py", "huggingface_hub", "lightning", "matplotlib", "minari", "moviepy", "scipy.stats",
    "sklearn", "torchmetrics", "torchvision",
}  # fmt: skip
BEHIND_AGENTS = {"stable_baselines3", "tensorboard", "torch.utils.tensorboard", "tyro"}


@dataclass(frozen=True)
class Act:
    """Do something."""

    what: Literal[
        "speak",
        "mistake",
        "bug",
        "interrupt",
        "stop",
        "numpy",
        "torch",
        "overflow",
        "python",
        "ours",
    ] = "speak"
    """What to do."""

    def run(self) -> Iterator[str]:
        yield "begun"
        if self.what == "mistake":
            raise ValueError("what: expected this,\ngot that")
        if self.what == "bug":
            raise KeyError("ours")
        if self.what == "interrupt":
            raise KeyboardInterrupt
        if self.what == "stop":
            raise KeyboardInterrupt("stopped after step 3; --resume goes on")
        if self.what == "numpy":
            np.empty(2**60, np.uint8)
        if self.what == "torch":
            torch.empty(2**60, dtype=torch.uint8)
        if self.what == "overflow":
            torch.empty(2**62, 2**62)
        if self.what == "python":
            raise MemoryError
        if self.what == "ours":
            raise RuntimeError("a memory of ours")


@dataclass(frozen=True)
class Rest:
    """Do nothing."""

    def run(self) -> None:
        """Print nothing."""


def act(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["acts", *words])
    cli.main("acts", {"act": Act, "rest": Rest}, "Acts.")


def test_verbs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    act(monkeypatch, "act")
    act(monkeypatch, "rest")
    assert capsys.readouterr().out == "begun\n"


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("mistake", "error: what: expected this, got that"),
        ("interrupt", "stopped"),
        ("stop", "stopped after step 3; --resume goes on"),
        ("numpy", f"{TOO_LARGE} (Unable to allocate "),
        ("torch", f"{TOO_LARGE} ([enforce fail"),
        ("overflow", f"{TOO_LARGE} (Storage size calculation overflowed"),
        ("python", f"{TOO_LARGE} (MemoryError)"),
    ],
)
def test_one_line(monkeypatch: pytest.MonkeyPatch, what: str, line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        act(monkeypatch, "act", "--what", what)
    said = str(ended.value.code)
    assert said.startswith(line) if line.startswith(TOO_LARGE) else said == line
    assert "\n" not in said


def test_one_process_speaks_for_all_that_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as ended:
        act(monkeypatch, "act", "--what", "stop")
    assert ended.value.code == 1
    with pytest.raises(SystemExit, match="^error: what: expected this, got that$"):
        act(monkeypatch, "act", "--what", "mistake")  # which may be that process's alone


@dataclass(frozen=True)
class Compute(Act):
    """Compute something."""

    num_threads: int = 1

    def run(self) -> Iterator[str]:
        yield f"{self.num_threads} threads"


def test_threads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    verbs = {"compute": Compute, "act": Act}
    for count in (0, -3):
        monkeypatch.setattr(sys, "argv", ["acts", "compute", "--num-threads", str(count)])
        with pytest.raises(SystemExit) as ended:
            cli.main("acts", verbs, "Acts.")
        assert ended.value.code == f"error: num_threads: expected at least 1, got {count}"
    monkeypatch.setattr(sys, "argv", ["acts", "compute", "--num-threads", "1"])
    cli.main("acts", verbs, "Acts.")
    assert capsys.readouterr().out == "1 threads\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected this"):
        act(monkeypatch, "act", "--what", "mistake", "--debug")
    with pytest.raises(KeyboardInterrupt):
        act(monkeypatch, "--debug", "act", "--what", "interrupt")


def test_our_own_mistakes_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        act(monkeypatch, "act", "--what", "bug")
    with pytest.raises(RuntimeError, match="a memory of ours"):
        act(monkeypatch, "act", "--what", "ours")


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        act(monkeypatch, "--help")
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Do something." in out and "--debug" in out and "python -m acts" in out


PACKAGES = ("worldmodel", "envs", "agents", "evaluation")
VERBS = [
    pytest.param(package, name, verb, id=f"{package} {name}")
    for package in PACKAGES
    for name, verb in import_module(f"{package}.__main__").VERBS.items()
]


@pytest.mark.parametrize(("package", "name", "verb"), VERBS)
def test_summaries(package: str, name: str, verb: cli.LazyVerb) -> None:
    """The line in the list of verbs is where the verb's own help begins."""
    kind = verb.load()
    assert " ".join(kind.__doc__.split()).startswith(verb.summary)
    assert getattr(kind, "name", name) == name
    assert verb.stand_in().__doc__ == verb.summary


def test_the_chosen_verb_alone_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs = {
        "act": cli.LazyVerb("verbs_of_a_test:Act", "Do something."),
        "two-words": cli.LazyVerb("verbs_of_a_test:Rest", "Do nothing."),
        "lost": cli.LazyVerb("no.such.module:Lost", "Be lost."),
    }
    monkeypatch.setitem(sys.modules, "verbs_of_a_test", SimpleNamespace(Act=Act, Rest=Rest))
    for words in (["act"], ["two-words"], ["two_words"]):
        monkeypatch.setattr(sys, "argv", ["acts", *words])
        cli.main("acts", verbs, "Acts.")
    assert capsys.readouterr().out == "begun\n"
    monkeypatch.setattr(sys, "argv", ["acts", "--help"])
    with pytest.raises(SystemExit):
        cli.main("acts", verbs, "Acts.")
    assert "Be lost." in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["acts", "lost"])
    with pytest.raises(SystemExit, match="^error: No module named 'no'$"):
        cli.main("acts", verbs, "Acts.")


HELPS = """
import contextlib, importlib, io, json, sys
helps = {{}}
for package in {packages!r}:
    command = importlib.import_module(package + ".__main__")
    for verb in ("", *command.VERBS):
        sys.argv = [package, *filter(None, [verb]), "--help"]
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            command.main()
        helps[f"{{package}} {{verb}}"] = out.getvalue()
real = [name for name in {heavy!r} if getattr(sys.modules.get(name), "__file__", None)]
print(json.dumps([helps, real]))
"""


def test_help_is_complete_and_imports_no_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every verb: what it says is what it says with the real libraries, as in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    program = HELPS.format(packages=PACKAGES, heavy=HEAVY | BEHIND_AGENTS - {"tyro"} | {"torch"})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    helps, real = json.loads(done.stdout)
    assert not real and len(helps) > 35
    for words, text in helps.items():
        package, _, verb = words.partition(" ")
        monkeypatch.setattr(sys, "argv", [package, *filter(None, [verb]), "--help"])
        with pytest.raises(SystemExit):
            import_module(f"{package}.__main__").main()
        assert text == capsys.readouterr().out, words


def test_a_word_for_help_never_runs_a_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Act, "run", lambda self: pytest.fail("it ran"))
    for words in (["act", "--", "-h"], ["act", "--what", "speak", "--help"]):
        with pytest.raises(SystemExit) as ended:
            act(monkeypatch, *words)
        assert ended.value.code == 0


CHILD = """
import sys
from dataclasses import dataclass
sys.path.insert(0, {root!r})
from worldmodel.common import cli
@dataclass
class Talk:
    def run(self):
        for _ in range(100_000):
            yield "more than a pipe holds"
sys.argv = ["talk", "talk"]
cli.main("talk", {{"talk": Talk, "rest": Talk}}, "Talks.")
"""


def test_reader_that_goes_away() -> None:
    """As with ``| head -1``: no traceback, from the verb or at exit."""
    command = [sys.executable, "-c", CHILD.format(root=str(ROOT))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline().strip() == b"more than a pipe holds"
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


IMPORTS = """
import sys
from evaluation.__main__ import VERBS
{imports}
print(*sorted({heavy!r} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("imports", "heavy"),
    [
        ("import worldmodel, envs, agents, evaluation", HEAVY | BEHIND_AGENTS | {"torch"}),
        ("from agents import *", HEAVY),
        ("for verb in VERBS.values(): verb.load()", HEAVY),
    ],
    ids=["packages", "public names of agents", "verbs"],
)
def test_imports_are_light_and_silent(imports: str, heavy: set[str]) -> None:
    program = IMPORTS.format(imports=imports, heavy=heavy)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)
