"""``python -m worldmodel list | info | collect | unpack | train | imagine | push | bench``."""

from __future__ import annotations

from worldmodel.commands.episodes import Collect, Unpack
from worldmodel.commands.imagine import Imagine
from worldmodel.commands.models import Info, List, Push
from worldmodel.commands.train import Bench, Train
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
