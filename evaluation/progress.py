"""Progress bars of what takes longer than a person waits in silence."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def on_terminal() -> bool:
    """Whether a person watches: SB3's bar would fill a log."""
    return sys.stderr.isatty()


def shown(items: Iterable[Item], what: str, unit: str = "it") -> Iterable[Item]:
    """The items, with a bar on stderr from the third second on; in a log, a line every 30 s."""
    pause = 0.1 if on_terminal() else 30
    bar: Iterable[Item] = tqdm(items, what, unit=unit, delay=2, mininterval=pause, leave=False)
    return bar
