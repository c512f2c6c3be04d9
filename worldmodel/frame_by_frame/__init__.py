"""Models that predict frame by frame: to see time t, they walk every step before it."""

from worldmodel.frame_by_frame.base import FrameByFrame
from worldmodel.frame_by_frame.hierarchical_vrnn import HierarchicalVrnn, HierarchicalVrnnConfig
from worldmodel.frame_by_frame.svg import PRESETS, Svg, SvgConfig

__all__ = [
    "PRESETS",
    "FrameByFrame",
    "HierarchicalVrnn",
    "HierarchicalVrnnConfig",
    "Svg",
    "SvgConfig",
]
