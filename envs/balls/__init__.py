"""Random walk: coloured balls that each move one step up, down, left or right.

Source: VIM, seed 002 (thesis), sections 8.5.1 and 8.5.2.
"""

from envs.balls.scene import RandomWalk, RandomWalkState

__all__ = ["RandomWalk", "RandomWalkState"]
