"""Progress on stderr: a bar on a terminal, in a log a line every 30 s.

Whatever may take more than two seconds shows it, by one of these two functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

PAUSE = 30.0
"""Seconds between two lines in a log, and before the first: what is quick leaves none."""
TERMINAL_PAUSE = 0.1

Item = TypeVar("Item")


def on_terminal() -> bool:
    """Whether stderr is a terminal, on which a line can be drawn again and again."""
    return sys.stderr.isatty()


def progress_bar(
    what: str,
    unit: str = "it",
    total: int | None = None,
    *,
    items: Iterable[Any] | None = None,
    initial: int = 0,
    show: bool = True,
    leave: bool = True,
) -> Any:
    """A tqdm bar: a context manager that is updated, or an iterable of ``items``.

    Args:
        what: is under way.
        unit: of what is counted.
        total: number of units; None for ``len(items)``, or if it is not known.
        items: to iterate over.
        initial: units that were done before.
        show: False shows nothing.
        leave: whether the bar stays on the terminal when it is full; not within another one. In a
            log the last line always stays, so that what follows begins a line of its own.
    """
    terminal = on_terminal()
    pause = TERMINAL_PAUSE if terminal else PAUSE
    return tqdm(
        items, what, total, unit=unit, initial=initial, disable=not show, mininterval=pause,
        maxinterval=max(10.0, pause), delay=0 if terminal else pause, leave=leave or not terminal,
    )  # fmt: skip


def progress(
    items: Iterable[Item], what: str, unit: str = "it", total: int | None = None, show: bool = True
) -> Iterable[Item]:
    """The items, with a bar that vanishes when it is full; for arguments see ``progress_bar``."""
    bar: Iterable[Item] = progress_bar(what, unit, total, items=items, show=show, leave=False)
    return bar
