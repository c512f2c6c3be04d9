"""Ways to spoil a file, for hypothesis to choose from, and what may come of reading it."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.stress.conftest import Tally

PATIENCE = 60
"""Seconds after which reading a file counts as hanging."""
MEMORY = 2**30
"""Bytes that reading may take: a gigabyte, where good files take less than a hundredth of it."""
HOSTILE = (
    None, True, False, 0, -1, 1, 3.5, -0.0, 10**9, -(10**9), 10**12, 2**31, 2**63, 10**30, 10**400,
    1e308, float("nan"), float("inf"), "", "32", "jump", "os:system", "../..", "/dev/zero", "\0",
    "\ud800", "object", "float32,object", "O", [], [[]], [None], [1, "2"], {}, {"a": {}},
    [10**9] * 3, [3, 10**9, 10**9], [-1], [64] * 300, "inf", "-inf", "nan", "a" * 10_000,
)  # fmt: skip
PIECES = (b"\0", b"\xff" * 8, b"\x7f" * 8, b"[", b"{", b"PK\3\4", b"\x80\x04", b"1" * 20)


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes, head: int = 400) -> bytes:
    """``whole`` with one to three edits; half of them in its first or last ``head`` bytes."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        last = max(len(data) - 1, 0)
        near = st.integers(0, min(head, last)) | st.integers(max(last - head, 0), last)
        at = draw(near | st.integers(0, last))
        kind = draw(st.sampled_from(("flip", "write", "insert", "cut", "truncate", "repeat")))
        if kind == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "write":
            piece = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=8))
            data[at : at + len(piece)] = piece
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=64))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "truncate":
            del data[at:]
        else:
            data += data[at : at + draw(st.integers(1, 4096))]
    return bytes(data)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all that lies in JSON, itself aside."""
    parts = list(enumerate(value)) if isinstance(value, list) else []
    for key, each in value.items() if isinstance(value, dict) else parts:
        yield (*path, key)
        yield from _places(each, (*path, key))


@st.composite
def rewritten(draw: st.DrawFn, whole: dict[str, Any]) -> str:
    """The JSON ``whole`` with one to three values replaced, removed, renamed or added."""
    data = json.loads(json.dumps(whole))
    hostile = st.sampled_from(HOSTILE).map(deepcopy)  # a later edit may reach into it
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(data))
        if not places:
            break
        *path, key = draw(st.sampled_from(places))
        parent = data
        for step in path:
            parent = parent[step]
        kind = draw(st.sampled_from(("replace", "replace", "number", "remove", "rename", "add")))
        if kind == "replace":
            parent[key] = draw(hostile | st.text(max_size=8))
        elif kind == "number":
            parent[key] = draw(st.integers() | st.integers(0, 64) | st.floats())
        elif kind == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            value = parent.pop(key) if kind == "rename" else draw(hostile)
            parent[draw(st.text(max_size=8) | st.sampled_from(("__class__", "model", "")))] = value
        else:
            parent.append(draw(hostile))
    return json.dumps(data)


def each(
    tally: Tally, area: str, strategy: st.SearchStrategy[Any], count: int, case: Callable[..., None]
) -> None:
    """Run ``case`` with about ``count`` draws, the same ones every time; what fails escaped."""
    quiet = settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip

    def counted(drawn: Any) -> None:
        try:
            case(drawn)
        except BaseException:
            tally.add(area, "escapes")
            raise

    tally.add(area, "escapes", 0)
    quiet(given(strategy)(counted))()


@contextmanager
def guarded() -> Iterator[None]:
    """Within it memory is short, and what hangs is an error."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _hangs(number: int, frame: FrameType | None) -> None:
    raise AssertionError(f"an escape: it hangs for {PATIENCE} s")


class Judge:
    """Reads spoiled files of one kind and counts what came of them."""

    def __init__(self, tally: Tally, kind: str, path: Path, read: Callable[[], Any]) -> None:
        self.tally, self.path, self.read = tally, path, read
        self.area = f"files: {kind}"

    def case(self, data: bytes) -> Any:
        """What was read, or None if it was refused."""
        self.path.write_bytes(data)
        self.tally.add(self.area, "cases")
        try:
            with guarded():
                found = self.read()
        except (ValueError, FileNotFoundError) as error:
            assert self.path.parent.name in str(error) or self.path.name in str(error), error
            assert not isinstance(error, UnicodeError), "an escape: it names no file"
            self.tally.add(self.area, "refused")
            return None
        self.tally.add(self.area, "loaded")
        return found
