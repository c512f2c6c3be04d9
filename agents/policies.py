"""Networks for Stable-Baselines3 policies that look at small images."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class SmallCnn(BaseFeaturesExtractor):
    """A features extractor for images from 16 px on (SB3's NatureCNN needs at least 36 px).

    Three convolutions of stride 2 and one linear layer. Any number of channels: frames may be
    stacked.

    Args:
        observation_space: an image box (C, H, W) as SB3 hands it over, H and W multiples of 8.
        features_dim: width of the output.
        channels: of the first convolution; the others have twice as many.

    Raises:
        ValueError: the space is not such an image box.

    Example::

        PPO("CnnPolicy", venv, policy_kwargs={"features_extractor_class": SmallCnn})
    """

    def __init__(
        self, observation_space: gym.Space[Any], features_dim: int = 128, channels: int = 16
    ) -> None:
        shape = observation_space.shape or ()
        if len(shape) != 3 or shape[1] % 8 or shape[2] % 8:
            raise ValueError(
                "observation_space: expected images (C, H, W) whose height and width are multiples "
                f"of 8, got {observation_space}"
            )
        super().__init__(observation_space, features_dim)
        stack, height, width = shape
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(stack, channels, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels, wide, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(wide * (height // 8) * (width // 8), features_dim),
            nn.ReLU(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) in [0, 1] to features (B, features_dim)."""
        return torch.as_tensor(self.layers(observations))
