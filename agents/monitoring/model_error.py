"""How far imagination is off along real episodes, and whether the model's uncertainty is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.evaluation import play
from agents.imagination import Imagination
from agents.monitoring.comparison import total_rewards
from agents.planners.base import Agent
from worldmodel.base import WorldModel
from worldmodel.data.make_env import EnvLike, open_env

TIE = 1e-9
"""Squared distances that differ by less, for values around 1, are equal up to rounding."""

CALIBRATION_FRAMES = 4
"""Frames of an episode that calibration is measured on, evenly spread, the last among them."""


class ImaginationError(NamedTuple):
    """The errors of an imagined episode; see ``imagination_error``."""

    mse: float
    reward_error: float
    frame_calibration: float
    reward_calibration: float
    spread: float


def imagination_error(
    model: WorldModel,
    env: EnvLike,
    policy: Agent,
    seed: int = 0,
    hold: int = 1,
    frame_stack: int = 1,
    worlds: int = 9,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
) -> ImaginationError:
    """Compare imagined episodes with a real one of the same actions and first observation.

    Args:
        model, env, policy, seed, hold, frame_stack, wrap: as in ``compare``; observations may be
            vectors.
        worlds: S, sampled for the calibration, at least 2.

    Returns:
        the measures of ``callbacks.ModelError`` for this episode; all are NaN if it was shorter
        than a stride of the model.
    """
    training = model.training
    with open_env(env) as real_env:
        frames, actions, rewards = play(
            real_env, policy, seed, model.spec.window, hold, frame_stack, wrap=wrap
        )
    count = len(actions) // model.stride
    if count == 0:
        return ImaginationError(*[math.nan] * 5)
    real = model.spec.to_model(torch.from_numpy(frames[:: model.stride][1:])).to(model.device)
    total = torch.tensor([rewards[: model.stride * count].sum()], device=model.device)
    imagination = Imagination(model, seed)
    imagination.reset(frames[:1])
    times = model.stride * np.arange(1, count + 1)
    one = imagination.predict(imagination.worlds(1), times, actions[None, None])
    share = np.linspace(count / CALIBRATION_FRAMES, count, CALIBRATION_FRAMES)
    chosen = np.unique(share.round().astype(int).clip(1)) - 1
    several = imagination.predict(imagination.worlds(worlds), times[chosen], actions[None, None])
    model.train(training)
    assert one.observations is not None and several.observations is not None
    # Rounded to the 256 levels of images, like the real ones.
    rounded = torch.from_numpy(model.spec.to_numpy(several.observations[0, :, 0]))
    imagined = model.spec.to_model(rounded.to(model.device))
    return ImaginationError(
        float((one.observations[0, 0, 0] - real).square().mean()),
        float((total_rewards(one)[0] - total).abs()),
        float(calibration_score(real[chosen], imagined).mean()),
        float(calibration_score(total, total_rewards(several)[:, None]).mean()),
        _spread(real[chosen], imagined),
    )


def _spread(real: Tensor, imagined: Tensor) -> float:
    r"""Of frames (K, \*) and S imagined ones (S, K, \*); 1 if nothing is off."""
    error = (imagined - real).square().mean()
    difference = 2 * imagined.var(0).mean()  # the mean square between two worlds
    return float((difference / error).sqrt()) if error > TIE else 1.0


def calibration_score(real: Tensor, imagined: Tensor) -> Tensor:
    """Whether the real outcome is NOT the outlier among itself and S imagined ones.

    The outlier is the one with the largest mean squared distance from the mean of the other S. If
    the model is calibrated, the real outcome and the sampled ones come from the same distribution,
    so each is the outlier equally often: **the mean of this score is then S / (S + 1), whatever the
    distribution**. It is lower if the model is too sure or wrong, and higher if it is too unsure.

    Args:
        real: (K, *) outcomes of K cases.
        imagined: (S, K, *) sampled outcomes of the same cases, S >= 2.

    Returns:
        float64 (K,): 1 if another outcome is the outlier, 0 if the real one is. Ties are shared, so
        that a perfect deterministic model scores S / (S + 1), too.

    Raises:
        ValueError: shapes do not fit, or S is below 2.
    """
    if imagined.shape[1:] != real.shape or real.dim() < 1 or len(imagined) < 2:
        raise ValueError(
            f"imagined: expected (S, *{tuple(real.shape)}) with S >= 2, got {tuple(imagined.shape)}"
        )
    values = torch.cat([real[None], imagined]).double()
    values = values.reshape(*values.shape[:2], -1)  # (S + 1, K, D)
    others = (values.sum(0) - values) / len(imagined)
    distance = (values - others).square().mean(-1)  # (S + 1, K)
    tie = TIE * (1 + values[0].square().mean(-1))
    outlier = (distance >= distance.amax(0) - tie).double()
    return 1 - outlier[0] / outlier.sum(0)
