"""Legal actions that are learned from recorded masks."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from masked_envs import Bits, Cards, CardsBySuit, masked_replay

from agents import (
    Cem,
    CemConfig,
    ImaginedVecEnv,
    KnownFunctions,
    LegalActions,
    LegalActionsConfig,
    RoundsConfig,
    evaluate,
    train_dyna,
)
from worldmodel import Episodes, collect, make

QUICK = LegalActionsConfig(steps=300, width=32, learning_rate=3e-3)


class CardsOnTable(Cards):
    """The hand as an image, a white column for each card that is left; or that and the turn."""

    def __init__(self, turn: bool = False) -> None:
        super().__init__()
        self.turn = turn
        image = gym.spaces.Box(0, 255, (16, 16, 1), np.uint8)
        parts = {"0.hand": image, "turn": gym.spaces.Box(0, 4, (1,), np.float32)}
        self.observation_space: Any = gym.spaces.Dict(parts) if turn else image

    def table(self) -> Any:
        image = np.tile(np.repeat(self.hand, 4) * 255, (16, 1)).astype(np.uint8)[..., None]
        return {"turn": 4 - self.hand.sum(keepdims=True), "0.hand": image} if self.turn else image

    def reset(self, **arguments: Any) -> Any:
        return self.table(), super().reset(**arguments)[1]

    def step(self, action: Any) -> Any:
        _, *rest = super().step(action)
        return self.table(), *rest


@pytest.fixture(scope="module")
def played() -> Episodes:
    return collect(Cards(), 60, progress=False)


@pytest.fixture(scope="module")
def legal(played: Episodes) -> LegalActions:
    return LegalActions.fit(played, QUICK)


@pytest.mark.parametrize(
    "kind", [Cards, CardsBySuit, CardsOnTable, partial(CardsOnTable, turn=True)]
)
def test_masks_are_learned(kind: Any) -> None:
    episodes, unseen = (collect(kind(), 60, seed=seed, progress=False) for seed in (0, 1000))
    legal, spec = LegalActions.fit(episodes, QUICK), episodes.spec(1)
    assert legal.accuracy == legal.exact == 1
    for episode in unseen:
        assert episode.masks is not None
        observations = spec.to_model(torch.from_numpy(episode.observations[:-1]))
        masks = legal(spec.split(observations))
        assert masks.dtype == torch.bool and masks.tolist() == episode.masks[:-1].tolist()


@pytest.mark.parametrize("kind", [Cards, CardsBySuit, Bits])
def test_something_is_always_legal(kind: type[Cards]) -> None:
    """Of each entry, also where nothing ever was."""
    spec = collect(kind(), 2, progress=False).spec(1)
    legal = LegalActions(spec, QUICK)
    with torch.no_grad():
        legal.net.head[-1].bias.fill_(-100.0)  # type: ignore[operator, union-attr]
    masks = legal(torch.rand(5, 4))
    for entry in masks.split(spec.action.choices, 1):
        assert (entry.sum(1) == 1).all()


def test_the_accuracy_is_that_of_episodes_held_out() -> None:
    """Masks by chance: half of the choices are judged rightly, and there is a warning."""

    class Chance(Cards):
        def action_masks(self) -> np.ndarray:
            return self.np_random.random(4) > 0.5

        def step(self, action: Any) -> Any:
            return np.zeros(4, np.float32), 0.0, False, self.np_random.random() < 0.05, {}

    episodes = collect(Chance(), 60, policy=lambda _: 0, progress=False)
    with pytest.warns(UserWarning, match=r"LegalActions: .*%.* below warn_below = 99.00%; train"):
        legal = LegalActions.fit(episodes, replace(QUICK, held_out=0.5))
    assert abs(legal.accuracy - 0.5) < 0.1 and legal.exact < 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LegalActions.fit(episodes, replace(QUICK, held_out=1.0, warn_below=0.1, steps=1))


def test_ends_teach_nothing_and_cuts_do(played: Episodes) -> None:
    """At an end that terminated masks say nothing: here that all is legal, or nothing is."""
    ends = []
    for episode in played:
        assert episode.masks is not None and not episode.masks[-1].any()
        masks = np.concatenate([episode.masks[:-1], np.ones((1, 4), bool)])
        ends.append(replace(episode, masks=masks))
    cuts = [replace(episode, terminated=False) for episode in ends]
    nothing = [replace(episode, terminated=False) for episode in played]
    masks = []
    for episodes in (ends, cuts, nothing):
        legal = LegalActions.fit(Episodes(episodes, played.action), QUICK)
        assert legal.accuracy == 1
        masks.append(legal(torch.zeros(1, 4)))
    assert not masks[0].all() and masks[1].all() and not masks[2].all()


def test_planners_are_legal_by_learned_masks(legal: LegalActions) -> None:
    known = KnownFunctions(action_mask=legal)
    agent = Cem(masked_replay(Cards), CemConfig(plans=60, worlds=1, horizon=4), known=known)
    agent.predict(np.ones((1, 4), np.float32))
    assert agent.last is not None
    assert all(sorted(plan) == [0, 1, 2, 3] for plan in agent.last.actions[0].tolist())
    assert float(evaluate(agent, Cards, 1)[0]) == 20


def test_imagined_environments_have_learned_masks(legal: LegalActions, played: Episodes) -> None:
    known = KnownFunctions(action_mask=legal)
    venv = ImaginedVecEnv(masked_replay(Cards), np.ones((1, 4), np.float32), 3, known=known)
    venv.reset()
    assert venv.has_attr("action_masks") and venv.action_masks().all()
    venv.step(np.array([0, 1, 2]))
    assert (~venv.action_masks()).nonzero()[1].tolist() == [0, 1, 2]
    again = pickle.loads(pickle.dumps(known))
    assert again.action_mask(torch.ones(1, 4)).all()


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_dyna_takes_learned_masks(tmp_path: Path, legal: LegalActions, played: Episodes) -> None:
    """And resumes with it: a network is a setting that JSON names by its class."""
    config = RoundsConfig(
        0, 0, num_envs=2, first_collect_steps=4, collect_steps=4, imagined_steps=8
    )
    run: dict[str, Any] = {
        "model": make("jump", played.spec(4)), "env": partial(Cards, strict=False),
        "config": config, "known": KnownFunctions(action_mask=legal), "folder": tmp_path,
        "n_steps": 4,
    }  # fmt: skip
    train_dyna(real_steps=4, **run)
    assert len(train_dyna(real_steps=8, **run, resume=True).rounds) == 2


def test_files(tmp_path: Path, legal: LegalActions) -> None:
    """Also in the folder of a model."""
    read = LegalActions.load(legal.save(tmp_path))
    observations = torch.rand(50, 4)
    assert torch.equal(read(observations), legal(observations))
    assert (read.accuracy, read.exact, read.config) == (1.0, 1.0, legal.config)
    fresh = LegalActions(legal.spec, QUICK)
    assert np.isnan(LegalActions.load(fresh.save(tmp_path / "fresh")).accuracy)
    settings = tmp_path / "legal_actions.json"
    facts = json.loads(settings.read_text())
    for change, message in (
        ({"format": 9}, "format 9; this version reads 1"),
        ({"config": {"width": 64}}, r"head.0.weight is \(32, 4\), expected \(64, 4\)"),
        ({"config": {"width": 10**12}}, "settings do not fit"),
        ({"config": {"wide": 1}}, "settings do not fit: LegalActionsConfig has no 'wide'"),
        ({"spec": []}, "settings do not fit: spec: expected a JSON object"),
        ({"accuracy": []}, "settings do not fit"),
    ):
        settings.write_text(json.dumps({**facts, **change}))
        with pytest.raises(ValueError, match=message):
            LegalActions.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="LegalActions.save makes it"):
        LegalActions.load(tmp_path / "nowhere")


def test_what_cannot_be_learned_is_refused(legal: LegalActions, played: Episodes) -> None:
    without = [replace(episode, masks=None) for episode in played]
    with pytest.raises(ValueError, match="episodes: hold no action masks; collect records them"):
        LegalActions.fit(Episodes(without, played.action))
    with pytest.raises(ValueError, match="episodes: expected at least 2, one to train"):
        LegalActions.fit(Episodes([played[0]], played.action))
    with pytest.raises(ValueError, match="spec: masks are for Discrete, .*of which all are legal"):
        LegalActions(collect("Pendulum-v1", 1, max_steps=2, progress=False).spec(1), QUICK)
    with pytest.raises(ValueError, match=r"observations: .*made for \('P', 4\), got \(3, 5\)"):
        legal(torch.ones(3, 5))
    with pytest.raises(TypeError, match="observations: expected a torch tensor, got ndarray"):
        legal(np.ones((3, 4)))
    with pytest.raises(ValueError, match="held_out: expected above 0 and at most 1, got 0"):
        LegalActionsConfig(held_out=0.0)
