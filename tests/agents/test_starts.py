"""Where imagined episodes begin."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import SPEC, FakeEnv, FakeModel, FrameByFrameFake, frame, frames
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecMonitor, VecTransposeImage

from agents.history import batch_context
from agents.starts import past_times, start_sampler
from agents.vec_env import ImaginedVecEnv
from worldmodel import Episode, Episodes, collect, make
from worldmodel.spec import ActionSpec

SPACE = gym.spaces.Dict(
    {
        "goal": gym.spaces.Box(-1, 1, (2,), np.float32),
        "camera": SPEC.observation_space(),
        "task": gym.spaces.Discrete(9),
    }
)


def episode(steps: int = 12, wanted: int = 0) -> Episode:
    """Always action 1: the level is the time."""
    return Episode(
        np.stack([frame(wanted, level) for level in range(steps + 1)]),
        np.ones(steps, np.int64),
        np.zeros(steps, np.float32),
        terminated=False,
    )


def numbered(steps: int) -> Episode:
    """Frames show their time; the action at time t is t % 3."""
    times = np.arange(steps + 1)
    return replace(
        episode(1),
        observations=np.stack([np.full_like(frame(0, 0), time) for time in times]),
        actions=times[:-1] % 3,
        rewards=np.zeros(steps, np.float32),
    )


@pytest.mark.parametrize(
    ("step", "hold", "ahead", "limit", "expected"),
    [
        (9, 3, 3, None, [0, 3, 6, 9]),
        (8, 3, 3, None, [0, 2, 5, 8]),  # the first frame is told of, too
        (8, 3, 8, None, [5, 8]),  # as far back as leaves 8 of 12 steps
        (9, 3, 3, 3, [0, 6, 9]),
        (9, 3, 3, 1, [9]),
        (9, 3, 12, None, [9]),
        (0, 3, 3, None, [0]),
    ],
)
def test_past_of_a_recorded_step(
    step: int, hold: int, ahead: int, limit: int | None, expected: list[int]
) -> None:
    model = FakeModel()
    model.max_context = limit
    assert past_times(step, model, ahead, hold) == expected


def test_frame_by_frame_models_are_told_every_frame() -> None:
    model = FrameByFrameFake()
    assert past_times(9, model, 6, 3) == [3, 4, 5, 6, 7, 8, 9]
    model.max_context = 3
    assert past_times(9, model, 6, 3) == [7, 8, 9]


@pytest.mark.parametrize("limit", [None, 2])
def test_starts_are_drawn_in_arrays(limit: int | None) -> None:
    """Of each row what its own step's past says: frames, times, actions; padding is blank."""
    model = FakeModel()
    model.max_context = limit
    recorded = Episodes([numbered(30), numbered(3)], SPEC.action)
    starts = start_sampler(recorded, model, 4, 3, None)(200, np.random.default_rng(0))
    context = batch_context(
        SPEC, starts.frames, starts.times, starts.mask, starts.actions, starts.present,
        model.device,
    )  # fmt: skip
    model.observe(context)
    assert starts.present.max() == 8 and len(np.unique(starts.latest()[:, -1, -1, 0])) > 25
    for row in range(200):
        step = int(starts.latest()[row, -1, -1, 0])
        past = past_times(step, model, 4, 3)
        count = len(past)
        assert starts.mask[row].tolist() == [slot < count for slot in range(starts.mask.shape[1])]
        assert starts.frames[row, :count, -1, -1, 0].tolist() == past
        assert not starts.frames[row, count:].any() and not starts.times[row, count:].any()
        assert starts.times[row, :count].tolist() == [time - past[0] for time in past]
        assert starts.present[row] == step - past[0]
        taken = starts.actions[row, : starts.present[row]]
        assert taken.tolist() == [time % 3 for time in range(past[0], step)]


def test_episodes_branch_at_every_recorded_step() -> None:
    recorded = Episodes([episode(12, 1), episode(2, 2)], SPEC.action)
    model = FakeModel()
    venv = ImaginedVecEnv(model, recorded, 400, hold=2, horizon=2)
    shown = venv.reset()
    wanted, level = shown[:, 0, 0, 0], shown[:, -1, -1, 0] // 10
    found = {(int(w), int(at)) for w, at in zip(wanted, level, strict=True)}
    assert found == {(1, at) for at in range(12)} | {(2, 0), (2, 1)}  # 14 steps, no last frame
    counts = [int(((wanted == w) & (level == at)).sum()) for w, at in found]
    assert min(counts) > 10 and max(counts) < 60  # 400 / 14 = 29: all alike
    assert model.contexts[0].present_times().max() == 8  # 12 - horizon * hold
    after, rewards, _, _ = venv.step(np.full(400, 2))
    np.testing.assert_array_equal(after[:, -1, -1, 0], 10 * (level + 4))
    np.testing.assert_array_equal(rewards, 2.0 * (wanted == 2))


def test_a_live_environment_is_reset() -> None:
    venv = ImaginedVecEnv(FakeModel(), FakeEnv(), 64)
    assert set(venv.reset()[:, 0, 0, 0].tolist()) == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="starts: the environment's spaces"):
        ImaginedVecEnv(FakeModel(), gym.make("CartPole-v1"))


class DictEnv(gym.Wrapper):
    """The goal says the wanted action; the task counts the episodes."""

    def __init__(self) -> None:
        super().__init__(FakeEnv())
        self.observation_space, self.task = SPACE, 0

    def reset(self, **kwargs):
        shown, info = self.env.reset(**kwargs)
        self.task = (self.task + 1) % 9
        self.goal = np.full(2, self.unwrapped.wanted / 4, np.float32)
        return self._parts(shown), info

    def step(self, action):
        shown, *rest = self.env.step(action)
        return self._parts(shown), *rest

    def _parts(self, shown):
        return {"goal": self.goal, "camera": shown, "task": self.task}


def given(num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    wanted = rng.integers(4, size=num)
    goal = np.repeat(wanted[:, None] / 4, 2, 1).astype(np.float32)
    return {"camera": frames(*wanted), "goal": goal, "task": wanted}


@pytest.mark.parametrize("starts", [DictEnv(), given, given(50, np.random.default_rng(0))])
def test_constant_parts_stay_with_their_episode(starts) -> None:
    venv = ImaginedVecEnv(
        FakeModel(), starts, 5, hold=3, horizon=4, observation_space=SPACE, stagger=True
    )
    assert venv.observation_space == SPACE
    shown, random = venv.reset(), np.random.default_rng(0)
    kept = {name: part.copy() for name, part in shown.items()}
    for _ in range(9):
        actions = random.integers(2, size=5)
        before, (shown, _, dones, infos) = shown, venv.step(actions)
        assert list(shown) == list(SPACE.spaces)
        np.testing.assert_array_equal(shown["camera"][:, 0, 0, 0], 4 * shown["goal"][:, 0])
        assert all(part in SPACE[name] for name in shown for part in shown[name])
        for row, done in enumerate(dones):
            last = infos[row]["terminal_observation"] if done else None
            parts = last if done else {name: shown[name][row] for name in shown}
            np.testing.assert_array_equal(parts["goal"], before["goal"][row])
            np.testing.assert_array_equal(parts["task"], before["task"][row])
            grown = before["camera"][row, -1, -1, 0] + 30 * actions[row]
            assert parts["camera"][-1, -1, 0] == grown
    assert not all(np.array_equal(shown[name], kept[name]) for name in kept)


def test_dict_observations_train() -> None:
    venv = ImaginedVecEnv(FakeModel(), given, 2, hold=3, observation_space=SPACE)
    wrapped = VecTransposeImage(VecMonitor(venv))
    assert wrapped.reset()["camera"].shape == (2, 3, 32, 32)

    class Goal(BaseFeaturesExtractor):
        def forward(self, parts):
            assert parts["camera"].shape[1:] == (3, 32, 32)
            return parts["goal"]

    policy = {"features_extractor_class": Goal, "features_extractor_kwargs": {"features_dim": 2}}
    PPO(
        "MultiInputPolicy", wrapped, policy_kwargs=policy, n_steps=8, batch_size=16, n_epochs=1
    ).learn(32)


def test_errors_teach() -> None:
    model = FakeModel()
    with pytest.raises(TypeError, match="expected a gymnasium Dict"):
        ImaginedVecEnv(model, given, observation_space=SPEC.observation_space())
    twice = gym.spaces.Dict({"a": SPACE["camera"], "b": SPACE["camera"]})
    for space, found in (
        (twice, r"\['a', 'b'\]"),
        (gym.spaces.Dict({"g": SPACE["goal"]}), r"\[\]"),
    ):
        with pytest.raises(ValueError, match=f"observation_space: exactly one part.*{found}"):
            ImaginedVecEnv(model, given, observation_space=space)
    with pytest.raises(TypeError, match="starts: expected a dict with the parts"):
        ImaginedVecEnv(model, frames(0), observation_space=SPACE)
    parts = given(3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected the parts"):
        ImaginedVecEnv(model, {**parts, "more": parts["task"]}, observation_space=SPACE)
    with pytest.raises(ValueError, match="'task' of shape"):
        ImaginedVecEnv(model, {**parts, "task": parts["task"][:2]}, observation_space=SPACE)
    recorded = Episodes([episode()], SPEC.action)
    with pytest.raises(ValueError, match="hold no constant parts"):
        ImaginedVecEnv(model, recorded, observation_space=SPACE)
    other = Episodes([episode()], ActionSpec("discrete", (), (5,)))
    with pytest.raises(ValueError, match="starts: action space"):
        ImaginedVecEnv(model, other)


class ChangingEnv(DictEnv):
    """The task changes at the third step."""

    def step(self, action):
        shown, *rest = super().step(action)
        self.steps += 1
        return {**shown, "task": (self.task + self.steps // 3) % 9}, *rest

    def reset(self, **kwargs):
        self.steps = 0
        return super().reset(**kwargs)


def test_parts_that_change_are_not_constant() -> None:
    """Issue 22, C14: they stayed frozen without a word."""
    message = r"starts: part 'task' changes in an episode of the environment.*imagine it, too"
    with pytest.raises(ValueError, match=message):
        ImaginedVecEnv(FakeModel(), ChangingEnv(), observation_space=SPACE)


class GoalEnv(gym.ObservationWrapper):
    """The camera and the goal, which moves if ``moving``."""

    def __init__(self, moving: bool) -> None:
        super().__init__(FakeEnv())
        self.moving = moving
        self.observation_space = gym.spaces.Dict({k: SPACE[k] for k in ("goal", "camera")})

    def observation(self, shown):
        level = shown[-1, -1, 0] / 255 if self.moving else 0
        goal = np.array([self.unwrapped.wanted / 4, level], np.float32)
        return {"goal": goal, "camera": shown}


def test_constant_parts_of_recorded_dicts() -> None:
    recorded = collect(GoalEnv(moving=False), 6, progress=False)
    space = recorded.observation_space
    venv = ImaginedVecEnv(FakeModel(), recorded, 40, observation_space=space, stagger=False)
    shown = venv.reset()
    assert len(np.unique(shown["camera"][:, -1, -1, 0])) > 2  # at any step of them
    for _ in range(2):
        np.testing.assert_array_equal(shown["camera"][:, 0, 0, 0], 4 * shown["goal"][:, 0])
        shown, _, _, _ = venv.step(np.ones(40, np.int64))

    recorded = collect(GoalEnv(moving=True), 6, progress=False)
    with pytest.raises(ValueError, match="part 'goal' changes in recorded episode 0"):
        ImaginedVecEnv(FakeModel(), recorded, observation_space=space)
    # what the message advises
    whole = make("copy-last", recorded.spec(12))
    assert ImaginedVecEnv(whole, recorded).reset()["goal"].shape == (16, 2)
    with pytest.raises(ValueError, match="imagines all parts of it; leave observation_space away"):
        ImaginedVecEnv(whole, recorded, observation_space=space)


def test_an_environment_may_be_named_or_made() -> None:
    closed = []

    class Closing(FakeEnv):
        def close(self) -> None:
            closed.append(True)

    venvs = [ImaginedVecEnv(FakeModel(), env, 8, seed=3) for env in (FakeEnv(), FakeEnv, Closing)]
    first, *others = [venv.reset() for venv in venvs]
    for other in others:
        np.testing.assert_array_equal(other, first)
    for venv in venvs:
        venv.close()
    assert closed == [True]
    ImaginedVecEnv(FakeModel(), Closing(), 2).close()
    assert closed == [True]  # one that was given stays open
    with pytest.raises(ValueError, match="starts: the environment's spaces are"):
        ImaginedVecEnv(FakeModel(), "CartPole-v1")
