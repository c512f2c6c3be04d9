"""The recipe of an environment: its methods, the best first, with and without a world model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import gymnasium as gym

from agents.recipes.imagined import Imagined
from agents.recipes.model_free import TUNED, ModelFree
from agents.recipes.tuned import IMAGINED, generic
from worldmodel.data.make_env import EnvLike, open_env
from worldmodel.spec import Spec


@dataclass(frozen=True)
class Recipe:
    """The methods for an environment.

    Attributes:
        env: its id; None if the settings are not tuned for it.
        imagined: with a world model, the one that needs the fewest real steps first.
        real: without; empty where nothing is tuned.
    """

    env: str | None
    imagined: tuple[Imagined, ...]
    real: tuple[ModelFree, ...] = ()

    @property
    def policy(self) -> Imagined:
        """The best method that ends with a policy: planners need the world model to act.

        Raises:
            ValueError: only planners are tuned for the environment.
        """
        for each in self.imagined:
            if each.algorithm is not None:
                return each
        raise ValueError(
            f"method: no method that ends with a policy is tuned for {self.env}, only "
            f"{self.imagined[0].label}; run that by "
            f"agents.recipes.recipe_for({self.env!r}).imagined[0].learn({self.env!r}), or choose "
            "method='planner', whose general settings are not tuned"
        )

    def describe(self, env: str, steps: int | None = None) -> str:
        """What ``policy`` will do in the environment of that id, in lines.

        Args:
            env: its id.
            steps: real steps, if not those of the recipe.

        Raises:
            ValueError: only planners are tuned for the environment.
        """
        chosen = self.policy
        origin = (
            f"tuned for {self.env}" if self.env else f"general ones, since none are tuned for {env}"
        )
        lines = [
            f"{env}: {chosen.label}, {chosen.steps if steps is None else steps:,} real steps; "
            f"settings are {origin}",
            f"  world model: {chosen.model}, window {chosen.window}"
            + _listed(chosen.model_settings),
        ]
        for group, settings in chosen.settings_by_name().items():
            lines.append(f"  {group}:{_listed(settings) or ' defaults'}")
        others = [each.label for each in self.imagined if each is not chosen]
        others += [each.algorithm.upper() + " on real steps" for each in self.real]
        if others:
            lines.append(f"  also in agents.recipes: {', '.join(others)}")
        return "\n".join(lines)


def recipe_for(env: EnvLike) -> Recipe:
    """The recipe of an environment; one by its kind of spaces where nothing is tuned for it.

    Args:
        env: see ``EnvLike``. The id decides; a function and an environment have that of their spec.

    Raises:
        ValueError: the spaces are not supported.
    """
    with open_env(env) as made:
        spec = Spec.from_spaces(made.observation_space, made.action_space, 1)
        known = None if made.spec is None else made.spec.id
        same = known in IMAGINED and not spec.is_image and _is_unchanged(made)
    if same and known is not None:
        return Recipe(known, IMAGINED[known], TUNED.get(known, ()))
    return Recipe(None, generic(spec))


def _is_unchanged(env: gym.Env[Any, Any]) -> bool:
    """Whether wrappers leave the spaces as they are."""
    inner = env.unwrapped
    return (env.observation_space, env.action_space) == (
        inner.observation_space,
        inner.action_space,
    )


def _listed(settings: Mapping[str, Any]) -> str:
    """Settings as `` name=value, name=value``; mappings that are empty are left out."""
    pairs = ", ".join(
        f"{name}={asdict(value) if is_dataclass(value) and not isinstance(value, type) else value}"
        for name, value in settings.items()
        if value != {}
    )
    return f" {pairs}" if pairs else ""
