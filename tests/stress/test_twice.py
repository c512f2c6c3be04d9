"""The same command twice: equal files, equal words and equal numbers, but for times.

Both runs share one process, so that what rests on a global random state differs.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.training import imagined_ppo
from tests.stress.parts import MODELS
from worldmodel import Queries, testing
from worldmodel.common.safe_files import Tensors
from worldmodel.training import STATE

TSP, CART = "envs:narratives/TravelingSalesman-v0", "CartPole-v1"
TINY = "--preset views --set film=8 scene=16 head=8 hidden=8 tower=8"
CARTS = (
    f"worldmodel collect --env {CART} --episodes 4 --seed 3 --out carts",
    "worldmodel unpack carts --out unpacked",
    "worldmodel train --episodes unpacked --memory 1 --window 8 --steps 3 --batch-size 4 --ema 0.5 "
    "--out model --model jump --set scene=16 head=8",
)
AGENT = f"agents train --env {CART} --steps 40 --num-envs 2 --eval-episodes 2 --evaluate-every 40"
STORIES = {
    "a film and a sheet": (
        f"envs record {TSP} --out film.gif --episodes 1 --size 32",
        "envs sheet --out sheet.gif --side 64 --length 4",
    ),
    "an agent in imagination": (
        *CARTS,
        f"{AGENT} --method imagination --model model --horizon 3 --out agent",
        "agents enjoy agent --episodes 2",
    ),
    "plans": (
        *CARTS,
        *(
            f"agents plan model --env {CART} --planner {planner} --plans 8 --worlds 2 --horizon 3 "
            "--episodes 2"
            for planner in ("random-shooting", "cem", "mppi", "tree-search")
        ),
    ),
    "a model of scenes": (
        f"worldmodel train --env {TSP} --size 16 --steps 3 --batch-size 2 --validate-every 3 "
        f"--video-every 3 --out model {TINY}",
        f"worldmodel imagine model --env {TSP} --out seen.png --scenes 1 --worlds 2",
    ),
    "what is measured": (
        "evaluation consistency --scenes 2 --worlds 2 --json consistency.json",
        "evaluation fidelity --scenes 2 --worlds 2 --json fidelity.json",
        "evaluation elbo traveling-salesman --scenes 2 --json elbo.json",
    ),
    "dyna": (
        f"{AGENT} --method dyna --window 8 --fit-every 20 --fit-steps 1 --imagined-steps 8 --out a",
    ),
    "dyna of q": (
        f"{AGENT} --method dyna --algorithm dqn --fit-every 20 --fit-steps 1 --branches 1 --out a",
    ),
    "a planner that learns": (
        f"{AGENT} --method planner --fit-every 20 --fit-steps 1 --planner.plans 8 "
        "--planner.horizon 3 --planner.iterations 1 --out agent",
        "agents enjoy agent --episodes 2",
    ),
    "a search": (*CARTS, f"{AGENT} --method lookahead --model model --depth 2 --out agent"),
    "lookahead": (*CARTS, f"{AGENT} --method lookahead --model model --jumps 1 --out agent"),
    "contestants": ("evaluation control --episodes 2 --plans 8 --worlds 1 --json control.json",),
    "ends of the scale, and common worlds": (
        "evaluation returns --scenes 8 --json returns.json",
        "evaluation common-worlds traveling-salesman --env narratives/TravelingSalesman-v0 "
        "--scenes 2 --worlds 2 --json common-worlds.json",
    ),
    "real steps that are saved": (
        "evaluation efficiency --budget 256 --sizes 30 60 --seeds 1 --window 6 --fit-steps 2 "
        "--imagined-steps 64 --episodes 2 --points 1 --plans 4 --json efficiency.json",
    ),
    "one jump": (
        "evaluation dynamics --envs CartPole-v1 --episodes 10 --steps 3 --distances 1 2 "
        "--json dynamics.json",
    ),
}  # fmt: skip
SHORT = ("a film and a sheet", "an agent in imagination")
TIMES = re.compile(r"[-\d.,e]+ ?(s|ms|seconds?|it/s|fps)\b|took .*")
CLOCKS = {"seconds", "minutes"}


@pytest.mark.parametrize("story", STORIES)
def test_twice_is_the_same(
    story: str,
    size: Any,
    tally: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if story not in SHORT and not size(0, 1):
        pytest.skip("of the long version")
    monkeypatch.setitem(imagined_ppo.IMAGE_SETTINGS, "n_steps", 4)
    monkeypatch.setitem(imagined_ppo.VECTOR_SETTINGS, "n_steps", 4)
    found = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        capsys.readouterr()
        for command in STORIES[story]:
            package, *words = command.split()
            monkeypatch.setattr("sys.argv", [package, *words])
            importlib.import_module(f"{package}.__main__").main()
        said = TIMES.sub("", capsys.readouterr().out)
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
        contents = {
            re.sub(r"tfevents.*", "tfevents", path): content(file)
            for path, file in files.items()
            if file.is_file()
        }
        found.append({"what is said": said, **contents})
        np.random.rand(7), torch.rand(7)  # noqa: NPY002 - nothing may rest on these
    first, second = found
    assert first.keys() == second.keys() and len(first) > 1
    for path in first:
        assert first[path] == second[path], path
    tally.add("numbers", "commands run twice", len(STORIES[story]))
    tally.add("numbers", "files compared", len(first) - 1)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_twice_is_the_same(name: str, size: Any, tally: Any) -> None:
    """Trained, and what it imagines then."""
    if name not in list(MODELS)[: size(2, len(MODELS))]:
        pytest.skip("of the long version")
    found = []
    for _ in range(2):
        model = MODELS[name].make()
        losses = MODELS[name].fit(model, 4)
        frames = 2 if model.max_context is None else min(2, model.max_context)
        given = testing.random_context(model.spec, frames=frames)
        with torch.no_grad():
            worlds = model.sample(model.observe(given), 3, torch.Generator().manual_seed(5))
            times = worlds.present[:, None]
            seen = model.predict(
                worlds, Queries(times, None, testing.random_poses(model.spec, times))
            ).observations
        assert seen is not None
        found.append({**model.state_dict(), **model.training_state(), "seen": seen})
        found[-1] |= {f"loss {part}": torch.tensor(value) for part, value in losses.items()}
        np.random.rand(7), torch.rand(7)  # noqa: NPY002 - nothing may rest on these
    first, second = found
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key
    tally.add("numbers", "trainings run twice")


def content(file: Path) -> Any:
    """What must be the same of a file."""
    if "tfevents" in file.name:
        return events(file)
    if file.suffix == ".json":
        return json.dumps(timeless(json.loads(file.read_text())))
    if file.suffix == ".zip":  # of SB3; its members alone, for the archive tells when
        with zipfile.ZipFile(file) as packed:
            return {name: packed.read(name) for name in packed.namelist() if name.endswith("pth")}
    if file.name == STATE:
        told = json.loads(Tensors(file).metadata["state"])
        return timeless(told), {name: t.tolist() for name, t in load_file(file).items()}
    if file.suffix == ".md":
        return re.sub(r".*minutes.*", "", file.read_text())
    return hashlib.sha256(file.read_bytes()).hexdigest()


def events(file: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(file), size_guidance={"scalars": 0})
    read.Reload()
    return {
        tag: [(event.step, repr(event.value)) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
        if "second" not in tag and "time/" not in tag
    }


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in CLOCKS}
    return [timeless(part) for part in value] if isinstance(value, list) else value
