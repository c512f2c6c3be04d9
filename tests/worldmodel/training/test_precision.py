"""In which precision a run computes: what decides, what stays float32, and resuming."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scenes import DISCRETE, moving_square

from worldmodel import fit, load, make, preset, testing
from worldmodel.training import Progress, precision
from worldmodel.training.precision import Choice, choose
from worldmodel.training.run import STATE, read_state

measure = precision.bf16_speedup  # tests run with another one, see conftest.py
TINY = replace(preset("jump", "views"), film=8, hidden=8, tower=8, scene=16, head=8)
QUIET: dict[str, Any] = {"progress": False}
VECTORS = testing.SPECS["vector"]


def pretend(monkeypatch: pytest.MonkeyPatch, speedup: float) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda threads: speedup)


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 7.3)
    fast = choose("auto", DISCRETE, "cpu")
    assert fast.line == "bf16 (auto: a bf16 product has 7.3 times float32's speed)"
    assert choose("auto", VECTORS, "cpu").name == "float32"
    assert choose("auto", DISCRETE, "cpu", processes=2).name == "float32"
    assert choose("auto", DISCRETE, "mps").name == "float32"
    assert choose("float32", DISCRETE, "cpu") == Choice("float32")
    pretend(monkeypatch, 1.2)
    assert choose("auto", DISCRETE, "cpu").name == "float32"
    assert choose("bf16", DISCRETE, "cpu") == Choice("bf16")
    pretend(monkeypatch, 0.03)
    assert "0.03 times" in choose("bf16", DISCRETE, "cpu").line
    for has, name in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert choose("auto", DISCRETE, "cuda").name == name


def test_refusals() -> None:
    for bad in ("bf16-mixed", "half", "", 32):
        with pytest.raises(ValueError, match=r"precision: expected one of \('auto', 'float32', "):
            choose(bad, DISCRETE, "cpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="began in precision '16-mixed'"):
        choose("auto", DISCRETE, "cpu", begun="16-mixed")


def test_a_resumed_run_goes_on_as_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 9.0)
    assert choose("auto", DISCRETE, "cpu", begun="bf16-mixed").line == "bf16 (as the run began)"
    assert choose("auto", DISCRETE, "cpu", begun="32-true").line == "float32 (as the run began)"
    pretend(monkeypatch, 0.5)
    slow = choose("auto", DISCRETE, "cpu", begun="bf16-mixed")
    assert slow.name == "bf16" and "has only 0.5 times float32's speed" in slow.line
    for other, begun in (("float32", "bf16-mixed"), ("bf16", "32-true")):
        with pytest.raises(ValueError, match="leave it out"):
            choose(other, DISCRETE, "cpu", begun=begun)


def test_measurement_is_made_once() -> None:
    assert measure(1) > 0 and measure(1) is measure(1)


@pytest.mark.parametrize(("name", "settings"), [("jump", TINY), ("svg-lp", "small")])
def test_resume_in_bf16_is_bit_exact(
    name: str,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Begun where bf16 is fast, resumed where it is slow."""

    def source() -> Any:
        return moving_square(8).windows(8, batch_size=4)

    whole = make(name, DISCRETE, settings)
    fit(whole, source(), 4, precision="bf16", **QUIET)
    pretend(monkeypatch, 5.0)

    def interrupt(progress: Progress) -> None:
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    part = make(name, DISCRETE, settings)
    with pytest.raises(KeyboardInterrupt):
        fit(part, source(), 4, folder=tmp_path, log_every=1, callbacks=[interrupt], ema=0.0)
    assert "precision: bf16 (auto: a bf16 product has 5 times" in capsys.readouterr().err
    facts = json.loads((tmp_path / "config.json").read_text())["training"]
    assert facts["precision"].startswith("bf16 (auto: ")
    file, state = read_state(tmp_path / STATE)
    assert state.run["precision"] == "bf16-mixed"
    kept = [dtype for key, (_, dtype) in file.layout.items() if "num_batches" not in key
            and "prepared" not in key and "symlog" not in key]  # fmt: skip
    assert set(kept) == {torch.float32}

    pretend(monkeypatch, 0.1)
    with pytest.raises(ValueError, match="precision: the run began in bf16, it cannot go on in fl"):
        fit(part, source(), 4, folder=tmp_path, resume=True, precision="float32", **QUIET)
    resumed = make(name, DISCRETE, settings)
    fit(resumed, source(), 4, folder=tmp_path, resume=True)
    assert "as the run began, though here a bf16 product has only 0.1" in capsys.readouterr().err
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
        assert torch.equal(value, load(tmp_path).state_dict()[key]), key


def test_bf16_learns_alike() -> None:
    """The curves of the squared error, of the KL and of the rewards."""
    source = moving_square(8).windows(8, batch_size=4)
    curves: dict[str, list[torch.Tensor]] = {}
    for name in ("float32", "bf16"):
        model, seen = make("jump", DISCRETE, TINY), []

        def look(progress: Progress, into: list[dict[str, float]] = seen) -> None:
            into.append(progress.parts)

        fit(model, source, 20, precision=name, log_every=1, callbacks=[look], **QUIET)
        assert all(p.dtype == torch.float32 for p in model.parameters())
        for part in ("mse", "kl", "reward"):
            curves.setdefault(part, []).append(torch.tensor([parts[part] for parts in seen]))
    for part, (plain, half) in curves.items():
        assert float((half - plain).abs().mean() / plain.abs().mean()) < 0.05, part
