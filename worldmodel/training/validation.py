"""Losses on scenes that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.types import Context, Queries, SceneBatch, SceneSource

BATCHES, SPREAD_BATCHES, MAX_QUERIES = 8, 2, 20
UNEXPLAINED = 0.1
"""Share of a number's variance: less is not worth a thought about what is random in it."""
EVENTS = 20
"""Errors of a number: fewer, as of a cell that is seldom entered, say nothing of chance."""


class Validation:
    """Measures the loss that training ends with, always on the same draws.

    Args:
        source: scenes that training does not see; None never measures.
        every: steps between measurements.
        seed: of the draws.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, source: SceneSource | None, every: int, seed: int) -> None:
        if every < 1:
            raise ValueError(f"validate_every: expected at least 1, got {every}")
        self.source, self.every, self.seed = source, every, seed

    def due(self, step: int, last: int) -> bool:
        """Whether to measure after that step, of ``last`` in all."""
        return self.source is not None and (step % self.every == 0 or step == last)

    @torch.no_grad()
    def measure(self, model: WorldModel) -> dict[str, float]:
        """Means over the first batches of the source; the model is left in eval mode.

        Returns:
            the loss parts; ``free_mse``, the error of imagined frames (``free_running``), while
            ``mse`` is the error with the posterior's latent; ``spread``, how much worlds differ,
            relative to their error (see there), unless all is explained; and the losses' curves,
            one number for each step of the training rollout, as ``kl_step/01`` and so on. Batches
            whose scenes are too short for a number do not count in its mean.
        """
        assert self.source is not None
        model.eval()
        generator = torch.Generator(model.device).manual_seed(self.seed)
        collected: dict[str, list[float]] = {}
        runs: list[FreeRunning] = []
        for index in range(BATCHES):
            scenes = self.source.batch(index)
            losses = model(scenes, 1.0, generator)
            parts = {name: float(value) for name, value in losses.parts.items()}
            for name, curve in losses.curves.items():
                steps = enumerate(curve.tolist(), 1)
                parts |= {f"{name}_step/{step:02d}": x for step, x in steps if x == x}  # not NaN
            free = free_running(model, scenes, generator)
            if free is not None:
                parts["free_mse"] = free.mse
                runs.append(free)
            for name, value in parts.items():
                collected.setdefault(name, []).append(value)
        means = {name: sum(values) / len(values) for name, values in collected.items()}
        ratio = spread(runs) if runs else None
        return means if ratio is None else {**means, "spread": ratio}

    @torch.no_grad()
    def spread(self, model: WorldModel) -> float | None:
        """As ``measure`` does it, alone; the model is left in eval mode."""
        assert self.source is not None
        model.eval()
        generator = torch.Generator(model.device).manual_seed(self.seed)
        batches = (self.source.batch(index) for index in range(SPREAD_BATCHES))
        runs = [run for batch in batches if (run := free_running(model, batch, generator))]
        return spread(runs) if runs else None


@dataclass(frozen=True)
class FreeRunning:
    """What a model imagined by itself, two worlds of each scene, compared with what was recorded.

    Attributes:
        mse: mean squared error of the first world's frames; of vectors, as they are.
        error, difference, variance: float64 (D,) for each number of a vector, (1,) for images: mean
            squares of an imagined minus the recorded, of one world minus the other, and of the
            recorded minus their mean.
        events: float64 (D,) or (1,), how many errors make up the mean square, if all were alike:
            (sum e^2)^2 / sum e^4.
    """

    mse: float
    error: Tensor
    difference: Tensor
    variance: Tensor
    events: Tensor


def spread(runs: Sequence[FreeRunning]) -> float | None:
    """How much sampled worlds differ, relative to how far they are from what happened.

    It is sqrt(difference / error): what happened is to a calibrated model as one more world, so it
    is 1 then, whatever is random. It is near 0 where worlds are all alike and still wrong: chance
    that was averaged, or something that was not learned. Of vectors it is that of the number with
    the lowest spread. What is explained up to ``UNEXPLAINED`` of its variance does not count, nor
    what hangs on fewer than ``EVENTS`` errors.

    Returns:
        the spread; None if all is explained.
    """
    error, difference, variance = (
        torch.stack([getattr(run, name) for run in runs]).mean(0)
        for name in ("error", "difference", "variance")
    )
    events = torch.stack([run.events for run in runs]).sum(0)
    # of the variance, each of the two in it has a half
    open_yet = (error > 2 * UNEXPLAINED * variance) & (events >= EVENTS)
    if not bool(open_yet.any()):
        return None
    return float((difference[open_yet] / error[open_yet]).min().sqrt())


@torch.no_grad()
def free_running(
    model: WorldModel, scenes: SceneBatch, generator: torch.Generator | None = None
) -> FreeRunning | None:
    """Compare the frames that a model imagines by itself with the recorded ones.

    The context is the first quarter of a window (fewer frames, if it was trained with fewer); the
    actions are the recorded ones. Later frames up to the scenes' ends are compared: of long windows
    some twenty, evenly spaced. Vectors are compared as they are.

    Returns:
        the errors, or None where there is nothing to compare: scenes that stand still (poses) or
        end within the first quarter, or before the model's first stride from there; models that
        draw from nothing, or know nothing of what follows.
    """
    if model.max_context == 0 or model.horizon == 0:
        return None
    lengths = scenes.lengths
    last, present = int(lengths.max()), model.spec.window // 4
    if model.max_context is not None:
        present = min(present, model.max_context - 1)
    going = (lengths >= present + model.stride).nonzero().flatten()
    if model.spec.pose or len(going) == 0:
        return None
    times = torch.arange(last + 1, device=lengths.device)
    past, ahead = times[: present + 1], times[present + model.stride :: model.stride]
    ahead = ahead[:: -(-len(ahead) // MAX_QUERIES)]
    ends = torch.minimum(torch.cat([past, ahead]), lengths[:, None])
    frames = model.spec.to_model(scenes.observations(ends))[going]
    context, truth = frames[:, : len(past)], frames[:, len(past) :]
    actions = None if model.spec.passive else scenes.actions[going]
    belief = model.observe(Context(context, past.expand(len(going), -1), actions))
    plans = None if actions is None else actions[:, None, present:last]
    queries = Queries(ahead.expand(len(going), -1), plans)
    answer = model.predict(model.sample(belief, 2, generator), queries).observations
    assert answer is not None
    valid = ahead <= lengths[going, None]
    first, second = (answer[:, world, 0][valid].flatten(1).double() for world in (0, 1))
    recorded = truth[valid].flatten(1).double()
    squares = (first - recorded).square(), (first - second).square(), _deviations(recorded)
    numbers = [part.mean(0) if len(model.spec.observation) == 1 else part.mean()[None]
               for part in squares]  # fmt: skip
    errors = squares[0] if len(model.spec.observation) == 1 else squares[0].reshape(-1, 1)
    fourth = errors.square().sum(0).clamp_min(torch.finfo(torch.float64).tiny)
    events = errors.sum(0).square() / fourth
    error, difference, variance = numbers
    return FreeRunning(float(squares[0].mean()), error, difference, variance, events)


def _deviations(values: Tensor) -> Tensor:
    return (values - values.mean(0)).square()
