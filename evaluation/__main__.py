"""Measure models by one protocol: verbs that write JSON, and the page that is made of it."""

from __future__ import annotations

from typing import Any

from evaluation.commands import agents, models, pages
from evaluation.commands.base import Verb
from worldmodel.common import cli

VERBS: tuple[type[Verb], ...] = (
    models.Speed,
    models.Imagination,
    models.Fidelity,
    models.Bound,
    models.Perceptual,
    models.Consistency,
    models.Peers,
    models.Options,
    models.Dynamics,
    agents.Returns,
    agents.Control,
    agents.Planning,
    agents.CommonWorlds,
    agents.Efficiency,
    agents.Vectors,
    agents.Scaling,
    pages.Bench,
    pages.Report,
)


def main() -> None:
    """Run the verb that the command line names."""
    verbs: dict[str, Any] = {verb.benchmark: verb for verb in VERBS}
    cli.main("evaluation", verbs, __doc__)


if __name__ == "__main__":
    main()
