"""Training: the loop, what a run keeps on disk, and what a person sees of it."""

from worldmodel.training.loop import fit
from worldmodel.training.monitor import Callback, Progress
from worldmodel.training.run import BEST, STATE

__all__ = ["BEST", "STATE", "Callback", "Progress", "fit"]
