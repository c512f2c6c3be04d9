"""Checkpoints on the Hugging Face hub: three files each, none of which is ever unpickled."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.resolve import FILES, INSTALL, find, is_id

METADATA = """---
library_name: jumpy-worldmodel
tags:
- world-model
- reinforcement-learning
---
"""
"""Begins a card that has no metadata of its own."""


def push(
    model: WorldModel | str | Path,
    name: str,
    *,
    private: bool = False,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a checkpoint; then ``worldmodel.load(name)`` loads it anywhere.

    config.json, model.safetensors and README.md (the card) are uploaded, no other file of the
    folder. An existing repository gets a new commit; its history stays.

    Args:
        model: a model, or a checkpoint: folder or shipped name. It is loaded strictly first.
        name: "owner/name" of the repository, which is made if need be.
        private: of a repository that is made.
        message: of the commit.
        token: one that may write; None for that of ``hf auth login``, or HF_TOKEN.

    Returns:
        the address of the commit.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: ``name`` is no "owner/name", or the checkpoint is broken or a replay.
        FileNotFoundError: there is no such checkpoint.
        PermissionError: nobody is logged in, or the token may not write there.
        ConnectionError: the hub was not reached, or refused for another reason.
    """
    if not is_id(name) or "@" in name:
        raise ValueError(f'name: expected "owner/name" of a repository on the hub, got {name!r}')
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ImportError(f"push: needs huggingface_hub; {INSTALL}") from error
    with tempfile.TemporaryDirectory() as folder:
        _stage(model, Path(folder), name)
        try:
            api = HfApi(token=token)
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                allow_patterns=list(FILES),
                commit_message=message or "Upload a world model",
            )
        except Exception as error:  # the client's, and those of the HTTP library that it uses
            raise _translated(name, error) from error
    return str(commit.commit_url)


def _stage(model: WorldModel | str | Path, folder: Path, name: str) -> None:
    """Write the three files to ``folder`` as they are uploaded."""
    if isinstance(model, WorldModel):
        checkpoint.save(model, folder)
    else:
        source = find(model)
        checkpoint.load(source)  # raises if it is broken
        for file in FILES:
            if (source / file).is_file():
                shutil.copy(source / file, folder / file)
    card = folder / "README.md"
    text = card.read_text() if card.exists() else f"# {name}\n"
    text = text.replace("worldmodel.load(FOLDER)", f'worldmodel.load("{name}")')
    card.write_text(text if text.startswith("---\n") else METADATA + text)


def _translated(name: str, error: Exception) -> Exception:
    """The hub's error as one that says what to do."""
    from huggingface_hub.errors import LocalTokenNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, LocalTokenNotFoundError) or status in (401, 403):
        return PermissionError(
            f"{name}: the hub does not let you write there; `hf auth login` with a token that may "
            f"(huggingface.co/settings/tokens, role write), or pass token=. It says: {error}"
        )
    return ConnectionError(f"{name}: not uploaded: {error}")
