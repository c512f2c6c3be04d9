"""Stochastic moving digits: handwritten digits that bounce off walls, each time anew.

Source: Denton and Fergus 2018, sec. 4.1 (SM-MNIST), in the rules of their published code.
"""

from envs.digits.scene import MovingDigitsState, StochasticMovingDigits

__all__ = ["MovingDigitsState", "StochasticMovingDigits"]
