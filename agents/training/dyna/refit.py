"""Refit a world model while an agent collects: settings, training, error on new episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.known_functions import KnownFunctions
from agents.starts import Starts
from agents.vec_env import ImaginedVecEnv
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least
from worldmodel.common.progress import progress_bar
from worldmodel.data.episodes import Episodes
from worldmodel.training import fit
from worldmodel.training.validation import Validation


@dataclass(frozen=True)
class FitConfig:
    """How a world model is fitted again and again, to all real episodes so far.

    A vector model learns the scale of its numbers once, before its first training step, so the
    first fit needs enough and varied steps; the ensemble learns it anew in every fit. Each fit goes
    on from the weights of the one before, with a fresh optimizer, and moves the learning rate from
    the model's ``learning_rate`` to its ``learning_rate_end``.

    Attributes:
        first_fit_steps: training steps of the first fit, fewer where the model's held-out error
            (``worldmodel.fit``) stops falling earlier; 0 skips it.
        fit_steps: the same of every later fit.
        fit_batch_size: windows in a training batch; None for the model's ``training_batch``.
        seed: of everything random here.
    """

    first_fit_steps: int = 2000
    fit_steps: int = 500
    fit_batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "first_fit_steps", "fit_steps", "seed")
        if self.fit_batch_size is not None:
            at_least(1, self, "fit_batch_size")


@dataclass(frozen=True)
class RefitConfig(FitConfig):
    """How a world model is refitted, and how it imagines. See also ``FitConfig``.

    Attributes:
        hold: steps that an action is held; one decision, real or imagined, is that many steps.
        num_envs: imagined episodes side by side.
        horizon: decisions of an imagined episode; None takes what fits the model's window.
        imagination: further arguments of ``ImaginedVecEnv``.
    """

    hold: int = 1
    num_envs: int = 16
    horizon: int | None = None
    imagination: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "hold", "num_envs")
        own = {"model", "starts", "num_envs", "hold", "horizon", "seed", "chunk", "known"}
        if own & set(self.imagination):
            raise ValueError(
                f"imagination: {sorted(own & set(self.imagination))} follow from the other "
                "settings and arguments; leave them away"
            )

    def imagined_env(
        self,
        model: WorldModel,
        starts: Starts,
        number: int,
        known: KnownFunctions | None = None,
        **defaults: Any,
    ) -> ImaginedVecEnv:
        """The imagined episodes after the ``number``-th fit; ``defaults`` of ``imagination``."""
        return ImaginedVecEnv(
            model,
            starts,
            self.num_envs,
            self.hold,
            self.horizon,
            seed=self.seed + number,
            known=known,
            **{**defaults, **self.imagination},
        )


def refit(
    model: WorldModel, episodes: Episodes, config: FitConfig, number: int, progress: bool = False
) -> dict[str, float]:
    """Train the model on the episodes, as ``worldmodel.fit`` cuts them, for the ``number``-th time,
    from 0, with a ``progress_bar`` of this fit if ``progress``.

    Returns:
        the last losses; none if there are no steps to do, or the model is not trainable.

    Raises:
        ValueError: there are steps to do, but the model is of ``optimise_for_inference``.
    """
    steps = config.fit_steps if number else config.first_fit_steps
    if steps:
        model.check_not_optimised("be trained (fit_steps and first_fit_steps of 0 never do)")
    if steps == 0 or not model.trainable:
        model.eval()
        return {}
    seed = config.seed + number
    what = f"fit {number + 1} of {model.name}"  # fit's own bar would stay, one for each fit
    with progress_bar(what, "step", steps, show=progress, leave=False) as bar:
        return fit(
            model, episodes, steps, batch_size=config.fit_batch_size, seed=seed, progress=False,
            callbacks=[lambda done: bar.update(done.step - bar.n)] if progress else [],
        )  # fmt: skip


def model_error(model: WorldModel, episodes: Episodes, config: FitConfig) -> dict[str, float]:
    """The model's losses on episodes that it has not been trained on.

    Returns:
        the parts of the loss, and ``free_mse``; none if the model is not trainable.
    """
    if not model.trainable:
        return {}
    window = model.training_window or model.spec.window
    batch = config.fit_batch_size or model.training_batch
    source = episodes.windows(window, batch, config.seed, model.device)
    losses = Validation(source, 1, config.seed).measure(model)
    return {name: value for name, value in losses.items() if "/" not in name}  # without the curves
