"""Checks that the models' settings share; each error names the setting and what would be right."""

from __future__ import annotations

import math
from typing import Any


def at_least(least: int, config: Any, *names: str) -> None:
    """Raise ValueError unless all these settings are ``least`` or more, and finite."""
    for name in names:
        if not least <= getattr(config, name) < math.inf:
            raise ValueError(f"{name}: expected at least {least}, got {getattr(config, name)}")


def above_zero(config: Any, *names: str) -> None:
    """Raise ValueError unless all these settings are above 0, and finite."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f"{name}: expected above 0, got {getattr(config, name)}")


def share(config: Any, *names: str) -> None:
    """Raise ValueError unless all these settings are above 0 and at most 1."""
    for name in names:
        if not 0 < getattr(config, name) <= 1:
            raise ValueError(f"{name}: expected above 0 and at most 1, got {getattr(config, name)}")


def odd(config: Any, name: str) -> None:
    """Raise ValueError unless the size of a kernel is odd."""
    if getattr(config, name) % 2 == 0:
        raise ValueError(f"{name}: expected an odd size, got {getattr(config, name)}")


def to_tuples(config: Any, *names: str) -> None:
    """Make these settings tuples again, which JSON turns into lists."""
    for name in names:
        object.__setattr__(config, name, tuple(getattr(config, name)))
