"""World models that jump: observe a set of frames, sample whole scenes, look anywhere in them.

belief = model.observe(context)
worlds = model.sample(belief, n)
answer = model.predict(worlds, queries)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldmodel.base import Losses, UnsupportedQuery, WorldModel
    from worldmodel.checkpoint import load, save
    from worldmodel.data.collect import collect
    from worldmodel.data.episode import Episode
    from worldmodel.data.episodes import Episodes, unpack
    from worldmodel.data.make_env import EnvLike, make_env
    from worldmodel.data.minari import from_minari, to_minari
    from worldmodel.hub import push
    from worldmodel.registry import MODELS, make, preset, register
    from worldmodel.spec import ActionSpec, Camera, Spec, to_float, to_uint8
    from worldmodel.training import Progress, fit
    from worldmodel.types import (
        Belief,
        Context,
        Prediction,
        Queries,
        SceneBatch,
        SceneSource,
        StepPrediction,
        Worlds,
    )

__all__ = [
    "MODELS",
    "ActionSpec",
    "Belief",
    "Camera",
    "Context",
    "EnvLike",
    "Episode",
    "Episodes",
    "Losses",
    "Prediction",
    "Progress",
    "Queries",
    "SceneBatch",
    "SceneSource",
    "Spec",
    "StepPrediction",
    "UnsupportedQuery",
    "WorldModel",
    "Worlds",
    "collect",
    "fit",
    "from_minari",
    "load",
    "make",
    "make_env",
    "preset",
    "push",
    "register",
    "save",
    "to_float",
    "to_minari",
    "to_uint8",
    "unpack",
]

_NAMES = {
    "base": "Losses UnsupportedQuery WorldModel",
    "checkpoint": "load save",
    "data.collect": "collect",
    "data.episode": "Episode",
    "data.episodes": "Episodes unpack",
    "data.make_env": "EnvLike make_env",
    "data.minari": "from_minari to_minari",
    "hub": "push",
    "registry": "MODELS make preset register",
    "spec": "ActionSpec Camera Spec to_float to_uint8",
    "training": "Progress fit",
    "types": "Belief Context Prediction Queries SceneBatch SceneSource StepPrediction Worlds",
}
"""Public names by module, imported on first use: ``worldmodel.common`` comes without the models."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'worldmodel' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"worldmodel.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
