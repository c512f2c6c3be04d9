"""TorchRL's Dreamer RSSM under this project's contract, to be timed beside our own models.

It steps through time in a small latent state and decodes only what is queried. All networks are
TorchRL's, of its default sizes, with fresh weights; nothing here can be trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import torch
from torch import Tensor, nn

from worldmodel import Spec
from worldmodel.base import Losses
from worldmodel.models.frame_by_frame.base import FrameByFrame, State
from worldmodel.types import SceneBatch

NAME = "torchrl:rssm"
SIZE = 64
"""Of the frames that its decoder makes."""
GOES_ON = 30.0
"""Logit of the continuation, of which this model has no network."""


@dataclass(frozen=True)
class RssmConfig:
    """TorchRL's default sizes, and those of its Dreamer for the reward.

    Attributes:
        state, belief: numbers of the stochastic and of the deterministic state.
        hidden: of the networks between them.
        channels: of the first convolution and the last.
        head: of both hidden layers of the reward.
    """

    state: int = 30
    belief: int = 200
    hidden: int = 200
    channels: int = 32
    head: int = 400


class TorchRlRssm(FrameByFrame):
    """Encoder, posterior, prior, decoder and reward of ``torchrl.modules``.

    Its own state entries: ``state`` and ``belief``.

    Raises:
        ValueError: TorchRL is not installed, or the frames are not RGB images of 64 pixels.
    """

    name: ClassVar[str] = "torchrl"
    feeds_back: ClassVar[bool] = False
    config: RssmConfig

    def __init__(self, spec: Spec, config: RssmConfig) -> None:
        super().__init__(spec, config)
        try:
            modules = import_module("torchrl.modules")
        except ModuleNotFoundError as error:
            raise ValueError(
                f'models: {NAME} needs TorchRL; pip install "jumpy-worldmodel[peers]"'
            ) from error
        if spec.observation != (3, SIZE, SIZE):
            raise ValueError(f"size: {NAME} takes frames {(3, SIZE, SIZE)}, got {spec.observation}")
        actions, both = spec.action.features, config.state + config.belief
        sizes = {"hidden_dim": config.hidden, "state_dim": config.state}
        self.noise_shape = (config.state,)
        self.encoder = modules.ObsEncoder(config.channels, in_channels=3)
        with torch.no_grad():
            (features,) = self.encoder(torch.zeros(spec.observation)).shape
        self.prior = modules.RSSMPrior(
            torch.empty(actions), rnn_hidden_dim=config.belief, action_dim=actions, **sizes
        )
        self.posterior = modules.RSSMPosterior(
            rnn_hidden_dim=config.belief, obs_embed_dim=features, **sizes
        )
        self.decoder = modules.ObsDecoder(config.channels, latent_dim=both)
        self.reward = modules.MLP(both, 1, 2, config.head, nn.ELU)

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        """Filtered with the posterior's means."""
        batch, encoded = len(present), self.encoder(observations)
        state = encoded.new_zeros(batch, self.config.state)
        belief = encoded.new_zeros(batch, self.config.belief)
        none = encoded.new_zeros(batch, self.config.state)
        states = []
        for step in range(encoded.shape[1]):
            taken = actions[:, step - 1] if step else actions.new_zeros(batch, actions.shape[2])
            _, _, _, belief = self.prior(state, belief, taken, none)
            state, _, _ = self.posterior(belief, encoded[:, step], none)
            states.append((state, belief))
        rows = torch.arange(batch, device=present.device)
        state, belief = (torch.stack(each, 1)[rows, present] for each in zip(*states, strict=True))
        return {"state": state, "belief": belief}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        _, _, after, belief = self.prior(state["state"], state["belief"], actions, noise)
        reward = self.reward(torch.cat([after, belief], -1)).squeeze(-1)
        return {"state": after, "belief": belief}, reward, torch.full_like(reward, GOES_ON)

    def _decode(self, state: State) -> Tensor:
        frames: Tensor = self.decoder(state["state"], state["belief"])
        return frames

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """It has none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{NAME} is here to be timed; train it with TorchRL")


def make(spec: Spec, seed: int = 0) -> TorchRlRssm:
    """A fresh one.

    Args:
        spec: RGB frames of 64 pixels.
        seed: of the weights; torch's global generator stays as it is.

    Raises:
        ValueError: as the class.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TorchRlRssm(spec, RssmConfig())
