"""Models that predict frame by frame: to see time t, they walk every step before it."""

from worldmodel.models.frame_by_frame.base import FrameByFrame
from worldmodel.models.frame_by_frame.hierarchical_vrnn import (
    HierarchicalVrnn,
    HierarchicalVrnnConfig,
)
from worldmodel.models.frame_by_frame.sssm import DssmDet, DssmVae, Sssm, SssmConfig
from worldmodel.models.frame_by_frame.sv2p import Cdna, Sv2p, Sv2pConfig
from worldmodel.models.frame_by_frame.svg import Svg, SvgConfig, SvgDeterministic, SvgFixedPrior

__all__ = [
    "Cdna",
    "DssmDet",
    "DssmVae",
    "FrameByFrame",
    "HierarchicalVrnn",
    "HierarchicalVrnnConfig",
    "Sssm",
    "SssmConfig",
    "Sv2p",
    "Sv2pConfig",
    "Svg",
    "SvgConfig",
    "SvgDeterministic",
    "SvgFixedPrior",
]
