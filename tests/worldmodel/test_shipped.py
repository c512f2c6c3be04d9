"""Checkpoints that come with the package: small, loadable, each with a card that says all."""

from __future__ import annotations

from pathlib import Path

import pytest

import worldmodel
from worldmodel.checkpoint import read_config
from worldmodel.resolve import SHIPPED

NAMES = sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))
MEGABYTES = 15


@pytest.mark.parametrize("name", NAMES)
def test_shipped(name: str) -> None:
    model = worldmodel.load(name)
    assert not model.training
    size = sum(path.stat().st_size for path in (SHIPPED / name).iterdir())
    assert size <= MEGABYTES * 10**6


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_how_it_was_made(name: str) -> None:
    folder: Path = SHIPPED / name
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# {name}: ")
    for fact in ("- data: ", "- seed ", " steps, ", " minutes on ", "95% interval",
                 "python -m evaluation", "Limits: "):  # fmt: skip
        assert fact in card, f"{name}: its card does not say {fact!r}"
    assert any(f"python -m {by}" in card for by in ("worldmodel train", "evaluation peers"))
    training = read_config(folder)["training"]
    assert {"step", "minutes", "command", "seed"} <= set(training)
    # nothing of the machine that it was trained on
    assert "/tmp/" not in str(training) + card and "/work/" not in str(training) + card
