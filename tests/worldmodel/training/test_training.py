"""fit, resume, interruption; checkpoints that load or say why not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scenes import DISCRETE, SMALL, SPECS, moving_square
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldmodel import (
    ActionSpec,
    Episode,
    Episodes,
    Losses,
    Progress,
    WorldModel,
    checkpoint,
    fit,
    load,
    make,
    resolve,
    save,
)
from worldmodel.data.windows import WindowSource
from worldmodel.rewards import PREPARE_BATCHES
from worldmodel.training import STATE, monitor
from worldmodel.training.run import Run

QUIET: dict[str, Any] = {"progress": False}


def fresh(name: str = "jump", preset: Any = "small") -> WorldModel:
    return make(name, DISCRETE, preset)


def source(seed: int = 0) -> WindowSource:
    return moving_square(8).windows(8, batch_size=4, seed=seed)


def same_weights(one: WorldModel, other: WorldModel) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("name", "preset"), [one for one in SMALL if one[0] != "copy-last"])
def test_resume_is_bit_exact(name: str, preset: Any, tmp_path: Path) -> None:
    whole = fresh(name, preset)
    fit(whole, source(), 6, **QUIET)

    def interrupt(progress: Progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    part = fresh(name, preset)
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        fit(part, source(), 6, folder=tmp_path, log_every=1, callbacks=[interrupt], **QUIET)
    assert same_weights(load(tmp_path), part)
    resumed = fresh(name, preset)
    fit(resumed, source(), 6, folder=tmp_path, resume=True, **QUIET)
    assert same_weights(resumed, whole)
    assert same_weights(load(tmp_path), whole)
    assert not list(tmp_path.glob(".*partial"))


def test_folder_of_a_run(tmp_path: Path) -> None:
    seen: list[int] = []
    parts = fit(
        fresh(), source(), 4, folder=tmp_path, log_every=2, training={"command": "pytest"},
        callbacks=[lambda progress: seen.append(progress.step)], **QUIET,
    )  # fmt: skip
    assert seen == [2, 4] and {"loss", "flow", "kl", "mse", "reward", "continue"} <= parts.keys()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [scalar.step for scalar in events.Scalars("world_model/loss")] == [2, 4]
    for name in ("kl", "mse", "reward", "continue"):  # at last the prior trains alone
        assert [scalar.step for scalar in events.Scalars(f"world_model/{name}")] == [2]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["training"]["steps"] == 4 and config["training"]["command"] == "pytest"
    card = (tmp_path / "README.md").read_text()
    assert "command: pytest" in card and "step: 4" in card
    (tmp_path / "README.md").write_text("my own words")
    save(fresh(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"
    config_again = json.loads((tmp_path / "config.json").read_text())
    assert config_again["training"] == {}
    with pytest.raises(FileExistsError, match="pass resume=True"):
        fit(fresh(), source(), 4, folder=tmp_path, **QUIET)
    for other, steps, message in [
        (source(), 9, "was trained with steps = 4, now it is 9"),
        (source(seed=1), 4, "was trained with source = "),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(fresh(), other, steps, folder=tmp_path, resume=True, **QUIET)
    assert fit(fresh(), source(), 4, folder=tmp_path, resume=True, **QUIET) == {}
    state = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(state[: len(state) // 2])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        fit(fresh(), source(), 4, folder=tmp_path, resume=True, **QUIET)
    with pytest.raises(ValueError, match="needs the folder"):
        fit(fresh(), source(), 9, resume=True, **QUIET)
    with pytest.raises(FileNotFoundError, match="nothing was kept there yet"):
        fit(fresh(), source(), 9, folder=tmp_path / "b", resume=True, **QUIET)


def test_devices_are_some() -> None:
    with pytest.raises(ValueError, match="devices: expected at least 1, got 0"):
        fit(fresh(), source(), 1, devices=0, **QUIET)


def test_a_source_of_another_kind_is_refused() -> None:
    episodes = moving_square(4)
    for spec, window, message in [
        (replace(DISCRETE, observation=(3, 32, 40)), 8, r"observations are .* \(32, 32, 3\)"),
        (DISCRETE, 9, "windows have 9 steps, more than the model's 8"),
        (SPECS["box"], 8, r"action space is Discrete\(3\), the model was made for Box"),
        (SPECS["passive"], 8, r"action space is Discrete\(3\), .* Discrete\(1\)"),
        (replace(DISCRETE, action=ActionSpec("discrete", (), (5,))), 8, r"for Discrete\(5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(make("jump", spec), episodes.windows(window, 4), 1, **QUIET)


def test_nan_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    model = fresh()

    def poison(progress: Progress) -> None:
        if progress.step == 3:
            with torch.no_grad():
                next(progress.model.parameters()).fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="not finite at step 3.*last good"):
        fit(model, source(), 8, folder=tmp_path, log_every=1, save_minutes=0, callbacks=[poison],
            **QUIET)  # fmt: skip
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["training"]["step"] == 2
    assert all(torch.isfinite(p).all() for p in load(tmp_path).parameters())


def test_an_unused_latent_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh()
    forward = type(model).loss

    def asleep(self: WorldModel, *args: Any) -> Losses:
        losses = forward(self, *args)
        return Losses(losses.total, {**losses.parts, "kl": torch.tensor(0.03)})

    monkeypatch.setattr(type(model), "loss", asleep)
    monkeypatch.setattr(monitor, "COLLAPSE_STEPS", 2)
    with pytest.warns(UserWarning, match=r"KL is 0.03 nats at step 2: .*\(kl_weight\)") as told:
        fit(model, source(), 8, log_every=1, **QUIET)
    assert len([one for one in told if "KL is" in str(one.message)]) == 1
    other = fresh()
    monkeypatch.setattr(other, "stochastic", False)  # no latent that could be of use
    with warnings.catch_warnings(record=True) as quiet:
        warnings.simplefilter("always")
        fit(other, source(), 8, log_every=1, **QUIET)
    assert not [one for one in quiet if "KL is" in str(one.message)]


def test_infinite_weights_stop() -> None:
    bad = fresh()
    with torch.no_grad():
        next(bad.parameters()).fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="not finite at step 1"):
        fit(bad, source(), 2, log_every=1, **QUIET)


def test_a_signal_at_the_very_end_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever called ``fit`` may have more to do; the run itself is complete."""
    save = Run.save

    def signalled(run: Run, step: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(run, step)

    monkeypatch.setattr(Run, "save", signalled)
    with pytest.raises(KeyboardInterrupt, match="^stopped after step 2$"):
        fit(fresh(), source(), 2, folder=tmp_path, **QUIET)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["step"] == 2


@pytest.mark.parametrize("when", [0, 1])
def test_interrupted_at_once(when: int, tmp_path: Path) -> None:
    """Wherever in the loop the signal comes, what was done is saved."""

    class Interrupting(WindowSource):
        def batch(self, index: int) -> Any:
            # fit looks at the first batch, and learns the scale of rewards, before it trains
            if index == when and self.calls > PREPARE_BATCHES:
                os.kill(os.getpid(), signal.SIGTERM)
            self.calls += 1
            return super().batch(index)

        calls = 0

    episodes = moving_square(4)
    windows = Interrupting(
        episodes.episodes, episodes.lengths, episodes.action, 8, 4, 0, torch.device("cpu")
    )
    with pytest.raises(KeyboardInterrupt, match=f"after step {when + 1}"):
        fit(fresh(), windows, 5, folder=tmp_path, **QUIET)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["step"] == when + 1
    load(tmp_path)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize(("name", "preset"), SMALL)
def test_round_trip_offline(
    name: str, preset: Any, spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", no_network)
    model = make(name, spec, preset)
    loaded = load(save(model, tmp_path))
    assert same_weights(model, loaded)
    assert (loaded.spec, loaded.config) == (model.spec, model.config)
    assert not loaded.training


def test_broken_checkpoints(tmp_path: Path) -> None:
    folder = save(fresh(), tmp_path / "good")
    weights, config = folder / "model.safetensors", folder / "config.json"
    tensors, settings, whole = load_file(weights), config.read_text(), weights.read_bytes()
    first = next(iter(tensors))

    def expect(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load(folder)

    save_file({k: v for k, v in tensors.items() if k != first}, weights)
    expect(f"missing tensors \\['{first}'\\]")
    save_file({**tensors, "stranger": torch.zeros(1)}, weights)
    expect("unexpected tensors \\['stranger'\\]")
    save_file({**tensors, first: torch.zeros(1, 2, 3)}, weights)
    expect(f"{first} is \\(1, 2, 3\\), expected")
    weights.write_bytes(whole[:-100])
    expect("corrupt or truncated")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        load(folder)
    config.write_text(json.dumps({**json.loads(settings), "format": 7}))
    expect("checkpoint format 7; this version reads 1")
    config.write_text(json.dumps({**json.loads(settings), "model": "dreamer"}))
    expect("no model 'dreamer'")
    config.write_text(json.dumps({**json.loads(settings), "config": {"depth": 3}}))
    expect("settings do not fit")
    config.write_text(json.dumps({"format": 1, "model": "jump"}))
    expect("lacks \\['spec', 'config'\\]")
    config.write_text("{")
    expect("not JSON")
    with pytest.raises(FileNotFoundError, match="shipped ones are"):
        load("nowhere")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_are_checked(seed: int) -> None:
    for act in (
        lambda: fit(fresh(), source(), 1, seed=seed, **QUIET),
        lambda: source(seed),
        lambda: make("jump", DISCRETE, seed=seed),
    ):
        with pytest.raises(ValueError, match=rf"seed: expected from 0 to 2\*\*63 - 1, got {seed}"):
            act()


def test_a_digest_is_of_what_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "traveling-salesman"
    copy = Path(shutil.copytree(resolve.SHIPPED / name, tmp_path / "copy"))
    (copy / "README.md").write_text("another card")
    monkeypatch.setattr(checkpoint, "make", None)  # nothing is built
    before = checkpoint.digest(name)
    assert len(before) == 64 and checkpoint.digest(copy) == checkpoint.digest(str(copy)) == before
    found = {before}
    for file in ("config.json", "model.safetensors"):
        content = bytearray((copy / file).read_bytes())
        content[-3] ^= 1
        (copy / file).write_bytes(content)
        found.add(checkpoint.digest(copy))
    assert len(found) == 3
    (copy / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        checkpoint.digest(copy)
    with pytest.raises(FileNotFoundError, match="shipped ones are"):
        checkpoint.digest("nowhere")


def test_passive_sources_are_told_apart(tmp_path: Path) -> None:
    """Their actions and rewards say nothing: the frames do."""

    def still(level: int) -> WindowSource:
        frames = np.full((5, 32, 32, 3), level, np.uint8)
        one = Episode(frames, np.zeros(4, np.int64), np.zeros(4, np.float32), False)
        return Episodes([one], ActionSpec("none")).windows(4, 2)

    fit(make("jump", SPECS["passive"]), still(100), 1, folder=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="was trained with first observations = "):
        fit(make("jump", SPECS["passive"]), still(150), 1, folder=tmp_path, resume=True, **QUIET)
