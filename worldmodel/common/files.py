"""Files that survive a kill and a full disk: written whole or not at all, by one run at a time."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file or a folder under another name; it is moved into place when all went well.

    What is at ``path`` is whole at any moment, also after a power cut; if anything fails, it is
    what was there before.

    Args:
        path: where it goes; the folder that it lies in exists. A file is replaced, a folder is not;
            of a link, what it leads to.

    Yields:
        a neighbour with the same ending, to write to.

    Raises:
        ValueError: ``path`` is a device or a pipe, which would be replaced by a file.
        OSError: it cannot be written; the error names ``path``.
    """
    path = _real(path)
    with _partial(path) as partial:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock ``folder``, which is made if need be, against other runs, and sweep it.

    The operating system holds the lock: a killed process leaves none behind.

    Raises:
        BlockingIOError: another run is at work in it.
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(
            f"folder: {folder} is in use by another run; wait until it ends, or choose another one"
        ) from None
    try:
        sweep(folder)
        yield
    finally:
        lock.release()


def discard(path: Path) -> None:
    """Remove a file or folder; a kill leaves all of it, or nothing under its name."""
    partial = _neighbour(path)
    os.replace(path, partial)
    _remove(partial)


def sweep(folder: Path) -> None:
    """Remove what killed runs left half-written, also in inner folders. Only under its lock."""
    for partial in list(folder.rglob(".*.partial*")):
        _remove(partial)


def sweep_of(path: Path) -> None:
    """Remove what killed runs left half-written of one file or folder. Only for its one writer."""
    head, tail = (re.escape(part) for part in (f".{path.stem}.", f".partial{path.suffix}"))
    for partial in list(path.parent.iterdir()):
        if re.fullmatch(f"{head}[0-9a-f]{{8}}{tail}", partial.name):
            _remove(partial)


def check_writable(path: Path) -> None:
    """Check before hours of work that a file can be written; its folder is made if need be.

    Raises:
        ValueError: it is a device or a pipe.
        OSError: it cannot; or it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a file to write to")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(_real(path)) as probe:
        probe.touch()


def check_suffix(path: Path, *suffixes: str, name: str = "path") -> None:
    """Raise ValueError, which calls it ``name``, unless ``path`` ends in one of ``suffixes``."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{name} must end in {' or '.join(suffixes)}, got {str(path)!r}")


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A neighbour that is removed in the end; OSErrors about it name ``path``."""
    partial = _neighbour(path)
    try:
        yield partial
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(partial), partial):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        _remove(partial)


def _real(path: Path) -> Path:
    """The target of a link; never a device such as /dev/null, which a file would replace."""
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: expected a regular file to write to, got a device or a pipe")
    return path


def _neighbour(path: Path) -> Path:
    """A new name each time, so that two writers of one file do not mix."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    for inside in path.iterdir():
        _sync(inside)
    _sync_folder(path)


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
