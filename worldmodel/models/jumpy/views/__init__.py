"""JUMP for views of a camera whose intrinsics are known."""

from worldmodel.models.jumpy.views.config import PRESETS, ViewsConfig
from worldmodel.models.jumpy.views.model import ViewsJump

__all__ = ["PRESETS", "ViewsConfig", "ViewsJump"]
