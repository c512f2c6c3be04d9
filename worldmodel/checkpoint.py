"""Checkpoints: a folder of config.json, model.safetensors and README.md (the card).

Strict, offline, versioned; nothing is ever unpickled, and no network is built, no memory taken,
before what the settings say was compared with the tensors that are there.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import nn

from worldmodel.base import WorldModel
from worldmodel.common.config_checks import from_json
from worldmodel.common.files import atomic
from worldmodel.common.safe_files import Tensors, layout, read_json, regular
from worldmodel.models.baselines import Replay
from worldmodel.registry import MODELS, Entry, make, registered
from worldmodel.resolve import find
from worldmodel.rewards import older_scale
from worldmodel.spec import Spec

FORMAT = 1
GENERATED = "<!-- written by worldmodel.save; delete this line to keep your own text -->\n"


def save(model: WorldModel, folder: str | Path, training: dict[str, Any] | None = None) -> Path:
    """Write the checkpoint; no file is replaced before all are on the disk.

    Args:
        model: any registered model.
        folder: made if need be; the files of an older checkpoint in it are replaced.
        training: facts for the card and for ``config.json``: command, steps, seed, minutes, ...

    Raises:
        ValueError: a replay, whose settings name code to import: no file may; what
            ``optimise_for_inference`` returned; or a setting or fact is NaN or infinite, for which
            JSON has no word.
        OSError: the disk is full, say; the older checkpoint is kept.
    """
    config = describe(model, training)
    text = json.dumps(config, indent=1) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    card = folder / "README.md"
    contents = {
        "config.json": text.encode(),
        "model.safetensors": to_bytes(tensors),  # its own writing raises no OSError
    }
    if not card.exists() or card.read_text().startswith(GENERATED):  # a person's card is kept
        contents["README.md"] = _card(config, tensors).encode()
    with ExitStack() as files:  # moved in the opposite order: config.json says that all is there
        for name, content in contents.items():
            files.enter_context(atomic(folder / name)).write_bytes(content)
    return folder


def describe(model: WorldModel, training: dict[str, Any] | None = None) -> dict[str, Any]:
    """What ``config.json`` says of a model; see ``save``."""
    _refuse_replay(model.name)
    model.check_not_optimised("be saved")
    config = {
        "format": FORMAT,
        "model": model.name,
        **_variant(model),
        "env": model.env_id,
        "spec": model.spec.to_dict(),
        "config": asdict(model.config),
        "training": training or {},
    }
    try:
        json.dumps(config, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"model, training: expected settings and facts without NaN and infinities ({error})"
        ) from error
    return config


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
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; a checkpoint is a folder made by save()")
    config = read_json(path)
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {config.get('format')!r}; this version reads {FORMAT}"
        )
    lacking = [name for name in ("model", "spec", "config") if name not in config]
    if lacking:
        raise ValueError(f"{path}: lacks {lacking}")
    if not isinstance(config["model"], str):
        raise ValueError(f"{path}: model: expected a name, got {config['model']!r}")
    if not isinstance(config.setdefault("env", None), str | None):
        raise ValueError(f"{path}: env: expected an id or null, got {config['env']!r}")
    if not isinstance(config.setdefault("training", {}), dict):
        raise ValueError(f"{path}: training: expected facts by name, got {config['training']!r}")
    return config


def check_device(device: str | torch.device) -> None:
    """Raises ValueError for a device that is not there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        raise ValueError(f"device: {device} cannot be used here ({error}); cpu can") from error


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
    known = registered(config["model"])  # which a file names; it imports nothing
    try:
        kind = _settings_type(known, config)
        removed = known.variants.get(kind, known.model).removed_settings
        read = config["config"]
        if isinstance(read, dict):
            read = {name: value for name, value in read.items() if name not in removed}
        settings = from_json(kind, read)
        spec = Spec.from_dict(config["spec"])
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: settings do not fit: {error}") from error
    tensors = Tensors(folder / "model.safetensors", known.of(settings).renamed_weights)
    try:
        with torch.device("meta"):  # shapes without memory
            shapes = layout(make(config["model"], spec, settings).state_dict())
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{folder / 'config.json'}: no model can be that: {error}") from error
    older = older_scale(set(tensors.layout), set(shapes))
    shapes = {name: shape for name, shape in shapes.items() if name not in older}
    tensors.check(shapes)
    model = make(config["model"], spec, settings)
    model.load_state_dict({**tensors.read(shapes), **older})
    model.env_id = config["env"]
    return model.to(device).eval()


def _variant(model: WorldModel) -> dict[str, str]:
    """The type of the settings, where it says which of several classes of one name it is."""
    known = MODELS.get(model.name)
    kind = type(model.config)
    return {"variant": kind.__name__} if known is not None and kind in known.variants else {}


def _settings_type(known: Entry, config: dict[str, Any]) -> type[Any]:
    """Of a checkpoint's settings.

    Raises:
        ValueError: the model has no such variant.
    """
    name = config.get("variant")
    if name is None:
        return type(next(iter(known.presets.values())))
    kinds = {kind.__name__: kind for kind in known.variants}
    if name not in kinds:
        raise ValueError(f"variant: expected one of {sorted(kinds)}, got {name!r}")
    return kinds[name]


def digest(name: str | Path) -> str:
    """What tells a checkpoint from another one under the same name; no model is built.

    Args:
        name: as for ``load``.

    Returns:
        SHA-256 of the bytes of config.json and then model.safetensors, as 64 hexadecimal digits.
        The card, which says nothing of what is computed, does not count.

    Raises:
        FileNotFoundError: there is no such checkpoint, or one of the two files is missing.
        ValueError: no such module; or one of the two is no regular file.
    """
    folder, content = find(name), hashlib.sha256()
    for file in ("config.json", "model.safetensors"):
        content.update(regular(folder / file).read_bytes())
    return content.hexdigest()


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` strictly from a safetensors file; see ``load`` for the errors."""
    model.load_state_dict(Tensors(path).read(layout(model.state_dict())))


def _refuse_replay(name: str) -> None:
    if name == Replay.name:
        raise ValueError(f"model: a {name} is made from its ReplayConfig, not kept in a checkpoint")
