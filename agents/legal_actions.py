"""Legal actions: masks of choices, and plans that respect them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.imagination import STEPS_PER_FRAME, Imagination
from agents.known_functions import as_observed
from worldmodel.data.env_checks import checked_masks, mask_array
from worldmodel.spec import ActionSpec
from worldmodel.types import Queries, Worlds


def by_entry(spec: ActionSpec, masks: Tensor) -> Tensor:
    """Masks (..., n) of all choices, one entry after the other, to bool (..., E, most choices)."""
    counts = torch.tensor(spec.choices, device=masks.device)[:, None]
    exists = torch.arange(max(spec.choices), device=masks.device) < counts
    padded = masks.new_zeros(*masks.shape[:-1], *exists.shape)
    padded[..., exists] = masks
    return padded


def legal_rows(spec: ActionSpec, masks: Any, count: int) -> NDArray[np.bool_]:
    """``action_masks`` that an agent was given, as bool (count, n); one row may come without the
    first axis.

    Raises:
        ValueError: they are no masks of these actions.
    """
    given = mask_array(masks, "action_masks")
    rows = given[None] if given.ndim == 1 and count == 1 else given
    return checked_masks(rows, spec, "action_masks", count)


def check_some_legal(spec: ActionSpec, masks: Tensor, owner: str) -> None:
    """Raise ValueError unless masks (P, n) leave every entry of each action a choice."""
    some = by_entry(spec, masks).any(-1).all(-1)
    if not bool(some.all()):
        raise ValueError(
            f"{owner}: no action is legal in row {int((~some).long().argmax())}; such a step "
            "should have ended the episode, as known.terminated can say"
        )


def make_legal(
    spec: ActionSpec, actions: Tensor, masks: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace illegal choices by random legal ones; where none is legal, all are.

    Args:
        spec: the actions.
        actions: (P, \\*action).
        masks: bool (P, n).
        generator: on their device.

    Returns:
        the actions (P, \\*action), and bool (P,): which of them were legal.
    """
    start = spec.first(actions.device) if spec.categories else 0
    entries = actions.reshape(len(actions), -1).long() - start  # (P, E)
    allowed = by_entry(spec, masks)
    legal = allowed.gather(-1, entries[..., None])[..., 0] | ~allowed.any(-1)
    uniform = torch.rand(allowed.shape, generator=generator, device=allowed.device)
    others = uniform.masked_fill(~allowed, -1.0).argmax(-1)
    chosen = torch.where(legal, entries, others) + start
    return chosen.view(actions.shape).to(actions.dtype), legal.all(-1)


def legal_plans(
    imagination: Imagination,
    worlds: Worlds,
    plans: Tensor,
    starts: Sequence[int],
    first: Tensor | None,
    fixed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Plans without illegal decisions.

    Later decisions are judged by ``known.action_mask`` of the first world's frame before them, so
    each costs one frame for each plan; without that function only the first one is.

    Args:
        imagination: B scenes, known functions and the generator.
        worlds: B x S worlds.
        plans: (B, N, D, \\*action).
        starts: the step that each of the D decisions begins at, and the last one's end.
        first: bool (B, n), masks of the first decision.
        fixed: this many first decisions stay as they are; plans in which one of them is illegal
            are reported. The later ones are replaced by legal ones.

    Returns:
        the plans, and bool (B, N): in which of them the fixed decisions are legal.
    """
    known, spec = imagination.known, imagination.spec.action
    lead = plans.shape[:2]
    legal = torch.ones(lead, dtype=torch.bool, device=plans.device)
    if first is None:
        return plans, legal
    plans = plans.clone()
    decisions = 1 if known.action_mask is None else plans.shape[2]
    for number in range(decisions):
        if number == 0:
            masks = first[:, None].expand(*lead, -1)
        else:
            masks = _later_masks(imagination, worlds, plans[:, :, :number], starts)
        chosen, fine = make_legal(
            spec, plans[:, :, number].flatten(0, 1), masks.flatten(0, 1), imagination.generator
        )
        if number < fixed:
            legal &= fine.view(lead)
        else:
            plans[:, :, number] = chosen.view(plans[:, :, number].shape)
    return plans, legal


def _later_masks(
    imagination: Imagination, worlds: Worlds, plans: Tensor, starts: Sequence[int]
) -> Tensor:
    """Masks (B, N, n) after the decisions of plans (B, N, d, \\*action), in the first world."""
    model, spec, known = imagination.model, imagination.spec, imagination.known
    holds = torch.tensor(starts, device=plans.device).diff()[: plans.shape[2]]
    steps = plans.repeat_interleave(holds, 2)
    left = (spec.window - worlds.present) // model.stride * model.stride
    times = worlds.present + left.clamp_max(steps.shape[2])
    world = worlds.some(slice(1))
    share = max(1, imagination.chunk // STEPS_PER_FRAME // len(steps))
    masks = []
    for part in steps.split(share, 1):
        frames = model.predict(world, Queries(times[:, None], part)).observations
        assert frames is not None
        observations = as_observed(spec, frames[:, 0, :, 0])
        flat = known.masks(observations.flatten(0, 1), spec)
        masks.append(flat.view(*observations.shape[:2], -1))
    return torch.cat(masks, 1)


def takes_masks(agent: Any) -> bool:
    """Whether an agent's ``predict`` has an argument ``action_masks``."""
    return "action_masks" in inspect.signature(agent.predict).parameters


def masks_of(venv: VecEnv) -> NDArray[Any] | None:
    """The environments' ``action_masks()``, (n, choices); None if they have none."""
    if not venv.has_attr("action_masks"):
        return None
    return np.stack(venv.env_method("action_masks"))
