"""Rewards and ends that are known as functions, in place of a model's heads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import FakeModel, FrameByFrameFake, frame, frames
from dict_envs import Camera, Reach
from dyna_fakes import LineEnv, LineModel
from stable_baselines3 import SAC
from tiny_envs import Oven, Treasure, optimum, replay
from torch import Tensor

from agents import (
    Cem,
    CemConfig,
    DynaCallback,
    DynaConfig,
    HoldAction,
    Imagination,
    ImaginedVecEnv,
    KnownFunctions,
    Mppi,
    MppiConfig,
    RandomShooting,
    RandomShootingConfig,
    RecordEpisodes,
    RoundsConfig,
    TreeSearch,
    TreeSearchConfig,
    evaluate,
    goal_reward,
    train_dyna,
    train_in_imagination,
)
from worldmodel import ActionSpec, Spec, make
from worldmodel.models.baselines.replay import ReplayConfig

# -- what the true functions of two tiny environments are -----------------------------------------


def treasure(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    assert observation.dtype == torch.float32 and action.dtype == torch.int64
    return (following[:, 0] == -1) * 1.0 + (following[:, 0] == 3) * 10.0


def oven_reward(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return torch.where(action == 1, 2.0, 0.5)


def oven_end(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return following[:, 0] >= 4


def moved(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return (following - observation)[:, 0].double()  # any dtype will do


OVEN = KnownFunctions(oven_reward, oven_end)
PLANS = np.array([[[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 1]]])


def test_true_functions_score_as_true_heads_do() -> None:
    model = replay(Oven)
    scores = []
    for known in (None, OVEN, KnownFunctions(oven_reward), KnownFunctions(terminated=oven_end)):
        imagination = Imagination(model, known=known)
        imagination.reset(np.zeros((1, 2), np.float32))
        scores.append(imagination.score(imagination.worlds(2), PLANS, discount=0.9))
    for score in scores[1:]:
        torch.testing.assert_close(score, scores[0])
    assert scores[0][0, 0].item() == pytest.approx(2 + 0.9 * 2)  # the second step ends it


def test_the_heads_are_not_used() -> None:
    """The heads of this model pay 1 for the wanted action; the functions pay what they say."""
    twice = KnownFunctions(lambda before, action, after: 2.0 * action)
    imagination = Imagination(FakeModel(), known=twice)
    imagination.reset(frames(1))
    worlds = imagination.worlds(3)
    assert imagination.score(worlds, np.array([[[1, 2], [3, 3]]])).tolist() == [[6.0, 12.0]]
    answer = imagination.predict(worlds, [0, 1, 2], np.array([[[1, 2]]]))
    assert answer.rewards[0, 0, 0].tolist() == [0, 2, 4]
    assert answer.observations is not None and answer.observations.shape[3] == 3
    assert float(answer.observations[0, 0, 0, 2, 0, -1, -1]) == pytest.approx(3 / 25.5)


def test_images_are_as_models_take_them() -> None:
    shapes = []

    def grey(before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        shapes.append(before.shape[1:])
        assert float(before.min()) >= 0 and float(after.max()) <= 1
        return after[:, 0, -1, -1] * 25.5

    imagination = Imagination(FakeModel(), known=KnownFunctions(grey))
    imagination.reset(np.stack([frame(0, level=5)]))
    score = imagination.score(imagination.worlds(1), np.array([[[1, 3]]]))
    assert shapes == [(3, 32, 32)]
    assert score.item() == pytest.approx(6 + 9, abs=0.1)


def test_the_first_observation_is_the_observed_one() -> None:
    given = []

    def first(before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        given.append(before[:, 0, 0, 0])
        return action

    imagination = Imagination(FakeModel(), known=KnownFunctions(first))
    imagination.reset(frames(7, 9))
    worlds = imagination.worlds(2)
    imagination.score(worlds, np.ones((2, 1, 1), np.int64))
    torch.testing.assert_close(given[0] * 255, torch.tensor([7.0, 7.0, 9.0, 9.0]))
    moved_on = imagination.model.advance(worlds, torch.ones(2, 1, dtype=torch.int64))
    imagination.score(moved_on, np.ones((2, 1, 1), np.int64))  # the model shows these
    torch.testing.assert_close(given[1] * 255, torch.tensor([7.0, 7.0, 9.0, 9.0]))


def test_scenes_of_different_presents() -> None:
    imagination = Imagination(replay(Oven), known=OVEN)
    imagination.reset(np.zeros((2, 2), np.float32))
    imagination.observe([[1]], np.array([[2, 1]], np.float32), rows=[1])
    scores = imagination.score(imagination.worlds(1), np.repeat([[[1, 0, 0, 0, 0, 0]]], 2, 0))
    assert scores.tolist() == [[4.5], [2.0]]  # the first six steps; the second ends at once


@pytest.mark.parametrize("kind", [FakeModel, FrameByFrameFake])
def test_held_actions_of_imagined_episodes(kind: Any) -> None:
    """A reward and an end at every step of a decision, in every world."""
    known = KnownFunctions(
        lambda before, action, after: (after - before)[:, 0, -1, -1] * 25.5,
        lambda before, action, after: after[:, 0, -1, -1] * 25.5 > 4.5,
    )
    model = kind(seen=False)
    venv = ImaginedVecEnv(model, frames(0), 2, hold=2, horizon=4, worlds=3, known=known)
    venv.reset()
    _, rewards, dones, infos = venv.step(np.array([1, 3]))
    np.testing.assert_allclose(rewards, [2, 6], atol=0.05)
    assert dones.tolist() == [False, True]
    assert [info["disagreement"] for info in infos] == pytest.approx([0, 0], abs=0.05)
    observations, rewards, dones, _ = venv.step(np.array([2, 1]))
    np.testing.assert_allclose(rewards, [4, 2], atol=0.05)
    assert dones.tolist() == [True, False] and observations[1, -1, -1, 0] == 20


def test_steps_after_the_end_pay_nothing() -> None:
    venv = ImaginedVecEnv(
        replay(Oven), np.zeros((1, 2), np.float32), 1, hold=3, horizon=2, known=OVEN
    )
    venv.reset()
    _, rewards, dones, _ = venv.step(np.array([1]))
    assert rewards.tolist() == [4.0] and dones.tolist() == [True]


PLANNERS = {
    "random": (RandomShooting, RandomShootingConfig(plans=200, worlds=1, horizon=4)),
    "cem": (Cem, CemConfig(plans=60, worlds=1, horizon=4)),
    "mppi": (Mppi, MppiConfig(plans=60, worlds=1, horizon=4)),
    "tree": (TreeSearch, TreeSearchConfig(plans=100, worlds=1, horizon=4)),
}


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_do_what_the_functions_pay(name: str) -> None:
    """The model's heads pay for a treasure; the function for staying on the left."""
    kind, config = PLANNERS[name]
    model, real = replay(Treasure), partial(gym.make, "TinyTreasure-v0")
    paid = kind(model, config, known=KnownFunctions(treasure))
    assert float(evaluate(paid, real, 1)[0]) == optimum(Treasure()) == 20
    left = kind(model, config, known=KnownFunctions(lambda *step: -step[2][:, 0]))
    assert float(evaluate(left, real, 1)[0]) == 4


class Line(LineEnv):
    def __init__(self) -> None:
        super().__init__(limit=100.0)


def seven(before: Tensor, action: Tensor, after: Tensor) -> Tensor:
    return 7.0 + 0 * action[:, 0]


FEW: dict[str, Any] = {"first_fit_steps": 0, "fit_steps": 0, "num_envs": 2, "horizon": 2}
PPO = {"n_steps": 4, "batch_size": 8, "n_epochs": 1, "device": "cpu"}


def test_dyna_learns_from_the_functions() -> None:
    recorder = RecordEpisodes(Line())
    agent = SAC("MlpPolicy", HoldAction(recorder, 1), buffer_size=400, learning_starts=8)
    config = DynaConfig(start=16, every=16, branches=4, **FEW)
    dyna = DynaCallback(LineModel(0.0), recorder, config, KnownFunctions(seven))
    agent.learn(48, callback=dyna)
    rewards = dyna.transitions.whole()["rewards"][""]
    assert (rewards == 7).all() and len(rewards) > 4 * 16


def test_ppo_learns_from_the_functions() -> None:
    known = KnownFunctions(seven)
    rounds = RoundsConfig(first_collect_steps=8, imagined_steps=32, **FEW)
    result = train_dyna(LineModel(0.0), Line, 8, rounds, known=known, progress=False, **PPO)
    assert result.rounds[0].imagined_return == pytest.approx(14, abs=1)  # some are cut short
    ppo = train_in_imagination(
        LineModel(0.0), np.zeros((1, 1), np.float32), 64, 4, horizon=2,
        imagination={"known": known}, **PPO,
    )  # fmt: skip
    assert ppo.ep_info_buffer and ppo.ep_info_buffer[-1]["r"] == pytest.approx(14)


def test_a_run_goes_on_only_with_the_same_functions(tmp_path: Path) -> None:
    rounds = RoundsConfig(first_collect_steps=8, collect_steps=4, imagined_steps=8, **FEW)
    run = partial(train_dyna, LineModel(0.0), Line, config=rounds, folder=tmp_path, **PPO)
    run(8, known=KnownFunctions(seven), progress=False)
    with pytest.raises(ValueError, match="resume: .*known: .*seven"):
        run(12, known=KnownFunctions(moved), resume=True, progress=False)
    run(12, known=KnownFunctions(seven), resume=True, progress=False)


# -- what they may return ----------------------------------------------------------------------


def score_with(known: KnownFunctions, model: Any = None) -> Tensor:
    imagination = Imagination(FakeModel() if model is None else model, known=known)
    imagination.reset(frames(1))
    return imagination.score(imagination.worlds(1), np.array([[[1, 2]]]))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *step: step[1][:1], r"known.reward: expected one number for each of 2 steps"),
        (lambda *step: step[1][:, None], r"shape \(2,\), got torch.int64 \(2, 1\)"),
        (lambda *step: step[1] / 0, "known.reward: returned NaN or infinity"),
        (lambda *step: 1.0, "known.reward: expected one number"),
    ],
)
def test_rewards_are_checked(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_with(KnownFunctions(function))


@pytest.mark.parametrize("returned", [None, "no", [[1], [1, 2]], [None, None], 10**400])
@pytest.mark.parametrize("name", ["reward", "terminated"])
def test_what_is_no_tensor_names_the_function(name: str, returned: Any) -> None:
    with pytest.raises(TypeError, match=f"known.{name}: expected a tensor, or an array"):
        score_with(KnownFunctions(**{name: lambda *step: returned}))


def test_ends_are_checked() -> None:
    with pytest.raises(TypeError, match=r"known.terminated: expected bool, got torch.float32"):
        score_with(KnownFunctions(terminated=lambda *step: step[1] * 1.0))
    with pytest.raises(ValueError, match=r"known.terminated: expected one value .* got \(2, 1\)"):
        score_with(KnownFunctions(terminated=lambda *step: step[1][:, None] > 1))
    follows_the_advice = KnownFunctions(terminated=lambda *step: step[1] * 1.0 > 0.5)
    assert score_with(follows_the_advice).tolist() == [[1.0]]


def test_numpy_will_do() -> None:
    known = KnownFunctions(
        lambda *step: step[1].numpy() * 3, lambda *step: np.zeros(len(step[1]), bool)
    )
    assert score_with(known).tolist() == [[9.0]]


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="known.reward: expected a function, or None, got int"):
        KnownFunctions(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="known: expected a KnownFunctions, got function"):
        ImaginedVecEnv(FakeModel(), frames(0), known=treasure)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="known: expected a KnownFunctions, got dict"):
        Cem(FakeModel(), known={})  # type: ignore[arg-type]


def test_a_model_of_long_strides_is_refused() -> None:
    class Strided(FakeModel):
        stride = 2

    with pytest.raises(ValueError, match="known: .*fake takes 2 at once; give action_mask alone"):
        Imagination(Strided(), known=KnownFunctions(treasure))
    Imagination(Strided(), known=KnownFunctions(action_mask=lambda x: x))


# -- models that learn ----------------------------------------------------------------------------

IMAGES = Spec((3, 16, 16), ActionSpec("discrete", (), (4,)), 8)
VECTORS = Spec.from_spaces(gym.spaces.Box(-2, 2, (3,)), gym.spaces.Box(-1, 1, (2,)), 8)


def grown(before: Tensor, action: Tensor, after: Tensor) -> Tensor:
    return (after - before).flatten(1).mean(1) + action.float().reshape(len(action), -1).sum(1)


@pytest.mark.parametrize(
    ("name", "spec", "preset"),
    [
        ("jump", IMAGES, "small"),
        ("jump", VECTORS, "vector"),
        ("svg-lp", IMAGES, "small"),
        ("copy-last", VECTORS, None),
    ],
)
def test_every_model_pays_what_its_frames_say(name: str, spec: Spec, preset: str | None) -> None:
    torch.manual_seed(0)
    model = make(name, spec, preset) if preset else make(name, spec)
    never = KnownFunctions(grown, lambda *step: step[2].flatten(1).mean(1) > 9)
    imagination = Imagination(model, known=never)
    shape, dtype = spec.border
    top = 255 if spec.is_image else 1
    first = np.random.default_rng(0).uniform(0, top, (2, *shape)).astype(dtype)
    imagination.reset(first)
    worlds, space = imagination.worlds(3), spec.action.to_space()
    space.seed(0)
    chosen = np.stack([[[space.sample() for _ in range(5)] for _ in range(4)] for _ in range(2)])
    scores = imagination.score(worlds, chosen)
    frames_after = imagination.render(worlds, [1, 2, 3, 4, 5], chosen)
    after = spec.to_model(torch.from_numpy(frames_after)).flatten(4).mean(-1)
    after = after.expand(2, 3, 4, 5)
    before = spec.to_model(torch.from_numpy(first)).flatten(1).mean(1)[:, None, None]
    moves = chosen.reshape(2, 1, 4, -1).sum(-1)
    expected = (after[..., -1] - before + torch.from_numpy(moves)).mean(1)
    torch.testing.assert_close(scores.double(), expected.double(), atol=1e-4, rtol=1e-4)


# -- Dict observations ----------------------------------------------------------------------------


def test_rewards_of_goals_are_known() -> None:
    """``compute_reward`` of the environment is used in its model, exactly."""
    gym.register("KnownReach-v0", entry_point=Reach, disable_env_checker=True)
    env = Reach()
    spec = Spec.from_spaces(env.observation_space, env.action_space, 8)
    model = make("replay", spec, ReplayConfig("KnownReach-v0", {}, 1))
    known = KnownFunctions(goal_reward(env))
    observation, _ = env.reset(seed=0)
    start = {name: part[None] for name, part in observation.items()}
    venv = ImaginedVecEnv(model, start, 1, hold=2, known=known)
    venv.reset()
    for _ in range(4):
        towards = np.clip((env.goal - env.point) / 0.6, -1, 1).astype(np.float32)
        expected = sum(env.step(towards)[1] for _ in range(2))
        after, rewards, _, _ = venv.step(towards[None])
        assert rewards.tolist() == [expected] and set(after) == set(start)
    assert expected == 0  # it arrives


def test_functions_are_given_parts() -> None:
    gym.register("KnownCamera-v0", entry_point=Camera, disable_env_checker=True)
    env, given = Camera(), list[Any]()

    def mask(observation: Any) -> Tensor:
        given.append({name: part.shape[1:] for name, part in observation.items()})
        return observation["state"][:, :1] < torch.tensor([999.0, -999.0, 999.0])

    spec = Spec.from_spaces(env.observation_space, env.action_space, 8)
    model = make("replay", spec, ReplayConfig("KnownCamera-v0", {}, 1))
    known = KnownFunctions(lambda a, _, b: b["state"][:, 1] - a["state"][:, 1], action_mask=mask)
    agent = Cem(model, CemConfig(plans=8, worlds=1, horizon=3), known=known)
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation)
    assert int(action) in (0, 2)
    assert given[0] == {"image": (3, 16, 16), "state": (2,)}
    assert agent.last is not None and agent.last.scores == pytest.approx(3, abs=1e-5)
