"""Checkpoints: a folder of config.json, model.safetensors and README.md (the card).

Strict, offline, versioned; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from worldmodel.base import WorldModel
from worldmodel.baselines import Replay
from worldmodel.files import atomic
from worldmodel.registry import imported, make, registered
from worldmodel.spec import Spec

FORMAT = 1
SHIPPED = Path(__file__).parent / "checkpoints"
GENERATED = "<!-- written by worldmodel.save; delete this line to keep your own text -->\n"
FILES = ("config.json", "model.safetensors", "README.md")


def save(model: WorldModel, folder: str | Path, training: dict[str, Any] | None = None) -> Path:
    """Write the checkpoint; no file is replaced before all are on the disk.

    Args:
        model: any registered model.
        folder: made if need be; the files of an older checkpoint in it are replaced.
        training: facts for the card and for ``config.json``: command, steps, seed, minutes, ...

    Raises:
        ValueError: a replay, whose settings name code to import: no file may.
        OSError: the disk is full, say; the older checkpoint is kept.
    """
    _refuse_replay(model.name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "model": model.name,
        "spec": model.spec.to_dict(),
        "config": asdict(model.config),
        "training": training or {},
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    card = folder / "README.md"
    contents = {
        "config.json": (json.dumps(config, indent=1) + "\n").encode(),
        "model.safetensors": to_bytes(tensors),  # its own writing raises no OSError
    }
    if not card.exists() or card.read_text().startswith(GENERATED):  # a person's card is kept
        contents["README.md"] = _card(config, tensors).encode()
    with ExitStack() as files:  # moved in the opposite order: config.json says that all is there
        for name, content in contents.items():
            files.enter_context(atomic(folder / name)).write_bytes(content)
    return folder


def _card(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    spec, numbers = config["spec"], sum(t.numel() for t in tensors.values())
    facts = "".join(f"- {name}: {value}\n" for name, value in config["training"].items())
    return (
        f"{GENERATED}# {config['model']} world model\n\n"
        f"- frames (C, H, W): {tuple(spec['observation'])}\n"
        f"- actions: {spec['action']['kind']}\n- window: {spec['window']} steps\n"
        f"- numbers: {numbers:,}\n{facts}\n"
        "Load with `worldmodel.load(FOLDER)` (package jumpy-worldmodel).\n"
    )


def read_config(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint folder, its format checked.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a checkpoint of this format version.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a checkpoint is a folder made by save()")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {config.get('format')!r}; this version reads {FORMAT}"
        )
    lacking = [name for name in ("model", "spec", "config") if name not in config]
    if lacking:
        raise ValueError(f"{path}: lacks {lacking}")
    return config


def shipped() -> list[str]:
    """Names of the checkpoints that came with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def check_device(device: str | torch.device) -> None:
    """Raises ValueError for a device that is not there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        raise ValueError(f"device: {device} cannot be used here ({error}); cpu can") from error


def find(name: str | Path) -> Path:
    """A local folder, a shipped checkpoint's name, or a Hugging Face hub id, as a local folder.

    ``"module:folder"`` imports the module first, which registers a model of your own.

    Raises:
        FileNotFoundError: it is none of them (the hub is asked last, and only for "owner/name" or
            "owner/name@revision").
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    name = imported(str(name))
    folder = Path(name)
    if folder.is_dir():
        return folder
    if name in shipped():
        return SHIPPED / name
    from worldmodel import hub  # which needs this module

    if hub.is_id(name):
        return hub.fetch(name)
    raise FileNotFoundError(f"{name}: no such checkpoint folder; shipped ones are {shipped()}")


def load(name: str | Path, device: str | torch.device = "cpu") -> WorldModel:
    """A model from a checkpoint, in eval mode.

    Args:
        name: a folder, a shipped checkpoint's name or a hub id. For a model of your own
            ``"module:folder"`` imports the module that registers it; no file names code to import.
        device: where the model shall be.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: no such module; another format version or model; missing, extra, misshapen or
            truncated tensors; a device that is not there.
    """
    check_device(device)
    folder = find(name)
    config = read_config(folder)
    _refuse_replay(config["model"])
    preset = next(iter(registered(config["model"]).presets.values()))  # a file imports nothing
    try:
        settings = type(preset)(**config["config"])
        spec = Spec.from_dict(config["spec"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'config.json'}: settings do not fit: {error}") from error
    model = make(config["model"], spec, settings)
    load_weights(model, folder / "model.safetensors")
    return model.to(device).eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` strictly from a safetensors file; see ``load`` for the errors."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: corrupt or truncated ({error})") from error
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    missing, extra = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise ValueError(f"{path}: missing tensors {missing}, unexpected tensors {extra}")
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise ValueError(f"{path}: {'; '.join(wrong)}")
    model.load_state_dict(tensors)


def _refuse_replay(name: str) -> None:
    if name == Replay.name:
        raise ValueError(f"model: a {name} is made from its ReplayConfig, not kept in a checkpoint")
