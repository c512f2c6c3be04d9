"""The hub, without the network: a fake that keeps what would be uploaded."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import worldmodel
from worldmodel import Spec, checkpoint, resolve
from worldmodel.spec import ActionSpec
from worldmodel.training import STATE

huggingface_hub = pytest.importorskip("huggingface_hub")
NAME = "someone/shapes"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Hub:
    """What ``HfApi`` and ``snapshot_download`` are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Any] = []
        self.error: Exception | None = None

    def __call__(self, token: str | None = None) -> Hub:
        self.asked.append(("token", token))
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.asked.append(("create", repo_id, private, exist_ok))
        if self.error is not None:
            raise self.error

    def upload_folder(
        self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str
    ) -> Any:
        self.asked.append(("upload", repo_id, commit_message))
        self.folder.mkdir(exist_ok=True)
        for path in Path(folder_path).iterdir():
            assert path.name in allow_patterns
            (self.folder / path.name).write_bytes(path.read_bytes())

        class Commit:
            commit_url = f"https://huggingface.co/{repo_id}/commit/1"

        return Commit

    def download(self, repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append(("download", repo, revision))
        if self.error is not None:
            raise self.error
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    fake = Hub(tmp_path / "there")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.download)
    return fake


def tiny() -> worldmodel.WorldModel:
    spec = Spec((2,), ActionSpec("none"), 3, low=(-1.0,) * 2, high=(1.0,) * 2)
    return worldmodel.make("copy-last", spec)


def refused(status: int) -> Exception:
    error = RuntimeError("no\nsuch luck")
    error.response = type("Response", (), {"status_code": status})  # type: ignore[attr-defined]
    return error


def test_there_and_back(hub: Hub, tmp_path: Path) -> None:
    """A folder of a run: three files go, its training state stays."""
    folder = checkpoint.save(worldmodel.load("traveling-salesman"), tmp_path / "run")
    (folder / STATE).write_text("an optimizer")
    address = worldmodel.push(folder, NAME, private=True, message="first", token="hf_secret")
    assert address == f"https://huggingface.co/{NAME}/commit/1"
    assert hub.asked == [
        ("token", "hf_secret"), ("create", NAME, True, True), ("upload", NAME, "first"),
    ]  # fmt: skip
    assert {path.name for path in hub.folder.iterdir()} == set(resolve.FILES)
    card = (hub.folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: jumpy-worldmodel\n")
    assert f'worldmodel.load("{NAME}")' in card
    assert (folder / "README.md").read_text().startswith(checkpoint.GENERATED)  # as it was
    assert checkpoint.digest(NAME) == checkpoint.digest(folder)
    one, other = worldmodel.load(f"{NAME}@v1"), worldmodel.load(folder)
    assert hub.asked[-1] == ("download", NAME, "v1")
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=0)


def test_model_and_shipped(hub: Hub) -> None:
    worldmodel.push(tiny(), NAME)
    assert json.loads((hub.folder / "config.json").read_text())["model"] == "copy-last"
    worldmodel.push("traveling-salesman", NAME)
    assert "# traveling-salesman" in (hub.folder / "README.md").read_text()


def test_a_card_of_ones_own_is_kept(hub: Hub, tmp_path: Path) -> None:
    folder = checkpoint.save(tiny(), tmp_path / "run")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    worldmodel.push(folder, NAME)
    assert (hub.folder / "README.md").read_text() == "---\nlicense: mit\n---\n# Mine\n"


def test_broken_ones_stay_at_home(hub: Hub, tmp_path: Path) -> None:
    folder = checkpoint.save(tiny(), tmp_path / "run")
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="corrupt or truncated"):
        worldmodel.push(folder, NAME)
    for name in ("shapes", "a/b/c", "some one/shapes", "a/b@v1", "./shapes"):
        with pytest.raises(ValueError, match='name: expected "owner/name"'):
            worldmodel.push(tiny(), name)
    assert not hub.asked


@pytest.mark.parametrize("status", [401, 403])
def test_may_not_write(hub: Hub, status: int) -> None:
    hub.error = refused(status)
    with pytest.raises(PermissionError, match="hf auth login.*may"):
        worldmodel.push(tiny(), NAME)


def test_not_reached(hub: Hub) -> None:
    hub.error = RuntimeError("nobody answers")
    with pytest.raises(ConnectionError, match="not uploaded: nobody answers"):
        worldmodel.push(tiny(), NAME)
    with pytest.raises(FileNotFoundError, match=r"the hub says: nobody .*hf auth login"):
        worldmodel.load(NAME)
    with pytest.raises(FileNotFoundError, match="shipped ones are"):
        worldmodel.load("runs/of mine/first")


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'jumpy-worldmodel\[hub\]'"):
        worldmodel.push(tiny(), NAME)
    with pytest.raises(FileNotFoundError, match=r"pip install 'jumpy-worldmodel\[hub\]'"):
        worldmodel.load(NAME)


def test_folders_need_no_network(tmp_path: Path) -> None:
    folder = checkpoint.save(tiny(), tmp_path / "owner" / "name")
    assert worldmodel.load(folder).name == "copy-last"
