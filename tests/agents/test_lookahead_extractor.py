import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeEnv, FakeModel
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.lookahead import LookaheadExtractor, LookaheadVecWrapper
from worldmodel.spec import ActionSpec

BOX = ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 2.0))


def space_of(**kwargs: object) -> gym.spaces.Dict:
    return LookaheadVecWrapper(DummyVecEnv([FakeEnv]), FakeModel(), **kwargs).observation_space


@pytest.mark.parametrize("shape", [(3, 32, 32), (32, 32, 3), (32, 32, 36), (36, 32, 32)])
def test_extractor_finds_the_channels(shape: tuple[int, ...]) -> None:
    channels = max(shape) if 36 in shape else 3
    space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(0, 255, shape, np.uint8),
            "imagined": gym.spaces.Box(0, 255, (4, 3, 32, 32, channels), np.uint8),
            "reward_alive": gym.spaces.Box(-np.inf, np.inf, (4, 3, 2), np.float32),
        }
    )
    extractor = LookaheadExtractor(space, features_dim=16)
    assert extractor.transpose == (shape[-1] == channels)
    assert extractor.real.layers[0].in_channels == channels


def test_extractor_reads_every_part_alike() -> None:
    space = space_of(jumps=2)
    turned = gym.spaces.Dict(
        {**space, "observation": gym.spaces.Box(0, 255, (3, 32, 32), np.uint8)}
    )
    torch.manual_seed(0)
    extractor = LookaheadExtractor(turned, features_dim=16, imagined_dim=8, channels=4)
    parts = {
        "observation": torch.rand(5, 3, 32, 32),
        "imagined": torch.randint(0, 256, (5, 4, 2, 32, 32, 3)).float(),
        "reward_alive": torch.randn(5, 4, 2, 2),
    }
    out = extractor(parts)
    assert out.shape == (5, extractor.features_dim) == (5, 16 + 16)
    # What each action brings comes through as it is.
    torch.testing.assert_close(out[:, 16:], parts["reward_alive"].flatten(1))
    seen = []
    extractor.imagined.register_forward_hook(lambda module, given, _: seen.append(given[0]))
    extractor(parts)
    assert seen[0].shape == (40, 3, 32, 32)
    assert 0.99 < seen[0].max() <= 1
    torch.testing.assert_close(seen[0][3], parts["imagined"][0, 1, 1].movedim(-1, 0) / 255)
    for name in parts:
        changed = {**parts, name: parts[name] * 0.5}
        assert (extractor(changed) != out).any()


def test_extractor_without_frames_and_with_channels_last() -> None:
    space = space_of(jumps=2, frames=False)
    extractor = LookaheadExtractor(space, features_dim=16)
    assert extractor.transpose
    parts = {"observation": torch.rand(2, 32, 32, 3), "reward_alive": torch.zeros(2, 4, 2, 2)}
    assert extractor(parts).shape == (2, 16 + 16)


def test_what_stands_beside_comes_through() -> None:
    extractor = LookaheadExtractor(space_of(frames=False, depth=2), features_dim=16)
    parts = {
        "observation": torch.rand(2, 32, 32, 3),
        "reward_alive": torch.randn(2, 4, 2, 2),
        "returns": torch.randn(2, 4),
    }
    out = extractor(parts)
    assert out.shape == (2, 16 + 16 + 4)
    torch.testing.assert_close(out[:, -4:], parts["returns"])


def test_extractor_rejects_other_spaces() -> None:
    for space in (SPEC.observation_space(), gym.spaces.Dict({"observation": BOX.to_space()})):
        with pytest.raises(ValueError, match="LookaheadVecWrapper"):
            LookaheadExtractor(space)
