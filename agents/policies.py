"""A network for small images for Stable-Baselines3, and policies in safe files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from safetensors.torch import save as to_bytes
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from worldmodel.checkpoint import load_weights
from worldmodel.common.files import atomic


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


class SmallMultiInput(BaseFeaturesExtractor):
    """A features extractor for Dicts: ``SmallCnn`` for each image, other parts are flattened.

    Args:
        observation_space: the Dict, as SB3 hands it over.
        features_dim: width of an image's features; the output also holds the other parts' numbers.
        channels: as for ``SmallCnn``.

    Raises:
        ValueError: an image's height or width is no multiple of 8.

    Example::

        PPO("MultiInputPolicy", venv, policy_kwargs={"features_extractor_class": SmallMultiInput})
    """

    def __init__(
        self, observation_space: gym.spaces.Dict, features_dim: int = 128, channels: int = 16
    ) -> None:
        parts = observation_space.spaces
        images = [name for name, part in parts.items() if len(part.shape or ()) == 3]
        others = sum(get_flattened_obs_dim(parts[name]) for name in parts if name not in images)
        super().__init__(observation_space, features_dim * len(images) + others)
        self.images = nn.ModuleDict(
            {name: SmallCnn(parts[name], features_dim, channels) for name in images}
        )

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Normalised parts (B, ...) to features (B, features_dim)."""
        features = [
            self.images[name](part) if name in self.images else part.flatten(1)
            for name, part in observations.items()
        ]
        return torch.cat(features, 1)


def save_policy(agent: BaseAlgorithm, path: str | Path) -> Path:
    """Write the weights of an agent's policy as safetensors, for ``load_policy``.

    Unlike SB3's own zip, such a file cannot run code. It holds no settings and no optimizer.

    Args:
        agent: any of SB3's, such as PPO, DQN or SAC.
        path: of the file; it is moved into place whole.
    """
    return write_weights(agent.policy, Path(path))


def write_weights(module: nn.Module, path: Path) -> Path:
    """Write a module's state as safetensors, atomically; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cloned: safetensors refuses tensors that share memory.
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in module.state_dict().items()}
    with atomic(path) as partial:
        partial.write_bytes(to_bytes(tensors))
    return path


def load_policy(agent: BaseAlgorithm, path: str | Path) -> BaseAlgorithm:
    """Fill the policy of ``agent`` with the weights that ``save_policy`` wrote, and return it.

    Safe with files from others, which SB3's ``load`` is not: make an agent with the same settings,
    such as ``PPO("MlpPolicy", env)``, and load their weights into it.

    Args:
        agent: its policy has the same networks.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is corrupt, or its tensors are not those of this policy.
    """
    load_weights(agent.policy, Path(path))
    return agent
