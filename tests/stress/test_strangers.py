"""A file from a stranger runs nothing, names no code, and need not even be a file."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from stable_baselines3 import PPO

import agents.__main__
import agents.commands
import envs.__main__
import evaluation.__main__
import worldmodel.__main__
from agents import (
    InversePolicy,
    InversePolicyConfig,
    LegalActions,
    LegalActionsConfig,
    load_policy,
    save_policy,
)
from agents.training import run as agent_runs
from envs.handwriting import read_idx
from evaluation.report.load_results import read_one
from tests.stress.conftest import Tally
from tests.stress.mutations import each, guarded
from worldmodel import ActionSpec, Episode, Episodes, checkpoint, load, make, resolve
from worldmodel.commands import models
from worldmodel.training import STATE
from worldmodel.training.run import read_state

ROOT = Path(worldmodel.__file__).parents[1]
PACKAGES = ("worldmodel", "envs", "agents", "evaluation")
Size = Callable[[int, int], int]

FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "runpy"}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
TRUSTED = {  # what may run code, where: each says so in its docstring, and a person names the file
    ("agents/training/run.py", "ALGORITHMS[config.algorithm].load"),
    ("agents/training/dyna/rounds.py", "self.agent.set_parameters"),
    ("agents/training/resume.py", "self.model.set_parameters"),
    ("evaluation/measurements/perceptual.py", "torch.jit.load"),
    ("worldmodel/common/packages.py", "import_module"),  # of the packages' own tables
    ("worldmodel/common/cli.py", "import_module"),  # of the verbs' own table
    ("worldmodel/common/cli.py", "verb.load"),
    ("worldmodel/registry.py", "importlib.import_module"),
    ("agents/adapter.py", "importlib.import_module"),
    ("envs/bench.py", "importlib.import_module"),
    ("evaluation/runner/torchrl_rssm.py", "import_module"),  # of TorchRL, by its name
}


def suspicious(node: ast.AST) -> str | None:
    """What in a line of ours could run what a file says."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        named = [alias.name for alias in node.names]
        modules = named if isinstance(node, ast.Import) else [node.module or ""]
        return next((m for m in modules if m.partition(".")[0] in FORBIDDEN), None)
    if not isinstance(node, ast.Call):
        return None
    name = ast.unparse(node.func)
    if name in ("np.load", "numpy.load"):
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        return None if keywords.get("allow_pickle") == "False" else name
    kinds = ("Episodes", "InversePolicy", "LegalActions", "checkpoint", "worldmodel")
    mine = tuple(f"{kind}.load" for kind in kinds)
    loads = name.endswith((".load", ".set_parameters", "import_module", "read_pickle"))
    runs = name in RUNS_CODE or name.startswith("torch.hub.load") or name == "torch.load"
    return name if runs or (loads and name not in (*mine, "runs.load")) else None


def test_our_code_unpickles_nothing() -> None:
    found = set()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if what := suspicious(node):
                    found.add((path.relative_to(ROOT).as_posix(), what))
    assert found == TRUSTED


@pytest.mark.parametrize(
    "line", ["import pickle", "from joblib import load", "torch.load(p)", "np.load(p)", "eval(x)"]
)
def test_the_search_finds(line: str) -> None:
    assert any(suspicious(node) for node in ast.walk(ast.parse(line)))


# -- every reader, and what is no file of its kind -------------------------------------------------


def small() -> Episodes:
    episode = Episode(np.zeros((3, 2), np.float32), np.zeros(2, np.int64), np.ones(2, "f4"), True)
    return Episodes([episode], ActionSpec("discrete", (), (2,)))


@pytest.fixture
def readers(tmp_path: Path) -> dict[Path, Callable[[], Any]]:
    """Each kind of file, good, and what reads it."""
    model = checkpoint.save(make("copy-last", small().spec(2)), tmp_path / "model")
    episodes = small().save(tmp_path / "episodes")
    policy = InversePolicy.fit(small(), InversePolicyConfig(steps=1)).save(tmp_path / "policy")
    legal = LegalActions(small().spec(1), LegalActionsConfig()).save(tmp_path / "legal")
    agent = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    weights = save_policy(agent, tmp_path / "weights.safetensors")
    (tmp_path / "agent").mkdir()
    return {
        model / "config.json": lambda: load(model),
        model / "model.safetensors": lambda: load(model),
        model / STATE: lambda: read_state(model / STATE),
        episodes / "meta.json": lambda: Episodes.load(episodes),
        episodes / "episodes-00000.npz": lambda: Episodes.load(episodes),
        policy / "inverse_policy.json": lambda: InversePolicy.load(policy),
        policy / "inverse_policy.safetensors": lambda: InversePolicy.load(policy),
        legal / "legal_actions.json": lambda: LegalActions.load(legal),
        legal / "legal_actions.safetensors": lambda: LegalActions.load(legal),
        weights: lambda: load_policy(agent, weights),
        tmp_path / "agent" / "agent.json": lambda: agent_runs.load(tmp_path / "agent"),
        tmp_path / "images-idx3-ubyte": lambda: read_idx(tmp_path / "images-idx3-ubyte", 3),
        tmp_path / "images-idx3-ubyte.gz": lambda: read_idx(tmp_path / "images-idx3-ubyte.gz", 3),
        tmp_path / "speed.json": lambda: read_one(tmp_path / "speed.json"),
    }


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def bombs(mark: Path) -> dict[str, bytes]:
    """Files that run code where they are unpickled."""
    bomb, found = Bomb(mark), {"pickle": pickle.dumps(Bomb(mark))}
    file = io.BytesIO()
    torch.save({"state": bomb}, file)
    found["torch"] = file.getvalue()
    for name, write in (("npy", np.save), ("npz", np.savez)):
        file = io.BytesIO()
        write(file, np.array([bomb, bomb], object))  # type: ignore[operator]
        found[name] = file.getvalue()
    file = io.BytesIO()
    np.savez(file, **dict.fromkeys(
        ("observations", "actions", "rewards", "terminated", "steps"), np.array([bomb], object)
    ))  # fmt: skip
    found["shard"] = file.getvalue()
    return found


NO_JSON = {
    "empty": b"",
    "array": b"[]",
    "nan": b'{"format": NaN}',
    "endless": b'{"format": 1e999}',
    "twice": b'{"format": 1, "format": 1}',
    "deep": b'{"format": ' + b"[" * 200_000,
    "deep, closed": b'{"format": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "digits": b'{"format": ' + b"9" * 10_000 + b"}",
    "latin-1": '{"format": "\xe9"}'.encode("latin-1"),
    "mark": b'\xef\xbb\xbf{"format": 1}',
    "utf-16": '{"format": 1}'.encode("utf-16"),
}


def refuses(read: Callable[[], Any], path: Path, tally: Tally) -> None:
    tally.add("files: strangers", "cases")
    with guarded(), pytest.raises((ValueError, FileNotFoundError)) as told:
        read()
    assert not isinstance(told.value, UnicodeError)
    assert path.name in str(told.value) or path.parent.name in str(told.value)
    tally.add("files: strangers", "refused")


def test_bombs(readers: dict[Path, Callable[[], Any]], tmp_path: Path, tally: Tally) -> None:
    for data in (*bombs(tmp_path / "mark").values(), *NO_JSON.values()):
        for path, read in readers.items():
            good = path.read_bytes() if path.exists() else None
            if data in (NO_JSON["nan"], NO_JSON["endless"]) and path.name == "speed.json":
                continue  # refused for what it lacks, below: results may hold NaN
            path.write_bytes(data)
            refuses(read, path, tally)
            path.unlink() if good is None else path.write_bytes(good)
    assert not (tmp_path / "mark").exists()


def test_no_files(readers: dict[Path, Callable[[], Any]], tally: Tally) -> None:
    for path, read in readers.items():
        good = path.read_bytes() if path.exists() else None
        for make_it in (
            lambda path: path.mkdir(),
            lambda path: os.mkfifo(path),
            lambda path: path.symlink_to(path.name),
            lambda path: path.symlink_to("/dev/zero"),
            lambda path: path.symlink_to("nowhere"),
        ):
            path.unlink(missing_ok=True)
            make_it(path)
            refuses(read, path, tally)
            path.rmdir() if path.is_dir() else path.unlink()
        if good is not None:
            path.write_bytes(good)


def test_a_large_json(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(10**12)  # sparse: it takes no room
    refuses(lambda: load(tmp_path), path, tally)


def test_a_file_names_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """A module that a checkpoint names is not imported, whatever names it."""
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = checkpoint.save(make("copy-last", small().spec(2)), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for name in ("stranger:copy-last", "stranger", "replay", ["copy-last"], {"a": 1}, None, 3):
        (folder / "config.json").write_text(json.dumps({**config, "model": name}))
        refuses(lambda: load(folder), folder, tally)
    assert "stranger" not in sys.modules


def test_shards_stay_in_their_folder(tmp_path: Path, tally: Tally) -> None:
    folder, out = small().save(tmp_path / "episodes"), small().save(tmp_path / "out")
    meta = json.loads((folder / "meta.json").read_text())
    name = "episodes-00000.npz"
    for file in (f"../out/{name}", str(out / name), f"./{name}", f"{name}\n", "", "..", None, 1):
        meta["shards"] = [{"file": file, "episodes": 1}]
        (folder / "meta.json").write_text(json.dumps(meta))
        refuses(lambda: Episodes.load(folder), folder, tally)
    for shards in ([{"file": name, "episodes": 1}] * 2, [], {}, [name], None):
        meta["shards"] = shards
        (folder / "meta.json").write_text(json.dumps(meta))
        refuses(lambda: Episodes.load(folder), folder, tally)


def test_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small().save(tmp_path / "episodes")
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    with pytest.raises(ValueError, match=r"says that it holds [0-9,]+ bytes; this machine has 100"):
        Episodes.load(folder)


def test_revisions_are_no_paths() -> None:
    assert resolve.is_id("owner/name@refs/pr/1")
    assert not any(
        map(resolve.is_id, ("owner/name@../../x", "owner/..", "../name", "a/b@..", "a/b@"))
    )


# -- policies of Stable-Baselines3 -----------------------------------------------------------------


def test_policy_weights(tmp_path: Path) -> None:
    """They travel without SB3's zip, into an agent with the same networks and no other."""
    one, other = (PPO("MlpPolicy", "CartPole-v1", seed=s, device="cpu") for s in (0, 1))
    path = save_policy(one, tmp_path / "new" / "policy.safetensors")
    assert load_policy(other, path) is other
    for name, weight in one.policy.state_dict().items():
        assert torch.equal(weight, other.policy.state_dict()[name])
    wide = PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, device="cpu")
    with pytest.raises(ValueError, match=r"policy.safetensors: missing tensors"):
        load_policy(wide, path)
    with pytest.raises(FileNotFoundError):
        load_policy(wide, tmp_path / "nowhere")


# -- command lines ---------------------------------------------------------------------------------

MAINS = {
    "worldmodel": worldmodel.__main__,
    "envs": envs.__main__,
    "agents": agents.__main__,
    "evaluation": evaluation.__main__,
}
FOR_REAL = (models.Info, agents.commands.Enjoy, models.Imagine)
"""Verbs that run: all that they are given is missing or wrong, or costs next to nothing."""
WORDS = (
    "0", "-1", "1", "64", "1000000000", "1e400", "nan", "None", "True", "", " ", "--", "-", "=",
    "jump", "jump:small", "a:b", "nowhere", "/dev/null", "../..", "\udcff", "{}", "hidden=1",
    "x" * 300,
)  # fmt: skip


def table(module: Any) -> dict[str, Any]:
    """The classes of a package's verbs by name."""
    return {name: verb.load() for name, verb in module.VERBS.items()}


def flags(module: Any) -> dict[str, list[str]]:
    """The options of each verb."""
    return {
        name: [f"--{field.replace('_', '-')}" for field in verb.__dataclass_fields__]
        for name, verb in table(module).items()
    }


@st.composite
def command(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A package and words for its command line, most of them wrong."""
    package = draw(st.sampled_from(sorted(MAINS)))
    known = flags(MAINS[package])
    verb = draw(st.sampled_from(sorted(known)) | st.sampled_from(WORDS))
    options = st.sampled_from([*known.get(verb, ["--seed"]), "--seed", "--help", "--debug"])
    text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
    values = st.sampled_from(WORDS) | text | st.integers().map(str)
    return package, [verb, *draw(st.lists(options | values, max_size=6))]


def test_command_lines(
    size: Size, tally: Tally, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Words of any kind end in help, in one line, or in a verb that is not run here."""
    monkeypatch.chdir(tmp_path)
    for module in MAINS.values():
        for verb in table(module).values():
            if verb not in FOR_REAL:
                monkeypatch.setattr(verb, "run", lambda self: None)
    monkeypatch.setattr(subprocess, "Popen", None)  # and should one run, it starts nothing
    area = "files: command lines"

    def case(drawn: tuple[str, list[str]]) -> None:
        package, words = drawn
        words = [word for word in words if word != "--debug"]
        monkeypatch.setattr(sys, "argv", [package, *words])
        tally.add(area, "cases")
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), guarded():
            try:
                MAINS[package].main()
            except SystemExit as error:
                code = error.code
            else:
                code = 0
        if isinstance(code, str):
            assert code.startswith("error: ") and "\n" not in code
            tally.add(area, "refused")
        else:
            assert code in (0, 2, None), (code, out.getvalue())
            tally.add(area, "refused" if code == 2 else "taken")
        assert "Traceback" not in out.getvalue()

    each(tally, area, command(), size(60, 1500), case)
