"""Checks of settings and arguments; each error names them and what would be right."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from operator import index
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

LONGEST = 256
"""Entries of a tuple in a file's settings, and layers: models build one for each."""
T = TypeVar("T")


def numbers_at_least(least: int, **values: float) -> None:
    """Raise ValueError unless all these arguments are ``least`` or more, and finite."""
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def whole_numbers(least: int, **values: Any) -> None:
    """Raise an error unless all these arguments are whole numbers of ``least`` or more.

    Raises:
        TypeError: one is of another kind, such as 2.0; NumPy's whole numbers are some, too.
        ValueError: one is below ``least``.
    """
    for name, value in values.items():
        try:
            index(value)
        except TypeError as error:
            raise TypeError(f"{name}: expected a whole number, got {value!r}") from error
    numbers_at_least(least, **values)


def at_least(least: int, config: Any, *names: str) -> None:
    """Raise ValueError unless all these settings are ``least`` or more, and finite."""
    numbers_at_least(least, **{name: getattr(config, name) for name in names})


def layer_counts(config: Any, *names: str) -> None:
    """Raise ValueError unless all these numbers of layers are from 1 to 256; a model of many more,
    which a file may name, takes hours to make.
    """
    at_least(1, config, *names)
    for name in names:
        if getattr(config, name) > LONGEST:
            raise ValueError(f"{name}: expected at most {LONGEST}, got {getattr(config, name)}")


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """Return ``value`` if it is an int, of at least ``least``; else raise an error."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_seed(seed: int) -> None:
    """Raise ValueError unless torch, NumPy and Gymnasium all take the seed."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: expected from 0 to 2**63 - 1, got {seed}")


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


def below_one(config: Any, *names: str) -> None:
    """Raise ValueError unless all these settings are at least 0 and below 1."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(
                f"{name}: expected at least 0 and below 1, got {getattr(config, name)}"
            )


def odd(config: Any, name: str) -> None:
    """Raise ValueError unless the size of a kernel is odd."""
    if getattr(config, name) % 2 == 0:
        raise ValueError(f"{name}: expected an odd size, got {getattr(config, name)}")


def to_tuples(config: Any, *names: str) -> None:
    """Make these settings tuples again, which JSON turns into lists."""
    for name in names:
        object.__setattr__(config, name, tuple(getattr(config, name)))


def from_json(kind: type[T], data: Any, longest: int | None = LONGEST) -> T:
    """An instance of the dataclass ``kind`` from what JSON made of it (lists are tuples again, and
    dicts the dataclasses that fields are of).

    Nothing is converted: 3.5, "3" and true are no int. Types that JSON does not have are
    checked by the class itself.

    Args:
        kind: a dataclass.
        data: a dict of its fields; those with a default may lack.
        longest: entries that a tuple may have; None for any number.

    Raises:
        ValueError: a field is missing, unknown, of another type or refused by the class.
    """
    if not isinstance(data, dict):
        raise ValueError(f"expected the settings of {kind.__name__}, got {_short(data)}")
    known: Any = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    needed = [
        name
        for name, field in known.items()
        if field.default is MISSING and field.default_factory is MISSING
    ]
    if wrong := sorted(map(_short, data.keys() - known)):
        raise ValueError(f"{kind.__name__} has no {', '.join(wrong[:8])}; it has {list(known)}")
    if lacking := [name for name in needed if name not in data]:
        raise ValueError(f"{kind.__name__} lacks {lacking}")
    hints = get_type_hints(kind)
    values = {name: _value(name, value, hints[name], longest) for name, value in data.items()}
    try:
        return kind(**values)
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _value(name: str, value: Any, hint: Any, longest: int | None) -> Any:
    """``value`` as the type ``hint``; raises ValueError if it is of another."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for each in inner:
            try:
                return _value(name, value, each, longest)
            except ValueError:
                continue
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return _entries(name, value, inner, longest)
    elif origin is Literal:
        if isinstance(value, str | int) and value in inner:
            return value
    elif isinstance(hint, type) and is_dataclass(hint):
        return value if isinstance(value, hint) else from_json(hint, value, longest)
    elif hint is float:
        whole = type(value) is int and abs(value) <= sys.float_info.max  # bool is an int, too
        if whole or isinstance(value, float):
            return value
    elif hint not in (int, str, bool, types.NoneType) or type(value) is hint:
        return value
    raise ValueError(f"{name}: expected {getattr(hint, '__name__', hint)}, got {_short(value)}")


def _entries(
    name: str, value: Sequence[Any], inner: tuple[Any, ...], longest: int | None
) -> tuple[Any, ...]:
    """The entries of a tuple, each as its type in ``inner``."""
    if longest is not None and len(value) > longest:
        raise ValueError(f"{name}: expected at most {longest} entries, got {len(value)}")
    hints = [inner[0]] * len(value) if inner[1:] == (...,) else inner
    if len(hints) != len(value):
        raise ValueError(f"{name}: expected {len(hints)} entries, got {_short(value)}")
    return tuple(_value(name, each, hint, longest) for each, hint in zip(value, hints, strict=True))


def difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first difference, as ``config.tower = 32, now it is 16``; None if there is none.

    Names are those of nested dicts.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        inside = (
            difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)
            for key in [*now, *(key for key in before if key not in now)]
        )
        return next(filter(None, inside), None)
    return None if before == now else f"{name} = {_short(before)}, now it is {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
