import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeEnv, FakeModel, FrameByFrameFake, frames
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import RandomAgent, RandomShooting, RandomShootingConfig
from agents.wrappers import HoldAction
from worldmodel.spec import ActionSpec, Spec


def test_finds_the_rewarding_action() -> None:
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=64, horizon=2, hold=3))
    actions, _ = planner.predict(frames(0, 1, 2, 3))
    assert actions.tolist() == [0, 1, 2, 3]
    assert actions.dtype == np.int64
    assert planner.last is not None
    assert planner.last.chosen.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    np.testing.assert_allclose(planner.last.scores.max(1), 6.0)


def test_plans_do_not_waste_the_end_of_an_episode() -> None:
    # wanted is 3, but three of it end the episode: 3 wins with discount, and 0 never pays
    planner = RandomShooting(FakeModel(goal=7), RandomShootingConfig(plans=128, horizon=6))
    planner.predict(frames(3))
    assert planner.last is not None
    assert planner.last.scores.max() == 3.0


def test_all_plans_meet_the_same_worlds() -> None:
    model = FakeModel(seen=False)
    planner = RandomShooting(model, RandomShootingConfig(plans=200, worlds=5, horizon=1))
    planner.predict(frames(0, 0))
    assert planner.last is not None
    asked = {id(worlds) for worlds, _, _ in model.asked}
    assert asked == {id(planner.last.worlds)}
    plans, scores = planner.last.actions[..., 0], planner.last.scores
    for row in range(2):  # equal plans, equal scores: nothing is drawn while scoring
        for action in range(4):
            assert len(np.unique(scores[row, plans[row] == action])) == 1


def test_no_frame_is_rendered() -> None:
    model = FakeModel()
    RandomShooting(model).predict(frames(0))
    assert not any(rendered for _, _, rendered in model.asked)


def test_held_actions_enter_the_history_and_memory_is_per_row() -> None:
    model = FakeModel()
    planner = RandomShooting(model, RandomShootingConfig(plans=64, horizon=1, hold=3))
    first, state = planner.predict(frames(1, 2), None, np.array([True, True]))
    planner.predict(frames(1, 2), state, np.array([False, True]))
    context = model.contexts[-1]
    assert context.present_times().tolist() == [3, 0]
    assert context.full_mask().tolist() == [[True, True], [True, False]]
    assert context.actions is not None
    assert context.actions[0].tolist() == [first[0]] * 3


def test_state_is_a_value() -> None:
    model = FakeModel()
    planner = RandomShooting(model, RandomShootingConfig(plans=8, hold=3))
    _, state = planner.predict(frames(1))
    planner.predict(frames(1), state)
    planner.predict(frames(1), state)
    assert model.contexts[-1].present_times().tolist() == [3]
    planner.predict(frames(1))
    assert model.contexts[-1].present_times().tolist() == [0]


def test_plans_are_cut_at_the_window_and_then_it_re_anchors() -> None:
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=8, horizon=3, hold=4))
    state, lengths = None, []
    for _ in range(4):
        _, state = planner.predict(frames(1), state)
        assert planner.last is not None
        lengths.append(planner.last.actions.shape[2])
    assert lengths == [3, 2, 1, 3]  # window 12


def test_frame_by_frame_models_plan_from_the_latest_frame() -> None:
    model = FrameByFrameFake()
    planner = RandomShooting(model, RandomShootingConfig(plans=64, hold=2))
    state = None
    for _ in range(3):
        actions, state = planner.predict(frames(1, 3), state)
        assert actions.tolist() == [1, 3]
    assert model.contexts[-1].times.tolist() == [[0], [0]]


def test_single_image() -> None:
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=64, horizon=1))
    action, state = planner.predict(frames(2)[0])
    assert action.shape == ()
    assert int(action) == 2
    action, _ = planner.predict(frames(2)[0], state, False)
    assert SPEC.action.to_space().contains(np.int64(action))


@pytest.mark.parametrize(
    "action",
    [
        ActionSpec("multi_discrete", (2,), (2, 3)),
        ActionSpec("multi_binary", (3,)),
        ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 5.0)),
    ],
)
def test_every_kind_of_action(action: ActionSpec) -> None:
    model = FakeModel(Spec(SPEC.observation, action, 12))
    planner = RandomShooting(model, RandomShootingConfig(plans=64, horizon=1, hold=2))
    actions, state = planner.predict(frames(0, 1))
    actions, state = planner.predict(frames(0, 1), state)
    assert all(action.to_space().contains(a) for a in actions)
    if action.kind != "box":
        assert actions.sum(1).tolist() == [0, 1]


def test_same_seed_same_plans() -> None:
    def run(seed: int) -> np.ndarray:
        config = RandomShootingConfig(plans=16, seed=seed)
        planner = RandomShooting(FakeModel(), config)
        planner.predict(frames(1))
        planner.set_random_seed(seed)
        planner.predict(frames(1))
        assert planner.last is not None
        return planner.last.actions

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))


def test_evaluate_policy() -> None:
    venv = DummyVecEnv([lambda: Monitor(HoldAction(FakeEnv(), 3)) for _ in range(2)])
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=64, horizon=1, hold=3))
    mean, std = evaluate_policy(planner, venv, n_eval_episodes=4)
    assert (mean, std) == (12.0, 0.0)


@pytest.mark.parametrize(
    "bad", [{"plans": 0}, {"worlds": 0}, {"horizon": 0}, {"hold": 0}, {"discount": 0}, {"seed": -1}]
)
def test_config_rejects(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        RandomShootingConfig(**bad)


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match="window of 12"):
        RandomShooting(FakeModel(), RandomShootingConfig(hold=13))
    with pytest.raises(ValueError, match="without actions"):
        RandomShooting(FakeModel(Spec(SPEC.observation, ActionSpec("none"), 12)))
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=2))
    with pytest.raises(ValueError, match="VecTransposeImage"):
        planner.predict(frames(0).transpose(0, 3, 1, 2))
    with pytest.raises(TypeError, match="uint8"):
        planner.predict(frames(0).astype(np.float32))
    with pytest.raises(TypeError, match="state"):
        planner.predict(frames(0), "memory")
    _, state = planner.predict(frames(0))
    with pytest.raises(ValueError, match="1 rows"):
        planner.predict(frames(0, 1), state)


def test_random_agent() -> None:
    agent = RandomAgent(SPEC.action.to_space(), seed=0)
    actions, state = agent.predict(np.zeros((50, 32, 32, 3), np.uint8))
    assert set(actions.tolist()) == {0, 1, 2, 3}
    assert state is None
    assert agent.predict(np.zeros((32, 32, 3), np.uint8))[0].shape == ()


def test_planning_keeps_no_graph() -> None:
    planner = RandomShooting(FakeModel(), RandomShootingConfig(plans=2))
    planner.predict(frames(0))
    assert planner.last is not None
    assert not any(value.requires_grad for value in planner.last.worlds.state.values())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("ahead", "present"), [(1, [0, 4, 8, 0]), (2, [0, 4, 0, 4]), (3, [0] * 4)])
def test_ahead_keeps_room_for_as_many_decisions(ahead: int, present: list[int]) -> None:
    """Of a window of 12, with decisions of four steps."""
    config = RandomShootingConfig(plans=4, horizon=3, hold=4, ahead=ahead)
    planner, state, seen = RandomShooting(FakeModel(), config), None, []
    for _ in range(4):
        _, state = planner.predict(frames(0), state, np.array([False]))
        seen.append(int(planner.imagination.present[0]))
        assert planner.last.actions.shape[2] >= ahead
    assert seen == present


def test_ahead_fits_the_plan_and_the_window() -> None:
    with pytest.raises(ValueError, match="ahead: plans have 3 decisions"):
        RandomShootingConfig(horizon=3, ahead=4)
    with pytest.raises(ValueError, match="ahead: 4 decisions take 16 steps, the model's window is"):
        RandomShooting(FakeModel(), RandomShootingConfig(horizon=4, hold=4, ahead=4))
