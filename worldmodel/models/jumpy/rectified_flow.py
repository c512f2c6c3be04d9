"""A conditional rectified flow over tokens of z (Liu et al., 2023): a prior given the context.

It is trained on samples of the posterior, without a gradient into them, in the same training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from worldmodel.base import WorldModel
from worldmodel.models.layers import gaussian
from worldmodel.models.layers.transformer import ModulatedBlock
from worldmodel.spec import Spec

Solver = Literal["heun", "euler"]


class RectifiedFlow(nn.Module):
    """dx/ds = v(x, s, condition) from noise at s = 0 to z, standardised, at s = 1.

    Subclasses make the condition, (B, tokens, width), of what a context says.

    Args:
        tokens: of z.
        latent: numbers of each.
        width, heads, blocks: of the transformer over the tokens.

    Attributes:
        standard: holds mean and variance of z, running over the training.
        condition: a subclass's function of what is known of contexts: (B, tokens, width).
    """

    frequencies: Tensor
    condition: Callable[..., Tensor]

    def __init__(self, tokens: int, latent: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.shape = (tokens, latent)
        frequencies = torch.exp(torch.linspace(0, math.log(1000), 16))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.standard = nn.BatchNorm1d(latent, affine=False, momentum=0.01)
        self.from_mean = nn.Linear(width, width)
        self.from_time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(latent, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, heads) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latent))

    def flow_loss(
        self, z: Tensor, condition: Tensor, draws: int, generator: torch.Generator | None
    ) -> Tensor:
        """Mean squared error of the velocity, at random noise and times.

        Args:
            z: (B, tokens, latent), samples of the posterior.
            condition: (B, tokens, width).
            draws: pairs of noise and time for each latent.
            generator: of noise and times.
        """
        target = self.standard(z.detach().float().flatten(0, 1)).unflatten(0, z.shape[:2])
        target = target.repeat(draws, 1, 1)
        noise = torch.randn(target.shape, generator=generator, device=z.device)
        time = torch.randn(len(target), generator=generator, device=z.device).sigmoid()
        x = torch.lerp(noise, target, time[:, None, None])
        velocity = self.velocity(x, time, condition.repeat(draws, 1, 1))
        return mse_loss(velocity, target - noise)

    @staticmethod
    def tokens(z: Tensor) -> Tensor:
        """A model's z as (B, tokens, latent); here it is that already."""
        return z

    def velocity(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """float32 (P, tokens, latent), of x at times (P,) in [0, 1]."""
        return self._velocity(x, condition, self._modulations(time, condition))

    def _modulations(self, time: Tensor, condition: Tensor) -> list[Tensor]:
        """What times (..., P) and conditions (P, tokens, width) do to each block: (..., P, 6 *
        width).
        """
        angle = time[..., None] * self.frequencies
        now = self.from_time(torch.cat([angle.sin(), angle.cos()], -1))
        now = now + self.from_mean(condition.mean(1))
        return [cast(ModulatedBlock, block).modulate(now) for block in self.blocks]

    def _velocity(self, x: Tensor, condition: Tensor, modulations: Iterable[Tensor]) -> Tensor:
        h = self.enter(x) + condition
        for block, modulation in zip(self.blocks, modulations, strict=True):
            h = block(h, modulation)
        velocity: Tensor = self.out(h)
        return velocity.float()

    def integrate(
        self, condition: Tensor, steps: int, solver: Solver, generator: torch.Generator | None
    ) -> Tensor:
        """A latent for each condition (P, tokens, width): (P, tokens, latent).

        Args:
            condition: of the contexts.
            steps: from noise to z.
            solver: "heun" evaluates the velocity twice in each step, "euler" once.
            generator: of the noise at the start.
        """
        count = len(condition)
        x = torch.randn(count, *self.shape, generator=generator, device=condition.device)
        times = torch.linspace(0, 1, steps + 1, device=condition.device)[:, None]
        # of all times at once: x has no part in it
        modulations = self._modulations(times.expand(-1, count), condition)
        length = 1 / steps
        for step in range(steps):
            now, then = ([each[at] for each in modulations] for at in (step, step + 1))
            velocity = self._velocity(x, condition, now)
            if solver == "heun":
                ahead = self._velocity(x + length * velocity, condition, then)
                velocity = (velocity + ahead) / 2
            x = x + length * velocity
        mean, variance = self.standard.running_mean, self.standard.running_var
        assert mean is not None and variance is not None
        return x * (variance + self.standard.eps).sqrt() + mean


class LatentReplay:
    """What a prior that learns alone learns from: posteriors of the latest training scenes.

    To infer a posterior costs about as much as to learn from it. With a replay, each step learns
    from many different ones and infers few.

    Args:
        size: scenes that are kept.
    """

    def __init__(self, size: int) -> None:
        self.size, self.added = size, 0
        self.parts: list[Tensor] = []

    @torch.no_grad()
    def add(self, *parts: Tensor) -> None:
        """Keep parts (B, ...) of B scenes, in place of the oldest ones."""
        if not self.parts:
            self.parts = [p.new_zeros(self.size, *p.shape[1:]) for p in parts]
        shapes = [[tuple(p.shape[1:]) for p in each] for each in (parts, self.parts)]
        if shapes[0] != shapes[1]:  # of a file that was resumed from
            raise ValueError(
                f"replay: expected parts {shapes[0]}, the training state's {shapes[1]}"
            )
        self.added += max(0, len(parts[0]) - self.size)  # of a batch too large, the last ones
        parts = tuple(part[-self.size :] for part in parts)
        count = len(parts[0])
        rows = torch.arange(self.added, self.added + count, device=parts[0].device) % self.size
        for ring, fresh in zip(self.parts, parts, strict=True):
            ring[rows] = fresh.to(ring)
        self.added += count

    def draw(self, count: int, generator: torch.Generator | None) -> list[Tensor]:
        """The parts of ``count`` scenes, drawn with replacement."""
        device = self.parts[0].device
        rows = torch.randint(
            min(self.added, self.size), (count,), generator=generator, device=device
        )
        return [ring[rows] for ring in self.parts]

    def state(self) -> dict[str, Tensor]:
        """Tensors by name, from which ``restore`` goes on; none while nothing is kept."""
        if not self.parts:
            return {}
        tensors = {str(n): part[: self.added] for n, part in enumerate(self.parts)}
        return {"added": torch.tensor(self.added), **tensors}

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on from a ``state``.

        Raises:
            ValueError: it is something else, which a file may hold.
        """
        names = [str(n) for n in range(len(state) - 1)]
        if state and not (names and state.keys() == {"added", *names}):
            raise ValueError(f"replay: expected added and numbered parts, got {sorted(state)[:8]}")
        added = int(state["added"]) if state and state["added"].shape == () else 0
        parts = [state[name] for name in names]
        if any(not part.dim() or len(part) != min(added, self.size) for part in parts):
            raise ValueError(
                f"replay: expected {self.size} scenes in each part, or as many as were added, got "
                f"{[tuple(part.shape) for part in parts]} of {added}"
            )
        self.parts, self.added = [], 0
        if parts:
            self.add(*(part.to(device) for part in parts))
            self.added = added


class FlowSampler(WorldModel):
    """A model that samples z from a flow, which trains alone in the end.

    Its settings have ``flow_steps``, ``prior_share``, ``prior_batch``, ``prior_memory``,
    ``learning_rate``, ``learning_rate_end`` and ``warmup``; where it is not ``stochastic`` there is
    no z, and no flow.

    Attributes:
        replay: posteriors for the prior while it trains alone.
    """

    trains_in_parts: ClassVar[bool] = True
    removed_settings: ClassVar[frozenset[str]] = frozenset({"prior_draws"})
    config: Any

    def __init__(self, spec: Spec, config: Any) -> None:
        super().__init__(spec, config)
        self.replay = LatentReplay(config.prior_memory)

    def trains_prior_alone(self, progress: float) -> bool:
        """Whether a training step after that share of the training is one of the prior alone."""
        return self.stochastic and self.training and progress >= 1 - self.config.prior_share

    def prior_loss(
        self,
        prior: RectifiedFlow,
        z: Tensor,
        moments: tuple[Tensor, Tensor],
        known: tuple[Tensor, ...],
        alone: bool,
        generator: torch.Generator | None,
    ) -> Tensor:
        """The prior's loss on training scenes; where it trains alone, on those of the replay.

        Args:
            prior: whose loss it is.
            z, moments: of the posterior of B scenes: a sample, mean and log-variance.
            known: what ``prior.condition`` takes; the replay has the first in bfloat16.
            alone: see ``trains_prior_alone``.
            generator: of noise, times and what is drawn from the replay.
        """
        first, *others = (part.detach() for part in known)
        if not alone:
            condition = prior.condition(first, *others)
            return prior.flow_loss(prior.tokens(z), condition, self.config.flow_draws, generator)
        self.replay.add(*moments, first.bfloat16(), *others)
        mean, logvar, first, *others = self.replay.draw(self.config.prior_batch, generator)
        z = gaussian.draw(mean, logvar, gaussian.standard_normal(mean, generator))
        condition = prior.condition(first.float(), *others)
        return prior.flow_loss(prior.tokens(z), condition, 1, generator)

    def training_state(self) -> dict[str, Tensor]:
        """See ``WorldModel``: what the prior learns from."""
        return self.replay.state()

    def restore_training_state(self, state: Mapping[str, Tensor]) -> None:
        """See ``WorldModel``."""
        self.replay.restore(state, self.device)

    @property
    def flow_steps(self) -> int:
        """Steps in which ``sample`` integrates the prior; may be set at any time.

        Raises:
            ValueError: below 1.
        """
        return int(self.config.flow_steps)

    @flow_steps.setter
    def flow_steps(self, steps: int) -> None:
        self.config = replace(self.config, flow_steps=steps)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        rate = self.config.learning_rate
        return torch.optim.AdamW(
            self.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )

    def learning_rate(self, done: int, steps: int) -> float:
        """A cosine from ``learning_rate`` to ``learning_rate_end``, after a linear rise; once more
        from there to there when the prior trains alone.
        """
        config, share = self.config, done / steps
        first, last = config.learning_rate, config.learning_rate_end
        turn = 1 - config.prior_share if self.stochastic else 1.0
        phase = share / turn if share < turn else (share - turn) / max(1 - turn, 1e-9)
        rate = last + (first - last) * (1 + math.cos(math.pi * phase)) / 2
        return float(rate * min(1.0, (done + 1) / max(config.warmup, 1)))


def set_flow_steps(model: WorldModel, steps: int | None) -> None:
    """Set ``FlowSampler.flow_steps``; None leaves them as they are.

    Raises:
        ValueError: the model has no flow prior, or fewer than 1 step.
    """
    if steps is None:
        return
    if not isinstance(model, FlowSampler):
        raise ValueError(
            "flow_steps: only jump with preset jumpy, small or rays samples from a flow; this "
            f"{model.name} ({type(model.config).__name__}) does not"
        )
    model.flow_steps = steps
