"""Small networks for the spaces of a spec, in two files: settings as JSON, and safetensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from agents.policies import write_weights
from worldmodel.common.config_checks import from_json
from worldmodel.common.files import atomic
from worldmodel.common.safe_files import Tensors, check_memory, layout, read_json
from worldmodel.spec import Spec

FORMAT = 1
SPACE_BYTES = 10
"""Memory of a Gymnasium box for each number, at most: two bounds, and whether they are finite."""

Config = TypeVar("Config")


def write_network(
    folder: str | Path, name: str, net: nn.Module, spec: Spec, config: Any, **facts: float
) -> Path:
    """Write ``name.json`` and ``name.safetensors``, and return the folder.

    ``config`` is a dataclass.
    """
    folder = Path(folder)
    write_weights(net, folder / f"{name}.safetensors")
    whole = {"format": FORMAT, "spec": spec.to_dict(), "config": asdict(config), **facts}
    with atomic(folder / f"{name}.json") as path:
        path.write_text(json.dumps(whole, indent=1) + "\n")
    return folder


@dataclass(frozen=True)
class SavedNetwork(Generic[Config]):
    """What ``read_network`` returns: the settings, and the weights on the CPU."""

    spec: Spec
    config: Config
    facts: Mapping[str, float]
    weights: dict[str, Tensor]


def read_network(
    folder: str | Path,
    name: str,
    kind: type[Config],
    make: Callable[[Spec, Config], nn.Module],
    owner: str,
    stack: Callable[[Config], int] = lambda _: 1,
    facts: tuple[str, ...] = (),
) -> SavedNetwork[Config]:
    """Read what ``write_network`` wrote. Nothing large is made before the weights were checked.

    Args:
        folder, name: as there.
        kind: of the settings.
        make: the network of such settings.
        owner: the class that writes it, which messages name.
        stack: observations that the network sees at once, with such settings.
        facts: names of those that may have been written; NaN where they were not.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another format version, or tensors that do not fit.
    """
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; {owner}.save makes it")
    read = read_json(path)
    if read.get("format") != FORMAT:
        raise ValueError(f"{path}: format {read.get('format')!r}; this version reads {FORMAT}")
    weights = Tensors(path.with_suffix(".safetensors"))
    try:
        spec = Spec.from_dict(read.get("spec", {}))
        config = from_json(kind, read.get("config"))
        numbers = {fact: float(read.get(fact, "nan")) for fact in facts}
        check_memory(path, SPACE_BYTES * math.prod(spec.observation) * stack(config))
        with torch.device("meta"):  # shapes without memory
            expected = layout(make(spec, config).state_dict())
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{path}: settings do not fit: {error}") from error
    weights.check(expected)
    return SavedNetwork(spec, config, numbers, weights.read(expected))
