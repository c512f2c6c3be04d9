"""Training: the loop, its checkpoints and training state, progress and validation."""

from worldmodel.training.loop import fit
from worldmodel.training.monitor import Callback, Progress
from worldmodel.training.run import BEST, STATE

__all__ = ["BEST", "STATE", "Callback", "Progress", "fit"]
