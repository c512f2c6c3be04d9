"""``python -m worldmodel list | info | collect | unpack | train | imagine | push | bench``."""

from __future__ import annotations

from worldmodel.commands.models import Imagine, Info, List, Push
from worldmodel.commands.train import Bench, Collect, Train, Unpack
from worldmodel.common import cli

VERBS = {
    "list": List,
    "info": Info,
    "collect": Collect,
    "unpack": Unpack,
    "train": Train,
    "imagine": Imagine,
    "push": Push,
    "bench": Bench,
}


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("worldmodel", VERBS, "Record, train, look at and describe world models.")


if __name__ == "__main__":
    main()
