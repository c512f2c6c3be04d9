"""``VERB --help`` without waiting for torch: heavy libraries are replaced by placeholders.

To parse options takes the verb's dataclass alone, but its module imports what the verb runs with.
Sphinx solves the same problem the same way (``autodoc_mock_imports``). A process that has
placeholders prints its help and ends; nothing ever runs with them.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HEAVY = ("lightning", "matplotlib", "scipy", "sklearn", "stable_baselines3", "tensorboard", "torch")
"""Libraries whose import takes longer than the help: torch alone needs more than a second."""
HELP = ("--help", "-h")


def use_placeholders() -> None:
    """From now on, importing a heavy library gives a placeholder; for a process that ends with it.

    Where torch is imported already there is nothing to wait for, and nothing is done.
    """
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Meta(ABCMeta):
    """Of placeholders: classes, so that they can be base classes, type hints and decorators."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _placeholder(name)

    def __iter__(cls) -> Iterator[Any]:
        return iter(())

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__

    def __getitem__(cls, item: Any) -> Any:
        return cls


class _Placeholder(metaclass=_Meta):
    """A class whose attributes are placeholders; called with a function, it returns that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(type(self), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args else self


def _placeholder(name: str) -> type:
    return _Meta(name, (_Placeholder,), {})


class _Finder(MetaPathFinder, Loader):
    """Finds and loads placeholders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of a heavy library."""
        heavy = fullname.partition(".")[0] in HEAVY
        return ModuleSpec(fullname, self, is_package=True) if heavy else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module with any attribute."""
        module = ModuleType(spec.name)

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _placeholder(name)

        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""
