"""Frames and plan steps per second: what is counted, and of what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import worldmodel
from evaluation.measurements import imagination as module
from evaluation.measurements.imagination import Imagination
from worldmodel import ActionSpec, Prediction, Queries, Spec, Worlds
from worldmodel.models.baselines import CopyLast

ACTIONS = ActionSpec("discrete", (), (4,))


class Steady(CopyLast):
    """Costs a second per frame, and 1/128 s per scored step; adds up what it is asked for."""

    cost = 0.0

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        answer = super().predict(worlds, queries, frames)
        self.cost += answer.rewards.numel() * (1.0 if frames else 2**-7)
        return answer


def steady(action: ActionSpec = ACTIONS, window: int = 8, **spec: Any) -> Steady:
    made = worldmodel.make("copy-last", Spec((3, 16, 16), action, window, **spec), "small")
    model = Steady(made.spec, made.config)
    return model.eval()


def by_cost(*models: Steady) -> Callable[..., dict[Any, Any]]:
    """A clock that reads what the models say they cost, twice as slow in the second round."""

    def timed(jobs: Mapping[Any, Callable[[], object]], repeats: int) -> dict[Any, Any]:
        rounds = {}
        for key, job in jobs.items():
            before = sum(model.cost for model in models)
            job()
            spent = sum(model.cost for model in models) - before
            rounds[key] = spent * np.array([1.0, 2.0, 1.0])
        return rounds

    return timed


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering 1 frame of each plan costs 1 s, scoring 8 steps 1/16 s: 16 times less."""
    model = steady()
    monkeypatch.setattr(module, "interleaved", by_cost(model))
    rows = Imagination(horizons=(4, 8), plans=(2, 3), worlds=5).compare({"m": model})
    assert [row["kind"] for row in rows] == ["frames", "plan_steps", "ratio"] * 4
    assert [(row["horizon"], row["plans"], row["batch"]) for row in rows[::3]] == [
        (4, 2, 10), (4, 3, 15), (8, 2, 10), (8, 3, 15),
    ]  # fmt: skip
    for row in rows[::3]:
        assert (row["per_second"], row["low"], row["high"], row["n"]) == (1.0, 0.5, 1.0, 3)
        assert (row["size"], row["device"], row["worlds"]) == (16, "cpu", 5)
    for row in rows[1::3]:
        assert (row["per_second"], row["low"], row["high"]) == (128.0, 64.0, 128.0)
    for row in rows[2::3]:  # paired: slow rounds cancel
        assert [row["ratio"], row["low"], row["high"]] == [128 / row["horizon"]] * 3


def test_passive_scenes_have_no_plans_to_score(monkeypatch: pytest.MonkeyPatch) -> None:
    model = steady(ActionSpec("none"))
    monkeypatch.setattr(module, "interleaved", by_cost(model))
    rows = Imagination(horizons=(8,), plans=(3,), worlds=2).compare({"m": model})
    assert [row["kind"] for row in rows] == ["frames"]
    assert model.cost == 6 and rows[0]["per_second"] == 1.0


@pytest.mark.parametrize("name", ["jump:small", "sssm:jumpy", "svg-lp:small"])
def test_models(name: str) -> None:
    settings = Imagination((name,), horizons=(3, 5), plans=(2,), worlds=2, size=16, repeats=1)
    rows = settings.compare({name: settings.load_model(name)})
    reached = [5] if name == "sssm:jumpy" else [3, 5]
    assert [row["horizon"] for row in rows[::3]] == reached
    assert all(row.get("per_second", row.get("ratio")) > 0 for row in rows)


def test_decisions_of_imagined_environments() -> None:
    """Rates and shares of the time, for models as they are and optimised."""
    settings = Imagination(
        ("jump:small",), horizons=(8,), plans=(1,), size=16, repeats=2, num_envs=(1, 3),
        precision=("none", "float32"),
    )  # fmt: skip
    rows = [row for row in settings.measure() if row["kind"] in ("decisions", "outside")]
    of = [(row["preset"], row["kind"], row["batch"]) for row in rows]
    both = [(kind, count) for count in (1, 3) for kind in ("decisions", "outside")]
    assert of == [(name, *each) for name in ("small", "small in float32") for each in both]
    assert all(0 < row["outside"] < 1 for row in rows if row["kind"] == "outside")
    assert all(row["per_second"] > 0 and row["n"] == 2 for row in rows[::2])


def test_checkpoint() -> None:
    model = Imagination().load_model("traveling-salesman")
    assert model.spec.observation == (3, 32, 32) and not model.training


def test_bad_input() -> None:
    with pytest.raises(
        ValueError, match="horizons, plans, worlds, repeats, num_envs: expected at least 1"
    ):
        Imagination(horizons=(0,), plans=(1,)).compare({"m": steady()})
    with pytest.raises(ValueError, match="9 steps leave the window of m; expected at most 8"):
        Imagination(horizons=(9,), plans=(1,)).compare({"m": steady()})
    with pytest.raises(ValueError, match="m looks from camera poses"):
        posed = steady(ActionSpec("none"), pose=7)
        Imagination(horizons=(1,), plans=(1,)).compare({"m": posed})
