"""``python -m envs list | record ID --out clip.mp4 | sheet | bench``."""

from __future__ import annotations

from worldmodel.common import cli
from worldmodel.common.cli import LazyVerb

VERBS = {
    "list": LazyVerb("envs.commands:List", "Show every environment with its spaces."),
    "record": LazyVerb("envs.commands:Record", "Record videos of random play."),
    "sheet": LazyVerb(
        "envs.commands:Sheet", "Show random play of all environments: a .png, .gif or .mp4."
    ),
    "bench": LazyVerb("envs.commands:Bench", "Measure frames per second, single and vector."),
}


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("envs", VERBS, "Look at the environments: list, record and time them.")


if __name__ == "__main__":
    main()
