"""``python -m agents train | plan | enjoy``."""

from __future__ import annotations

from worldmodel.common import cli
from worldmodel.common.cli import LazyVerb

VERBS = {
    "train": LazyVerb(
        "agents.commands:Train",
        "Train an agent by a recipe (--method auto), in imagination, with Dyna, by planning "
        "online, with lookahead, or without a world model.",
    ),
    "plan": LazyVerb(
        "agents.commands:Plan",
        "Plan with a world model in a real environment; nothing is trained.",
    ),
    "enjoy": LazyVerb(
        "agents.commands:Enjoy", "Watch an agent that ``train`` made in its real environment."
    ),
}


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("agents", VERBS, "Train, plan and watch agents that imagine.")


if __name__ == "__main__":
    main()
