"""JUMP, the jumpy model."""

from worldmodel.jump.config import PRESETS, JumpConfig
from worldmodel.jump.model import Jump

__all__ = ["PRESETS", "Jump", "JumpConfig"]
