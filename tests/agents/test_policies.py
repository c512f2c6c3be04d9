import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.policies import SmallCnn


@pytest.mark.parametrize("shape", [(3, 16, 16), (12, 32, 32), (1, 24, 40), (9, 64, 64)])
def test_small_cnn_takes_any_size(shape: tuple[int, int, int]) -> None:
    cnn = SmallCnn(gym.spaces.Box(0, 255, shape, np.uint8), features_dim=10)
    assert cnn(torch.rand(2, *shape)).shape == (2, 10)


def test_small_cnn_rejects() -> None:
    for shape in [(3, 20, 32), (8,)]:
        with pytest.raises(ValueError, match="multiples of 8"):
            SmallCnn(gym.spaces.Box(0, 255, shape, np.uint8))
