"""JUMP that copies what the context shows."""

from worldmodel.models.jumpy.copying.config import PRESETS, CopyingConfig
from worldmodel.models.jumpy.copying.model import CopyingJump

__all__ = ["PRESETS", "CopyingConfig", "CopyingJump"]
