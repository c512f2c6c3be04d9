"""Roll the worlds of an ensemble: each member its own worlds, laid out for one product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import silu

from worldmodel.models.frame_by_frame.base import NOISE, State, at_times
from worldmodel.types import Worlds

if TYPE_CHECKING:
    from worldmodel.models.frame_by_frame.ensemble import Ensemble
    from worldmodel.models.frame_by_frame.ensemble_nets import MemberNets

HEAD_ROWS = 2**14
"""Steps whose rewards and ends are read at once."""

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MemberLayout:
    """W worlds, laid out (E, C): a row of C for each member that some world has.

    Attributes:
        members: int64 (E,); None for all, in order.
        world: int64 (E, C), the world at each position; where a member has fewer than C, the last
            ones are padding.
        position: int64 (W,), of each world among the E * C.
    """

    members: Tensor | None
    world: Tensor
    position: Tensor

    @classmethod
    def of(cls, member: Tensor, members: int) -> MemberLayout:
        """The layout of worlds with these members (W,), of ``members`` in all."""
        counts = member.bincount(minlength=members)
        used = counts.nonzero()[:, 0]
        order = member.argsort(stable=True)
        first = counts.cumsum(0) - counts
        ordered = member[order]
        row = torch.searchsorted(used, ordered)
        width = int(counts.max())
        place = row * width + torch.arange(len(member), device=member.device) - first[ordered]
        world = member.new_zeros(len(used) * width)
        world[place] = order
        position = torch.empty_like(member)
        position[order] = place
        some = None if len(used) == members else used
        return cls(some, world.view(len(used), width), position)

    def lay(self, values: Tensor) -> Tensor:
        """Of values (W, ...), those at each position: (E, C, ...)."""
        return values[self.world]

    def apply(self, nets: MemberNets, x: Tensor, outputs: int | None = None) -> Tensor:
        """The first ``outputs`` (W, outputs), or all, of each world's member for x (W, inputs)."""
        laid = _apply(self.layers(nets, outputs), self.lay(x))
        return laid.flatten(0, 1)[self.position]

    def layers(self, nets: MemberNets, outputs: int | None = None) -> Layers:
        """Weights and biases of the members in use; of the last layer the first ``outputs``."""
        pairs = list(zip(nets.weights, nets.biases, strict=True))
        pairs[-1] = (pairs[-1][0][..., :outputs], pairs[-1][1][..., :outputs])
        if self.members is None:
            return pairs
        return [(weight[self.members], bias[self.members]) for weight, bias in pairs]


def roll(
    model: Ensemble, worlds: Worlds, plans: Tensor, queries: Tensor
) -> tuple[State, Tensor, Tensor, Tensor]:
    """``FrameByFrame._roll`` of worlds that have one member each (TS-infinity), in one product per
    layer and step, and one per layer for all rewards and ends.

    See there for the arguments and what is returned.
    """
    (batch, count), (n, steps) = worlds.shape, plans.shape[1:3]
    member = worlds.state["member"].flatten()
    layout = MemberLayout.of(member, model.config.members)
    inputs = _actions(layout, plans, count)  # (L, E, C * N, features)
    times = worlds.present[:, None] + torch.arange(steps, device=plans.device)
    noise = at_times(
        worlds.state[NOISE].transpose(1, 2), times.clamp_max(model.spec.window - 1)
    )  # (B, L, S, D)
    noise = layout.lay(noise.transpose(1, 2).flatten(0, 1)).movedim(2, 0)  # (L, E, C, D)
    noise = noise.repeat_interleave(n, 2)
    x = layout.lay(worlds.state["x"].flatten(0, 1)).repeat_interleave(n, 1)
    path, scaled = _path(model, layout, x, inputs, noise)
    reward, logit = _outcomes(model, layout, scaled, inputs)

    def of_worlds(values: Tensor) -> Tensor:
        """(..., E, C * N, \\*any) to (..., B, S, N, \\*any); the axes before are ``lead``."""
        lead = values.shape[: values.dim() - 3]
        flat = values.reshape(*lead, layout.world.numel(), n, values.shape[-1])
        laid: Tensor = flat[..., layout.position, :, :].unflatten(-3, (batch, count))
        return laid

    reward, logit = (
        of_worlds(each.unsqueeze(-1)).squeeze(-1).movedim(0, -1) for each in (reward, logit)
    )
    state = {
        "x": of_worlds(path[-1]).flatten(0, 2),
        "member": member.repeat_interleave(n),
    }
    if queries.shape[1]:
        every = of_worlds(torch.stack(path))  # (L + 1, B, S, N, D)
        rows = torch.arange(batch, device=plans.device)[:, None]
        observations = every[queries.to(plans.device), rows].movedim(1, 3)
    else:
        observations = x.new_empty(batch, count, n, 0, x.shape[-1])
    return state, reward, logit, observations


def _actions(layout: MemberLayout, plans: Tensor, count: int) -> Tensor:
    """Encoded plans (B, N, L, features) of each position's scene: (L, E, C * N, features)."""
    laid = plans[layout.world // count]  # (E, C, N, L, features)
    return laid.flatten(1, 2).movedim(2, 0).contiguous()


def _path(
    model: Ensemble, layout: MemberLayout, x: Tensor, actions: Tensor, noise: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The L + 1 observations (E, C * N, D) from the present on, and standardised."""
    layers = layout.layers(model.dynamics, model.used_outputs)
    low: Tensor = model.dynamics.logvar_min
    high: Tensor = model.dynamics.logvar_max
    if layout.members is not None:
        low, high = low[layout.members], high[layout.members]
    noise = noise * model.noise_scale
    path, scaled = [x], [model.standardised(x)]
    for action, sampled in zip(actions, noise, strict=True):
        outputs = _apply(layers, torch.cat([scaled[-1], action], -1))
        path.append(model.next_observation(path[-1], outputs, low, high, sampled))
        scaled.append(model.standardised(path[-1]))
    return path, scaled


def _outcomes(
    model: Ensemble, layout: MemberLayout, every: list[Tensor], actions: Tensor
) -> tuple[Tensor, Tensor]:
    """Rewards on their scale and logits of going on, (L, E, C * N) each, given all L + 1
    standardised observations.
    """
    layers = layout.layers(model.head)
    share = max(1, HEAD_ROWS // max(1, actions.shape[1] * actions.shape[2]))
    parts = [actions.new_zeros(0, *actions.shape[1:3], 2)]
    for begin in range(0, len(actions), share):
        chosen = actions[begin : begin + share]
        before = torch.stack(every[begin : begin + len(chosen)])
        after = torch.stack(every[begin + 1 : begin + 1 + len(chosen)])
        rows = torch.cat([before, chosen, after], -1).transpose(0, 1)  # (E, l, C * N, inputs)
        outcome = _apply(layers, rows.flatten(1, 2)).unflatten(1, rows.shape[1:3])
        parts.append(outcome.transpose(0, 1))
    reward, logit = torch.cat(parts).unbind(-1)
    return reward, logit


def _apply(layers: Layers, x: Tensor) -> Tensor:
    """The outputs of the members' perceptrons; hidden values are overwritten if nothing learns."""
    *hidden, (last, offset) = layers
    for weight, bias in hidden:
        x = silu(torch.baddbmm(bias, x, weight), inplace=not torch.is_grad_enabled())
    return torch.baddbmm(offset, x, last)
