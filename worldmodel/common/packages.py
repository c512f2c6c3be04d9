"""Our four packages: their public names, and whether somebody else's package hides one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

OURS = ("worldmodel", "envs", "agents", "evaluation")
DISTRIBUTION = "jumpy-worldmodel"
ROOT = Path(__file__).resolve().parents[2]
"""The folder in which all of them lie: a checkout, or site-packages."""

_LOOK = """
import importlib.util, json, sys
specs = [importlib.util.find_spec(name) for name in sys.argv[1:]]
print(json.dumps([
    spec and (list(spec.submodule_search_locations or ()) or [spec.origin]) for spec in specs
]))
"""


def lazy_names(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that imports its public names on first use.

    So ``--help`` and the parts that need no torch do not wait for it. For type checkers the package
    imports the same names under ``TYPE_CHECKING``.

    Args:
        package: its ``__name__``.
        names: the public names of each module, separated by spaces. A name must not be that of a
            module of the package, which Python would put in its place.
    """
    modules = {name: module for module, several in names.items() for name in several.split()}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names_of_package() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names_of_package


def shadows(names: Sequence[str] = OURS, folder: Path | None = None) -> dict[str, Path]:
    """Packages that Python imports instead of ours, in a program that is started in a folder.

    A new interpreter looks for them, so that what this one has imported already does not count, and
    what counts is all that decides there: the folder, PYTHONPATH, site-packages. It imports none.

    Args:
        names: of packages of ours.
        folder: where the program is started; None for the current folder.

    Returns:
        by name, the folder or file of those that are not ours.

    Raises:
        OSError: no interpreter can be started in the folder.
    """
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, *names],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"{sys.executable} does not run here: {done.stderr.strip()[-200:]}")
    locations = dict(zip(names, json.loads(done.stdout), strict=True))
    return {
        name: Path(several[0])
        for name, several in locations.items()
        if several and not any(_is_ours(name, Path(one)) for one in several)
    }


def remedy(name: str, place: Path) -> str:
    """What to do about a package, of ``shadows``, that lies at ``place``."""
    owners = [owner for owner in _owners(name) if owner != DISTRIBUTION]
    if owners and _is_installed(place):
        return (
            f"{place} belongs to {owners[0]}, and is imported instead of ours. Both cannot be in "
            f"one environment: python -m pip uninstall {owners[0]}, or install jumpy-worldmodel in "
            "an environment of its own (python -m venv)"
        )
    return (
        f"{place} is imported instead of our package {name}. Rename it, or start Python in another "
        "folder; if it is on PYTHONPATH, take it off"
    )


def other_owners() -> dict[str, str]:
    """Installed distributions that have put files into packages of ours, by package."""
    owners = {name: [each for each in _owners(name) if each != DISTRIBUTION] for name in OURS}
    return {name: several[0] for name, several in owners.items() if several}


def advice(names: Sequence[str] = OURS) -> str:
    """What to add to an error where this program has imported somebody else's package.

    Args:
        names: of packages; those that are not ours are of no account.

    Returns:
        a sentence with the remedy, after a full stop; "" where all are ours.
    """
    for name in names:
        module = sys.modules.get(name) if name in OURS else None
        several = [*getattr(module, "__path__", ()), getattr(module, "__file__", None)]
        place = next((Path(one) for one in several if one is not None), None)
        if place is not None and not _is_ours(name, place):
            return f". Mind that {remedy(name, place)}"
    return ""


def _is_ours(name: str, place: Path) -> bool:
    return place.resolve() in (ROOT / name, ROOT / name / "__init__.py")


def _is_installed(place: Path) -> bool:
    """Whether a file or folder lies in a site-packages folder."""
    return bool({"site-packages", "dist-packages"} & set(place.parts))


def _owners(name: str) -> list[str]:
    """Distributions that have installed a top-level package or module of this name."""
    return list(dict.fromkeys(_distributions().get(name, ())))


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Installed distributions by top-level module: to read them all takes a while."""
    return metadata.packages_distributions()
