"""Models that predict frame by frame: to see time t, they walk every step before it."""

from worldmodel.frame_by_frame.base import FrameByFrame
from worldmodel.frame_by_frame.sv2p import PRESETS as SV2P_PRESETS
from worldmodel.frame_by_frame.sv2p import Cdna, Sv2p, Sv2pConfig
from worldmodel.frame_by_frame.svg import PRESETS, Svg, SvgConfig

__all__ = [
    "PRESETS",
    "SV2P_PRESETS",
    "Cdna",
    "FrameByFrame",
    "Sv2p",
    "Sv2pConfig",
    "Svg",
    "SvgConfig",
]
