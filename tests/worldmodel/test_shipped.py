"""Checkpoints that come with the package: small, loadable, each with a card that says all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from safetensors.torch import load_file, save_file

import worldmodel
from worldmodel.checkpoint import read_config
from worldmodel.models.jumpy.jump import Jump
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
    makers = ("worldmodel train", "evaluation model-comparison")
    assert any(f"python -m {by}" in card for by in makers)
    training = read_config(folder)["training"]
    assert {"step", "minutes", "command", "seed"} <= set(training)
    # nothing of the machine that it was trained on
    assert "/tmp/" not in str(training) + card and "/work/" not in str(training) + card


def test_the_environment_is_recorded(tmp_path: Path) -> None:
    """By name where a model was trained on it; checkpoints from before that load without."""
    assert worldmodel.load("traveling-salesman").env_id == "envs:narratives/TravelingSalesman-v0"
    for name in NAMES:
        gym.make(str(worldmodel.load(name).env_id)).close()
    episodes = worldmodel.collect("CartPole-v1", 2)
    episodes = worldmodel.Episodes.load(episodes.save(tmp_path / "episodes"))
    model = worldmodel.make("jump", episodes.spec(4), "vector")
    worldmodel.fit(model, episodes.windows(4, 2), 1, folder=tmp_path / "model", progress=False)
    assert model.env_id == worldmodel.load(tmp_path / "model").env_id == "CartPole-v1"
    config = tmp_path / "model" / "config.json"
    told = json.loads(config.read_text())
    del told["env"]
    config.write_text(json.dumps(told))
    assert worldmodel.load(tmp_path / "model").env_id is None
    config.write_text(json.dumps({**told, "env": 3}))
    with pytest.raises(ValueError, match="env: expected an id or null, got 3"):
        worldmodel.load(tmp_path / "model")


def test_older_names_of_weights_are_read(tmp_path: Path) -> None:
    """Attributes were renamed; checkpoints from before that have the old names."""
    spec = worldmodel.load("traveling-salesman").spec
    config = replace(worldmodel.preset("jump", "views"), attention_heads=2)
    model = worldmodel.make("jump", spec, config)
    worldmodel.save(model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    for old, new in Jump.renamed_weights.items():
        assert any(name.startswith(new) for name in tensors)
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    save_file(tensors, file)
    loaded = worldmodel.load(tmp_path / "model").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())
