"""What learns from lookahead: a features extractor for any algorithm of SB3, and a policy.

PPO(LookaheadPolicy, venv)
PPO("MultiInputPolicy", venv, policy_kwargs={"features_extractor_class": LookaheadExtractor})
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from agents.policies import SmallCnn

FEATURE_SCALE = 0.1
"""Factor of the features of observations. SB3 initialises all layers orthogonally: their noise
would drown the few numbers that say outright what each action brings."""


class LookaheadExtractor(BaseFeaturesExtractor):
    """Features extractor for the Dicts of ``LookaheadVecWrapper``, frames stacked or not.

    Images pass a ``SmallCnn``, vectors one layer. All imagined jumps share one such encoder. Its
    output and the encoded real observation are combined by one layer. After that come the outcomes
    of each candidate, as they are: its ``reward_alive`` and ``returns``; and ``returns`` a second
    time, standardised over the candidates: which one is better matters, on whatever scale.

    Args:
        observation_space: the Dict, as SB3 hands it over.
        features_dim: width of the output, without the outcomes.
        imagined_dim: width of the features of each imagined jump.
        channels: of the first convolutions.

    Attributes:
        outcomes: (A, F), outcomes of each of A candidates.

    Raises:
        ValueError: the space is not such a Dict.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        features_dim: int = 128,
        imagined_dim: int = 32,
        channels: int = 16,
    ) -> None:
        spaces = getattr(observation_space, "spaces", {})
        if not {"observation", "reward_alive"} <= set(spaces):
            raise ValueError(
                "observation_space: expected the Dict of a LookaheadVecWrapper, got "
                f"{observation_space}"
            )
        shapes: dict[str, tuple[int, ...]] = {key: spaces[key].shape for key in spaces}
        count, *numbers = shapes["reward_alive"]
        searched = shapes["returns"][0] // count if "returns" in shapes else 0  # of each frame
        outcomes = (count, math.prod(numbers) + 2 * searched)
        super().__init__(observation_space, features_dim + math.prod(outcomes))
        self.outcomes = outcomes
        real, imagined = shapes["observation"], shapes.get("imagined")
        self.transpose = _channels_last(real, imagined)
        real = _channels_first(real) if self.transpose else real
        self.real = _encoder(real, features_dim, channels)
        self.imagined: nn.Module | None = None
        width = features_dim
        if imagined is not None:
            one = imagined[2:]
            self.scale = len(one) == 3
            one = _channels_first(one) if self.scale else one
            self.imagined = _encoder(one, imagined_dim, channels)
            width += math.prod(imagined[:2]) * imagined_dim
        self.combine = nn.Sequential(nn.Linear(width, features_dim), nn.ReLU())

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """The parts (B, ...), of which SB3 scales only ``observation``, to (B, features)."""
        real = observations["observation"]
        parts = [self.real(real.movedim(-1, -3) if self.transpose else real)]
        if self.imagined is not None:
            frames = observations["imagined"].float().flatten(0, 2)  # (B * A * K, ...)
            if self.scale:
                frames = frames.movedim(-1, -3) / 255
            parts.append(self.imagined(frames).reshape(len(real), -1))
        combined = FEATURE_SCALE * torch.as_tensor(self.combine(torch.cat(parts, 1)))
        outcomes = [observations["reward_alive"].flatten(2)]
        if "returns" in observations:
            returns = observations["returns"].unflatten(1, (-1, self.outcomes[0]))  # (B, frames, A)
            standardised = layer_norm(returns, returns.shape[-1:], eps=1e-12)
            outcomes += [returns.transpose(1, 2), standardised.transpose(1, 2)]
        return torch.cat([combined, torch.cat(outcomes, 2).flatten(1)], 1)


class LookaheadPolicy(MultiInputActorCriticPolicy):
    """SB3's policy for ``LookaheadVecWrapper`` in which one network judges all discrete actions.

    Each action's logit is made of its outcomes and of what is combined of the observation, by the
    same weights for all: what is learned of one action holds for the others, too, so that it takes
    fewer decisions. The value is made of all of it.

    Args:
        args, kwargs: as of SB3's ``MultiInputActorCriticPolicy``, with other defaults: a
            ``LookaheadExtractor`` (or a subclass of it), and one hidden layer of 64.

    Raises:
        ValueError: actions are not discrete, not all of them are candidates, or the features
            extractor is another one.
    """

    features_extractor: LookaheadExtractor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        defaults = {
            "features_extractor_class": LookaheadExtractor,
            "net_arch": {"pi": [64], "vf": [64]},
        }
        chosen: dict[str, Any] = {**defaults, **kwargs}
        extractor = chosen["features_extractor_class"]
        if not issubclass(extractor, LookaheadExtractor):
            raise ValueError(
                "features_extractor_class: LookaheadPolicy needs a LookaheadExtractor, got "
                f"{extractor.__name__}"
            )
        super().__init__(*args, **chosen)

    def _build_mlp_extractor(self) -> None:
        count, numbers = self.features_extractor.outcomes
        space = self.action_space
        if not isinstance(space, gym.spaces.Discrete) or space.n != count:
            raise ValueError(
                f"policy: LookaheadPolicy judges all actions of a discrete space, got {space} and "
                f'{count} candidates; take "MultiInputPolicy" with a LookaheadExtractor'
            )
        width = self.features_dim - count * numbers
        layers = self.net_arch
        sizes = layers if isinstance(layers, dict) else {"pi": layers, "vf": layers}
        self.mlp_extractor = _ActorCritic(  # type: ignore[assignment]
            count, numbers, width, sizes["pi"], sizes["vf"], self.activation_fn
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.action_net = nn.Identity()  # the actor's outputs are the logits
        assert isinstance(self.mlp_extractor, _ActorCritic)
        self.init_weights(self.mlp_extractor.actor[-1], 0.01)
        self.optimizer = self.optimizer_class(
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )  # type: ignore[call-arg]


def lookahead_policy(venv: VecEnv) -> tuple[str | type[LookaheadPolicy], dict[str, Any]]:
    """Policy, and its ``policy_kwargs``, of an algorithm in a ``LookaheadVecWrapper``.

    ``LookaheadPolicy`` where all actions are candidates, else "MultiInputPolicy".
    """
    space, spaces = venv.action_space, getattr(venv.observation_space, "spaces", {})
    count = spaces["reward_alive"].shape[0]
    if isinstance(space, gym.spaces.Discrete) and space.n == count:
        return LookaheadPolicy, {}
    return "MultiInputPolicy", {"features_extractor_class": LookaheadExtractor}


class _ActorCritic(nn.Module):
    """Logits (B, A) of A actions, and features of the value, of an extractor's output."""

    def __init__(
        self,
        count: int,
        numbers: int,
        width: int,
        actor: list[int],
        critic: list[int],
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.shape = (count, numbers)
        whole = width + count * numbers
        self.latent_dim_pi, self.latent_dim_vf = count, critic[-1] if critic else whole
        self.actor = nn.Sequential(*create_mlp(width + numbers, 1, actor, activation))
        self.critic = nn.Sequential(*create_mlp(whole, 0, critic, activation))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        count, numbers = self.shape
        combined, outcomes = features.split(
            [features.shape[1] - count * numbers, count * numbers], 1
        )
        each = combined.unsqueeze(1).expand(-1, count, -1)
        logits: Tensor = self.actor(torch.cat([each, outcomes.unflatten(1, self.shape)], 2))
        return logits.squeeze(2)

    def forward_critic(self, features: Tensor) -> Tensor:
        value: Tensor = self.critic(features)
        return value


def _encoder(shape: tuple[int, ...], width: int, channels: int) -> nn.Module:
    if len(shape) == 3:
        return SmallCnn(gym.spaces.Box(0, 255, shape, np.uint8), width, channels)
    return nn.Sequential(nn.Linear(shape[0], width), nn.ReLU())


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(H, W, C) to (C, H, W)."""
    return shape[-1], *shape[:-1]


def _channels_last(real: tuple[int, ...], imagined: tuple[int, ...] | None) -> bool:
    """Whether real images are still (H, W, C): SB3 transposes them, unless that is disabled."""
    if len(real) != 3:
        return False
    if imagined is not None:  # never transposed, so height and width are known
        return real[1:] != imagined[2:4]
    return not is_image_space_channels_first(gym.spaces.Box(0, 255, real, np.uint8))
