"""Training ends when what is held out is predicted no better; the best weights are taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from worldmodel import ActionSpec, Episode, Episodes, fit, make
from worldmodel.models.frame_by_frame.ensemble import Ensemble
from worldmodel.models.frame_by_frame.ensemble_config import EnsembleConfig
from worldmodel.training.early_stopping import EarlyStopping

CONFIG = EnsembleConfig(
    members=2, elites=1, layers=1, hidden=16, head_hidden=8, weight_decay=(0.0, 0.0)
)
QUIET: dict[str, Any] = {"progress": False}


def noise(episodes: int = 10, steps: int = 12, seed: int = 0) -> Episodes:
    """Nothing can be learned: what a member learns of the noise, it is wrong about elsewhere."""
    random = np.random.default_rng(seed)
    made = [
        Episode(
            random.normal(size=(steps + 1, 2)).astype(np.float32),
            random.integers(2, size=steps),
            random.normal(size=steps).astype(np.float32),
            terminated=False,
        )
        for _ in range(episodes)
    ]
    return Episodes(made, ActionSpec("discrete", (), (2,)))


def fresh(episodes: Episodes) -> Ensemble:
    model = make("ensemble", episodes.spec(8), CONFIG)
    assert isinstance(model, Ensemble)
    return model


class Scripted(nn.Module):
    """Weights that count measurements, and errors as they are scripted."""

    def __init__(self, first: list[list[float]], second: list[list[float]]) -> None:
        super().__init__()
        self.one = nn.Linear(1, 2, bias=False)
        self.two = nn.Linear(1, 2, bias=False)
        self.script, self.ranked = iter(zip(first, second, strict=True)), torch.zeros(2)
        self.device = torch.device("cpu")

    def holdout_errors(self, scenes: Any, generator: Any) -> dict[str, torch.Tensor]:
        first, second = next(self.script)
        with torch.no_grad():
            self.one.weight += 1
            self.two.weight += 1
        return {"one": torch.tensor(first), "two": torch.tensor(second)}

    def calibrate(self, errors: dict[str, torch.Tensor], scenes: Any) -> None:
        assert len(list(scenes)) == 1
        self.ranked = errors["one"] + errors["two"]


class Once:
    """A recorded source of one batch."""

    action_space = None

    def batch(self, index: int) -> Any:
        return noise(1).windows(1, 4).batch(0)

    def sweep(self, steps: int) -> Any:
        yield self.batch(0)


def test_each_member_and_part_has_its_own_best_weights() -> None:
    first = [[1.0, 1.0], [0.5, 2.0], [0.6, 0.999], [0.6, 3.0]]
    second = [[4.0, 4.0], [4.0, 5.0], [5.0, 5.0], [3.99, 5.0]]
    model = Scripted(first, second)
    model.one.weight.data.zero_(), model.two.weight.data.zero_()
    stopping = EarlyStopping(model, Once(), every=1, patience=2, seed=0)  # type: ignore[arg-type]
    means = [stopping.measure() for _ in range(2)]
    assert means == [5.0, 5.75] and stopping.waited == 0 and not stopping.over
    stopping.measure()
    stopping.measure()  # 3.99 is better than 4, and so is 0.999 than 1, but not by 1%
    assert stopping.waited == 2 and stopping.over
    stopping.apply()
    assert model.one.weight.flatten().tolist() == [2.0, 3.0]
    assert model.two.weight.flatten().tolist() == [4.0, 1.0]
    torch.testing.assert_close(model.ranked, torch.tensor([0.5 + 3.99, 0.999 + 4.0]))
    with pytest.raises(ValueError, match="holdout_every, patience: expected at least 1, got 0"):
        EarlyStopping(model, Once(), every=0, patience=1, seed=0)  # type: ignore[arg-type]


def test_fit_stops_early_and_says_so(tmp_path: Path) -> None:
    episodes = noise()
    model = fresh(episodes)
    settings: dict[str, Any] = {"folder": tmp_path, "holdout_every": 5, "patience": 3, **QUIET}
    losses = fit(model, episodes, 2000, **settings)
    assert losses["holdout"] > 0
    weights = [weight.clone() for weight in model.parameters()]
    again = fresh(episodes)
    assert fit(again, episodes, 2000, resume=True, **settings) == {}  # it was complete
    assert all(map(torch.equal, weights, again.parameters()))
    assert torch.equal(model.elites, again.elites)


def test_a_resumed_run_has_the_same_best_weights(tmp_path: Path) -> None:
    episodes = noise()
    settings: dict[str, Any] = {"holdout_every": 4, "patience": 50, "log_every": 10, **QUIET}
    whole = fresh(episodes)
    fit(whole, episodes, 40, **settings)

    def stop(progress: Any) -> None:
        if progress.step == 20:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    part = fresh(episodes)
    with pytest.raises(KeyboardInterrupt):
        fit(part, episodes, 40, folder=tmp_path, callbacks=[stop], **settings)
    part = fresh(episodes)
    fit(part, episodes, 40, folder=tmp_path, resume=True, **settings)
    assert all(map(torch.equal, whole.parameters(), part.parameters()))


def test_errors_of_another_file_are_refused() -> None:
    episodes = noise()
    model = fresh(episodes)
    stopping = EarlyStopping(model, episodes.windows(1, 8), 1, 5, 0)
    good = {"dynamics": torch.ones(2), "head": torch.ones(2)}
    with pytest.raises(ValueError, match="holdout: errors .* and levels .* differ"):
        stopping.restore([], good, {"dynamics": torch.ones(2)}, 0)
    weights = [weight.detach().clone() for weight in model.parameters()]
    stopping.restore(weights, {"head": torch.ones(2)}, {"head": torch.ones(2)}, 0)
    with pytest.raises(ValueError, match="holdout: expected errors .* the training state has"):
        stopping.measure()


def test_other_models_stop_by_their_loss() -> None:
    """Any model, with any source of what is held out."""
    episodes = noise(20)
    model = make("jump", episodes.spec(8), "vector")
    training, held = episodes.split(0.5)
    settings: dict[str, Any] = {"holdout_every": 1, "patience": 1, **QUIET}
    losses = fit(model, training.windows(8, 4), 50, holdout=held.windows(8, 4), **settings)
    assert losses["holdout"] > 0
    with pytest.raises(ValueError, match="ema: with a holdout the best weights are taken"):
        fit(model, training, 5, holdout=held.windows(8, 4), ema=0.9, **QUIET)


def test_what_is_held_out_stays_so_when_episodes_are_added() -> None:
    few, more = noise(10), noise(10) + noise(15, seed=1)
    training, held = few.hold_out(0.2)
    assert len(training) == 8 and len(held) == 2
    _, later = more.hold_out(0.2)
    assert [e.observations[0, 0] for e in later][:2] == [e.observations[0, 0] for e in held]
    one = noise(1, steps=23)
    training, held = one.hold_out(0.25)
    assert training.steps + held.steps == 23 and len(training) == 3
    assert np.array_equal(held[0].observations[-1], one[0].observations[-1])
    with pytest.raises(ValueError, match="episodes: expected at least 5 steps, to hold out 0.2"):
        noise(1, steps=4).hold_out(0.2)
    with pytest.raises(ValueError, match="share: expected above 0 and at most 0.5, got 0.7"):
        few.hold_out(0.7)


@pytest.mark.parametrize("ending", [{0, 3}, {4}, {0, 4}])
def test_where_ends_are_few_both_sets_have_them(ending: set[int]) -> None:
    """Of five episodes the last is held out."""
    whole = noise(5, steps=6)
    episodes = Episodes(
        [replace(episode, terminated=number in ending) for number, episode in enumerate(whole)],
        whole.action, whole.observation_space, whole.env_id,
    )  # fmt: skip
    sets = episodes.hold_out(0.2)
    ends = [sum(episode.terminated for episode in each) for each in sets]
    assert ends == ([1, 1] if len(ending) == 2 and 4 in ending else [len(ending)] * 2)
    if 4 not in ending:  # the ends of both training episodes are copied to what is held out
        last = [episode.observations[-2:] for episode in episodes if episode.terminated]
        assert all(map(np.array_equal, [e.observations for e in sets[1]][1:], last))


def test_sources_are_told_apart() -> None:
    episodes = noise()
    model = fresh(episodes)
    with pytest.raises(TypeError, match="source: expected Episodes, or a source"):
        fit(model, list(episodes), 5, **QUIET)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size: is for Episodes, got 8"):
        fit(model, episodes.windows(1, 4), 5, batch_size=8, **QUIET)
