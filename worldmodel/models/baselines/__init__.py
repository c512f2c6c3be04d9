"""What every model must beat, and what none can: copy-last and replay. Neither learns anything."""

from worldmodel.models.baselines.copy_last import CopyLast
from worldmodel.models.baselines.replay import Replay, ReplayConfig

__all__ = ["CopyLast", "Replay", "ReplayConfig"]
