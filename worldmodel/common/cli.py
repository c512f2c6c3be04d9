"""How every command of this project begins and ends: ``python -m envs | worldmodel | ...``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from worldmodel.common.packages import advice
from worldmodel.common.quick_help import HELP, use_placeholders

DEBUG = "--debug"
NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # on Windows
    "Storage size calculation overflowed",
    "CUDA out of memory",
)
"""Texts of the RuntimeErrors that torch raises when memory runs out."""


class Verb(Protocol):
    """A dataclass whose fields are the options, and its docstrings the help.

    One with a field ``num_threads``, a number or several, runs only if that is at least 1.
    """

    def run(self) -> Iterable[str] | None:
        """Run, and yield what to print; None where it prints by itself."""


@dataclass(frozen=True)
class LazyVerb:
    """A verb whose module is imported when it is the one that the command line names.

    Attributes:
        where: its class, as ``module:Name``.
        summary: its line in the list of verbs, with which its docstring begins.
    """

    where: str
    summary: str

    def load(self) -> Any:
        """The class. Raises ImportError: its module, or what that needs, cannot be imported."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(module), name)

    def stand_in(self) -> Callable[[], None]:
        """A function with the summary as docstring, to be listed where another verb runs."""

        def listed() -> None: ...

        listed.__doc__ = self.summary
        return listed


Verbs = Mapping[str, LazyVerb | Callable[..., Verb]]


def main(package: str, verbs: Verbs, description: str | None) -> None:
    """Run the verb that the command line names, ``python -m PACKAGE VERB ...``.

    Mistakes of the user (``ValueError``, ``TypeError``, ``OSError``, ``ImportError``, numbers that
    are not finite, Gymnasium's errors), too little memory, Ctrl-C and SIGTERM end with one line on
    stderr and exit status 1; with ``--debug`` anywhere on the command line, with the traceback.
    Any other exception is a bug of ours and has its traceback. Where the reader of a pipe has ended
    (``| head``), the command ends silently, as those of a shell do.
    """
    words = sys.argv[1:]
    debug = DEBUG in words
    try:
        with _one_line_each(debug):
            try:
                _run(package, verbs, description, [word for word in words if word != DEBUG])
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        if debug:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(1)
    except KeyboardInterrupt as error:
        if debug:
            raise
        # Processes that train together stop together; only the first prints.
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        sys.exit((_one_line(error) or "stopped") if first else 1)
    except Exception as error:
        if not debug and _no_memory(error):
            text = str(error).partition("\n")[0] or type(error).__name__
            sys.exit(f"error: this does not fit into memory; ask for less at a time ({text})")
        if debug or not isinstance(error, _mistakes()):
            raise
        clash = advice() if _is_of_a_clash(error) else ""
        sys.exit(f"error: {_one_line(error) or type(error).__name__}{clash}")


@contextmanager
def _one_line_each(debug: bool) -> Iterator[None]:
    """Within it, SIGTERM is as Ctrl-C, and TensorBoard's thread prints no OSError of a full disk:
    its next call raises the same one, which ``main`` prints.
    """
    hook = threading.excepthook

    def all_but_os_errors(failed: threading.ExceptHookArgs) -> None:
        if debug or not isinstance(failed.exc_value, OSError):
            hook(failed)

    threading.excepthook = all_but_os_errors
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        threading.excepthook = hook
        signal.signal(signal.SIGTERM, before)


def _run(package: str, verbs: Verbs, description: str | None, words: list[str]) -> None:
    import tyro

    chosen = words[0].replace("_", "-") if words else None  # tyro takes both
    if len(words) > 1 and set(HELP) & set(words):
        words = [words[0], HELP[0]]  # so that it ends there, whatever else is said
        use_placeholders()
    callables = {
        name: verb
        if not isinstance(verb, LazyVerb)
        else (verb.load() if name == chosen else verb.stand_in())
        for name, verb in verbs.items()
    }
    command = tyro.extras.subcommand_cli_from_dict(
        callables,
        prog=f"python -m {package}",
        description=f"{description}\n{DEBUG}, anywhere, shows the traceback of an error.",
        args=words,
    )
    threads = getattr(command, "num_threads", 1)  # of all verbs that compute
    if (
        min(threads if isinstance(threads, tuple) else (threads,), default=0) < 1
    ):  # torch's own message is short, and comes with a traceback
        raise ValueError(f"num_threads: expected at least 1, got {threads}")
    for text in command.run() or ():
        print(text, flush=True)  # noqa: T201 (the one place for all commands)


def _mistakes() -> tuple[type[Exception], ...]:
    own = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
    gym = sys.modules.get("gymnasium")  # whose errors come only from what has imported it
    return own if gym is None else (*own, gym.error.Error)


def _is_of_a_clash(error: Exception) -> bool:
    """Whether somebody else's package, imported instead of ours, can lead to such an error."""
    gym = sys.modules.get("gymnasium")
    return isinstance(error, ImportError) or (
        gym is not None and isinstance(error, gym.error.UnregisteredEnv)
    )


def _no_memory(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return any(text in str(error) for text in NO_MEMORY)
    return isinstance(error, MemoryError)  # NumPy's, too


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
