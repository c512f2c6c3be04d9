"""The verbs that measure nothing themselves: make all results again, and the page about them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from evaluation.report.load_results import read_one
from evaluation.runner.manifest import RESULTS, ResultFile, find
from evaluation.runner.partial_results import folder_of
from worldmodel.common import results

FOLDER = Path("evaluation/results/cpu-2-cores")


@dataclass(frozen=True)
class Report:
    """One page, with pictures, of all results of a folder; the same JSON makes the same page."""

    name: ClassVar[str] = "report"
    folder: Path = FOLDER
    """With the JSON files."""
    out: Path = Path("evaluation/results")
    """For REPORT.md and report/*.png; sample sheets such as dice.png are there already."""

    def run(self) -> Iterator[str]:
        """Read, draw, write."""
        from evaluation.report.page import report  # with matplotlib

        yield f"reading {self.folder}, drawing"
        yield f"report: {report(self.folder, self.out)}"


@dataclass(frozen=True)
class Bench:
    """Make the JSON of all documented measurements again, one command after the other."""

    name: ClassVar[str] = "bench"
    only: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of results, such as speed-all; none for all of them."""
    folder: Path = FOLDER
    """For the JSON files."""
    resume: bool = False
    """Make only what this commit has not made yet, and go on from partial results."""
    dry: bool = False
    """Only list the commands."""

    def run(self) -> Iterator[str]:
        """Run each in a process of its own; raises ChildProcessError at the end if some failed."""
        chosen = [find(name) for name in self.only] or list(RESULTS)
        if self.resume:
            chosen = [each for each in chosen if not self._is_made(each)]
        trainings = list(dict.fromkeys(need for each in chosen for need in each.needs))
        missing = [each for each in trainings if not each.folder.exists()]
        minutes = sum(each.minutes for each in chosen) + sum(each.minutes for each in missing)
        yield f"{len(chosen)} of {len(RESULTS)} results, about {minutes} minutes of one thread"
        failed = []
        for training in trainings:
            if training not in missing:
                yield f"==> {training.folder}: there already, not trained again"
            elif (yield from self._fails(training.command, training.minutes)):
                failed.append(str(training.folder))
        for each in chosen:
            lacking = [str(need.folder) for need in each.needs if str(need.folder) in failed]
            if lacking:
                yield f"==> {each.name}: skipped, for want of {', '.join(lacking)}"
            if lacking or (yield from self._fails(each.command, each.minutes)):
                failed.append(each.name)
        if failed:
            raise ChildProcessError(f"bench: not made: {', '.join(failed)}")

    def _is_made(self, result: ResultFile) -> bool:
        """Whether the file is there and of the current commit."""
        path = self.folder / f"{result.name}.json"
        return path.exists() and read_one(path).envelope["commit"] == results.commit()

    def _fails(self, command: str, minutes: int) -> Generator[str, None, bool]:
        """Print and run a command; whether it failed."""
        words = shlex.split(command)
        if words[-2] == "--json":
            result = self.folder / words[-1]
            words[-1] = str(result)
            if self.resume and folder_of(result).exists():
                words.append("--resume")
        yield f"==> {shlex.join(words)} ({minutes} min)"
        if self.dry:
            return False
        status = subprocess.run([sys.executable, *words[1:]], check=False).returncode
        if status:
            yield f"failed with exit status {status}"
        return status != 0
