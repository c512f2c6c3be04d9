"""Settings that are tuned for an environment: of algorithms on real steps, and of imagination."""

from agents.recipes.model_free import TUNED, Linear, ModelFree, normaliser

__all__ = ["TUNED", "Linear", "ModelFree", "normaliser"]
