"""JUMP's settings and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worldmodel.common.config_checks import at_least, odd
from worldmodel.models.jumpy.config import JumpyConfig


@dataclass(frozen=True)
class JumpConfig(JumpyConfig):
    """Sizes of the networks; the defaults are the paper's narrative setting.

    (Seed 001, appendix B. Names in brackets are the paper's.) Schedules and training draws:
    see ``JumpyConfig``.

    Attributes:
        steps: DRAW steps (nt).
        hidden: LSTM channels (nf_to_hidden).
        tower: channels into the prior's and posterior's LSTM (nf_enc).
        canvas: channels of the canvas (nf_to_obs).
        canvas_in: channels from the canvas into the renderer's LSTM (nf_dec).
        latent: latent channels of each step (nf_z).
        kernel: size of the LSTM kernels.
        key_features: product keys (``r = sum_j k(v_j) (outer) phi(x_j)``) of that many features;
            0 tiles the key onto the image, as the paper does.
        renderer: "draw", the paper's recurrence; "film", feed-forward and modulated by the key; or
            "mlp", for vectors.
        film: channels of the "film" renderer.
        attention_heads: of the "film" renderer's attention to the cells of the scene; 0 for none.
        mlp: hidden width of the "mlp" renderer.
    """

    steps: int = 4
    hidden: int = 64
    tower: int = 128
    canvas: int = 128
    canvas_in: int = 64
    latent: int = 3
    kernel: int = 5
    key_features: int = 0
    renderer: Literal["draw", "film", "mlp"] = "draw"
    film: int = 48
    attention_heads: int = 0
    mlp: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = "hidden tower canvas canvas_in latent film mlp"
        at_least(1, self, "steps", "kernel", *widths.split())
        odd(self, "kernel")
        if self.renderer not in ("draw", "film", "mlp"):
            raise ValueError(f"renderer: expected 'draw', 'film' or 'mlp', got {self.renderer!r}")
        at_least(0, self, "key_features", "attention_heads")
        if self.renderer == "draw" and (self.key_features or self.attention_heads):
            raise ValueError(
                "key_features, attention_heads: the 'draw' renderer reads neither; set them to 0, "
                f"or renderer='film', got {self.key_features} and {self.attention_heads}"
            )


VIEWS = JumpConfig(
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
)

PRESETS: dict[str, JumpConfig] = {
    "narrative": JumpConfig(),
    # The paper's 100k, 50k and 50k steps, and then as many as the first again.
    "dice": JumpConfig(
        steps=6,
        hidden=128,
        canvas_in=128,
        variance_steps=((1 / 3, 2.0), (1 / 2, 0.2), (2 / 3, 0.4), (1.0, 0.9)),
        context_frames=10,
        context_max=5,
    ),
    "views": VIEWS,
    "vector": JumpConfig(
        steps=1,
        hidden=32,
        tower=32,
        latent=8,
        kernel=1,
        time_bands=4,
        key_features=12,
        renderer="mlp",
        path=128,
        variance_start=0.1,
        variance_end=0.005,
        context_frames=0,
        targets=12,
        learning_rate=1e-3,
        learning_rate_end=2e-5,
    ),
}
