"""CVG: videos from noise, a small outline first; adversarial, in two levels."""

from worldmodel.models.jumpy.cvg.config import PRESETS, CvgConfig
from worldmodel.models.jumpy.cvg.model import Cvg

__all__ = ["PRESETS", "Cvg", "CvgConfig"]
