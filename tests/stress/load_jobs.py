"""``write FOLDER EPISODES`` and ``stream FOLDER BYTES BATCHES``, in processes of their own.

What a process has freed, it takes again without growing: peaks are only told by a fresh one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from worldmodel import ActionSpec, Episode, Episodes, fit, make
from worldmodel.models.jumpy.jump import JumpConfig

WINDOW = 8
SHORTEST, LONGEST = 1, 40
FRAME = (16, 16, 3)
ACTION = ActionSpec("discrete", (), (4,))
CONFIG = JumpConfig(steps=1, hidden=4, tower=4, canvas=4, canvas_in=4, scene=8, path=4, film=4)


def status(name: str) -> int:
    """A size of this process in bytes: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise KeyError(name)


def mapped(folder: Path) -> int:
    """Bytes of the folder's files that are mapped into this process and resident."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:  # addresses begin a mapping
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def episodes(count: int) -> Episodes:
    """Pieces of one long film, which is all the memory that they take."""
    random = np.random.default_rng(0)
    film = 255 * random.integers(0, 2, (4000, *FRAME), np.uint8)
    actions = random.integers(4, size=4000)
    rewards = random.random(4000, np.float32)
    made = []
    for begin, steps in zip(
        random.integers(4000 - LONGEST, size=count),
        random.integers(SHORTEST, LONGEST + 1, count),
        strict=True,
    ):
        part = slice(begin, begin + steps)
        seen = film[begin : begin + steps + 1]
        made.append(Episode(seen, actions[part], rewards[part], bool(steps % 2)))
    return Episodes(made, ACTION)


def stream(folder: Path, memory: int, batches: int) -> dict[str, int]:
    """Train on episodes that stay on disk, and tell what that took."""
    torch.set_num_threads(1)
    few = episodes(64)
    model = make("jump", few.spec(WINDOW), CONFIG, seed=0)
    fit(model, few.windows(WINDOW, 32), 2, progress=False)
    base, most = status("VmRSS"), 0
    stored = Episodes.load(folder, memory)
    source = stored.windows(WINDOW, 32)
    times = torch.arange(WINDOW + 1).expand(32, -1)
    for index in range(batches):
        batch = source.batch(index)
        batch.observations(times)
        most = max(most, mapped(folder))
    fit(model, source, 10, progress=False)
    return {
        "episodes": len(stored),
        "bytes": sum(path.stat().st_size for path in folder.glob("*.npz")),
        "mapped": most,
        "grown": status("VmHWM") - base,
    }


if __name__ == "__main__":
    verb, out, *numbers = sys.argv[1:]
    if verb == "write":
        episodes(int(numbers[0])).save(out)
    else:
        sys.stdout.write(json.dumps(stream(Path(out), *map(int, numbers))))
