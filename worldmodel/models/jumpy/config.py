"""Settings that all jumpy models share."""

from __future__ import annotations

from dataclasses import dataclass

from worldmodel.common.config_checks import above_zero, at_least
from worldmodel.models.jumpy.training_draws import TrainingDraws


@dataclass(frozen=True)
class JumpyConfig(TrainingDraws):
    """Keys, heads and schedules; the defaults are JUMP's on narratives (seed 001, appendix B).

    Training draws: see ``TrainingDraws``.

    Attributes:
        time_bands: Fourier bands of the time key; 0 is the paper's scalar.
        path: features of the action path.
        scene: width of the vector that the heads read a world from.
        head: hidden width of the heads; scoring plans costs its square.
        variance_start, variance_end: pixel variance at the start and the end of the annealing.
        anneal: share of the training after which the variance stays at its end (1.0 anneals to
            the last step; the paper anneals over 100,000 steps).
        variance_steps: instead of annealing: pairs (share of the training, pixel variance until
            then), the last share 1.0; empty to anneal. The paper's dice go down and up again.
        reward_variance: variance of the reward head's Gaussian, where rewards have variance 1.
        learning_rate, learning_rate_end: Adam, linear in between.
    """

    time_bands: int = 0
    path: int = 32
    scene: int = 256
    head: int = 128
    variance_start: float = 2.0
    variance_end: float = 0.5
    anneal: float = 1.0
    variance_steps: tuple[tuple[float, float], ...] = ()
    reward_variance: float = 0.02
    learning_rate: float = 5e-4
    learning_rate_end: float = 5e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "path", "scene", "head")
        above = "variance_start variance_end reward_variance anneal learning_rate learning_rate_end"
        above_zero(self, *above.split())
        at_least(0, self, "time_bands")
        self._check_variance_steps()

    def _check_variance_steps(self) -> None:
        steps = tuple((float(share), float(value)) for share, value in self.variance_steps)
        object.__setattr__(self, "variance_steps", steps)  # JSON turns tuples into lists
        shares = [share for share, _ in steps]
        rising = all(a < b for a, b in zip([0.0, *shares], shares, strict=False))
        if steps and not (rising and shares[-1] == 1.0 and min(v for _, v in steps) > 0):
            raise ValueError(
                "variance_steps: expected pairs (share, variance) with rising shares up to 1.0 and "
                f"variances above 0, got {self.variance_steps}"
            )

    def pixel_variance(self, progress: float) -> float:
        """By ``variance_steps``; else linear up to ``anneal``, constant after it."""
        for until, value in self.variance_steps:
            if progress < until or until == 1.0:
                return value
        share = min(progress / self.anneal, 1.0)
        return self.variance_start + share * (self.variance_end - self.variance_start)
