"""A world model that goes on learning while an agent collects: settings, training, honest error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least
from worldmodel.data.episodes import Episodes
from worldmodel.training import fit
from worldmodel.training.validation import Validation


@dataclass(frozen=True)
class RefitConfig:
    """How a world model is refitted, and how it imagines.

    A vector model learns the scale of its numbers once, before its first step: the first fit should
    see enough steps, and varied ones. Each fit begins with a fresh optimizer and runs the learning
    rate from the model's ``learning_rate`` to its ``learning_rate_end``.

    Attributes:
        first_fit_steps: training steps of the first fit; 0 takes the model as it is.
        fit_steps: training steps of every later fit; 0 never refits.
        fit_batch_size: windows in a training batch.
        hold: steps that an action is held; one decision, real or imagined, is that many steps.
        num_envs: imagined episodes side by side.
        terminations: of imagined episodes, see ``ImaginedVecEnv``. By chance they come as often as
            the model expects them; a model that is unsure never passes a threshold.
        seed: of everything random here.
        imagination: further arguments of ``ImaginedVecEnv``.
    """

    first_fit_steps: int = 2000
    fit_steps: int = 500
    fit_batch_size: int = 32
    hold: int = 1
    num_envs: int = 16
    terminations: Literal["threshold", "sampled"] = "sampled"
    seed: int = 0
    imagination: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(0, self, "first_fit_steps", "fit_steps", "seed")
        at_least(1, self, "fit_batch_size", "hold", "num_envs")
        own = {"model", "starts", "num_envs", "hold", "horizon", "terminations", "seed", "chunk"}
        if own & set(self.imagination):
            raise ValueError(
                f"imagination: {sorted(own & set(self.imagination))} follow from the other "
                "settings; leave them away"
            )


def refit(
    model: WorldModel, episodes: Episodes, config: RefitConfig, number: int
) -> dict[str, float]:
    """Train the model on all windows of the episodes; the ``number``-th time, from 0.

    Returns:
        the last losses; none if there are no steps to do, or the model has nothing to learn.
    """
    steps = config.fit_steps if number else config.first_fit_steps
    if steps == 0 or not model.trainable:
        model.eval()
        return {}
    seed = config.seed + number
    source = episodes.windows(model.spec.window, config.fit_batch_size, seed, model.device)
    return fit(model, source, steps, seed=seed, progress=False)


def model_error(model: WorldModel, episodes: Episodes, config: RefitConfig) -> dict[str, float]:
    """The model's losses on episodes that it has not been trained on: its honest error.

    Returns:
        the parts of the loss, and ``free_mse``; none if the model has nothing to learn.
    """
    if not model.trainable:
        return {}
    source = episodes.windows(model.spec.window, config.fit_batch_size, config.seed, model.device)
    found = Validation(source, 1, config.seed).measure(model)
    return {name: value for name, value in found.items() if "/" not in name}  # without the curves
