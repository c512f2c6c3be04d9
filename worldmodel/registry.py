"""Models by name: any is swapped for any other by one word."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch

from worldmodel.base import WorldModel
from worldmodel.common.config_checks import check_seed
from worldmodel.models.baselines import copy_last, replay
from worldmodel.models.frame_by_frame import (
    ensemble,
    ensemble_config,
    hierarchical_vrnn,
    sssm,
    sv2p,
    svg,
    vim,
    vim_config,
)
from worldmodel.models.jumpy import badj, copying, cvg, gqn, inferno, jump, views
from worldmodel.spec import Spec


@dataclass(frozen=True)
class Entry:
    """A model class and its presets, the first of which is the paper's.

    Attributes:
        model: the class.
        presets: settings by name.
        variants: further classes of that name, by the type of the settings that choose them.
    """

    model: type[WorldModel]
    presets: Mapping[str, Any]
    variants: Mapping[type[Any], type[WorldModel]] = field(default_factory=dict)

    def of(self, config: Any) -> type[WorldModel]:
        """The class that these settings are for."""
        return self.variants.get(type(config), self.model)


_JUMP = Entry(
    jump.Jump,
    {**jump.PRESETS, **copying.PRESETS, **views.PRESETS},
    {copying.CopyingConfig: copying.CopyingJump, views.ViewsConfig: views.ViewsJump},
)
MODELS: dict[str, Entry] = {jump.Jump.name: _JUMP} | {
    model.name: Entry(model, presets)
    for presets, *models in (
        (badj.PRESETS, badj.Badj),
        (gqn.PRESETS, gqn.Gqn),
        (ensemble_config.PRESETS, ensemble.Ensemble),
        (svg.PRESETS, svg.Svg, svg.SvgFixedPrior, svg.SvgDeterministic),
        (copy_last.PRESETS, copy_last.CopyLast),
        (cvg.PRESETS, cvg.Cvg),
        ({}, replay.Replay),
        (hierarchical_vrnn.PRESETS, hierarchical_vrnn.HierarchicalVrnn),
        (inferno.PRESETS, inferno.Inferno),
        (sssm.PRESETS, sssm.Sssm, sssm.DssmVae, sssm.DssmDet),
        (sv2p.PRESETS, sv2p.Sv2p, sv2p.Cdna),
        (vim_config.PRESETS, vim.Vim),
    )
    for model in models
}
"""What ``make`` knows; ``register`` adds to it."""
AUTO = "auto"
"""The name that stands for the ``recommended`` model."""


def register(model: type[WorldModel], presets: Mapping[str, Any]) -> None:
    """Add a model of your own: ``make``, checkpoints and all commands then know its name.

    Call it where the class is defined. Others name it ``"module:name"``, and that module is
    imported first, as for Gymnasium's ids: ``make("my_package:mine", spec)``,
    ``python -m evaluation speed --models my_package:mine:small``.

    Args:
        model: the class; ``model(spec, config)`` makes one, and ``model.name`` is its name.
        presets: its settings by name, instances of one dataclass of plain numbers and strings,
            which checkpoints store. ``"small"`` (images) and ``"vector"`` are what ``make`` takes
            where none is named.

    Raises:
        TypeError: ``model`` is no class of ``WorldModel``, or a preset is no dataclass instance.
        ValueError: the name holds a colon or belongs to another model, or there is no preset.
    """
    if not (isinstance(model, type) and issubclass(model, WorldModel)):
        raise TypeError(f"model: expected a subclass of WorldModel, got {model!r}")
    if not presets:
        raise ValueError("presets: expected at least one, got none")
    for title, config in presets.items():
        if isinstance(config, type) or not is_dataclass(config):
            raise TypeError(
                f"presets[{title!r}]: expected an instance of a dataclass, got {config!r}"
            )
    known = MODELS.get(model.name)
    again = known is not None and (known.model.__module__, known.model.__qualname__) == (
        model.__module__,
        model.__qualname__,
    )  # a notebook's cell that is run twice makes a class of the same name
    if ":" in model.name or model.name == AUTO or (known is not None and not again):
        raise ValueError(
            f"model: the name {model.name!r} is taken, or holds a colon; choose another"
        )
    MODELS[model.name] = Entry(model, dict(presets))


def imported(name: str) -> str:
    """Import the module of ``"module:rest"`` and return the rest; a name without is returned.

    Raises:
        ValueError: the first part names no module.
    """
    module, colon, rest = name.partition(":")
    if colon:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"name: expected module:name, got {name!r}")
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, but lacks something itself
            raise ValueError(f"name: {name!r} begins with no module: {error}") from error
    return rest if colon else name


def entry(name: str) -> Entry:
    """What is registered under a name, or under ``"module:name"`` once that module is imported.

    Raises:
        ValueError: there is no such model, or no such module.
    """
    return registered(imported(name))


def registered(name: str) -> Entry:
    """As ``entry``, but nothing is imported: for names that a file holds.

    Raises:
        ValueError: there is no such model.
    """
    if name not in MODELS:
        raise ValueError(
            f"name: no model {name!r}; registered are {sorted(MODELS)}; for one of your own import "
            "its module first, or say module:name (module:FOLDER of a checkpoint)"
        )
    return MODELS[name]


def preset(name: str, preset: str) -> Any:
    """The config of a preset of a model.

    Args:
        name: of the model, as for ``make``.
        preset: such as "small".

    Raises:
        ValueError: no such model or preset.
    """
    presets = entry(name).presets
    if not presets:
        raise ValueError(f"preset: {name} has none; pass a config object, see its documentation")
    if preset not in presets:
        raise ValueError(f"preset: {name} has no {preset!r}; it has {sorted(presets)}")
    return presets[preset]


def suggested(name: str, spec: Spec) -> str:
    """The preset of a model to begin with: sized for a CPU."""
    if spec.pose and "views" in entry(name).presets:
        return "views"
    return "small" if spec.is_image or spec.image_part is not None else "vector"


def recommended(spec: Spec) -> str:
    """The model that ``make("auto", spec)`` makes: ensemble for vectors, jump for images."""
    return "jump" if spec.is_image or spec.image_part is not None else "ensemble"


def make(name: str, spec: Spec, config: Any = None, seed: int = 0) -> WorldModel:
    """A fresh model.

    Args:
        name: a registered model, such as "jump" or "svg-lp", or "module:name" of your own; "auto"
            is the ``recommended`` one.
        spec: what it will see and do; ``Spec.from_spaces`` reads it off an environment.
        config: a preset's name, or the model's own config object; None for the ``suggested``.
        seed: of the initial weights; torch's global generator stays as it is.

    Raises:
        ValueError: no such model, preset or module; the spec or the config is not what it takes; or
            the seed is out of range.
    """
    check_seed(seed)
    name = recommended(spec) if name == AUTO else name
    known = entry(name)
    model = known.model
    if spec.image_part is not None and not model.takes_image_parts:
        takers = sorted(title for title, one in MODELS.items() if one.model.takes_image_parts)
        raise ValueError(
            f"spec: {name} takes no Dicts that hold an image, got {[p.name for p in spec.parts]}; "
            f"{', '.join(takers)} do"
        )
    if not (spec.is_image or model.takes_vectors):
        raise ValueError(
            f"spec: {name} takes images, got vectors of {spec.observation[0]} numbers; ensemble "
            "takes these, jump both"
        )
    if spec.is_image and not model.takes_images:
        raise ValueError(
            f"spec: {name} takes vectors, got images {spec.observation}; jump takes both"
        )
    config = suggested(name, spec) if config is None else config
    if isinstance(config, str):
        config = preset(name, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build: Any = known.of(config)
        made: WorldModel = build(spec, config)
    return made
