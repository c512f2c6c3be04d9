"""The table's rows, at budgets that say nothing about learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.planners.refining import CemConfig
from agents.recipes import IMAGINED, TUNED, ImaginedPpo, ImaginedReplay, OnlinePlanner
from agents.training.dyna.callback import DynaConfig
from agents.training.dyna.rounds import RoundsConfig
from agents.training.online_planning import OnlineConfig
from evaluation.measurements import sample_efficiency
from evaluation.measurements.sample_efficiency import TASKS, SampleEfficiency, methods_of
from evaluation.runner.learning_curve import Protocol
from worldmodel.common.safe_files import read_json

SMALL = SampleEfficiency(
    envs=("CartPole-v1",), methods=("dqn", "ppo"), seeds=2, budget=600, episodes=4,
    first_episodes=2,
)  # fmt: skip


def test_rows() -> None:
    rows = SMALL.measure()
    kinds = [row["kind"] for row in rows]
    assert kinds.count("random") == 1 and kinds.count("run") == 4 and kinds.count("steps") == 2
    returns = [row for row in rows if row["kind"] == "return"]
    assert [row["real_steps"] for row in returns if row["method"] == "ppo"] == [250, 500, 600] * 2
    for row in rows:
        if row["kind"] == "run":
            assert row["steps"] == row["budget"] == 600 and not row["reached"]
            assert 8 < row["area"] < 300 and row["seconds"] > 0
        if row["kind"] == "steps":
            assert row["n"] == 2 and row["reached"] == 0 and row["censored"]
    assert "CartPole-v1" in SMALL.text(rows)


def test_with_a_world_model(monkeypatch: pytest.MonkeyPatch) -> None:
    fit: dict[str, Any] = {"first_fit_steps": 2, "fit_steps": 1, "fit_batch_size": 4}
    rounds = RoundsConfig(
        **fit, first_collect_steps=100, collect_steps=100, imagined_steps=16, num_envs=4
    )
    dyna = DynaConfig(**fit, start=60, every=200, branches=1)
    small = (
        ImaginedPpo(1, 8, model="jump", rounds=rounds, settings={"n_steps": 4}),
        ImaginedReplay(1, 1, model="jump", kind="dqn", dyna=dyna),
        OnlinePlanner(
            1,
            4,
            planner=CemConfig(plans=4, worlds=1, horizon=2, iterations=1, hold=2),
            online=OnlineConfig(start_steps=240, refit_every=200, first_fit_steps=5, fit_steps=2),
        ),
    )
    monkeypatch.setitem(IMAGINED, "CartPole-v1", small)
    assert methods_of("CartPole-v1") == ["ppo", "dyna-ppo", "dyna-dqn", "planner", "dqn"]
    rows = replace(SMALL, methods=("ppo", "dyna-ppo", "dyna-dqn", "planner"), seeds=1).measure()
    points = {
        method: [row["real_steps"] for row in rows
                 if row["kind"] == "return" and row["method"] == method]
        for method in ("ppo", "dyna-ppo", "dyna-dqn", "planner")
    }  # fmt: skip
    assert points["dyna-ppo"] == [250, 500, 600] == points["dyna-dqn"] == points["planner"]
    ratios = [row for row in rows if row["kind"] == "ratio"]
    assert [(row["method"], row["of"]) for row in ratios] == [
        ("dyna-ppo", "ppo"), ("dyna-dqn", "ppo"), ("planner", "ppo"),
    ]  # fmt: skip
    assert all(row["bound"] == "undecided" and row["value"] == 1 for row in ratios)


def test_order_of_runs() -> None:
    """One environment after the other; the best method without a model first."""
    both = replace(SMALL, envs=("Pendulum-v1", "CartPole-v1"), methods=())
    runs = both.runs()
    assert [run.env for run in runs[:2]] == ["Pendulum-v1"] * 2
    assert (runs[0].method, runs[0].seed, runs[1].seed) == ("sac", 0, 1)
    assert runs[0].protocol == Protocol(-200, 250, 600, 4, 2, 3)


def test_tasks_have_recipes() -> None:
    assert set(TASKS) == set(TUNED)
    for env, task in TASKS.items():
        assert task.every <= task.budget <= task.real_budget
        assert methods_of(env)[0] == TUNED[env][0].algorithm


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replace(SMALL, methods=("ppo",), budget=250, json=tmp_path / "one.json")
    real, done = sample_efficiency.run_one, []

    def stops(run: sample_efficiency.Run) -> object:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(run)
        return real(run)

    monkeypatch.setattr(sample_efficiency, "run_one", stops)
    with pytest.raises(KeyboardInterrupt, match="1 parts are done, --resume goes on"):
        list(one.run())
    monkeypatch.setattr(sample_efficiency, "run_one", lambda run: done.append(run) or real(run))
    list(replace(one, resume=True).run())
    assert [run.seed for run in done] == [0, 1]
    rows = read_json(tmp_path / "one.json")["rows"]
    assert [row["seed"] for row in rows if row["kind"] == "run"] == [0, 1]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="envs: expected some of CartPole-v1.*; got 'Pong-v5'"):
        SampleEfficiency(envs=("Pong-v5",))
    with pytest.raises(ValueError, match="methods: expected some of ppo, .*; got 'sac'"):
        SampleEfficiency(envs=("CartPole-v1",), methods=("sac",))
    with pytest.raises(ValueError, match="seeds: expected at least 1, got 0"):
        SampleEfficiency(seeds=0)
    with pytest.raises(ValueError, match="budget: expected at least 1, got 0"):
        SampleEfficiency(budget=0)
