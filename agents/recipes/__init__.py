"""Settings that are tuned for an environment: of algorithms on real steps, and of imagination.

>>> from agents.recipes import recipe_for
>>> print(recipe_for("CartPole-v1").describe("CartPole-v1"))
"""

from agents.recipes.imagined import Imagined, ImaginedPpo, ImaginedReplay, OnlinePlanner
from agents.recipes.model_free import TUNED, Linear, ModelFree, normaliser
from agents.recipes.recipe import Recipe, recipe_for
from agents.recipes.tuned import IMAGINED

__all__ = [
    "IMAGINED",
    "TUNED",
    "Imagined",
    "ImaginedPpo",
    "ImaginedReplay",
    "Linear",
    "ModelFree",
    "OnlinePlanner",
    "Recipe",
    "normaliser",
    "recipe_for",
]
