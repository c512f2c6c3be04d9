import pickle
import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.adapter import adapt
from agents.lookahead import LookaheadVecWrapper
from agents.vec_env import ImaginedVecEnv
from agents.wrappers import HoldAction
from worldmodel import Spec, collect, fit, make

IMAGE = spaces.Box(0, 255, (50, 40, 3), np.uint8)

# check_env would rather see the environment alone; here the wrappers are what is checked
pytestmark = pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")


class Mission(gym.Space):
    """As MiniGrid's: nothing but a string."""

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go to the goal"


class Odd(gym.Env):
    """Shows samples of any space, and renders a picture of half black, half white."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 4}

    def __init__(
        self,
        observation_space: gym.Space[Any] = IMAGE,
        action_space: gym.Space[Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(3) if action_space is None else action_space
        self.render_mode = render_mode
        self.closed = False
        self.latest: Any = None

    def look(self) -> Any:
        self.latest = self.observation_space.sample()
        return self.latest

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.look(), 1.0, False, False, {}

    def render(self) -> np.ndarray:
        picture = np.zeros((30, 60, 3), np.uint8)
        picture[:, 30:] = 255
        return picture

    def close(self) -> None:
        self.closed = True


def fits(env: gym.Env) -> Spec:
    spec = Spec.from_spaces(env.observation_space, env.action_space, 5)
    check_env(env, skip_render_check=True)
    return spec


@pytest.mark.parametrize(
    ("shape", "channels"), [((50, 40, 3), 3), ((3, 50, 40), 3), ((50, 40), 1), ((8, 9, 1), 1)]
)
def test_images_get_the_size(shape: tuple[int, ...], channels: int) -> None:
    env = adapt(Odd(spaces.Box(0, 255, shape, np.uint8)), size=32)
    assert fits(env).observation == (channels, 32, 32)


@pytest.mark.parametrize("first", [False, True])
def test_images_are_area_means_the_right_way_round(first: bool) -> None:
    big = np.zeros((32, 64, 3), np.uint8)
    big[:16, :, 0] = 255  # red above
    big[:, 32:, 2] = 200  # blue on the right
    big[::2, :, 1] = 100  # every other row
    shown = big.transpose(2, 0, 1) if first else big
    env = Odd(spaces.Box(0, 255, shown.shape, np.uint8))
    env.look = lambda: shown
    seen, _ = adapt(env, size=16).reset()
    assert (seen[:8, :, 0] == 255).all() and (seen[8:, :, 0] == 0).all()
    assert (seen[:, :8, 2] == 0).all() and (seen[:, 8:, 2] == 200).all()
    assert (seen[..., 1] == 50).all()
    grey, _ = adapt(env, size=16, grayscale=True).reset()
    assert grey.shape == (16, 16, 1)
    assert grey[0, -1, 0] == int(0.2125 * 255 + 0.7154 * 50 + 0.0721 * 200)


def test_what_fits_is_left_alone() -> None:
    for space in (
        spaces.Box(0, 255, (64, 64, 3), np.uint8),
        spaces.Box(-1, 1, (3,), np.float64),
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
    ):
        env = Odd(space)
        assert adapt(env) is env
    grey = Odd(spaces.Box(0, 255, (64, 64, 1), np.uint8))
    assert adapt(grey, grayscale=True) is grey


@pytest.mark.parametrize(
    ("space", "numbers"),
    [
        (spaces.Box(-1, 1, (2, 3), np.float32), 6),
        (spaces.Box(-1, 1, (), np.float32), 1),
        (spaces.Box(0, 9, (4,), np.int64), 4),
        (spaces.Box(0, 255, (128,), np.uint8), 128),  # Atari's memory
        (spaces.Box(0, 2, (3, 3), np.uint8), 9),  # a board, no image
        (spaces.Discrete(5), 5),
        (spaces.MultiBinary(3), 3),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (2, 2), np.float32)}), 6),
        (spaces.Tuple((spaces.Discrete(2), spaces.Dict({"c": spaces.MultiDiscrete([2, 3])}))), 7),
    ],
)
def test_other_observations_become_vectors(space: gym.Space[Any], numbers: int) -> None:
    env = adapt(Odd(space))
    assert fits(env).observation == (numbers,)
    seen, _ = env.reset(seed=0)
    assert np.issubdtype(seen.dtype, np.floating)
    raw = spaces.flatten(space, env.unwrapped.latest)
    np.testing.assert_allclose(seen, raw)


def test_dicts_of_vectors_stay() -> None:
    vector = spaces.Box(-1, 1, (3,), np.float64)
    space = spaces.Dict({"a": vector, "b": vector})
    env = adapt(Odd(space))
    assert env.observation_space == space
    assert fits(env).observation == (6,)
    seen, _ = env.reset(seed=0)
    assert seen is env.unwrapped.latest


@pytest.mark.parametrize("image", [IMAGE, spaces.Box(0, 255, (24, 24, 3), np.uint8)])
def test_dicts_with_an_image(image: gym.Space[Any]) -> None:
    vector = spaces.Box(-1, 1, (3,), np.float64)
    parts = {"image": image, "x": spaces.Discrete(2), "y": vector, "z": spaces.MultiBinary((2, 2))}
    env = adapt(Odd(spaces.Dict(parts)), size=24)
    assert [part.shape for part in fits(env).parts] == [(24, 24, 3), (2,), (3,), (4,)]
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    raw = env.unwrapped.latest
    np.testing.assert_array_equal(seen["x"], np.eye(2)[raw["x"]])
    np.testing.assert_array_equal(seen["y"], raw["y"])
    np.testing.assert_array_equal(seen["z"], raw["z"].ravel())
    if image.shape == (24, 24, 3):
        np.testing.assert_array_equal(seen["image"], raw["image"])


def test_pixels_are_what_is_rendered() -> None:
    env = adapt(Odd(spaces.Discrete(5), render_mode="rgb_array"), size=16, pixels=True)
    assert fits(env).observation == (3, 16, 16)
    seen, _ = env.reset()
    assert (seen[:, :8] == 0).all() and (seen[:, 8:] == 255).all()


@pytest.fixture
def registered() -> Any:
    gym.register("agents-tests/Odd-v0", entry_point=Odd)
    yield "agents-tests/Odd-v0"
    del gym.registry["agents-tests/Odd-v0"]


def test_ids_take_arguments_and_are_closed_if_they_do_not_fit(registered: str) -> None:
    env = adapt(registered, size=24, pixels=True, grayscale=True, observation_space=IMAGE)
    assert env.observation_space.shape == (24, 24, 1)
    made = []

    class Noted(Odd):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            made.append(self)

    gym.register("agents-tests/Noted-v0", entry_point=Noted)
    with pytest.raises(ValueError, match="action_space"):
        adapt("agents-tests/Noted-v0", action_space=spaces.Box(-np.inf, np.inf, (1,)))
    assert made[0].closed
    del gym.registry["agents-tests/Noted-v0"]


def test_factories_may_be_pickled(registered: str) -> None:
    factory = pickle.loads(pickle.dumps(partial(adapt, registered, size=32)))
    venv = DummyVecEnv([factory] * 2)
    assert venv.reset().shape == (2, 32, 32, 3)
    assert venv.step(np.array([0, 2]))[0].dtype == np.uint8
    episodes = collect(factory(), 1, max_steps=4, progress=False)
    assert episodes.episodes[0].observations.shape == (5, 32, 32, 3)


@pytest.mark.parametrize("size", [0, 8, 20, 64.0, True, (64, 64)])
def test_sizes_must_be_multiples_of_8(size: Any) -> None:
    with pytest.raises(ValueError, match="size: expected a multiple of 8"):
        adapt(Odd(), size=size)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 255, (50, 40, 4), np.uint8), "1 or 3 channels.*TransformObservation"),
        (spaces.Box(0, 1, (50, 40, 3), np.float32), "not uint8 from 0 to 255.*pixels=True"),
        (spaces.Dict({"image": IMAGE, "x": IMAGE}), "beside other.*pixels=True"),
        (spaces.Tuple((spaces.Sequence(spaces.Discrete(2)),)), "cannot be flattened"),
        (spaces.Dict({"image": IMAGE, "mission": Mission()}), "beside other.*FilterObservation"),
        (spaces.Dict({"direction": spaces.Discrete(4), "mission": Mission()}), "cannot be flatt"),
    ],
)
def test_errors_say_what_to_do(space: gym.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(Odd(space))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"make_kwargs: \['frameskip'\]"):
        adapt(Odd(), frameskip=4)
    for mode in (None, "human"):
        with pytest.raises(ValueError, match="render_mode='rgb_array'"):
            adapt(Odd(render_mode=mode), pixels=True)
    with pytest.raises(ValueError, match="grayscale: expected images"):
        adapt(Odd(spaces.Discrete(2)), grayscale=True)


def test_atari_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)  # as if not installed
    with pytest.raises(ImportError, match=r"jumpy-worldmodel\[atari\]"):
        adapt("ALE/Pong-v5")


def test_cart_pole_in_pixels() -> None:
    pytest.importorskip("pygame")
    env = adapt("CartPole-v1", pixels=True)
    assert fits(env).observation == (3, 64, 64)
    seen = collect(env, 1, max_steps=8, progress=False).episodes[0].observations
    assert (seen[0] != seen[-1]).any()


def test_pong() -> None:
    pytest.importorskip("ale_py")
    env = adapt("ALE/Pong-v5", size=64)
    spec = Spec.from_spaces(env.observation_space, env.action_space, 5)
    assert spec.observation == (3, 64, 64)
    assert spec.action.categories == (6,)
    assert env.spec.kwargs["frameskip"] == 4
    assert env.spec.kwargs["repeat_action_probability"] == 0.25
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(first, again)
    memory = adapt("ALE/Pong-v5", obs_type="ram")
    assert memory.observation_space.shape == (128,)
    plain = adapt("ALE/Pong-v5", obs_type="grayscale", frameskip=1)
    assert plain.observation_space.shape == (64, 64, 1)


@pytest.mark.slow
def test_atari_from_recording_to_imagined_episodes() -> None:
    pytest.importorskip("ale_py")
    pong = partial(adapt, "ALE/Pong-v5")
    episodes = collect(pong(), 2, hold=4, max_steps=60, progress=False)
    assert [len(episode.rewards) for episode in episodes.episodes] == [60, 60]
    source = episodes.windows(24, 4)
    env = pong()
    model = make("jump", Spec.from_spaces(env.observation_space, env.action_space, 24), "small")
    metrics = fit(model, source, 2, progress=False)
    assert all(np.isfinite(value) for value in metrics.values())
    starts = np.stack([episode.observations[0] for episode in episodes.episodes])
    venv = ImaginedVecEnv(model, starts, num_envs=2, hold=4)
    assert venv.observation_space == HoldAction(env, 4).observation_space
    venv.reset()
    for step in range(20):
        seen, rewards, _, _ = venv.step(np.array([step % 6, 2]))
        assert seen.shape == (2, 64, 64, 3)
        assert np.isfinite(rewards).all()
    real = LookaheadVecWrapper(DummyVecEnv([lambda: HoldAction(pong(), 4)]), model, 2, hold=4)
    assert real.reset()["imagined"].shape == (1, 6, 2, 64, 64, 3)
    assert np.isfinite(real.step(np.array([3]))[0]["reward_alive"]).all()
