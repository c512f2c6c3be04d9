from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv, frame
from dyna_fakes import LineEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import HoldAction, RecordEpisodes, merge_episodes
from worldmodel.spec import Spec


def play(env: gym.Env, actions: list, seed: int | None = 0) -> None:
    env.reset(seed=seed)
    for action in actions:
        env.step(action)


def test_it_sees_the_frames_between_decisions() -> None:
    recorder = RecordEpisodes(FakeEnv(steps=5))
    env = HoldAction(recorder, 2)
    env.reset(seed=3)
    wanted = recorder.unwrapped.wanted
    for action in (1, 2, wanted):  # the third hold is cut short by the episode's end
        env.step(action)
    (episode,) = recorder.episodes()
    levels = [0, 1, 2, 4, 6, 6 + wanted]
    np.testing.assert_array_equal(
        episode.observations, np.stack([frame(wanted, level) for level in levels])
    )
    assert episode.actions.tolist() == [1, 1, 2, 2, wanted]
    assert episode.rewards.tolist() == [float(a == wanted) for a in episode.actions]
    assert not episode.terminated
    assert recorder.steps == recorder.total == 5
    assert not recorder.under_way


def test_what_it_passes_on_is_unchanged() -> None:
    plain, recorder = FakeEnv(goal=5), RecordEpisodes(FakeEnv(goal=5))
    np.testing.assert_array_equal(plain.reset(seed=1)[0], recorder.reset(seed=1)[0])
    for action in (1, 3, 2):
        for a, b in zip(plain.step(action), recorder.step(action), strict=True):
            np.testing.assert_array_equal(a, b)
    assert recorder.episodes()[0].terminated


def test_steps_are_copied() -> None:
    recorder = RecordEpisodes(LineEnv(reuse=True))
    recorder.reset(seed=0)
    action = np.ones(1, np.float32)
    recorder.step(action)
    action[:] = -1
    recorder.step(action)
    episode = recorder.episodes()[0]
    assert episode.actions.tolist() == [[1.0], [-1.0]]
    begin = episode.observations[0, 0]
    np.testing.assert_allclose(episode.observations[:, 0], [begin, begin + 1, begin], atol=1e-6)


def test_the_unfinished_episode_is_truncated_for_now() -> None:
    recorder = RecordEpisodes(FakeEnv())
    with pytest.raises(ValueError, match="no step has been taken"):
        recorder.episodes()
    recorder.reset(seed=0)
    assert recorder.under_way
    with pytest.raises(ValueError, match="no step has been taken"):
        recorder.episodes()
    play(recorder, [1, 1])
    (early,) = recorder.episodes()
    assert len(early.actions) == 2
    recorder.step(3)
    assert len(early.actions) == 2
    (longer,) = recorder.episodes()
    assert longer.actions.tolist() == [1, 1, 3]
    assert not longer.terminated
    play(recorder, [2])  # reset() cuts the one before
    assert [e.actions.tolist() for e in recorder.episodes()] == [[1, 1, 3], [2]]
    assert recorder.steps == 4


def test_oldest_episodes_are_dropped() -> None:
    recorder = RecordEpisodes(FakeEnv(steps=3), max_steps=5)
    for action in (0, 1):
        play(recorder, [action] * 3)
    assert [e.actions[0] for e in recorder.episodes()] == [1]  # 6 steps were too many
    play(recorder, [2])
    assert (recorder.steps, recorder.total, len(recorder.episodes())) == (4, 7, 2)
    short = RecordEpisodes(FakeEnv(steps=6), max_steps=2)
    play(short, [0] * 6)
    assert short.steps == 6  # the latest stays whole
    play(short, [1])
    assert [e.actions.tolist() for e in short.episodes()] == [[1]]
    assert short.steps == 1


def test_later_episodes_alone() -> None:
    recorder = RecordEpisodes(FakeEnv(steps=2))
    play(recorder, [0, 0])
    play(recorder, [1])
    assert [e.actions[0] for e in recorder.episodes(after=2)] == [1]
    assert recorder.recorded(after=3) == []  # what is under way began before
    play(recorder, [2])
    assert [e.actions[0] for e in recorder.episodes(after=3)] == [2]


def test_merge_keeps_the_order() -> None:
    recorders = [RecordEpisodes(FakeEnv(steps=2)) for _ in range(3)]
    play(recorders[0], [0, 0])
    play(recorders[2], [2])
    merged = merge_episodes(recorders)
    assert [e.actions[0] for e in merged] == [0, 2]
    assert merged.spec(12) == Spec.from_spaces(
        recorders[0].observation_space, recorders[0].action_space, 12
    )
    play(recorders[0], [1, 1])
    assert [e.actions[0] for e in merge_episodes(recorders, [2, 0, 0])] == [1, 2]


def test_it_records_in_a_vec_env() -> None:
    recorders = [RecordEpisodes(LineEnv(steps=4)) for _ in range(2)]
    venv = DummyVecEnv([lambda r=r: HoldAction(r, 2) for r in recorders])
    venv.seed(0)
    venv.reset()
    for _ in range(5):
        venv.step(np.full((2, 1), 0.5, np.float32))
    merged = merge_episodes(recorders)
    assert [len(e.actions) for e in merged] == [4, 4, 2] * 2
    for episode in merged:
        np.testing.assert_allclose(np.diff(episode.observations[:, 0]), 0.5, atol=1e-6)
        np.testing.assert_allclose(episode.rewards, episode.observations[1:, 0])
    assert merged.observation_space == venv.observation_space


def test_a_step_that_is_refused_is_not_kept() -> None:
    recorder = RecordEpisodes(LineEnv())
    recorder.reset(seed=3)
    recorder.step(np.ones(1, np.float32))
    wrong = np.zeros(recorder.observation_space.shape[0] + 1, np.float32)
    with (
        mock.patch.object(LineEnv, "step", lambda self, action: (wrong, 0.0, False, False, {})),
        pytest.raises(ValueError, match=r"env: LineEnv, episode of seed 3, step 2: returned"),
    ):
        recorder.step(np.ones(1, np.float32))
    assert recorder.steps == recorder.total == 1
    recorder.step(np.zeros(1, np.float32))
    assert [len(e.actions) for e in recorder.episodes()] == [2]


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match="max_steps"):
        RecordEpisodes(FakeEnv(), max_steps=0)
    with pytest.raises(ValueError, match="observation_space"):
        RecordEpisodes(gym.make("FrozenLake-v1"))
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        RecordEpisodes(FakeEnv()).step(0)
    done = RecordEpisodes(FakeEnv(steps=1))
    play(done, [0])
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        done.step(0)
    with pytest.raises(ValueError, match="recorders: empty"):
        merge_episodes([])
    with pytest.raises(ValueError, match=r"recorders\[1\]"):
        merge_episodes([RecordEpisodes(FakeEnv()), RecordEpisodes(LineEnv())])
