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


def shown(
    items: Iterable[Item], what: str, unit: str = "it", total: int | None = None
) -> Iterable[Item]:
    """The items, with a bar on stderr: on a terminal at once, in a log a line every 30 s.

    ``total`` says how many there are, of items that do not know.
    """
    pause, delay = (0.1, 0) if on_terminal() else (30, 2)
    bar: Iterable[Item] = tqdm(
        items, what, total=total, unit=unit, delay=delay, mininterval=pause, leave=False
    )
    return bar
