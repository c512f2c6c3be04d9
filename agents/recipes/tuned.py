"""Settings of the methods with a world model, by environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agents.planners.refining import CemConfig
from agents.recipes.imagined import Imagined, ImaginedPpo, ImaginedReplay, OnlinePlanner
from agents.training.dyna.callback import DynaConfig
from agents.training.dyna.rounds import RoundsConfig
from agents.training.online_planning import OnlineConfig
from worldmodel.spec import Spec

_FIT: dict[str, Any] = {"first_fit_steps": 1000, "fit_steps": 250}
_SMALL: dict[str, Any] = {
    "layers": 2, "hidden": 64, "head_hidden": 32, "weight_decay": (2.5e-5, 5e-5, 1e-4),
}  # fmt: skip
"""Of an ensemble: enough for a handful of numbers, several times as fast as the default."""


_SPARSE: dict[str, Any] = {"hold": 5, "noise_exponent": 2.0, "choose": "best"}
"""Of plans that must first find out what is rewarded: they push one way for long."""


def _ppo(
    steps: int,
    first: int,
    every: int,
    imagined: int,
    horizon: int,
    model: Mapping[str, Any] = _SMALL,
    fit: Mapping[str, Any] = _FIT,
    explorer: OnlinePlanner | None = None,
    patience: int | None = 10,
    **settings: Any,
) -> Imagined:
    """PPO in imagination: steps of the first round, at random or by an ``explorer``, steps of a
    round, and what PPO imagines for each round.
    """
    rounds = RoundsConfig(
        first_collect_steps=first,
        collect_steps=every,
        imagined_steps=imagined,
        horizon=horizon,
        patience=patience,
        **fit,
    )
    window = horizon if explorer is None else max(horizon, explorer.window)
    return ImaginedPpo(
        steps, window, model_settings=model, rounds=rounds, explorer=explorer, settings=settings
    )


def _replay(
    kind: Literal["sac", "dqn"],
    steps: int,
    start: int,
    every: int,
    horizon: int = 1,
    model: Mapping[str, Any] = _SMALL,
    fit: Mapping[str, Any] = _FIT,
    **settings: Any,
) -> Imagined:
    """MBPO: random steps, steps between fits, and decisions of a branch."""
    dyna = DynaConfig(start=start, every=every, horizon=horizon, **fit)
    return ImaginedReplay(
        steps,
        horizon,
        model_settings=model,
        kind=kind,
        dyna=dyna,
        settings={"learning_starts": start, **settings},
    )


def _planner(
    steps: int,
    start: int,
    every: int,
    horizon: int,
    model: Mapping[str, Any] = _SMALL,
    fit: Mapping[str, Any] = _FIT,
    **cem: Any,
) -> OnlinePlanner:
    """Planning online: random steps, steps between fits, and decisions of a plan."""
    planner = CemConfig(
        **{"plans": 50, "worlds": 3, "iterations": 3, "horizon": horizon, "ahead": horizon, **cem}
    )
    online = OnlineConfig(start_steps=start, refit_every=every, **fit)
    window = planner.steps(horizon)
    return OnlinePlanner(steps, window, model_settings=model, planner=planner, online=online)


_EXPLORE = _planner(1500, 500, 250, 12, curiosity=20.0, hold=4, noise_exponent=2.0)
"""Reaches Acrobot's goal while it explores; PPO in imagination does the rest."""

IMAGINED: dict[str, tuple[Imagined, ...]] = {
    "CartPole-v1": (_ppo(1500, 250, 250, 40_000, 100),),
    "Acrobot-v1": (_ppo(8000, 1500, 500, 100_000, 100, explorer=_EXPLORE, patience=None),),
    "Pendulum-v1": (
        _planner(2500, 200, 200, 30, plans=64, noise_exponent=1.0, choose="best"),
        _replay("sac", 2500, 200, 100, gradient_steps=10, learning_rate=1e-3, gamma=0.97),
    ),
    "MountainCar-v0": (_planner(5000, 400, 200, 30, curiosity=20.0, **_SPARSE),),
    "MountainCarContinuous-v0": (_planner(10_000, 300, 200, 25, curiosity=100.0, **_SPARSE),),
    "LunarLander-v3": (
        _planner(15_000, 500, 500, 20, plans=64, noise_exponent=1.0, choose="best", hold=3),
    ),
    "LunarLanderContinuous-v3": (_replay("sac", 40_000, 1000, 250, horizon=5, gradient_steps=5),),
    "InvertedPendulum-v5": (_ppo(3000, 250, 250, 40_000, 100),),
    "Reacher-v5": (_replay("sac", 10_000, 500, 250, gradient_steps=10),),
    "Hopper-v5": (_replay("sac", 60_000, 5000, 250, gradient_steps=10, target_entropy=-1.0),),
    "HalfCheetah-v5": (
        _replay("sac", 40_000, 5000, 250, gradient_steps=10, target_entropy=-3.0),
    ),
}  # fmt: skip
"""By environment, the method that needs the fewest real steps first."""


def generic(spec: Spec) -> tuple[Imagined, ...]:
    """Methods for spaces of these kinds: SAC for numbers, PPO else; PPO for images, too."""
    if spec.is_image or spec.image_part is not None:
        return (ImaginedPpo(20_000, 20),)
    ppo = _ppo(20_000, 1000, 500, 20_000, 50)
    if spec.action.kind == "box":
        return (_replay("sac", 20_000, 1000, 250, gradient_steps=10), ppo)
    return (ppo,)
