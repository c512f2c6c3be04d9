"""Actions at the border between numpy (Gymnasium, SB3) and torch (world models)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.spec import ActionSpec


def to_tensor(
    spec: ActionSpec, actions: Any, lead: tuple[int, ...], device: torch.device, argument: str
) -> Tensor:
    """Actions of a Gymnasium space to (*lead, *action) on a device.

    Leading axes of size 1 may be missing or extra, as long as the number of entries is right.

    Returns:
        int64 for discrete kinds, float32 for boxes and bits.

    Raises:
        ValueError: (names ``argument``) the shape does not fit, or a value is NaN, infinite or, of
            discrete kinds, no whole number.
    """
    integers = spec.kind in ("none", "discrete", "multi_discrete")
    values = torch.as_tensor(actions).clone()  # the caller's may be a buffer
    shape = (*lead, *spec.shape)
    if values.numel() != int(np.prod(shape)) or values.shape[:1] != shape[:1]:
        raise ValueError(f"{argument}: expected shape {shape}, got {tuple(values.shape)}")
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise ValueError(f"{argument}: holds NaN or infinity")
    if values.is_floating_point() and integers and bool((values % 1 != 0).any()):
        raise ValueError(f"{argument}: expected whole numbers for {spec.kind} actions")
    values = values.reshape(shape).to(device)
    return values.long() if integers else values.float()


def to_numpy(spec: ActionSpec, actions: Tensor) -> NDArray[Any]:
    """Actions (..., *action) as a fresh array of the dtype of ``spec.to_space()``.

    Numbers of an integer box are rounded.
    """
    numbers = actions.cpu().numpy()
    return np.array(np.rint(numbers) if spec.whole else numbers, dtype=spec.to_space().dtype)


def draw_actions(
    spec: ActionSpec, lead: tuple[int, ...], generator: torch.Generator, exponent: float = 0.0
) -> Tensor:
    """Uniform random actions (*lead, *action) on the generator's device.

    int64 for discrete kinds, float32 in [low, high] for boxes (whole numbers in integer ones, the
    ends as likely as the rest) and 0 or 1 for bits. With an ``exponent`` above 0 those along the
    last axis of ``lead`` are alike, as ``coloured_noise`` is; each one alone is uniform still.
    """
    shape = (*lead, *spec.shape)
    if exponent and lead:
        noise = coloured_noise((*lead, math.prod(spec.shape)), exponent, generator)
        uniform: Tensor = torch.special.ndtr(noise).view(shape).clamp_max(1 - 2**-24)
    else:
        uniform = torch.rand(shape, generator=generator, device=generator.device)
    if spec.kind == "none":
        return torch.zeros_like(uniform, dtype=torch.long)
    if spec.kind == "multi_binary":
        return (uniform < 0.5).float()
    own = spec.shape or (1,)
    if spec.categories:
        count = torch.tensor(spec.categories, device=generator.device)
        chosen = (uniform.reshape(*lead, *own) * count.reshape(own)).long()
        chosen = chosen.minimum(count.reshape(own) - 1) + spec.first(generator.device).reshape(own)
        return chosen.reshape(shape)
    low = torch.tensor(spec.low, device=generator.device).reshape(spec.shape)
    high = torch.tensor(spec.high, device=generator.device).reshape(spec.shape)
    if spec.whole:
        return (low + (uniform * (high - low + 1)).floor()).minimum(high)
    return low + uniform * (high - low)


def coloured_noise(shape: tuple[int, ...], exponent: float, generator: torch.Generator) -> Tensor:
    """Standard normal noise (..., T, E) whose power falls with frequency^-exponent along T.

    0 is white; with 1 or 2 neighbours are alike, so that a plan pushes one way for a while (Timmer
    & Koenig 1995; in planning: iCEM, Pinneri et al. 2020, section 3.1). The spectrum is that of
    twice the length, so that a plan's end is not tied to its beginning.

    Args:
        shape: at least two axes, the last ones T and E.
        exponent: at least 0.
        generator: on the device of the result.
    """
    noise = torch.randn(shape, generator=generator, device=generator.device)
    if exponent == 0 or shape[-2] == 1:
        return noise
    return _noise_factor(shape[-2], exponent).to(noise.device) @ noise


@lru_cache(maxsize=64)
def _noise_factor(steps: int, exponent: float) -> Tensor:
    """float32 (T, T): the Cholesky factor of the coloured noise's covariance."""
    number = torch.arange(steps + 1, dtype=torch.float64)
    power = number.clamp_min(1) ** -exponent
    power[1:-1] *= 2  # both signs of a frequency
    lags = number[:steps, None] - number[None, :steps]
    covariance = (power * torch.cos(math.pi / steps * lags[..., None] * number)).sum(-1)
    covariance = covariance / power.sum() + 1e-6 * torch.eye(steps, dtype=torch.float64)
    factor: Tensor = torch.linalg.cholesky(covariance)
    return factor.float()


def chunk_space(spec: ActionSpec, steps: int) -> gym.Space[Any]:
    """The space of ``steps`` actions at once, flat, as SB3 wants it: (steps * entries,).

    Raises:
        ValueError: there is nothing to decide.
    """
    if spec.kind == "none":
        raise ValueError("chunk: the environment has no actions to choose")
    if spec.kind == "box":
        low, high = (np.tile(np.array(edge, spec.dtype), steps) for edge in (spec.low, spec.high))
        return gym.spaces.Box(low, high, dtype=low.dtype.type)
    if spec.kind == "multi_binary":
        return gym.spaces.MultiBinary(steps * spec.features)
    start = np.tile(spec.start, steps) if spec.start else None
    return gym.spaces.MultiDiscrete(np.tile(spec.categories, steps), start=start)


def count_choices(spec: ActionSpec) -> int | None:
    """The number of different actions; None for a box."""
    if spec.kind == "box":
        return None
    return 2**spec.features if spec.kind == "multi_binary" else math.prod(spec.categories)


def all_choices(spec: ActionSpec, device: torch.device) -> Tensor:
    """Every action once, (A, *action), the first entry changing slowest; not for boxes."""
    counts = spec.categories or (2,) * spec.features
    first = spec.start or (0,) * len(counts)
    ranges = (torch.arange(a, a + n, device=device) for a, n in zip(first, counts, strict=True))
    entries = torch.cartesian_prod(*ranges)
    actions = entries.reshape(-1, *spec.shape)
    return actions.float() if spec.kind == "multi_binary" else actions


def all_sequences(count: int, length: int, device: torch.device) -> Tensor:
    """All sequences of ``length`` numbers below ``count``, int64 (count^length, length), the first
    one changing slowest; of length 0 there is one.
    """
    numbers = torch.arange(count**length, device=device).unsqueeze(1)
    digit = torch.arange(length - 1, -1, -1, device=device)
    return numbers // count**digit % count
