"""INFERNO: a frame as objects with poses, each a neural field, rendered together."""

from worldmodel.models.jumpy.inferno.config import PRESETS, InfernoConfig
from worldmodel.models.jumpy.inferno.model import Inferno, View
from worldmodel.models.jumpy.inferno.slots import Scene

__all__ = ["PRESETS", "Inferno", "InfernoConfig", "Scene", "View"]
