import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeModel, FrameByFrameFake, frame, frames
from gymnasium.wrappers import TimeLimit

from agents.actions import draw_actions, to_numpy
from agents.imagination import Imagination, ImaginationState
from worldmodel import Belief, Context, WorldModel, make
from worldmodel.models.baselines import ReplayConfig
from worldmodel.spec import ActionSpec, Spec

PASSIVE = Spec(SPEC.observation, ActionSpec("none"), 12)


def hold(action: int, steps: int, rows: int = 1) -> np.ndarray:
    return np.full((rows, steps), action)


def test_context_holds_what_was_seen_and_done() -> None:
    model = FakeModel()
    imagination = Imagination(model)
    imagination.reset(frames(1, 2))
    imagination.observe(hold(3, 2, 2), frames(4, 5))
    imagination.observe(hold(1, 3), frames(6), rows=[1])
    context = imagination.context()
    assert context.times.tolist() == [[0, 2, 0], [0, 2, 5]]
    assert context.full_mask().tolist() == [[True, True, False], [True, True, True]]
    assert context.present_times().tolist() == [2, 5]
    assert context.actions is not None
    assert context.actions.tolist() == [[3, 3, 0, 0, 0], [3, 3, 1, 1, 1]]
    corner = (context.observations[:, :, 0, 0, 0] * 255).round()
    assert corner.tolist() == [[1, 4, 0], [2, 5, 6]]
    model.observe(context)


def test_reset_of_rows_leaves_the_others() -> None:
    imagination = Imagination(FakeModel())
    imagination.reset(frames(1, 2))
    imagination.observe(hold(3, 2, 2), frames(4, 5))
    imagination.reset(frames(9), rows=[0])
    assert imagination.present.tolist() == [0, 2]
    assert imagination.left.tolist() == [12, 10]


def test_long_histories_keep_the_first_and_the_latest() -> None:
    model = FakeModel()
    model.max_context = 3
    imagination = Imagination(model)
    imagination.reset(frames(0))
    for i in range(1, 6):
        imagination.observe(hold(0, 1), frames(i))
    assert imagination.context().times.tolist() == [[0, 4, 5]]
    model.max_context = 1
    assert imagination.context().times.tolist() == [[5]]
    assert imagination.context().present_times().tolist() == [5]


def test_window_end_re_anchors_at_the_latest_frame() -> None:
    imagination = Imagination(FakeModel(), ahead=4)  # window 12
    imagination.reset(frames(0))
    imagination.observe(hold(1, 4), frames(1))
    imagination.observe(hold(1, 4), frames(2))
    assert imagination.left.tolist() == [4]
    imagination.observe(hold(1, 1), frames(3))
    assert imagination.present.tolist() == [0]
    assert imagination.state.histories[0].frames[0][0, 0, 0] == 3
    assert imagination.context().actions is None


def test_frame_by_frame_models_get_consecutive_frames_only() -> None:
    model = FrameByFrameFake()
    imagination = Imagination(model)
    imagination.reset(frames(0))
    for i in range(1, 4):
        imagination.observe(hold(i % 4, 1), frames(i))
    assert imagination.context().times.tolist() == [[0, 1, 2, 3]]
    model.max_context = 3
    imagination.observe(hold(2, 1), frames(4))
    context = imagination.context()
    assert context.times.tolist() == [[0, 1, 2]]
    assert context.actions is not None
    assert context.actions.tolist() == [[3, 2]]
    imagination.observe(hold(0, 2), frames(5))  # a gap: only the latest frame is left
    assert imagination.context().times.tolist() == [[0]]


def test_score_is_the_discounted_return_while_alive() -> None:
    model = FakeModel(goal=5)
    imagination = Imagination(model)
    imagination.reset(frames(2))
    worlds = imagination.worlds(3)
    plans = np.array([[[2, 2, 2, 2], [0, 2, 0, 0], [3, 3, 2, 2]]])
    scores = imagination.score(worlds, plans, discount=0.5)
    # 2, 2, then 2 ends the episode (level 6): it counts, what follows does not
    torch.testing.assert_close(scores, torch.tensor([[1.75, 0.5, 0.0]]))
    assert all(not frames for _, _, frames in model.asked)


def test_score_does_not_depend_on_chunks_or_rows_beside() -> None:
    whole, parts = Imagination(FakeModel(goal=9)), Imagination(FakeModel(goal=9), chunk=1)
    plans = np.random.default_rng(0).integers(0, 4, (2, 7, 6))
    scores = []
    for imagination in (whole, parts):
        imagination.reset(frames(1, 3))
        imagination.observe(hold(0, 8), frames(3), rows=[1])
        scores.append(imagination.score(imagination.worlds(2), plans, 0.9))
    torch.testing.assert_close(*scores)
    alone = Imagination(FakeModel(goal=9))
    alone.reset(frames(1))
    torch.testing.assert_close(alone.score(alone.worlds(2), plans[:1], 0.9)[0], scores[0][0])


def test_score_counts_nothing_beyond_the_window() -> None:
    imagination = Imagination(FakeModel())
    imagination.reset(frames(1, 1))
    imagination.observe(hold(0, 10), frames(1), rows=[1])
    scores = imagination.score(imagination.worlds(1), np.ones((2, 1, 8), np.int64))
    assert scores.tolist() == [[8.0], [2.0]]


def test_score_of_a_model_that_strides() -> None:
    """Whole strides count, of each row as many as its window holds: 6 of 8 steps, and 3 of 4."""
    every, third = FakeModel(), FakeModel()
    third.stride = 3
    plans, scores = np.random.default_rng(0).integers(4, size=(2, 5, 8)), []
    for model, reached in ((every, (6, 3)), (third, (8, 8))):
        imagination = Imagination(model)
        imagination.reset(frames(1, 2))
        imagination.observe(hold(0, 8), frames(2), rows=[1])
        worlds = imagination.worlds(2)
        own = [
            imagination.score(worlds, plans[:, :, :steps])[row] for row, steps in enumerate(reached)
        ]
        scores.append(torch.stack(own))
    assert torch.equal(*scores) and scores[0].max() > 0
    assert third.asked[-1][1].times.tolist() == [[3, 6], [11, 11]]
    with pytest.raises(ValueError, match="takes 3 steps at once; 2 are planned"):
        imagination.score(worlds, plans[:, :, :2])


def test_a_model_says_which_gaps_it_allows() -> None:
    for gap, kept in ((None, [3, 2, 1]), (1, [1]), (3, [3, 1])):
        model = FrameByFrameFake()
        model.gap = gap
        for steps in (3, 2, 1):
            imagination = Imagination(model)
            imagination.reset(frames(1))
            imagination.observe(hold(0, steps), frames(1))
            assert imagination.present.tolist() == [steps if steps in kept else 0]


def test_replay_is_recognised_through_held_actions() -> None:
    """The true return of each plan, after decisions that hid frames."""
    env = TimeLimit(gym.make("CartPole-v1").unwrapped, 12)
    spec = Spec.from_spaces(env.observation_space, env.action_space, 12)
    config = ReplayConfig("CartPole-v1", {"max_episode_steps": 12}, episodes=3)
    imagination = Imagination(make("replay", spec, config))
    imagination.reset(env.reset(seed=1)[0][None])
    for action in (0, 1):
        for _ in range(2):
            seen = env.step(action)[0]
        imagination.observe(hold(action, 2), seen[None])
    plans = np.array([[[1] * 8, [0] * 8, [0, 1] * 4]])
    scores = imagination.score(imagination.worlds(2), plans)[0]
    for plan, score in zip(plans[0], scores.tolist(), strict=True):
        env.reset(seed=1)
        for action in (0, 0, 1, 1):
            env.step(action)
        earned, over = 0.0, False
        for action in plan:
            if not over:
                _, reward, terminated, truncated, _ = env.step(action)
                earned, over = earned + reward, terminated or truncated
        assert score == earned


def test_render_and_predict() -> None:
    imagination = Imagination(FakeModel())
    imagination.reset(frames(1, 3))
    worlds = imagination.worlds(2)
    plans = np.array([[[1, 1, 1], [2, 2, 2]]] * 2)
    seen = imagination.render(worlds, [1, 3], plans)
    assert seen.shape == (2, 2, 2, 2, 32, 32, 3)
    assert seen.dtype == np.uint8
    assert seen[0, 0, :, :, -1, -1, 0].tolist() == [[10, 30], [20, 60]]
    assert imagination.render(worlds, [0]).shape == (2, 2, 1, 1, 32, 32, 3)
    assert imagination.predict(worlds, [2], plans, frames=False).observations is None


def test_passive_scenes() -> None:
    imagination = Imagination(FakeModel(PASSIVE))
    imagination.reset(frames(0))
    imagination.observe(hold(0, 3), frames(1))
    assert imagination.context().actions is None
    assert imagination.render(imagination.worlds(2), [4]).shape == (1, 2, 1, 1, 32, 32, 3)


def test_worlds_follow_the_seed() -> None:
    def wanted(seed: int) -> torch.Tensor:
        imagination = Imagination(FakeModel(seen=False), seed=seed)
        imagination.reset(frames(0))
        return imagination.worlds(32).state["wanted"]

    assert torch.equal(wanted(1), wanted(1))
    assert not torch.equal(wanted(1), wanted(2))


def test_errors_name_the_argument() -> None:
    model = FakeModel()
    with pytest.raises(TypeError, match="model"):
        Imagination(None)
    with pytest.raises(ValueError, match="ahead"):
        Imagination(model, ahead=13)
    imagination = Imagination(model)
    with pytest.raises(ValueError, match="reset"):
        imagination.context()
    with pytest.raises(TypeError, match="uint8"):
        imagination.reset(frames(0).astype(np.float32))
    with pytest.raises(ValueError, match="channels come first"):
        imagination.reset(frames(0).transpose(0, 3, 1, 2))
    imagination.reset(frames(0))
    with pytest.raises(ValueError, match="actions"):
        imagination.observe(np.zeros((1, 0)), frames(0))
    with pytest.raises(ValueError, match="rows"):
        imagination.reset(frames(0), rows=[1])
    worlds = imagination.worlds(1)
    with pytest.raises(ValueError, match="plans"):
        imagination.score(worlds, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="discount"):
        imagination.score(worlds, np.zeros((1, 2, 3), np.int64), discount=2)


def test_input_is_copied() -> None:
    imagination = Imagination(FakeModel())
    image = frame(1)[None]
    imagination.reset(image)
    image[:] = 7
    assert imagination.state.histories[0].frames[0][0, 0, 0] == 1


@pytest.mark.parametrize(
    "spec",
    [
        ActionSpec("none"),
        ActionSpec("discrete", (), (4,)),
        ActionSpec("multi_discrete", (2,), (2, 5)),
        ActionSpec("multi_discrete", (2, 2), (2, 3, 4, 5)),
        ActionSpec("multi_binary", (3,)),
        ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 5.0)),
    ],
)
def test_drawn_actions_lie_in_the_space_and_fill_it(spec: ActionSpec) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = draw_actions(spec, (20, 30), generator)
    assert drawn.shape == (20, 30, *spec.shape)
    if spec.kind != "none":
        assert spec.encode(drawn).shape == (20, 30, spec.features)
    space, actions = spec.to_space(), to_numpy(spec, drawn).reshape(600, *spec.shape)
    assert all(space.contains(action) for action in actions)
    if spec.categories:
        flat = actions.reshape(600, -1)
        assert [len(set(flat[:, i])) for i in range(flat.shape[1])] == list(spec.categories)


def jump_that_counts(monkeypatch: pytest.MonkeyPatch) -> tuple[WorldModel, list[int]]:
    """A small JUMP of three pairs at most, and how many pairs each of its observations encoded."""
    torch.manual_seed(0)
    model = make("jump", Spec((3, 16, 16), ActionSpec("discrete", (), (4,)), 12), "views").eval()
    model.max_context = 3
    encoded, observe = list[int](), model._observe

    def counted(context: Context) -> Belief:
        encoded.append(int(context.full_mask().sum()))
        return observe(context)

    monkeypatch.setattr(model, "_observe", counted)
    return model, encoded


def test_a_frame_more_costs_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoded = jump_that_counts(monkeypatch)
    imagination = Imagination(model)
    random = np.random.default_rng(0)
    images = random.integers(256, size=(7, 2, 16, 16, 3), dtype=np.uint8)
    imagination.reset(images[0])
    imagination.belief()
    assert encoded == [2]
    for step in range(1, 6):
        encoded.clear()
        imagination.observe(random.integers(4, size=(2, 2)), images[step])
        imagination.belief()
        # with more than three frames, each that is forgotten is encoded once more
        assert encoded == ([2] if step < 3 else [2, 2])
        anew = Imagination(model)
        anew.state = ImaginationState(imagination.state.histories)
        now, then = imagination.belief(), anew.belief()
        assert torch.equal(now.present, then.present)
        for name, value in now.state.items():
            torch.testing.assert_close(value, then.state[name], rtol=1e-4, atol=1e-4)
    encoded.clear()
    imagination.observe(random.integers(4, size=(1, 4)), images[6][:1], rows=[1])  # re-anchored
    assert encoded == [1] and imagination.present.tolist() == [10, 0]
    imagination.reset(images[6][:1], rows=[0])
    assert encoded == [1, 1] and imagination.present.tolist() == [0, 0]


def test_what_was_seen_can_be_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoded = jump_that_counts(monkeypatch)
    imagination = Imagination(model)
    imagination.reset(np.zeros((1, 16, 16, 3), np.uint8))
    imagination.belief()
    kept = imagination.state
    imagination.observe([[1]], np.ones((1, 16, 16, 3), np.uint8))
    imagination.state = kept
    encoded.clear()
    assert imagination.present.tolist() == [0]
    assert imagination.belief() is kept.belief and not encoded
