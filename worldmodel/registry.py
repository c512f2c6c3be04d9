"""Models by name: any is swapped for any other by one word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from worldmodel.base import WorldModel
from worldmodel.baselines.copy_last import PRESETS as COPY_LAST_PRESETS
from worldmodel.baselines.copy_last import CopyLast
from worldmodel.baselines.replay import Replay
from worldmodel.frame_by_frame.hierarchical_vrnn import PRESETS as VRNN_PRESETS
from worldmodel.frame_by_frame.hierarchical_vrnn import HierarchicalVrnn
from worldmodel.frame_by_frame.sssm import PRESETS as SSSM_PRESETS
from worldmodel.frame_by_frame.sssm import DssmDet, DssmVae, Sssm
from worldmodel.frame_by_frame.sv2p import PRESETS as SV2P_PRESETS
from worldmodel.frame_by_frame.sv2p import Cdna, Sv2p
from worldmodel.frame_by_frame.svg import PRESETS as SVG_PRESETS
from worldmodel.frame_by_frame.svg import Svg, SvgDeterministic, SvgFixedPrior
from worldmodel.gqn import BADJ_PRESETS, GQN_PRESETS, Badj, Gqn
from worldmodel.jump.config import PRESETS as JUMP_PRESETS
from worldmodel.jump.model import Jump
from worldmodel.spec import Spec


@dataclass(frozen=True)
class Entry:
    """A model class and its presets, the first of which is the paper's."""

    model: type[WorldModel]
    presets: Mapping[str, Any]


MODELS: dict[str, Entry] = {
    Jump.name: Entry(Jump, JUMP_PRESETS),
    Badj.name: Entry(Badj, BADJ_PRESETS),
    Gqn.name: Entry(Gqn, GQN_PRESETS),
    Svg.name: Entry(Svg, SVG_PRESETS),
    SvgFixedPrior.name: Entry(SvgFixedPrior, SVG_PRESETS),
    SvgDeterministic.name: Entry(SvgDeterministic, SVG_PRESETS),
    CopyLast.name: Entry(CopyLast, COPY_LAST_PRESETS),
    Replay.name: Entry(Replay, {}),
    HierarchicalVrnn.name: Entry(HierarchicalVrnn, VRNN_PRESETS),
    Sssm.name: Entry(Sssm, SSSM_PRESETS),
    DssmVae.name: Entry(DssmVae, SSSM_PRESETS),
    DssmDet.name: Entry(DssmDet, SSSM_PRESETS),
    Sv2p.name: Entry(Sv2p, SV2P_PRESETS),
    Cdna.name: Entry(Cdna, SV2P_PRESETS),
}


def entry(name: str) -> Entry:
    """Raises ValueError for a name that is not registered."""
    if name not in MODELS:
        raise ValueError(f"name: no model {name!r}; registered are {sorted(MODELS)}")
    return MODELS[name]


def preset(name: str, preset: str) -> Any:
    """The config of a preset of a model.

    Raises:
        ValueError: no such model or preset.
    """
    presets = entry(name).presets
    if not presets:
        raise ValueError(f"preset: {name} has none; pass a config object, see its documentation")
    if preset not in presets:
        raise ValueError(f"preset: {name} has no {preset!r}; it has {sorted(presets)}")
    return presets[preset]


def suggested(spec: Spec) -> str:
    """The preset to begin with: sized for a CPU."""
    return "small" if spec.is_image else "vector"


def make(name: str, spec: Spec, config: Any = None, seed: int = 0) -> WorldModel:
    """A fresh model.

    Args:
        name: a registered model, such as "jump" or "svg-lp".
        spec: what it will see and do; ``Spec.from_spaces`` reads it off an environment.
        config: a preset's name, or the model's own config object; None for the ``suggested``.
        seed: of the initial weights; torch's global generator stays as it is.
    """
    model: Any = entry(name).model
    if not (spec.is_image or model.takes_vectors):
        raise ValueError(
            f"spec: {name} takes images, got vectors of {spec.observation[0]} numbers; jump takes "
            "both"
        )
    config = suggested(spec) if config is None else config
    if isinstance(config, str):
        config = preset(name, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: WorldModel = model(spec, config)
    return made
