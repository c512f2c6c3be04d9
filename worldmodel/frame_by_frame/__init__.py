"""Models that predict frame by frame: to see time t, they walk every step before it."""

from worldmodel.frame_by_frame.base import FrameByFrame
from worldmodel.frame_by_frame.hierarchical_vrnn import HierarchicalVrnn, HierarchicalVrnnConfig
from worldmodel.frame_by_frame.sssm import DssmDet, DssmVae, Sssm, SssmConfig
from worldmodel.frame_by_frame.svg import Svg, SvgConfig, SvgDeterministic, SvgFixedPrior

__all__ = [
    "DssmDet",
    "DssmVae",
    "FrameByFrame",
    "HierarchicalVrnn",
    "HierarchicalVrnnConfig",
    "Sssm",
    "SssmConfig",
    "Svg",
    "SvgConfig",
    "SvgDeterministic",
    "SvgFixedPrior",
]
