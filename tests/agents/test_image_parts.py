"""Dict observations of an image and a vector, imagined together."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from dict_envs import SIZE, Camera
from stable_baselines3 import DQN
from stable_baselines3.common.env_checker import check_env

import worldmodel
from agents import (
    ImaginedVecEnv,
    KnownFunctions,
    RandomShooting,
    RandomShootingConfig,
    RecordEpisodes,
    SmallMultiInput,
    adapt,
    evaluate,
    from_replay_buffer,
)
from agents.training.imagined_ppo import train_in_imagination
from worldmodel import Episodes, collect, fit, make


@pytest.fixture(scope="module")
def recorded() -> Episodes:
    return collect(Camera(), 12, progress=False)


@pytest.fixture(scope="module")
def model(recorded: Episodes) -> worldmodel.WorldModel:
    model = make("jump", recorded.spec(8))
    fit(model, recorded.windows(8, 8), 60)
    return model


def column(image: np.ndarray) -> np.ndarray:
    """How many columns (n,) of images are white."""
    return (image.mean((1, 3)) / 255).sum(1)


def test_recordings_take_no_more_memory_than_the_parts(recorded: Episodes, tmp_path: Path) -> None:
    check_env(Camera(), warn=False)
    spec, env = recorded.spec(1), Camera()
    assert recorded[0].observations.shape == (9, SIZE * SIZE * 3 + 2 * 4)
    assert recorded[0].observations.dtype == np.uint8
    first = env.reset(seed=0)[0]
    expected = [first] + [env.step(action)[0] for action in recorded[0].actions]
    parts = spec.unpack(recorded[0].observations)
    for name, part in env.observation_space.spaces.items():
        np.testing.assert_array_equal(parts[name], np.stack([one[name] for one in expected]))
        assert parts[name].dtype == part.dtype
    recorded.save(tmp_path / "packed")
    worldmodel.unpack(tmp_path / "packed", tmp_path / "flat")
    windows = [
        episodes.windows(4, 3).batch(0).observations(torch.arange(5).expand(3, -1))
        for episodes in (
            recorded,
            Episodes.load(tmp_path / "packed"),
            Episodes.load(tmp_path / "flat", memory=10**7),
        )
    ]
    assert torch.equal(windows[0], windows[1]) and torch.equal(windows[0], windows[2])


def test_models_see_both(recorded: Episodes) -> None:
    spec, packed = recorded.spec(1), recorded[0].observations
    seen = spec.to_model(torch.from_numpy(packed))
    parts, real = spec.split(seen), spec.unpack(packed)
    np.testing.assert_array_equal(parts["state"].numpy(), real["state"])
    image = real["image"].transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(parts["image"].numpy(), image)
    np.testing.assert_array_equal(spec.to_numpy(seen), packed)
    for offset in range(4):  # bytes that lie at any address
        shifted = np.zeros(packed.size + 4, np.uint8)[offset : offset + packed.size]
        shifted[:] = packed.ravel()
        again = spec.to_model(torch.from_numpy(shifted.reshape(packed.shape)))
        assert torch.equal(again, seen)
        assert np.array_equal(spec.unpack(shifted.reshape(packed.shape))["state"], real["state"])


def test_image_and_vector_agree_in_imagination(recorded: Episodes, model) -> None:
    venv = ImaginedVecEnv(model, recorded, 32, horizon=4)
    assert venv.observation_space == Camera().observation_space
    venv.reset()
    random = np.random.default_rng(0)
    for _ in range(3):
        shown, _, _, _ = venv.step(random.integers(3, size=32))
        assert all(
            venv.observation_space.contains({name: part[row] for name, part in shown.items()})
            for row in range(32)
        )
        assert np.corrcoef(column(shown["image"]), shown["state"][:, 0])[0, 1] > 0.8
    assert venv.get_images()[0].shape == (SIZE, SIZE, 3)


def test_known_functions_see_dicts(recorded: Episodes) -> None:
    def legal(parts: dict[str, torch.Tensor]) -> torch.Tensor:
        assert parts["image"].shape[1:] == (3, SIZE, SIZE)
        return parts["state"][:, :1] > torch.tensor([50.0, -1.0, -1.0])

    made = make("copy-last", recorded.spec(8))
    venv = ImaginedVecEnv(made, recorded, 32, known=KnownFunctions(action_mask=legal))
    expected = venv.reset()["state"][:, 0] > 50
    masks = np.stack(venv.env_method("action_masks"))
    np.testing.assert_array_equal(masks[:, 0], expected)
    assert 0 < expected.sum() < 32 and masks[:, 1:].all()


def test_consistency_of_worlds(recorded: Episodes, model) -> None:
    """Asked together or alone, in any order: the same answer."""
    spec, batch = model.spec, recorded.windows(8, 2).batch(0)
    times = torch.tensor([[0, 2], [0, 1]])
    context = worldmodel.Context(
        spec.to_model(batch.observations(times)), times, batch.actions, present=torch.tensor([2, 2])
    )
    with torch.no_grad():
        worlds = model.sample(model.observe(context), 3, torch.Generator().manual_seed(0))
        plan = batch.actions[:, None, 2:5]
        both = model.predict(worlds, worldmodel.Queries(torch.tensor([[3, 5], [3, 5]]), plan))
        late = model.predict(worlds, worldmodel.Queries(torch.tensor([[5], [5]]), plan))
    assert both.observations.shape == (2, 3, 1, 2, SIZE * SIZE * 3 + 2)
    torch.testing.assert_close(both.observations[..., 1:, :], late.observations)


def test_agents_learn_plan_and_play(recorded: Episodes, model, tmp_path: Path) -> None:
    settings = {"n_steps": 8, "batch_size": 32, "n_epochs": 1}
    agent = train_in_imagination(model, recorded, 32, 4, horizon=4, **settings)
    assert len(evaluate(agent, Camera, 2)) == 2
    planner = RandomShooting(model, RandomShootingConfig(plans=16, worlds=2, horizon=3))
    assert len(evaluate(planner, Camera, 2)) == 2
    action, _ = planner.predict(Camera().reset(seed=0)[0])
    assert action in Camera().action_space
    worldmodel.save(model, tmp_path / "model")
    again = worldmodel.load(tmp_path / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_other_presets_and_models(recorded: Episodes) -> None:
    for preset in ("narrative", "jumpy"):
        made = make("jump", recorded.spec(8), preset)
        losses = made.loss(recorded.windows(8, 2).batch(0), 0.0, None)
        assert torch.isfinite(losses.total)
    assert ImaginedVecEnv(make("copy-last", recorded.spec(8)), recorded, 2).reset()["image"].any()
    for name in ("gqn", "svg-lp"):
        with pytest.raises(ValueError, match=r"takes no Dicts that hold an image.*jump.* do"):
            make(name, recorded.spec(8))
    with pytest.raises(ValueError, match="renderer: expected 'mlp' for vectors"):
        make("jump", recorded.spec(8), "vector")


def test_refusals_of_spaces() -> None:
    image = gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    vector = gym.spaces.Box(-1, 1, (2,), np.float32)
    actions = gym.spaces.Discrete(2)
    for space, message in (
        ({"left": image, "right": image}, r"at most one image.*'left', 'right'.*FilterObs"),
        ({"x": vector, "task": gym.spaces.Discrete(3)}, "part 'task' is Discrete.*agents.adapt"),
        ({}, "at least one part"),
        ({"a": gym.spaces.Box(0, 255, (20, 20, 3), np.uint8)}, "part 'a': expected an image of"),
    ):
        with pytest.raises(ValueError, match=message):
            worldmodel.Spec.from_spaces(gym.spaces.Dict(space), actions, 4)
    alone = worldmodel.Spec.from_spaces(gym.spaces.Dict({"a": image}), actions, 4)
    assert make("jump", alone).vectors is None


class Shows(gym.Env):
    """Samples of any Dict."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, **parts: gym.Space) -> None:
        self.observation_space = gym.spaces.Dict(parts)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.observation_space.sample(), 0.0, False, True, {}


def test_what_refusals_advise_works() -> None:
    image = gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    vector, task = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(3)
    leave = gym.wrappers.FilterObservation
    for env, fixed in (
        (Shows(left=image, right=image), lambda env: leave(env, ["left"])),
        (Shows(x=vector, task=task), adapt),
        (Shows(x=vector, task=task), lambda env: leave(env, ["x"])),
        (Shows(camera=image, task=task), partial(adapt, size=SIZE)),
        (Shows(small=gym.spaces.Box(0, 255, (20, 20, 3), np.uint8)), partial(adapt, size=16)),
    ):
        with pytest.raises(ValueError, match=r"FilterObservation|agents\.adapt"):
            collect(env, 1, progress=False)
        assert collect(fixed(env), 2, progress=False).spec(1).parts or fixed is adapt


def test_replay_buffers_with_images() -> None:
    recorder = RecordEpisodes(Camera())
    extractor = {"features_extractor_class": SmallMultiInput}
    agent = DQN("MultiInputPolicy", recorder, buffer_size=50, policy_kwargs=extractor).learn(16)
    episodes = from_replay_buffer(agent.replay_buffer)
    assert episodes.observation_space == recorder.observation_space
    for left, right in zip(episodes, recorder.episodes(), strict=True):
        np.testing.assert_array_equal(left.observations, right.observations)


def test_vectors_beyond_their_bounds_are_imagined_with_an_image() -> None:
    env = Camera()
    env.observation_space.spaces["state"] = gym.spaces.Box(-1, 1, (2,), np.float32)
    with pytest.warns(UserWarning, match="^observations: number 0 of 'state' goes from .* -1 to 1"):
        recorded = collect(env, 4, progress=False)
    venv = ImaginedVecEnv(make("copy-last", recorded.spec(8)), recorded, 32)
    before = venv.reset()["state"]
    assert before.max() > 1
    np.testing.assert_array_equal(venv.step(np.zeros(32, np.int64))[0]["state"], before)


def test_codes_among_other_parts() -> None:
    class Grid(Camera):
        def parts(self) -> dict[str, np.ndarray]:
            parts = super().parts()
            return {**parts, "image": parts["image"] // 25}

    with pytest.warns(UserWarning, match="observations: images hold whole numbers from 0 to 10"):
        recorded = collect(Grid(), 2, progress=False)
    logged = recorded[0]
    with pytest.warns(UserWarning, match="observations: images hold whole numbers from 0 to 10"):
        Episodes.from_arrays(
            recorded.spec(1).unpack(logged.observations), logged.actions, logged.rewards,
            np.zeros(len(logged.actions)), action_space=Grid().action_space,
            observation_space=Grid().observation_space,
        )  # fmt: skip
