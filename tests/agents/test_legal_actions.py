"""Action masks: in random play, planners and imagined environments."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import FakeModel, frames
from masked_envs import Bits, Cards, CardsBySuit, masked_replay
from tiny_envs import Aim, replay
from torch import Tensor

from agents import (
    Cem,
    CemConfig,
    ImaginedVecEnv,
    KnownFunctions,
    Mppi,
    MppiConfig,
    Planner,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    RecordEpisodes,
    TreeSearch,
    TreeSearchConfig,
    evaluate,
)
from agents.evaluation import play
from agents.legal_actions import by_entry, make_legal
from worldmodel import ActionSpec


def in_hand(observations: Tensor) -> Tensor:
    return observations > 0.5


def by_suit(observations: Tensor) -> Tensor:
    suits = torch.tensor([True, False]).expand(len(observations), 2)
    return torch.cat([suits, observations > 0.5], 1)


CARDS = KnownFunctions(action_mask=in_hand)
SUITS = KnownFunctions(action_mask=by_suit)
PLANNERS: dict[str, tuple[Any, Any, int]] = {
    "random": (RandomShooting, RandomShootingConfig, 200),
    "cem": (Cem, CemConfig, 60),
    "mppi": (Mppi, MppiConfig, 60),
    "tree": (TreeSearch, TreeSearchConfig, 100),
}
EVERY = pytest.mark.parametrize("name", PLANNERS)


def planner(name: str, kind: type[Cards], known: KnownFunctions | None, **options: Any) -> Planner:
    planner_type, config, plans = PLANNERS[name]
    settings = {"plans": plans, "worlds": 1, "horizon": 4, **options}
    made: Planner = planner_type(masked_replay(kind), config(**settings), known=known)
    return made


# -- choices --------------------------------------------------------------------------------------


def test_masks_are_split_by_entry() -> None:
    spec = ActionSpec.from_space(gym.spaces.MultiDiscrete([2, 3]))
    masks = torch.tensor([[True, False, False, True, True]])
    assert by_entry(spec, masks).tolist() == [[[True, False, False], [False, True, True]]]


@pytest.mark.parametrize(
    "space",
    [gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([2, 3]), gym.spaces.MultiBinary(3)],
)
def test_legal_choices_stay_and_others_are_uniform(space: gym.Space[Any]) -> None:
    spec, generator = ActionSpec.from_space(space), torch.Generator().manual_seed(0)
    count = 3000
    masks = torch.ones(count, sum(spec.choices), dtype=torch.bool)
    masks[:, 0] = False  # the first choice of the first entry
    actions = torch.zeros(count, *spec.shape)
    actions[: count // 2] = torch.tensor(space.sample() if spec.shape else 3)
    if spec.shape:
        actions[: count // 2, 0] = 1
    made, legal = make_legal(spec, actions, masks, generator)
    assert legal.tolist() == [True] * (count // 2) + [False] * (count // 2)
    assert torch.equal(made[: count // 2], actions[: count // 2])
    first = made.reshape(count, -1)[count // 2 :, 0]
    others = first.long().bincount(minlength=spec.choices[0])[1:] / (count // 2)
    torch.testing.assert_close(others, torch.full_like(others, 1 / len(others)), atol=0.04, rtol=0)
    if spec.shape:  # the other entries stay
        assert torch.equal(made[:, 1:], actions[:, 1:])


def test_choices_may_start_elsewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = np.tile([False, True, False], (50, 1))
    spec = ActionSpec.from_space(gym.spaces.Discrete(3, start=5))
    made, legal = make_legal(spec, torch.full((50,), 7), torch.tensor(masks), generator)
    assert made.tolist() == [6] * 50 and not legal.any()
    agent = RandomAgent(gym.spaces.MultiDiscrete([3], start=[-1]))
    actions, _ = agent.predict(np.zeros((50, 2), np.float32), action_masks=masks)
    assert actions.tolist() == [[0]] * 50


# -- random play ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Cards, CardsBySuit, Bits])
def test_random_agents_play_legally(kind: type[Cards]) -> None:
    """Without masks an illegal action is an error of the environment."""
    agent = RandomAgent(kind.action_space)
    assert len(evaluate(agent, kind, 40)) == 40
    for seed in range(10):
        play(kind(), agent, seed, 4)
    recorder = RecordEpisodes(kind())
    _, actions, _ = play(recorder, agent, 0, 4)
    episode = recorder.episodes()[0]
    assert episode.masks is not None and len(episode.masks) == len(actions) + 1
    assert episode.masks[0].tolist() == kind().action_masks().astype(bool).tolist()


def test_random_agents_are_uniform_among_the_legal() -> None:
    agent = RandomAgent(gym.spaces.Discrete(4))
    masks = np.tile([False, True, False, True], (2000, 1))
    actions, _ = agent.predict(np.zeros((2000, 4), np.float32), action_masks=masks)
    assert set(actions.tolist()) == {1, 3} and abs((actions == 1).mean() - 0.5) < 0.05
    one, _ = agent.predict(np.zeros(4, np.float32), action_masks=masks[0])
    assert one.shape == () and int(one) in (1, 3)


# -- planners -------------------------------------------------------------------------------------


@EVERY
def test_planners_without_masks_are_tempted(name: str) -> None:
    """So the tests below show something."""
    agent = planner(name, Cards, None)
    agent.predict(np.ones((1, 4), np.float32))
    assert agent.last is not None and len(set(agent.last.chosen[0].tolist())) < 4


@EVERY
@pytest.mark.parametrize(("kind", "known"), [(Cards, CARDS), (CardsBySuit, SUITS)])
@pytest.mark.parametrize("option", [{}, {"worlds": 2, "coarse": 1}])
def test_planners_play_legally_and_best(
    name: str, kind: type[Cards], known: KnownFunctions, option: dict[str, Any]
) -> None:
    agent = planner(name, kind, known, **option)
    assert float(evaluate(agent, kind, 1)[0]) == 0 * 1 + 1 * 2 + 2 * 3 + 3 * 4


@EVERY
def test_all_decisions_of_plans_are_legal(name: str) -> None:
    agent = planner(name, Cards, CARDS)
    agent.predict(np.ones((1, 4), np.float32))
    assert agent.last is not None
    plans, scores = agent.last.actions[0], agent.last.scores[0]
    whole = [sorted(plan) == [0, 1, 2, 3] for plan in plans.tolist()]
    assert whole == np.isfinite(scores).tolist()  # a tree has illegal branches, never chosen
    assert all(whole) or name == "tree"


@EVERY
def test_the_environments_masks_are_enough_for_the_first_action(name: str) -> None:
    agent = planner(name, Cards, None)
    assert evaluate(agent, Cards, 2).shape == (2,)  # Cards is strict
    masks = np.array([[False, False, True, False], [True, False, False, False]])
    actions, _ = agent.predict(np.ones((2, 4), np.float32), action_masks=masks)
    assert actions.tolist() == [2, 0]
    one, _ = agent.predict(np.ones(4, np.float32), action_masks=masks[0])
    assert int(one) == 2


def test_held_actions_are_judged_where_they_begin() -> None:
    times = []

    def mask(observations: Tensor) -> Tensor:
        times.append((observations[:, 0, -1, -1] * 25.5).round().tolist())
        return torch.tensor([[False, True, False, False]]).expand(len(observations), 4)

    config = RandomShootingConfig(plans=3, worlds=1, horizon=3, hold=2, hold_later=3)
    agent = RandomShooting(FakeModel(), config, known=KnownFunctions(action_mask=mask))
    action, _ = agent.predict(frames(0))
    assert action.tolist() == [1]
    assert times == [[0.0], [2.0] * 3, [5.0] * 3]  # every step adds 1


def test_what_is_no_mask_is_refused() -> None:
    agent = planner("cem", Cards, None)
    observation = np.ones((1, 4), np.float32)
    with pytest.raises(ValueError, match=r"action_masks: expected action masks bool \(1, 4\)"):
        agent.predict(observation, action_masks=np.ones((1, 5), bool))
    with pytest.raises(ValueError, match="action_masks: expected action masks of True and False"):
        agent.predict(observation, action_masks=np.full((1, 4), 2))
    with pytest.raises(ValueError, match="action_masks: no action is legal in row 0"):
        agent.predict(observation, action_masks=np.zeros((1, 4), bool))
    with pytest.raises(ValueError, match="known: action_mask is for Discrete, .*leave it away"):
        Cem(replay(Aim), known=CARDS)
    with pytest.raises(ValueError, match="action_masks: masks are for Discrete, .*leave them away"):
        Cem(replay(Aim)).predict(np.zeros((1, 2), np.float32), action_masks=np.ones((1, 1)))


def test_models_of_strides_see_masks_between_strides() -> None:
    class Strided(FakeModel):
        stride = 2

    known = KnownFunctions(
        action_mask=lambda x: torch.ones(len(x), 4, dtype=torch.bool, device=x.device)
    )
    with pytest.raises(ValueError, match="hold: fake takes 2 .* multiple of that, got 1 and later"):
        Cem(Strided(), CemConfig(horizon=4), known=known)
    agent = Cem(Strided(), CemConfig(horizon=4, hold=2), known=known)
    agent.predict(frames(1))


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: x, TypeError, "known.action_mask: expected bool, got torch.float32; compare"),
        (lambda x: x[:, :2] > 0, ValueError, r"known.action_mask: expected bool \(1, 4\)"),
        (lambda x: x > 1, ValueError, "no action is legal in row 0; .*ended the episode"),
    ],
)
def test_mask_functions_are_checked(function: Any, error: type[Exception], message: str) -> None:
    agent = planner("random", Cards, KnownFunctions(action_mask=function))
    with pytest.raises(error, match=message):
        agent.predict(np.ones((1, 4), np.float32))
    venv = imagined(KnownFunctions(action_mask=function), 1)
    venv.reset()
    with pytest.raises(error, match=message):
        venv.action_masks()


# -- imagined environments ------------------------------------------------------------------------


def imagined(known: KnownFunctions | None = CARDS, count: int = 3, **kwargs: Any) -> ImaginedVecEnv:
    start = np.ones((1, 4), np.float32)
    return ImaginedVecEnv(
        masked_replay(Cards), start, count, known=known, **{"stagger": False, **kwargs}
    )


def test_imagined_masks_follow_the_observations() -> None:
    venv = imagined()
    venv.reset()
    assert venv.action_masks().dtype == np.bool_ and venv.action_masks().all()
    venv.step(np.array([0, 1, 2]))
    assert (~venv.action_masks()).nonzero()[1].tolist() == [0, 1, 2]
    assert [mask.tolist() for mask in venv.env_method("action_masks", indices=[1])] == [
        [True, False, True, True]
    ]
    assert venv.has_attr("action_masks")
    for cards in ([1, 2, 3], [2, 3, 0], [3, 0, 1]):
        venv.step(np.array(cards))
    assert venv.action_masks().all()  # a new episode


def test_without_the_function_there_are_none() -> None:
    venv = imagined(None)
    venv.reset()
    assert not venv.has_attr("action_masks")
    with pytest.raises(AttributeError, match=r"models do not learn them; give .*action_mask="):
        venv.action_masks()
    with pytest.raises(AttributeError, match="models do not learn them"):
        venv.env_method("action_masks")
    imagined(KnownFunctions(action_mask=in_hand))  # follows the advice


def test_chunks_have_no_masks() -> None:
    with pytest.raises(ValueError, match="chunk: .*leave chunk away"):
        imagined(chunk=True, hold=2)
    imagined(hold=2)


def test_maskable_ppo_learns_in_imagination() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
    from stable_baselines3.common.vec_env import VecMonitor

    venv = VecMonitor(imagined(count=8))
    assert is_masking_supported(venv)
    venv.reset()
    assert get_action_masks(venv).shape == (8, 4)
    agent = contrib.MaskablePPO(
        "MlpPolicy", venv, n_steps=16, batch_size=64, learning_rate=3e-3, gamma=1.0, seed=0,
        device="cpu",
    )  # fmt: skip
    agent.learn(3000)
    # An illegal card is an error in the real environment, and pays 50 in imagination.
    assert max(info["r"] for info in agent.ep_info_buffer) <= 20
    assert evaluate(agent, partial(Cards, strict=True), 1).item() >= 17
