"""Prior and posterior over the global latent z: convolutional DRAW (seed 001, appendix B).

Prior, posterior and renderer are three recurrences that share only z.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.models.jumpy.jump.config import JumpConfig
from worldmodel.models.layers import gaussian
from worldmodel.models.layers.conv_lstm import ConvLSTMCell, State


class Tower(nn.Module):
    """One recurrence from a representation (B, in, H/4, W/4) to the statistics of z_1 .. z_nt."""

    def __init__(self, in_channels: int, cell: int, config: JumpConfig) -> None:
        super().__init__()
        self.embed = nn.Conv2d(in_channels, config.tower, cell, cell)
        self.lstm = ConvLSTMCell(config.tower + config.latent, config.hidden, config.kernel)
        self.statistics = nn.Conv2d(
            config.hidden, 2 * config.latent, config.kernel, padding=config.kernel // 2
        )

    def begin(self, r: Tensor) -> Tensor:
        """What r adds to the gates of every step, (B, 4 * hidden, h, w)."""
        constant: Tensor = self.lstm.constant(self.embed(r))
        return constant

    def step(
        self, constant: Tensor, z: Tensor, state: State | None
    ) -> tuple[Tensor, Tensor, State]:
        """Mean and log-variance of the next z given the last one; at first, with no state, z is 0.

        Args:
            constant: what ``begin`` returned.
            z: (B, latent, h, w).
            state: of the step before.
        """
        state = self.lstm(z, state, constant)
        mean, logvar = self.statistics(state[0]).chunk(2, 1)
        return mean, logvar, state


class GlobalLatent(nn.Module):
    """P_phi(z | r) and P_psi(z | r, r_targets); z is (B, steps, latent, H/8, W/8).

    ``cell`` is the side of the cells of r that make one of z: 2, or 1 for vectors.
    """

    def __init__(self, channels: int, cell: int, config: JumpConfig) -> None:
        super().__init__()
        self.config = config
        self.prior = Tower(channels, cell, config)
        self.posterior = Tower(2 * channels, cell, config)

    def _first(self, constant: Tensor) -> Tensor:
        return constant.new_zeros(len(constant), self.config.latent, *constant.shape[-2:])

    def sample(self, r: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
        """``n`` latents per scene from the prior: (B * n, steps, latent, H/8, W/8)."""
        constant = self.prior.begin(r).repeat_interleave(n, 0)
        z, state = self._first(constant), None
        samples = []
        for _ in range(self.config.steps):
            mean, logvar, state = self.prior.step(constant, z, state)
            z = gaussian.draw(mean, logvar, gaussian.standard_normal(mean, generator))
            samples.append(z)
        return torch.stack(samples, 1)

    def infer(
        self, r: Tensor, r_targets: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """A latent from the posterior and KL(posterior || prior) (B,), in nats."""
        prior_input = self.prior.begin(r)
        posterior_input = self.posterior.begin(torch.cat([r, r_targets], 1))
        z, samples = self._first(prior_input), []
        kl = r.new_zeros(r.shape[0])
        prior_state, posterior_state = None, None
        for _ in range(self.config.steps):
            mean_p, logvar_p, prior_state = self.prior.step(prior_input, z, prior_state)
            mean_q, logvar_q, posterior_state = self.posterior.step(
                posterior_input, z, posterior_state
            )
            kl = kl + gaussian.kl_divergence(mean_q, logvar_q, mean_p, logvar_p)
            z = gaussian.draw(mean_q, logvar_q, gaussian.standard_normal(mean_q, generator))
            samples.append(z)
        return torch.stack(samples, 1), kl
