"""World models that jump: observe a set of frames, sample whole scenes, look anywhere in them.

belief = model.observe(context)
worlds = model.sample(belief, n)
answer = model.predict(worlds, queries)
"""

from typing import TYPE_CHECKING

from worldmodel.common.packages import lazy_names

if TYPE_CHECKING:
    from worldmodel.base import Losses, UnsupportedQuery, WorldModel
    from worldmodel.checkpoint import load, save
    from worldmodel.data.collect import collect
    from worldmodel.data.episode import Episode
    from worldmodel.data.episodes import Episodes, unpack
    from worldmodel.data.make_env import EnvLike, make_env
    from worldmodel.data.minari import from_minari, to_minari
    from worldmodel.hub import push
    from worldmodel.inference import optimise_for_inference
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
    "optimise_for_inference",
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
    "worldmodel.base": "Losses UnsupportedQuery WorldModel",
    "worldmodel.checkpoint": "load save",
    "worldmodel.data.collect": "collect",
    "worldmodel.data.episode": "Episode",
    "worldmodel.data.episodes": "Episodes unpack",
    "worldmodel.data.make_env": "EnvLike make_env",
    "worldmodel.data.minari": "from_minari to_minari",
    "worldmodel.hub": "push",
    "worldmodel.inference": "optimise_for_inference",
    "worldmodel.registry": "MODELS make preset register",
    "worldmodel.spec": "ActionSpec Camera Spec to_float to_uint8",
    "worldmodel.training": "Progress fit",
    "worldmodel.types": (
        "Belief Context Prediction Queries SceneBatch SceneSource StepPrediction Worlds"
    ),
}
"""Public names by module, imported on first use: ``worldmodel.common`` comes without the models."""
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)
