"""Does a sampled world agree with itself? Stories, and digits of the dice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

import worldmodel
from evaluation.metrics import dice_consistency as dice
from evaluation.metrics import reaction_consistency as reaction
from evaluation.metrics import story_consistency as story
from evaluation.runner.held_out_scenes import VIEWS
from evaluation.runner.measurement import OfWorlds, Row, environment
from evaluation.runner.partial_results import PartialResults
from worldmodel import WorldModel

STORIES = {
    story.NATURE: story.story_consistency,
    story.AGENT: story.story_consistency,
    reaction.NATURE: reaction.reaction_consistency,
    reaction.AGENT: reaction.reaction_consistency,
}
"""What is measured of stories, by environment."""


@dataclass(frozen=True)
class Consistency(OfWorlds):
    """Does a sampled world agree with itself? Stories of Traveling Salesman and Color Reaction,
    digits of the dice.
    """

    name = "consistency"
    columns = ("checkpoint", "model", "metric", "value", "low", "high", "n")
    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ("traveling-salesman",)
    """Folders, shipped names or hub ids."""
    scenes: int = 200
    """Of the test split."""
    worlds: int = 8
    """Sampled of each scene."""
    picture: Path | None = None
    """PNG file with what each model of the dice imagines on the side that no context view shows."""

    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows ``model, env, metric, value, low, high, n``; intervals over scenes.

        Raises:
            ValueError: another environment, or the model is not of it; see ``story_consistency``,
                ``reaction_consistency`` and ``dice_consistency``.
        """
        env = environment(self.env, model.env_id)
        if env == VIEWS:
            return dice.dice_consistency(model, self.scenes, self.worlds, self.seed)
        if env in STORIES:
            return STORIES[env](model, env, self.scenes, self.worlds, self.seed)
        raise ValueError(f"env: expected one of {', '.join((VIEWS, *STORIES))}; got {env!r}")

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Of all models; draws the picture."""
        rows = super().rows(partial_results)
        if self.picture is not None:
            dice.draw({name: worldmodel.load(name) for name in self.checkpoints}, self.picture)
        return rows
