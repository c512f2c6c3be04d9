"""Settings of the ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worldmodel.common.config_checks import above_zero, at_least, to_tuples


@dataclass(frozen=True)
class EnsembleConfig:
    """Sizes and training settings.

    Attributes:
        members, elites: networks, and how many of them worlds are drawn from.
        layers, hidden: hidden layers of the dynamics, and their width.
        head_hidden: width of the two hidden layers that reward and end are read with.
        propagation: "world" draws a member for each world (TS-infinity), "step" for each of its
            steps (TS1).
        bootstrap: whether each member counts the recorded steps differently.
        logvar_min, logvar_max: where the learned bounds of the log-variance begin, in standardised
            units.
        weight_decay: of the layers of the dynamics, from the first to the output; the heads have
            the last one's.
        values: the most values that a number may take to be drawn from a softmax.
        slots: for all values of such numbers together; one-hot groups need none.
        learning_rate, learning_rate_end: Adam (0.9, 0.999), linear in between.
    """

    members: int = 5
    elites: int = 5
    layers: int = 3
    hidden: int = 200
    head_hidden: int = 100
    propagation: Literal["world", "step"] = "world"
    bootstrap: bool = True
    logvar_min: float = -10.0
    logvar_max: float = 0.5
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 1e-4)
    values: int = 16
    slots: int = 64
    learning_rate: float = 2e-3
    learning_rate_end: float = 1e-4

    def __post_init__(self) -> None:
        to_tuples(self, "weight_decay")
        at_least(1, self, "members", "elites", "layers", "hidden", "head_hidden")
        at_least(0, self, "values", "slots")
        above_zero(self, "learning_rate", "learning_rate_end")
        if self.elites > self.members:
            raise ValueError(
                f"elites: expected at most the {self.members} members, got {self.elites}"
            )
        if self.propagation not in ("world", "step"):
            raise ValueError(f"propagation: expected 'world' or 'step', got {self.propagation!r}")
        if not self.logvar_min < self.logvar_max:
            raise ValueError(
                "logvar_min, logvar_max: expected the first below the second, got "
                f"{self.logvar_min}, {self.logvar_max}"
            )
        if len(self.weight_decay) != self.layers + 1 or min(self.weight_decay) < 0:
            raise ValueError(
                f"weight_decay: expected {self.layers + 1} numbers of at least 0, one for each "
                f"layer and the output, got {self.weight_decay}"
            )


PRESETS: dict[str, EnsembleConfig] = {
    "vector": EnsembleConfig(),
    "mbpo": EnsembleConfig(members=7, layers=4, weight_decay=(2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)),
}
