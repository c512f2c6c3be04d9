"""BADJ: JUMP without the three features that make it consistent (seed 001, figure 4).

Its latent depends on the query, enters the recurrence that renders, and each training target is
explained alone: GQN's inference in JUMP's blocks and sizes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from worldmodel.common.config_checks import at_least
from worldmodel.models.jumpy.gqn import PRESETS as GQN_PRESETS
from worldmodel.models.jumpy.gqn import Core, Gqn, GqnConfig
from worldmodel.models.jumpy.jump.config import PRESETS as JUMP_PRESETS
from worldmodel.models.jumpy.jump.encoder import TiledKeyEncoder


@dataclass(frozen=True)
class BadjConfig(GqnConfig):
    """GQN's settings, and two more sizes.

    Attributes:
        tower: channels into the LSTM.
        canvas_in: channels from the canvas into the renderer's LSTM.
    """

    tower: int = 128
    canvas_in: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "tower", "canvas_in")


PRESETS: dict[str, BadjConfig] = {
    "narrative": BadjConfig(steps=4, hidden=64, variance_start=2.0, variance_end=0.5),
    "dice": BadjConfig(
        steps=6,
        canvas_in=128,
        variance_steps=JUMP_PRESETS["dice"].variance_steps,
        context_frames=10,
        context_max=5,
    ),
    "small": BadjConfig(**asdict(GQN_PRESETS["small"]), tower=32, canvas_in=32),
}


class JumpCore(Core):
    """JUMP's blocks (seed 001, appendix B): at H/8, canvas at H/4, the posterior reads M(v, x)."""

    cell, scale = 8, 2

    def __init__(self, channels: int, key: int, memory: int, config: BadjConfig) -> None:
        super().__init__(key, config.tower, config.tower, config.canvas_in, config)
        self.embed = nn.Conv2d(memory, config.tower, 2, 2)
        self.see = nn.Conv2d(2 * memory, config.tower, 2, 2)
        self.from_canvas = nn.Conv2d(config.canvas, config.canvas_in, 2, 2)
        self.to_image = nn.ConvTranspose2d(config.canvas, channels, 4, 4)

    def target_features(
        self, frames: Tensor, r: Tensor, r_target: Tensor, canvas: Tensor
    ) -> Tensor:
        """The target's encoding and r, as in JUMP's posterior."""
        embedded: Tensor = self.see(torch.cat([r, r_target], 1))
        return embedded

    def read(self, canvas: Tensor) -> list[Tensor]:
        """The canvas, by one strided convolution."""
        return [self.from_canvas(canvas)]


class Badj(Gqn):
    """JUMP's ablation of seed 001, figure 4: GQN's inference in JUMP's blocks and sizes."""

    name: ClassVar[str] = "badj"
    encoder_class = TiledKeyEncoder
    core_class = JumpCore
