"""Models that predict frame by frame: to reach time t, they take every step before it."""

from worldmodel.models.frame_by_frame.base import FrameByFrame

__all__ = ["FrameByFrame"]
