"""JUMP's settings and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class JumpConfig:
    """Sizes, schedules and training draws; the defaults are the paper's narrative setting.

    (Seed 001, appendix B. Names in brackets are the paper's.)

    Attributes:
        steps: DRAW steps (nt).
        hidden: LSTM channels (nf_to_hidden).
        tower: channels into the prior's and posterior's LSTM (nf_enc).
        canvas: channels of the canvas (nf_to_obs).
        canvas_in: channels from the canvas into the renderer's LSTM (nf_dec).
        latent: latent channels of each step (nf_z).
        kernel: size of the LSTM kernels.
        time_bands: Fourier bands of the time key; 0 is the paper's scalar.
        key_features: product keys (``r = sum_j k(v_j) (outer) phi(x_j)``) of that many features;
            0 tiles the key onto the image, as the paper does.
        renderer: "draw", the paper's recurrence, or "film", feed-forward and modulated by the key.
        film: channels of the "film" renderer.
        path: features of the action path.
        scene: width of the vector that the heads read a world from.
        head: hidden width of the heads; scoring plans costs its square.
        variance_start, variance_end: pixel variance at the start and the end of the annealing.
        anneal: share of the training after which the variance stays at its end (1.0 anneals to
            the last step; the paper anneals over 100,000 steps).
        context_min, context_max: context size, uniform in between (m1, m2).
        context_frames: contexts come from the first that many frames (m); 0: from the frames up to
            a random present, half of the time the origin (where plans begin).
        targets: frames to predict, anywhere in the window (k).
        reward_variance: variance of the reward head's Gaussian, in symlog space.
        learning_rate, learning_rate_end: Adam, linear in between.
    """

    steps: int = 4
    hidden: int = 64
    tower: int = 128
    canvas: int = 128
    canvas_in: int = 64
    latent: int = 3
    kernel: int = 5
    time_bands: int = 0
    key_features: int = 0
    renderer: Literal["draw", "film"] = "draw"
    film: int = 48
    path: int = 32
    scene: int = 256
    head: int = 128
    variance_start: float = 2.0
    variance_end: float = 0.5
    anneal: float = 1.0
    context_min: int = 1
    context_max: int = 6
    context_frames: int = 6
    targets: int = 3
    reward_variance: float = 0.02
    learning_rate: float = 5e-4
    learning_rate_end: float = 5e-5

    def __post_init__(self) -> None:
        positive = "steps hidden tower canvas canvas_in latent kernel film path scene head targets"
        for name in positive.split():
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd size, got {self.kernel}")
        if self.renderer not in ("draw", "film"):
            raise ValueError(f"renderer: expected 'draw' or 'film', got {self.renderer!r}")
        if not 1 <= self.context_min <= self.context_max:
            raise ValueError(
                f"context_min, context_max: expected 1 <= min <= max, got {self.context_min}, "
                f"{self.context_max}"
            )
        above = "variance_start variance_end reward_variance anneal learning_rate learning_rate_end"
        for name in above.split():
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected above 0, got {getattr(self, name)}")
        for name in ("time_bands", "key_features", "context_frames"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")


PRESETS: dict[str, JumpConfig] = {
    "narrative": JumpConfig(),
    "small": JumpConfig(
        hidden=32,
        tower=32,
        canvas=32,
        canvas_in=32,
        kernel=3,
        time_bands=6,
        key_features=12,
        renderer="film",
        variance_end=0.1,
        anneal=0.5,
        context_frames=0,
        targets=4,
        learning_rate=1e-3,
        learning_rate_end=1e-4,
    ),
}
