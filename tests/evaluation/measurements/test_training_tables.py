"""Fidelity, ablation and dynamics: what they measure, at a size that says nothing about models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.measurements import dynamics, fidelity
from evaluation.measurements.ablation import Ablation
from evaluation.measurements.fidelity import NATURE, Fidelity
from evaluation.runner.partial_results import PartialResults
from worldmodel import ActionSpec, Episode, Episodes, Spec, make


def test_fidelity_of_an_untrained_model() -> None:
    model = make("jump", Spec((3, 16, 16), ActionSpec("none"), 20), "views").eval()
    found = fidelity.errors(model, scenes=3, worlds=4)
    assert all(values.shape == (3,) for values in found.values())
    assert (found["min-of-n"] <= found["mean-of-n"]).all()
    assert (found["copy-last"] < found["mean-of-n"]).all()
    again = fidelity.errors(model, scenes=3, worlds=4)
    assert all(torch.equal(found[name], again[name]) for name in found)
    rows = Fidelity(env=NATURE, scenes=3, worlds=2).of_model(model)
    assert [row["metric"] for row in rows] == [
        "mse, leg ends, min-of-n", "mse, leg ends, copy-last",
        "mse, min-of-n", "mse, mean-of-n", "mse, copy-last", "mse, seen",
    ]  # fmt: skip
    passive = make("svg-lp", Spec((3, 16, 16), ActionSpec("none"), 20), "small").eval()
    assert "seen" not in fidelity.errors(passive, scenes=2, worlds=2)
    strided = make("sssm", Spec((3, 16, 16), ActionSpec("none"), 20), "jumpy").eval()
    reached = fidelity.errors(strided, scenes=3, worlds=2)
    assert set(reached) == {"leg ends, min-of-n", "leg ends, copy-last"}
    assert torch.equal(reached["leg ends, copy-last"], found["leg ends, copy-last"])
    with pytest.raises(ValueError, match="model: expected one of"):
        fidelity.errors(make("jump", Spec((3, 16, 16), ActionSpec("none"), 9)))


def test_variants_are_compared_at_equal_steps_and_equal_time() -> None:
    variants = ("paper", "+ Fourier, film")
    rows = Ablation(variants, steps=20, seconds=1e-3, scenes=2).measure()
    rows.sort(key=lambda row: variants.index(row["variant"]))
    assert [(row["variant"], row["equal"]) for row in rows] == [
        ("paper", "steps"), ("paper", "time"),
        ("+ Fourier, film", "steps"), ("+ Fourier, film", "time"),
    ]  # fmt: skip
    assert [row["step"] for row in rows] == [20, 40, 20, 40]  # the clock starts at the first log
    assert all(row["min-of-n"] > 0 for row in rows)
    with pytest.raises(ValueError, match="expected some of"):
        Ablation(("+ magic",), 1, 1.0).measure()


def drift(episodes: int, steps: int = 6) -> Episodes:
    """A number that grows by the action, 0 or 1, at every step."""
    random, made = np.random.default_rng(0), []
    for _ in range(episodes):
        actions = random.integers(2, size=steps)
        walk = np.concatenate([[0], actions.cumsum()]).astype(np.float32) + random.normal()
        seen = np.stack([walk, np.ones_like(walk)], 1).astype(np.float32)
        made.append(Episode(seen, actions, np.zeros(steps, np.float32), False))
    return Episodes(made, ActionSpec("discrete", (), (2,)))


def test_transitions_of_k_steps() -> None:
    episodes = drift(3)
    states, actions, answers, owner = dynamics.transitions(episodes, 4)
    assert states.shape == (9, 2) and actions.shape == (9, 4)
    assert owner.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    torch.testing.assert_close(answers[:, 0] - states[:, 0], actions.sum(1).float())
    with pytest.raises(ValueError, match="none of them has 7 steps"):
        dynamics.transitions(episodes, 7)


def test_the_step_model_learns_to_count() -> None:
    episodes = drift(40)
    model = dynamics.StepModel(episodes, seed=0).learn(300, seed=0)
    same = dynamics.StepModel(episodes, seed=0)
    other = dynamics.StepModel(episodes, seed=1)
    assert torch.equal(same.net[0].weight, dynamics.StepModel(episodes, seed=0).net[0].weight)
    assert not torch.equal(same.net[0].weight, other.net[0].weight)
    scale = model.moments[0][0].clamp_min(1)
    rows = dynamics.errors(
        {
            "copy-last": lambda states, _: states[:, None],
            "rolled": lambda *query: model.roll(*query)[:, None],
        },
        episodes,
        [1, 4],
        scale,
    )
    error = {(row["model"], row["k"]): row["mse"] for row in rows}
    assert error["copy-last", 4] > error["copy-last", 1] > 0.01
    assert error["rolled", 4] < 0.02 * error["copy-last", 4]


def test_chosen_models_are_compared() -> None:
    chosen = dynamics.Dynamics(
        envs=("Pendulum-v1",), models=("ensemble",), episodes=6, steps=2, distances=(1,)
    )
    rows = chosen.rows(PartialResults())
    assert [row["model"] for row in rows] == ["copy-last", "ensemble, rolled"]
    assert 0 <= rows[1]["coverage_low"] <= rows[1]["coverage"] <= rows[1]["coverage_high"] <= 1
    with pytest.raises(ValueError, match="models: expected some of jump, ensemble, per-step; got"):
        dynamics.Dynamics(models=("mlp",))
