"""JUMP, the jumpy model."""

from worldmodel.models.jumpy.jump.config import PRESETS, JumpConfig
from worldmodel.models.jumpy.jump.model import Jump

__all__ = ["PRESETS", "Jump", "JumpConfig"]
