"""Dice: a cube with handwritten digits in a room (Consistent Jumpy Predictions, sec. 4.2)."""

from envs.dice.find_digit import FindDigit, FindDigitState
from envs.dice.hidden_face import HiddenFaceViews, hidden_face_views, look, read_face
from envs.dice.scene import DiceState, poses
from envs.dice.views import Views

__all__ = [
    "DiceState",
    "FindDigit",
    "FindDigitState",
    "HiddenFaceViews",
    "Views",
    "hidden_face_views",
    "look",
    "poses",
    "read_face",
]
