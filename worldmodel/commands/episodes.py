"""Verbs that record episodes, and copy them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro

from worldmodel.commands.scenes import sized_env
from worldmodel.common.config_checks import check_seed
from worldmodel.data.collect import collect
from worldmodel.data.episodes import unpack


@dataclass(frozen=True)
class Collect:
    """Record random play of any Gymnasium environment."""

    env: str
    """Gymnasium id, such as envs:narratives/TravelingSalesman-v0."""
    out: Path
    """Folder for the episodes."""
    episodes: int = 100
    hold: int = 1
    """Steps for which each random action is held."""
    size: int | None = None
    """Frame size, for environments that take one."""
    seed: int = 0
    resume: bool = False
    """Go on after the last shard in OUT."""
    workers: int = 0
    """Processes that play, through Ray; 0 plays in this one. The episodes are the same."""
    ray: str | None = None
    """Address of a Ray cluster whose machines play, as HOST:6379 or auto; None: this one does."""
    num_threads: int = 1
    """CPU threads of each process."""

    def run(self) -> Iterator[str]:
        """Record, and say how to train on the episodes."""
        check_seed(self.seed)
        torch.set_num_threads(self.num_threads)
        episodes = collect(
            partial(sized_env, self.env, self.size), self.episodes, hold=self.hold, seed=self.seed,
            folder=self.out, resume=self.resume, workers=self.workers, address=self.ray,
        )  # fmt: skip
        yield f"{len(episodes)} episodes, {episodes.steps} steps: {self.out}"
        words = ("train", "--episodes", str(self.out), "--window", "20", "--out", "runs/model")
        yield f"train on them: python -m worldmodel {shlex.join(words)}"


@dataclass(frozen=True)
class Unpack:
    """Copy recorded episodes so that ``train --memory`` can leave them on disk."""

    episodes: tyro.conf.Positional[Path]
    """Folder of recorded episodes."""
    out: Path
    """Folder for the copy, which is not compressed: frames alone take H x W x C bytes each."""

    def run(self) -> Iterator[str]:
        """Copy, and say how to train on the copy."""
        out = shlex.quote(str(unpack(self.episodes, self.out)))
        yield f"train on them: python -m worldmodel train --episodes {out} --memory 1 --window 20"
