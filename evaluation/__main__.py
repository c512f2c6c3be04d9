"""Measure models by one protocol; every verb writes JSON."""

from __future__ import annotations

import sys
from typing import Any

import torch
import tyro

from evaluation.commands import agents, models
from evaluation.commands.base import Command

VERBS: tuple[type[Command], ...] = (
    models.Speed,
    models.Imagination,
    models.Fidelity,
    models.Consistency,
    models.Peers,
    models.Options,
    models.Dynamics,
    agents.Control,
    agents.Planning,
    agents.CommonWorlds,
    agents.Efficiency,
    agents.Vectors,
)


def run(command: Command) -> None:
    """Measure, print, write."""
    torch.set_num_threads(command.num_threads)
    rows = command.rows()
    print(command.text(rows))
    if (path := command.write(rows)) is not None:
        print(f"\nresult: {path}")


def main() -> None:
    """Run the command line; errors of usage end with one line, not a traceback."""
    verbs: dict[str, Any] = {verb.benchmark: verb for verb in VERBS}
    command = tyro.extras.subcommand_cli_from_dict(
        verbs, description=__doc__, prog="python -m evaluation"
    )
    try:
        run(command)
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
