"""What a long measurement has found so far, kept part by part: a kill costs what was under way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evaluation.runner.progress import shown
from worldmodel.common import results
from worldmodel.common.cluster import as_completed
from worldmodel.common.config_checks import difference
from worldmodel.common.files import discard, locked, sweep_of
from worldmodel.common.safe_files import read_json

FACTS, PART = "facts.json", ".part.json"
FREE = frozenset({"json", "resume", "workers", "ray"})
"""Settings that another run may go on with changed: rows do not depend on them."""
SAME = ("benchmark", "commit", "versions", "machine", "weights")
"""Facts that must be as they were, or the result would say of some parts what is not true."""

Item = TypeVar("Item")


class Ledger:
    """The parts of a measurement by name; each is what JSON can hold.

    Every part goes through JSON, so that it is the same whether it was just made or read.

    Args:
        folder: where they are kept; None keeps nothing.
        facts: what the result will say beside its rows.
    """

    def __init__(self, folder: Path | None = None, facts: Mapping[str, Any] | None = None) -> None:
        self.folder, self.facts = folder, dict(facts or {})
        self.found: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def opened(cls, result: Path, facts: Mapping[str, Any], resume: bool) -> Iterator[Ledger]:
        """The ledger of a result that is to be written; no other run may have it at a time.

        Its folder stays if the run does not end well and a part is done; else it is gone.

        Args:
            result: the JSON file.
            facts: see ``Ledger``; where there are parts already, those of the run that began.
            resume: go on with the parts that a stopped run has left; there need not be any.

        Raises:
            FileExistsError: there are parts and ``resume`` is False.
            ValueError: they are of another measurement, or a file is corrupt.
            BlockingIOError: another run makes this result.
            OSError: the folder cannot be written.
            KeyboardInterrupt: as it came, with how to go on.
        """
        folder = parts_of(result)
        with locked(folder):
            for path in (result, folder):
                sweep_of(path)
            ledger = cls(folder, facts)
            parts = sorted(folder.glob(f"*{PART}"))
            if parts and not resume:
                raise FileExistsError(
                    f"json: {folder} holds {len(parts)} parts of a run that was stopped; "
                    "--resume goes on from there, or delete it"
                )
            if parts:
                ledger._read(folder, parts)
            else:
                results.write(folder / FACTS, ledger.facts)
            try:
                yield ledger
            except BaseException as error:
                if not ledger.found:
                    with suppress(OSError):  # a disk that is full refuses that, too
                        discard(folder)
                elif isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt(
                        f"stopped; {len(ledger.found)} parts are done, --resume goes on from there"
                    ) from error
                raise
            discard(folder)

    def each(
        self,
        function: Callable[[Item], Any],
        items: Mapping[str, Item],
        what: str,
        unit: str = "part",
        workers: int = 0,
        address: str | None = None,
    ) -> list[Any]:
        """What the function makes of each item, but for those whose part is there already.

        Args:
            function: of one item; what it returns depends on the item alone. Arrays become lists.
            items: by the names of their parts.
            what, unit: for the progress bar.
            workers, address: processes that do it; see ``worldmodel.common.cluster.scatter``.
        """
        missing = [name for name in items if name not in self.found]
        made = as_completed(function, [items[name] for name in missing], workers, address)
        for index, value in shown(made, what, unit, len(missing)):
            self._keep(missing[index], value)
        return [self.found[name] for name in items]

    def _keep(self, name: str, value: Any) -> None:
        part = json.loads(json.dumps({"part": name, "found": value}, default=_listed))
        if self.folder is not None:
            results.write(self.folder / _file(name), part)
        self.found[name] = part["found"]

    def _read(self, folder: Path, parts: list[Path]) -> None:
        """Take what a stopped run has left, if it is of this measurement."""
        told = read_json(folder / FACTS)
        if other := changed(told, self.facts):
            raise ValueError(f"resume: {folder} was begun with {other}; delete it to begin anew")
        self.facts = told
        for path in parts:
            part = read_json(path, finite=False)  # a measurement may be NaN
            name = str(part.get("part"))
            if part.keys() != {"part", "found"} or path.name != _file(name):
                raise ValueError(
                    f"{path}: expected part, with the name that the file was named after, and "
                    f"found; got {sorted(part)} and {name!r}"
                )
            self.found[name] = part["found"]


def parts_of(result: Path) -> Path:
    """The folder beside a result: a file for the facts, and one for each part that is done."""
    return result.with_name(f"{result.name}.parts")


def changed(told: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """The first thing that makes two measurements different ones; None if they are the same."""
    return difference(_compared(told), _compared(json.loads(json.dumps(facts, default=str))))


def _file(name: str) -> str:
    """Of any name, which may be a long path with any character."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16] + PART


def _compared(facts: Mapping[str, Any]) -> dict[str, Any]:
    told = facts.get("settings")
    settings = told if isinstance(told, dict) else {}
    same = {name: facts.get(name) for name in SAME}
    return same | {name: value for name, value in settings.items() if name not in FREE}


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"found: expected what JSON can hold, got {type(value).__name__}")
