"""What a model was made for: observations, actions and the window; and the Gymnasium border."""

from worldmodel.common.camera import Camera
from worldmodel.spec.action import ActionSpec
from worldmodel.spec.parts import Part, to_float, to_uint8
from worldmodel.spec.spec import Spec

__all__ = ["ActionSpec", "Camera", "Part", "Spec", "to_float", "to_uint8"]
