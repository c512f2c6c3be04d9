"""Losses on scenes that are not trained on."""

from __future__ import annotations

import torch

from worldmodel.base import WorldModel
from worldmodel.types import Context, Queries, SceneBatch, SceneSource

BATCHES, MAX_QUERIES = 8, 20


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
            ``mse`` is the error with the posterior's latent; and the losses' curves, one number for
            each step of the training rollout, as ``kl_step/01`` and so on. Batches whose scenes are
            too short for a number do not count in its mean.
        """
        assert self.source is not None
        model.eval()
        generator = torch.Generator(model.device).manual_seed(self.seed)
        collected: dict[str, list[float]] = {}
        for index in range(BATCHES):
            scenes = self.source.batch(index)
            losses = model(scenes, 1.0, generator)
            parts = {name: float(value) for name, value in losses.parts.items()}
            for name, curve in losses.curves.items():
                steps = enumerate(curve.tolist(), 1)
                parts |= {f"{name}_step/{step:02d}": x for step, x in steps if x == x}  # not NaN
            free = free_running(model, scenes, generator)
            if free is not None:
                parts["free_mse"] = free
            for name, value in parts.items():
                collected.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in collected.items()}


@torch.no_grad()
def free_running(
    model: WorldModel, scenes: SceneBatch, generator: torch.Generator | None = None
) -> float | None:
    """Mean squared error of frames that a model imagines by itself, in one world of each scene.

    The context is the first quarter of a window (fewer frames, if it was trained with fewer); the
    actions are the recorded ones. Later frames up to the scenes' ends are compared: of long windows
    some twenty, evenly spaced. Vectors are compared as they are.

    Returns:
        the error, or None where there is nothing to compare: scenes that stand still (poses) or
        end within the first quarter, or before the model's first stride from there.
    """
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
    answer = model.predict(model.sample(belief, 1, generator), queries).observations
    assert answer is not None
    valid = (ahead <= lengths[going, None]).float()
    squared = (answer[:, 0, 0] - truth).square().flatten(2).mean(2)
    return float((squared * valid).sum() / valid.sum().clamp_min(1))
