"""Models that predict frame by frame: to see time t, they walk every step before it."""

from worldmodel.frame_by_frame.base import FrameByFrame
from worldmodel.frame_by_frame.sssm import PRESETS as SSSM_PRESETS
from worldmodel.frame_by_frame.sssm import DssmDet, DssmVae, Sssm, SssmConfig
from worldmodel.frame_by_frame.svg import PRESETS, Svg, SvgConfig

__all__ = [
    "PRESETS",
    "SSSM_PRESETS",
    "DssmDet",
    "DssmVae",
    "FrameByFrame",
    "Sssm",
    "SssmConfig",
    "Svg",
    "SvgConfig",
]
