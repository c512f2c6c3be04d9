"""Every public name is described: what it is, each of its parameters, and what it raises."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_origin

import pytest

PACKAGES = ("worldmodel", "worldmodel.testing", "agents", "envs", "evaluation")


def public() -> Iterator[tuple[str, Any]]:
    for package in PACKAGES:
        module = importlib.import_module(package)
        assert module.__doc__, package
        for name in getattr(module, "__all__", ()):
            yield f"{package}.{name}", getattr(module, name)


OBJECTS = {  # type aliases have no docstring of their own
    title: thing for title, thing in public() if callable(thing) and get_origin(thing) is None
}


def described(thing: Any) -> str:
    """The docstring with those of the parents whose parameters it shares."""
    own = [thing, *(base for base in thing.__mro__[1:-1])] if inspect.isclass(thing) else [thing]
    return "\n".join(inspect.cleandoc(one.__doc__) for one in own if one.__doc__)


def parameters(thing: Any) -> list[str]:
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return []
    return [name for name in signature.parameters if name not in ("self", "args", "kwargs")]


def methods(thing: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in vars(thing).items():
        inner = getattr(member, "__func__", member)
        if inspect.isfunction(inner) and not name.startswith("_"):
            yield name, inner


def raised(function: Callable[..., Any]) -> set[str]:
    """The kinds of errors that its own body raises, but for those that a private function makes."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    names = [call.func if isinstance(call, ast.Call) else call for call in calls]
    return {n.id for n in names if isinstance(n, ast.Name) and not n.id.startswith("_")}


def missing(thing: Any, docs: str) -> list[str]:
    return [name for name in parameters(thing) if not re.search(rf"\b{name}\b", docs)]


def check(title: str, function: Callable[..., Any], docs: str) -> None:
    assert docs, f"{title} has no docstring"
    unnamed = {kind for kind in raised(function) if kind not in docs} - {"NotImplementedError"}
    assert not unnamed, f"{title} raises {unnamed}, its docstring says nothing of it"


@pytest.mark.parametrize("title", OBJECTS)
def test_names_its_parameters_and_errors(title: str) -> None:
    thing = OBJECTS[title]
    assert thing.__doc__, f"{title} has no docstring"
    if getattr(thing, "_is_protocol", False):
        return
    docs = described(thing)
    assert not missing(thing, docs), f"{title}: its docstring does not name {missing(thing, docs)}"
    if inspect.isfunction(thing):
        check(title, thing, docs)
    elif "__init__" in vars(thing) and not is_dataclass(thing):
        check(title, thing.__init__, docs)


CLASSES = {title: thing for title, thing in OBJECTS.items() if inspect.isclass(thing)}


@pytest.mark.parametrize("title", CLASSES)
def test_methods(title: str) -> None:
    """Of methods with several parameters each is named, unless a parent's say what they are."""
    for name, method in methods(CLASSES[title]):
        docs, several = method.__doc__ or "", len(parameters(method)) > 1
        check(f"{title}.{name}", method, docs)
        inherited = any(hasattr(base, name) for base in CLASSES[title].__mro__[1:])
        if several and not inherited:
            unnamed = [one for one in missing(method, docs) if one != "cls"]
            assert not unnamed, f"{title}.{name}: its docstring does not name {unnamed}"


def test_every_page_of_the_api_is_complete() -> None:
    """What is public stands in docs/api."""
    pages = Path(__file__).parents[1] / "docs" / "api"
    for package in ("worldmodel", "agents", "envs"):
        page = (pages / f"{package}.md").read_text()
        shown = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", page, re.M))
        assert set(importlib.import_module(package).__all__) <= shown, package
