"""``python -m worldmodel``: each verb once, small; errors of usage are one line."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldmodel import MODELS, Episodes, hub, load, resolve
from worldmodel.__main__ import main
from worldmodel.commands import train as train_verbs
from worldmodel.commands.train import _device
from worldmodel.training import BEST
from worldmodel.training.monitor import Monitor

ENV = "envs:narratives/TravelingSalesman-v0"
TINY = ("--preset", "views", "--set", "film=8", "scene=16", "head=8", "hidden=8", "tower=8")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["worldmodel", *map(str, arguments)])
    main()


def test_info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "info", "narrative")
    assert "3,496,615  (3.50 M)" in capsys.readouterr().out
    run(monkeypatch, "info", "jump:dice", "--pose", 7)
    assert "10,276,775  (10.28 M)" in capsys.readouterr().out
    run(monkeypatch, "info", "rays-small")
    assert "camera=Camera(" in capsys.readouterr().out
    run(monkeypatch, "info", "vector")
    assert "observation=(4,)" in capsys.readouterr().out
    run(monkeypatch, "info", "svg-lp:paper")
    assert "frame by frame" in capsys.readouterr().out
    run(monkeypatch, "info", "traveling-salesman")
    assert "discrete" in capsys.readouterr().out


def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "list")
    out = capsys.readouterr().out
    assert all(name in out for name in [*MODELS, *resolve.shipped(), "narrative"])


def test_push(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []
    monkeypatch.setattr(hub, "push", lambda *a, **k: asked.append((a, k)) or "https://there")
    run(monkeypatch, "push", "traveling-salesman", "owner/name", "--private")
    assert asked == [(("traveling-salesman", "owner/name"), {"private": True, "message": None})]
    assert capsys.readouterr().out == 'https://there\nload it: worldmodel.load("owner/name")\n'


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"device: cuda cannot be used here .*; cpu can"):
        run(monkeypatch, "train", "--env", ENV, "--out", tmp_path / "x", "--device", "cuda")


def test_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines after training are commands that work."""
    out = tmp_path / "my run"
    env = ("--env", ENV, "--size", 16, "--batch-size", 2, "--steps", 1, "--video-every", 0)
    run(monkeypatch, "train", *env, "--out", out, *TINY)
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["checkpoint"] == str(out) and "tensorboard" in said["curves and videos"]
    words = shlex.split(said["what it imagines"])
    assert words[:3] == ["python", "-m", "worldmodel"]
    run(monkeypatch, *words[3:], "--scenes", 1, "--worlds", 1)
    assert (out / "imagined.png").is_file()
    assert shlex.split(said["plan with it"])[3:] == ["plan", str(out), "--env", ENV]


def test_collect_train_interrupt_resume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    run(monkeypatch, "collect", "--env", ENV, "--out", data, "--episodes", 2, "--size", 16)
    assert len(Episodes.load(data)) == 2
    train = ("train", "--episodes", data, "--window", 40, "--out", out, "--steps", 2)
    train = (*train, "--batch-size", 2, *TINY)
    original = Monitor.log

    def interrupt(self: Monitor, *arguments: Any) -> None:
        original(self, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    with (
        monkeypatch.context() as patched,
        pytest.raises(SystemExit, match="after step 1.*--resume"),
    ):
        patched.setattr(Monitor, "log", interrupt)
        fit = train_verbs.fit
        patched.setattr(train_verbs, "fit", lambda *a, **k: fit(*a, **k, log_every=1))
        run(monkeypatch, *train)
    run(monkeypatch, *train, "--resume")
    assert str(out) in capsys.readouterr().out
    model = load(out)
    assert model.spec.observation == (3, 16, 16) and model.config.film == 8
    facts = json.loads((out / "config.json").read_text())["training"]
    assert facts["step"] == 2 and facts["command"].startswith("python -m worldmodel train")
    assert "--resume" not in facts["command"]


def test_train_on_episodes_that_stay_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed, unpacked = tmp_path / "packed", tmp_path / "un packed"
    run(monkeypatch, "collect", "--env", "CartPole-v1", "--out", packed, "--episodes", 10)
    run(monkeypatch, "unpack", packed, "--out", unpacked)
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].split(": ", 1)[1])
    assert words[4:8] == ["--episodes", str(unpacked), "--memory", "1"]
    more = ("--steps", 3, "--batch-size", 4, "--validate-every", 3)
    for out, memory in ((tmp_path / "a", words[6:8]), (tmp_path / "b", ())):
        episodes = ("--episodes", unpacked, "--window", 8, *memory)
        run(monkeypatch, "train", *episodes, *more, "--out", out, "--model", "jump",
            "--set", "scene=16", "head=8")  # fmt: skip
    first, second = (load(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(SystemExit, match="memory: only with --episodes"):
        run(monkeypatch, "train", "--env", ENV, "--memory", 1, "--out", tmp_path / "c")
    for memory in ("inf", "nan", "0", "-1", "1e308"):
        with pytest.raises(SystemExit, match=rf"memory: expected GiB above 0 .*, got {memory[:2]}"):
            run(monkeypatch, "train", *episodes[:4], "--memory", memory, "--out", tmp_path / "c")


def test_train_on_scenes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = ("--env", ENV, "--size", 16, "--batch-size", 2, "--steps", 1)
    run(monkeypatch, "train", *env, "--out", tmp_path / "a", "--validate-every", 1, *TINY)
    assert load(tmp_path / "a").spec.window == load(tmp_path / "a" / BEST).spec.window == 40
    log = EventAccumulator(str(tmp_path / "a")).Reload()
    assert log.Tags()["images"] == ["videos/real_imagined"]
    assert "how_to_read/world_model/text_summary" in log.Tags()["tensors"]
    assert "validation/loss" in log.Tags()["scalars"]


def test_train_on_vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    run(monkeypatch, "collect", "--env", "CartPole-v1", "--out", data, "--episodes", 10)
    train = ("--episodes", data, "--window", 8, "--out", out, "--steps", 1,
             "--model", "jump", "--ema", 0.9)  # fmt: skip
    run(monkeypatch, "train", *train, "--validate-every", 1)
    assert load(out).spec.observation == (4,) and (out / BEST).is_dir()


def test_train_from_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its settings, changed where told to, and its weights."""
    env = ("train", "--env", ENV, "--size", 16, "--batch-size", 2, "--steps", 1)
    first, second = tmp_path / "a", tmp_path / "b"
    run(monkeypatch, *env, "--out", first, *TINY)
    still = ("learning_rate=1e-9", "learning_rate_end=1e-9", "variance_steps=[0.5,2.0],[1,0.1]")
    run(monkeypatch, *env, "--out", second, "--start", first, "--set", *still)
    begun, model = load(first), load(second)
    assert model.config.film == 8 and model.config.variance_steps == ((0.5, 2.0), (1.0, 0.1))
    for one, other in zip(begun.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    for more, message in [
        (("--model", "gqn"), "start: .* is a jump"),
        (("--preset", "small"), "no --preset"),
        (("--set", "film=16"), "changes what the weights are"),
        (("--size", 32), "start: "),
    ]:
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, *env, "--out", tmp_path / "c", "--start", first, *more)


def test_train_on_views(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = ("--env", "envs:dice/Views-v0", "--poses", "--size", 16, "--batch-size", 2, "--steps", 1)
    run(monkeypatch, "train", *env, "--out", tmp_path / "a", *TINY)
    spec = load(tmp_path / "a").spec
    assert spec.pose == 7 and spec.window == 9 and spec.action.kind == "none"
    assert spec.camera is None  # painted views need none
    rays = ("--preset", "rays-small", "--set", "features=8", "cells=8", "flow_blocks=1")
    run(monkeypatch, "train", *env, "--out", tmp_path / "b", *rays)
    assert (
        load(tmp_path / "b").spec.camera == gym.make("envs:dice/Views-v0").unwrapped.scenes().camera
    )
    start = ("--start", tmp_path / "b", "--set", "kl_weight=0.01")
    run(monkeypatch, "train", *env, "--out", tmp_path / "c", *start)
    assert load(tmp_path / "c").config.kl_weight == 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "nosuch"), "presets are .*jump:narrative"),
        (("train",), "give exactly one"),
        (("train", "--env", ENV, "--window", 20), "window: only with --episodes"),
        (("train", "--env", ENV, "--poses"), "poses: this environment has no camera"),
        (("train", "--env", "narratives/Nothing-v0"), "may name the module that registers it"),
        (("train", "--env", "CartPole-v1"), "CartPole-v1 does not take"),
        (("train", "--env", "CartPole-v1", "--size", "None"), "no scene stream of its own"),
        (("train", "--env", ENV, "--preset", "huge"), "jump has no 'huge'"),
        (("train", "--env", ENV, "--set", "depth=3"), "has no 'depth'"),
        (("train", "--env", ENV, "--set", "flow_steps=x"), "steps is like 4, got 'x'"),
        (("train", "--env", ENV, "--size", "33"), "multiple of 8"),
        (("train", "--env", ENV, "--num-threads", "0"), "num_threads: expected at least 1, got 0"),
        (("collect", "--env", "FrozenLake-v1"), "observation_space: expected a uint8 Box"),
    ],
)
def test_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = () if arguments[0] == "info" else ("--out", tmp_path / "x")
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, arguments[0], *out, *arguments[1:])


@pytest.mark.parametrize("verb", ["collect", "train", "imagine"])
@pytest.mark.parametrize("seed", [-1, 10**26])
def test_seeds_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, seed: int
) -> None:
    shown = ("traveling-salesman",) if verb == "imagine" else ()
    with pytest.raises(SystemExit, match=rf"^error: seed: .* 0 to 2\*\*63 - 1, got {seed}$"):
        run(monkeypatch, verb, *shown, "--env", ENV, "--out", tmp_path / "x", "--seed", seed)
    assert not (tmp_path / "x").exists()


def test_the_largest_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seed, data = ("--seed", 2**63 - 1), tmp_path / "data"
    run(monkeypatch, "collect", "--env", ENV, "--out", data, "--episodes", 1, "--size", 16, *seed)
    short = ("--batch-size", 2, "--steps", 1, *TINY, *seed)
    run(monkeypatch, "train", "--env", ENV, "--size", 16, "--out", tmp_path / "a", *short)
    run(monkeypatch, "train", "--episodes", data, "--window", 40, "--out", tmp_path / "b", *short)


def test_widths_of_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = ("--env", ENV, "--size", 32, "--batch-size", 2, "--steps", 1, "--model", "svg-lp")
    run(monkeypatch, "train", *env, "--out", tmp_path / "a", "--set", "channels=4,4,8")
    assert load(tmp_path / "a").config.channels == (4, 4, 8)


def test_each_process_makes_scenes_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert _device("cuda") == "cuda" and _device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "3")  # of torchrun, or of Fabric
    assert _device("cuda") == "cuda:3" and _device("cpu") == "cpu"
