"""Progress of a long measurement: a bar, and its parts on disk, so that a kill costs only one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from worldmodel.common import results
from worldmodel.common.cluster import as_completed
from worldmodel.common.config_checks import difference
from worldmodel.common.files import discard, locked, sweep_of
from worldmodel.common.progress import progress
from worldmodel.common.safe_files import read_json

FACTS, PART = "facts.json", ".part.json"
FREE = frozenset({"json", "resume", "workers", "ray"})
"""Settings that may differ when a run is resumed: rows do not depend on them."""
SAME = ("benchmark", "commit", "versions", "machine", "weights")
"""Facts that must not differ, because the result states them of all its parts."""

Item = TypeVar("Item")


class PartialResults:
    """The parts of a measurement by name; each is what JSON can hold.

    Every part goes through JSON, so that it is the same whether it was just made or read.

    Args:
        folder: where they are written; None writes nothing.
        facts: what the result will state besides its rows.
        selecting: see ``opened``.
    """

    def __init__(
        self,
        folder: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        selecting: frozenset[str] = frozenset(),
    ) -> None:
        self.folder, self.facts, self.selecting = folder, dict(facts or {}), selecting
        self.parts: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def opened(
        cls,
        result: Path,
        facts: Mapping[str, Any],
        resume: bool,
        selecting: frozenset[str] = frozenset(),
    ) -> Iterator[PartialResults]:
        """Those of a result that is to be written; no other run may have them at the same time.

        The folder stays if the run fails after a part is done; otherwise it is removed.

        Args:
            result: the JSON file.
            facts: see ``PartialResults``; where there are parts already, those of the run that
                made them.
            resume: go on from the parts of a stopped run; there need not be any.
            selecting: settings that say which parts are made, but not what is in one: a resumed
                run may have others, and the result states them.

        Raises:
            FileExistsError: there are parts and ``resume`` is False.
            ValueError: they are of another measurement, or a file is corrupt.
            BlockingIOError: another run makes this result.
            OSError: the folder cannot be written.
            KeyboardInterrupt: as it came, with how to go on.
        """
        folder = folder_of(result)
        with locked(folder):
            for path in (result, folder):
                sweep_of(path)
            partial = cls(folder, facts, selecting)
            files = sorted(folder.glob(f"*{PART}"))
            if files and not resume:
                raise FileExistsError(
                    f"json: {folder} holds {len(files)} parts of a run that was stopped; "
                    "--resume goes on from there, or delete it"
                )
            if files:
                partial._read(folder, files)
            else:
                results.write(folder / FACTS, partial.facts)
            try:
                yield partial
            except BaseException as error:
                if not partial.parts:
                    with suppress(OSError):  # a full disk refuses that, too
                        discard(folder)
                elif isinstance(error, KeyboardInterrupt):
                    count = len(partial.parts)
                    raise KeyboardInterrupt(
                        f"stopped; {count} parts are done, --resume goes on from there"
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
        """The function's value of each item; those of parts that are there are not made again.

        Args:
            function: of one item; its value depends on the item alone. Arrays become lists.
            items: by the names of their parts.
            what, unit: for the progress bar.
            workers, address: processes that do it; see ``worldmodel.common.cluster.scatter``.
        """
        missing = [name for name in items if name not in self.parts]
        values = as_completed(function, [items[name] for name in missing], workers, address)
        for index, value in progress(values, what, unit, len(missing)):
            self._add(missing[index], value)
        return [self.parts[name] for name in items]

    def _add(self, name: str, value: Any) -> None:
        part = json.loads(json.dumps({"part": name, "value": value}, default=_to_list))
        if self.folder is not None:
            results.write(self.folder / _file(name), part)
        self.parts[name] = part["value"]

    def _read(self, folder: Path, files: list[Path]) -> None:
        """Take the parts of a stopped run, if they are of this measurement."""
        facts = read_json(folder / FACTS)
        if other := what_differs(facts, self.facts, self.selecting):
            raise ValueError(f"resume: {folder} was begun with {other}; delete it to begin anew")
        if not self.selecting:
            self.facts = facts
        for path in files:
            part = read_json(path, finite=False)  # a measurement may be NaN
            name = str(part.get("part"))
            if part.keys() != {"part", "value"} or path.name != _file(name):
                raise ValueError(
                    f"{path}: expected part, with the name that the file was named after, and "
                    f"value; got {sorted(part)} and {name!r}"
                )
            self.parts[name] = part["value"]


def folder_of(result: Path) -> Path:
    """The folder for a result's partial results: a file for the facts, and one for each part."""
    return result.with_name(f"{result.name}.parts")


def what_differs(
    before: Mapping[str, Any], facts: Mapping[str, Any], selecting: frozenset[str] = frozenset()
) -> str | None:
    """The first thing that makes two measurements different ones; None if they are the same.

    Settings in ``selecting`` do not count.
    """
    now = json.loads(json.dumps(facts, default=str))
    free = FREE | selecting
    return difference(_compared(before, free), _compared(now, free))


def _file(name: str) -> str:
    """For any name, which may be a long path with any character."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16] + PART


def _compared(facts: Mapping[str, Any], free: frozenset[str]) -> dict[str, Any]:
    settings = facts.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    same = {name: facts.get(name) for name in SAME}
    return same | {name: value for name, value in settings.items() if name not in free}


def _to_list(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"value: expected what JSON can hold, got {type(value).__name__}")
