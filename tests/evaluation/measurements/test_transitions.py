"""Throughput of imagination and of training: the right jobs, in rounds that say nothing."""

from __future__ import annotations

import pytest

from evaluation.measurements.transitions import Transitions


def test_rows() -> None:
    rows = Transitions(("jump:vector",), batches=(4, 8), train_batch=8, updates=2, repeats=2)
    assert [(row["env"], row["what"], row["model"], row["batch"]) for row in rows.measure()] == [
        ("CartPole-v1", "imagined", "jump:vector", 4),
        ("CartPole-v1", "imagined", "jump:vector", 8),
        ("CartPole-v1", "real", "CartPole-v1", 1),
        ("CartPole-v1", "trained", "DQN", 8),
        ("CartPole-v1", "trained", "PPO", 8),
        ("Pendulum-v1", "imagined", "jump:vector", 4),
        ("Pendulum-v1", "imagined", "jump:vector", 8),
        ("Pendulum-v1", "real", "Pendulum-v1", 1),
        ("Pendulum-v1", "trained", "SAC", 8),
        ("Pendulum-v1", "trained", "PPO", 8),
    ]
    one = Transitions(("jump:vector",), envs=("CartPole-v1",), batches=(4,), updates=1, repeats=1)
    assert all(row["per_second"] > 0 and row["n"] == 1 for row in one.measure())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="repeats: expected at least 1, got 0"):
        Transitions(repeats=0).measure()
    with pytest.raises(ValueError, match="batches: expected at least 1, got 0"):
        Transitions(batches=(512, 0)).measure()
    with pytest.raises(ValueError, match="envs: expected vectors, envs:narratives/Traveling"):
        Transitions(envs=("envs:narratives/TravelingSalesman-v0",)).measure()
