"""The same function of many items, here or on the machines of a Ray cluster.

What comes out depends on the items alone: an item carries its own seed, results come in the order
of the items, and one whose worker died is computed again.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch

INSTALL = "pip install 'jumpy-worldmodel[cluster]'"
RETRIES = 3
"""Times that an item is computed again after its process died."""
OWN_STORE = 512 * 2**20
"""Bytes of shared memory, of a Ray that is started here: results wait in it."""
REACH = 10.0
"""Seconds within which a cluster must answer; Ray itself would try for minutes."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def scatter(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 0,
    address: str | None = None,
) -> Iterator[Result]:
    """``map(function, items)``, in other processes on any number of machines.

    Function, items and results travel by cloudpickle, through Ray's object store: no folder has to
    be shared. Workers have as many threads of torch as this process. An item is computed
    again, up to ``RETRIES`` times, if its process or machine dies; an exception of the function is
    raised here as it is. If the caller stops early, running items are cancelled.

    Args:
        function: of one item; it must depend on nothing else, random states included.
        items: the arguments.
        workers: items that run at a time, each on a CPU of its own; 0 computes all in this process,
            without Ray.
        address: of a running cluster: "HOST:6379", or "auto" on one of its machines. None uses
            the Ray that this process is connected to, else starts one here until the end.

    Yields:
        the results, in the order of the items, each as soon as those before it are done.

    Raises:
        ValueError: ``workers`` is negative, or an ``address`` is given without any.
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        ChildProcessError: the process of an item died too often.
    """
    _check(workers, address)
    return _in_order(function, items, workers, address) if workers else map(function, items)


def as_completed(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 0,
    address: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """``scatter``, in the order in which results come.

    Args:
        function, items, workers, address: as for ``scatter``, also of errors.

    Yields:
        the number of an item, and its result.
    """
    _check(workers, address)
    here = enumerate(map(function, items))
    return _as_completed(function, items, workers, address) if workers else here


def _check(workers: int, address: str | None) -> None:
    if workers < 0 or (address is not None and not workers):
        raise ValueError(
            f"workers: expected at least {0 if address is None else 1} with address {address}, got "
            f"{workers}"
        )


def _in_order(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, address: str | None
) -> Iterator[Result]:
    with connected(workers, address) as ray, closing(_done(ray, function, items, workers)) as done:
        waiting = dict[int, Any]()
        for wanted in range(len(items)):
            while wanted not in waiting:
                index, reference = next(done)
                waiting[index] = reference
            yield _result(ray, waiting.pop(wanted), wanted)  # an error waits for its turn


def _as_completed(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, address: str | None
) -> Iterator[tuple[int, Result]]:
    with connected(workers, address) as ray, closing(_done(ray, function, items, workers)) as done:
        for index, reference in done:
            yield index, _result(ray, reference, index)


def _done(
    ray: Any, function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[tuple[int, Any], None, None]:
    """The number and the reference of each item when it is done, ``workers`` at a time."""
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(lambda call, item: call(item))
    # Sent once, however many items.
    shipped = ray.put(partial(_call, function, torch.get_num_threads()))
    upcoming, running = enumerate(items), dict[Any, int]()
    try:
        for _ in items:
            for index, item in islice(upcoming, workers - len(running)):
                running[task.remote(shipped, item)] = index
            (ready,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready), ready
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _call(function: Callable[[Item], Result], threads: int, item: Item) -> Result:
    torch.set_num_threads(threads)
    return function(item)


def _result(ray: Any, reference: Any, index: int) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise ChildProcessError(
            f"item {index}: its process died {RETRIES + 1} times, nothing came back; less memory "
            f"for each (fewer workers), or a look at Ray's logs, may help ({error})"
        ) from error


@contextmanager
def connected(workers: int, address: str | None = None) -> Iterator[Any]:
    """Ray, connected: see ``scatter``; a Ray that is started here is shut down here."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"workers: need Ray; {INSTALL}") from error
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            raise ValueError(
                f"address: this process is connected to {here} already, not to {address}; pass "
                "None for that one, or call ray.shutdown() first"
            )
        yield ray
        return
    _reach(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {
        "num_cpus": workers, "object_store_memory": OWN_STORE, "include_dashboard": False,
    }  # fmt: skip
    stop = signal.getsignal(signal.SIGTERM)
    # "local" also where a cluster runs on this machine: that one was not requested.
    ray.init(address or "local", logging_level=logging.ERROR, **({} if address else own))
    if callable(stop) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)  # Ray's own would abort; ours ends as Ctrl-C does
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Raise ConnectionError if nobody answers at HOST:PORT or ray://HOST:PORT."""
    named = re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address or "")
    if named is None:
        return
    try:
        socket.create_connection((named[1], int(named[2])), REACH).close()
    except OSError as error:
        raise ConnectionError(
            f"address: no Ray cluster answers at {address} ({error}); on its first machine: ray "
            "start --head"
        ) from error
