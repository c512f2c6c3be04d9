"""Verbs that measure nothing themselves: make all results again, and the page about them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from evaluation.commands.base import Verb
from evaluation.report.load_results import read_one
from evaluation.runner.manifest import MEASUREMENTS, Measurement, find
from evaluation.runner.partial_results import parts_of
from worldmodel.common import results

RESULTS = Path("evaluation/results/cpu-2-cores")


@dataclass(frozen=True)
class Report(Verb):
    """One page, with pictures, of all results of a folder; the same JSON makes the same page."""

    benchmark = "report"
    folder: Path = RESULTS
    """With the JSON files."""
    out: Path = Path("evaluation/results")
    """For REPORT.md and report/*.png; sample sheets such as peers.png lie there already."""

    def run(self) -> Iterator[str]:
        """Read, draw, write."""
        from evaluation.report.page import report  # with matplotlib

        yield f"reading {self.folder}, drawing"
        yield f"report: {report(self.folder, self.out)}"


@dataclass(frozen=True)
class Bench(Verb):
    """Make the JSON of all documented measurements again, one command after the other."""

    benchmark = "bench"
    only: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of results, such as speed-all; none for all of them."""
    folder: Path = RESULTS
    """For the JSON files."""
    resume: bool = False
    """Make only what this commit has not made yet; measurements go on with the parts they kept."""
    dry: bool = False
    """Only list the commands."""

    def run(self) -> Iterator[str]:
        """Run each in a process of its own; raises ChildProcessError at the end if some failed."""
        chosen = [find(name) for name in self.only] or list(MEASUREMENTS)
        if self.resume:
            chosen = [each for each in chosen if not self._made(each)]
        trainings = list(dict.fromkeys(need for each in chosen for need in each.needs))
        missing = [each for each in trainings if not each.folder.exists()]
        minutes = sum(each.minutes for each in chosen) + sum(each.minutes for each in missing)
        yield f"{len(chosen)} of {len(MEASUREMENTS)} results, about {minutes} minutes of one thread"
        failed = []
        for training in trainings:
            if training not in missing:
                yield f"==> {training.folder}: there already, not trained again"
            elif (yield from self._failed(training.command, training.minutes)):
                failed.append(str(training.folder))
        for each in chosen:
            lacking = [str(need.folder) for need in each.needs if str(need.folder) in failed]
            if lacking:
                yield f"==> {each.name}: skipped, for want of {', '.join(lacking)}"
            if lacking or (yield from self._failed(each.command, each.minutes)):
                failed.append(each.name)
        if failed:
            raise ChildProcessError(f"bench: not made: {', '.join(failed)}")

    def _made(self, measurement: Measurement) -> bool:
        """Whether its result is of the code as it is."""
        path = self.folder / f"{measurement.name}.json"
        return path.exists() and read_one(path).envelope["commit"] == results.commit()

    def _failed(self, command: str, minutes: int) -> Generator[str, None, bool]:
        """Say and run one; whether it failed."""
        words = shlex.split(command)
        if words[-2] == "--json":
            result = self.folder / words[-1]
            words[-1] = str(result)
            if self.resume and parts_of(result).exists():
                words.append("--resume")
        yield f"==> {shlex.join(words)} ({minutes} min)"
        if self.dry:
            return False
        status = subprocess.run([sys.executable, *words[1:]], check=False).returncode
        if status:
            yield f"failed with exit status {status}"
        return status != 0
