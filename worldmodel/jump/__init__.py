"""JUMP, the jumpy model."""

from worldmodel.jump.config import PRESETS, JumpConfig
from worldmodel.jump.model import Jump, set_refinements

__all__ = ["PRESETS", "Jump", "JumpConfig", "set_refinements"]
