"""Measure models by one protocol: verbs that write JSON, and the page that is made of it."""

from __future__ import annotations

import sys
from typing import Any

import tyro

from evaluation.commands import agents, models, pages
from evaluation.commands.base import Verb

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
    pages.Bench,
    pages.Report,
)


def main() -> None:
    """Run the command line; errors of usage end with one line, not a traceback."""
    verbs: dict[str, Any] = {verb.benchmark: verb for verb in VERBS}
    command = tyro.extras.subcommand_cli_from_dict(
        verbs, description=__doc__, prog="python -m evaluation"
    )
    try:
        for text in command.run():
            print(text, flush=True)
    except (ValueError, TypeError, FileNotFoundError, ImportError, ChildProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
