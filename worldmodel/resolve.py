"""Where checkpoints lie: in folders, in this package, or on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from worldmodel.registry import imported

FILES = ("config.json", "model.safetensors", "README.md")
"""Of a checkpoint."""
SHIPPED = Path(__file__).parent / "checkpoints"
INSTALL = "pip install 'jumpy-worldmodel[hub]'"


def shipped() -> list[str]:
    """Names of the checkpoints that came with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def find(name: str | Path) -> Path:
    """A local folder, a shipped checkpoint's name, or a Hugging Face hub id, as a local folder.

    ``"module:folder"`` imports the module first, which registers a model of your own.

    Raises:
        FileNotFoundError: it is none of them (the hub comes last, and only for "owner/name" or
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
    if is_id(name):
        return fetch(name)
    raise FileNotFoundError(f"{name}: no such checkpoint folder; shipped ones are {shipped()}")


def is_id(name: str) -> bool:
    """Whether it looks like "owner/name", or "owner/name@revision"."""
    match = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", name)
    return match is not None and ".." not in name  # git has no such names, folders have


def fetch(name: str) -> Path:
    """Download what ``push`` uploaded (or take it from the hub's cache); its local folder.

    Args:
        name: "owner/name", or "owner/name@revision": a branch, tag or commit.

    Raises:
        FileNotFoundError: the hub has no such repository (or does not show it), it was not
            reached, or huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FileNotFoundError(
            f"{name}: no such folder here, and none of the shipped checkpoints, "
            f"{shipped()}; to ask the Hugging Face hub for it, {INSTALL}"
        ) from error
    repo, _, revision = name.partition("@")
    files = list(FILES)
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=files))
    except Exception as error:  # the client's, and those of the HTTP library that it uses
        raise FileNotFoundError(
            f"{name}: no such folder here, none of the shipped checkpoints, "
            f"{shipped()}, and the hub says: {error} (a private one needs "
            "`hf auth login`)"
        ) from error
