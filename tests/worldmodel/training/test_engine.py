"""The engine under stress: killed processes, several processes, averages, compilers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scenes import DISCRETE, moving_square
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from worldmodel import Episodes, WorldModel, fit, load, make, preset
from worldmodel.training import BEST
from worldmodel.training.average import Average
from worldmodel.training.run import STATE, read_state
from worldmodel.training.validation import Validation

TINY = replace(preset("jump", "views"), film=8, hidden=8, tower=8, scene=16, head=8)
QUIET: dict[str, Any] = {"progress": False}
SCRIPT = """
    import sys
    from scenes import DISCRETE, moving_square
    from test_engine import TINY
    from worldmodel import fit, make
    source = moving_square(8).windows(8, batch_size=4)
"""


def script(body: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(SCRIPT) + textwrap.dedent(body)]


def environment() -> dict[str, str]:
    here = Path(__file__).parent  # for ``test_engine``, ``scenes`` and this checkout
    path = os.pathsep.join(map(str, (here, here.parent, here.parents[2])))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_killed_at_a_random_step(tmp_path: Path) -> None:
    """kill -9, twice, with a checkpoint after every step: resuming ends at the same bits."""
    steps, chance = 60, random.Random(os.getpid())
    whole = make("jump", DISCRETE, TINY)
    fit(whole, moving_square(8).windows(8, batch_size=4), steps, ema=0.9, **QUIET)
    body = f"""
        fit(make("jump", DISCRETE, TINY), source, {steps}, folder={str(tmp_path)!r}, ema=0.9,
            save_minutes=0, resume=sys.argv[1] == "resume", precision="float32", progress=False)
    """
    for turn in range(2):
        victim = subprocess.Popen([*script(body), "resume" if turn else "begin"], env=environment())
        state = tmp_path / STATE
        before = state.stat().st_mtime_ns if turn else 0
        while not (state.exists() and state.stat().st_mtime_ns > before):
            assert victim.poll() is None
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        victim.send_signal(signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
    reached = read_state(tmp_path / STATE)[1].step
    assert 1 < reached < steps
    resumed = make("jump", DISCRETE, TINY)
    fit(resumed, moving_square(8).windows(8, batch_size=4), steps, folder=tmp_path, ema=0.9,
        resume=True, **QUIET)  # fmt: skip
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """DDP over gloo: the mean over the batches that the two ranks drew.

    With torchrun, and over many steps: ``tests/stress/test_torchrun.py``.
    """
    body = f"""
        fit(make("jump", DISCRETE, TINY), source, 1, folder={str(tmp_path)!r}, clip=1e9,
            devices=2, progress=False)
    """
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(body))
    subprocess.run([sys.executable, str(path)], env=environment(), check=True, timeout=120)
    state = load_file(tmp_path / STATE)

    model = make("jump", DISCRETE, TINY)
    source = moving_square(8).windows(8, batch_size=4)
    model.prepare(source)
    for index in range(2):
        generator = torch.Generator().manual_seed(index * 0x85EBCA77)
        (model(source.batch(index), 0.0, generator).total / 2).backward()
    moments = [name for name in state if name.endswith(".exp_avg")]
    assert len(moments) == len(list(model.parameters()))
    for number, parameter in enumerate(model.parameters()):
        assert parameter.grad is not None
        gradient = state[f"optimizer.{number}.exp_avg"] / 0.1  # Adam's first moment after one step
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-4)


def test_two_processes_go_on_where_some_weights_have_no_gradient(tmp_path: Path) -> None:
    """A flow prior, which trains alone in the end; they wait for a gradient of every weight."""
    body = f"""
        from dataclasses import replace
        from worldmodel import preset
        flow = replace(preset("jump", "small"), width=16, heads=2, key_features=4, content=3,
                       latent=2, flow_width=16, flow_blocks=1, plan_blocks=2, prior_share=0.5)
        fit(make("jump", DISCRETE, flow), source, 4, folder={str(tmp_path)!r}, devices=2,
            progress=False)
    """
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(body))
    subprocess.run([sys.executable, str(path)], env=environment(), check=True, timeout=120)
    assert read_state(tmp_path / STATE)[1].step == 4


def test_two_processes_stop_together(tmp_path: Path) -> None:
    """A signal to one of them ends both, with a checkpoint."""
    body = f"""
        fit(make("jump", DISCRETE, TINY), source, 100_000, folder={str(tmp_path)!r}, log_every=2,
            devices=2, save_minutes=0, progress=False)
    """
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(body))
    lead = subprocess.Popen([sys.executable, str(path)], env=environment(), stderr=-3)
    while not (tmp_path / STATE).exists():
        assert lead.poll() is None
        time.sleep(0.05)
    lead.send_signal(signal.SIGTERM)
    assert lead.wait(timeout=60) != 0
    step = read_state(tmp_path / STATE)[1].step
    assert step % 2 == 0 and load(tmp_path).spec == DISCRETE


def test_average() -> None:
    line = nn.Linear(1, 1, bias=False)
    average = Average(line, 0.5)
    with torch.no_grad():
        for value in (1.0, 2.0, 4.0):
            line.weight.fill_(value)
            average.update()
    # decays 1/10, 2/11, 3/12 of the first updates are below 0.5
    expected = 0.25 * (2 / 11 * 1.0 + 9 / 11 * 2.0) + 0.75 * 4.0
    with average.swapped():
        assert line.weight.item() == pytest.approx(expected)
    assert line.weight.item() == 4.0
    with pytest.raises(ValueError, match="ema: expected"):
        Average(line, 1.0)


def test_the_checkpoint_is_of_the_average(tmp_path: Path) -> None:
    source = moving_square(8).windows(8, batch_size=4)
    plain, averaged = (make("jump", DISCRETE, TINY) for _ in range(2))
    fit(plain, source, 8, **QUIET)
    fit(averaged, source, 8, folder=tmp_path, ema=0.9, **QUIET)
    state = load_file(tmp_path / STATE)
    for name, value in plain.state_dict().items():
        assert torch.equal(state[f"weights.{name}"], value)  # training itself is not changed
        assert torch.equal(weights(tmp_path)[name], averaged.state_dict()[name])
    assert any(
        not torch.equal(a, b)
        for a, b in zip(plain.parameters(), averaged.parameters(), strict=True)
    )


def test_the_best_by_validation_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three validations, the second of which finds the lowest loss."""
    training, unseen = moving_square(10).split(0.2)
    assert (len(training), len(unseen)) == (8, 2)
    model, measure, offsets = make("jump", DISCRETE, TINY), Validation.measure, [2e9, 0.0, 1e9]
    kept: list[dict[str, Tensor]] = []

    def measured(self: Validation, model: WorldModel) -> dict[str, float]:
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        found = measure(self, model)
        return {**found, "loss": found["loss"] + offsets[len(kept) - 1]}

    monkeypatch.setattr(Validation, "measure", measured)
    fit(
        model, training.windows(8, 4), 9, folder=tmp_path, validation=unseen.windows(8, 4),
        validate_every=3, **QUIET,
    )  # fmt: skip
    log = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in log.Scalars("validation/mse")] == [3, 6, 9]
    assert json.loads((tmp_path / BEST / "config.json").read_text())["training"]["step"] == 6
    for name, value in weights(tmp_path / BEST).items():
        assert torch.equal(value, kept[1][name])
        assert torch.equal(weights(tmp_path)[name], kept[2][name])


@pytest.mark.parametrize("name", ["svg-lp", "sssm", "sv2p", "hierarchical-vrnn"])
def test_each_step_of_time_is_logged(name: str, tmp_path: Path) -> None:
    """Errors with the truth told and imagined freely, and KL of each step (SV2P has one in all)."""
    source = moving_square(4).windows(8, 2)
    model = make(name, DISCRETE)
    fit(model, source, 1, folder=tmp_path, validation=source, **QUIET)
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    expected = {"validation/free_mse", "validation/mse_step/01", "validation/mse_step/08"}
    expected |= {"validation/forced_mse" if name == "sv2p" else "validation/kl_step/08"}
    assert expected <= set(tags)


def test_validation_changes_nothing(tmp_path: Path) -> None:
    training, unseen = moving_square(10).split(0.2)
    one, other = (make("jump", DISCRETE, TINY) for _ in range(2))
    fit(one, training.windows(8, 4), 6, **QUIET)
    fit(other, training.windows(8, 4), 6, validation=unseen.windows(8, 4), validate_every=2,
        **QUIET)  # fmt: skip
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_compiling_that_fails_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: nn.Module, *arguments: Any, **settings: Any) -> None:
        def fail(*inputs: Any) -> None:
            raise RuntimeError("no compiler here")

        self._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", broken)
    source = moving_square(8).windows(8, batch_size=4)
    plain, tried = (make("jump", DISCRETE, TINY) for _ in range(2))
    fit(plain, source, 3, **QUIET)
    with pytest.warns(UserWarning, match="goes on without it: no compiler here"):
        fit(tried, source, 3, compile=True, **QUIET)
    for a, b in zip(plain.parameters(), tried.parameters(), strict=True):
        assert torch.equal(a, b)


def test_trying_a_compiler_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """SVG's batch norms count the batches that they see."""
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    source = moving_square(8).windows(8, batch_size=4)
    plain, tried = (make("svg-lp", DISCRETE) for _ in range(2))
    fit(plain, source, 1, **QUIET)
    fit(tried, source, 1, compile=True, **QUIET)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, tried.state_dict()[name]), name


@pytest.mark.slow
def test_compiled_training_is_the_same(tmp_path: Path) -> None:
    source = moving_square(8).windows(8, batch_size=4)
    plain, compiled = (make("jump", DISCRETE, TINY) for _ in range(2))
    fit(plain, source, 3, **QUIET)
    fit(compiled, source, 3, folder=tmp_path, compile=True, **QUIET)
    again = load(tmp_path)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-3, atol=1e-4)
        assert torch.equal(again.state_dict()[name], compiled.state_dict()[name])


def test_split_needs_both_sides() -> None:
    episodes: Episodes = moving_square(4)
    for share in (0.0, 1.0, 0.01):
        with pytest.raises(ValueError, match="share: "):
            episodes.split(share)
