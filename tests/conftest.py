"""Set-up shared by all tests."""

import signal
from pathlib import Path

import pytest
import torch

# One thread: small tensors gain nothing from more, and busy machines lose a lot.
torch.set_num_threads(1)

# A shell starts what runs in its background with Ctrl-C ignored, and tests send it to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def bf16_is_not_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes float32 by itself: results must not depend on the processor's speed."""
    monkeypatch.setattr("worldmodel.training.precision.bf16_speedup", lambda threads: 1.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of ``tests/stress``; options are only known if they are told here."""
    group = parser.getgroup("stress")
    group.addoption("--stress", action="store_true", help="the long version of tests/stress")
    group.addoption("--stress-json", type=Path, help="file for its counts")
