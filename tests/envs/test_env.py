"""The Gymnasium environments: single, synchronous and native vector tell the same."""

from __future__ import annotations

import importlib
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs

AGENT, NATURE = "narratives/TravelingSalesman-v0", "narratives/TravelingSalesmanNature-v0"
VIEWS = "dice/Views-v0"


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_check_env(env_id):
    env = gym.make(f"envs:{env_id}", size=16, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_registration_is_idempotent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(envs)
    assert set(envs.ENV_IDS) <= set(gym.registry)


def play_single(env_id, seed, actions, **kwargs):
    """Frames, rewards, flags and scenes of one env that is reset by hand one step after an end."""
    env = gym.make(env_id, **kwargs)
    frame, info = env.reset(seed=seed)
    told, over = [(frame, 0.0, False, False, info)], False
    for action in actions:
        if over:
            frame, info = env.reset()
            told.append((frame, 0.0, False, False, info))
            over = False
        else:
            frame, reward, terminated, truncated, info = env.step(action)
            assert type(reward) is float and type(terminated) is bool and type(truncated) is bool
            told.append((frame, reward, terminated, truncated, info))
            over = terminated or truncated
    return told


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_single_sync_and_native_agree_frame_for_frame(env_id):
    kwargs = {"size": 16, "max_steps": 13}
    sync = gym.make_vec(env_id, 3, "sync", **kwargs)
    native = gym.make_vec(env_id, 3, "vector_entry_point", **kwargs)
    native.action_space.seed(0)
    actions = np.stack([native.action_space.sample() for _ in range(15)]).repeat(4, 0)
    singles = [play_single(env_id, 7 + i, actions[:, i], **kwargs) for i in range(3)]
    ends = 0
    outs = [(v.reset(seed=7)[0], *np.zeros((3, 3)), v.reset(seed=7)[1]) for v in (sync, native)]
    for t in range(len(actions) + 1):
        if t:
            outs = [v.step(actions[t - 1]) for v in (sync, native)]
        for i in range(3):
            frame, reward, terminated, truncated, info = singles[i][t]
            ends += terminated or truncated
            for observations, rewards, terminations, truncations, infos in outs:
                assert np.array_equal(observations[i], frame)
                assert rewards[i] == reward
                assert (terminations[i], truncations[i]) == (terminated, truncated)
                for name, value in info.items():
                    assert infos[f"_{name}"][i] and np.array_equal(infos[name][i], value)
        assert_same_info(outs[0][4], outs[1][4])
    assert ends >= 6
    assert native.metadata == sync.metadata
    assert native.observation_space == sync.observation_space
    assert native.action_space == sync.action_space


def assert_same_info(a, b):
    assert a.keys() == b.keys()
    for key in a:
        if isinstance(a[key], dict):
            assert_same_info(a[key], b[key])
        elif key == "final_obs":
            for x, y in zip(a[key], b[key], strict=True):
                assert (x is None and y is None) or np.array_equal(x, y)
        else:
            assert np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_same_step_equals_sync(env_id):
    mode = "SameStep"
    sync = gym.make_vec(env_id, 3, "sync", {"autoreset_mode": mode}, size=16, max_steps=7)
    native = gym.make_vec(env_id, 3, autoreset_mode=mode, size=16, max_steps=7)
    assert native.metadata == sync.metadata
    native.action_space.seed(0)
    outs = [v.reset(seed=3) for v in (sync, native)]
    for _ in range(30):
        for x, y in zip(outs[0][:-1], outs[1][:-1], strict=True):
            assert np.array_equal(x, y) and x.dtype == y.dtype
        assert_same_info(outs[0][-1], outs[1][-1])
        action = native.action_space.sample()
        outs = [v.step(action) for v in (sync, native)]


def test_vector_reset_without_a_seed_goes_on():
    vector = gym.make_vec(AGENT, 2, size=16)
    first = vector.reset(seed=[5, None])[1]["scene"]
    again = vector.reset()[1]["scene"]
    assert (first != again).all()
    assert vector.reset(seed=[5, None])[1]["scene"][0] == first[0]


@pytest.mark.parametrize("split", ["train", "test"])
def test_scenes_come_from_the_split(split):
    env = gym.make(AGENT, size=8, split=split)
    scenes = [env.reset(seed=s)[1]["scene"] for s in range(20)]
    assert len(set(scenes)) == 20
    assert all((scene >> 40) == (split == "test") for scene in scenes)


def test_a_certain_scene():
    env, vector = gym.make(AGENT, size=16), gym.make_vec(AGENT, 2, size=16)
    frame, info = env.reset(options={"scene": 123})
    frames, _ = vector.reset(options={"scene": 123})
    assert info == {"scene": 123}
    assert np.array_equal(frames, np.stack([frame, frame]))


def test_frames_are_fresh_and_rendered():
    env = gym.make(AGENT, size=16, render_mode="rgb_array")
    first, _ = env.reset(seed=0)
    first[:] = 7
    second = env.step(0)[0]
    assert not (second == 7).all()
    assert np.array_equal(env.render(), second)
    vector = gym.make_vec(AGENT, 2, size=16, render_mode="rgb_array")
    frames, _ = vector.reset(seed=0)
    assert np.array_equal(np.stack(vector.render()), frames)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"size": 20}, ValueError, "size"),
        ({"split": "valid"}, ValueError, "split"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"max_steps": 2.5}, TypeError, "max_steps"),
        ({"simulator": "TravelingSalesmen"}, ValueError, "simulator must be one of"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_bad_arguments(make, kwargs, error, match):
    with pytest.raises(error, match=match):
        make(AGENT, **kwargs)


def test_bad_use():
    env = gym.make(AGENT, size=8).unwrapped
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    with pytest.raises(ValueError, match="options"):
        env.reset(options={"sceen": 1})
    with pytest.raises(TypeError, match="scene"):
        env.reset(options={"scene": "first"})
    env.reset(seed=0)
    for action in (4, -1, 1.0, "north", None, [1]):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
    with pytest.raises(ValueError, match="render_mode"):
        type(env)("TravelingSalesman", render_mode="human")
    with pytest.raises(ValueError, match="autoreset_mode"):
        gym.make_vec(AGENT, 2, autoreset_mode="Disabled")
    vector = gym.make_vec(AGENT, 2, size=8)
    with pytest.raises(RuntimeError, match="reset"):
        vector.step(np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="seed"):
        vector.reset(seed=[1])
    vector.reset(seed=0)
    for actions in (np.array([0, 4]), np.array([0]), np.array([0.0, 1.0])):
        with pytest.raises(ValueError, match="actions"):
            vector.step(actions)


def test_box_actions_are_taken_in_any_float_and_checked():
    env = gym.make(VIEWS, size=8).unwrapped
    env.reset(seed=0)
    for action in (np.array([0.5], np.float64), np.array([0.5], np.float32), [0.5]):
        assert np.array_equal(env.step(action)[0], env.step(action)[0])
    for action in ([1.01], [np.nan], 0.5, [0.5, 0.5], ["left"]):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
