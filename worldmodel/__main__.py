"""``python -m worldmodel list | info | collect | unpack | train | imagine | push | bench | doctor``

Modules of verbs are imported when they are needed: ``--help`` does not wait for torch.
"""

from __future__ import annotations

from worldmodel.common import cli
from worldmodel.common.cli import LazyVerb

_MODELS, _TRAIN = "worldmodel.commands.models", "worldmodel.commands.train"
VERBS = {
    "list": LazyVerb(
        f"{_MODELS}:List",
        "Show models, their presets, and the checkpoints that came with the package.",
    ),
    "info": LazyVerb(f"{_MODELS}:Info", "Describe a preset or a checkpoint: settings, parameters."),
    "collect": LazyVerb(f"{_TRAIN}:Collect", "Record random play of any Gymnasium environment."),
    "unpack": LazyVerb(
        f"{_TRAIN}:Unpack",
        "Copy recorded episodes so that ``train --memory`` can leave them on disk.",
    ),
    "train": LazyVerb(
        f"{_TRAIN}:Train", "Train a model on recorded episodes, or on an env's endless scenes."
    ),
    "imagine": LazyVerb(
        f"{_MODELS}:Imagine",
        "Give a model some frames as context, and draw what it imagines at other times.",
    ),
    "push": LazyVerb(f"{_MODELS}:Push", "Upload a checkpoint to the Hugging Face hub."),
    "bench": LazyVerb(
        f"{_TRAIN}:Bench", "Time training steps, and compare them with what the machine can do."
    ),
    "doctor": LazyVerb(
        "worldmodel.commands.doctor:Doctor", "Check the installation, and say how to mend it."
    ),
}


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("worldmodel", VERBS, "Record, train, look at and describe world models.")


if __name__ == "__main__":
    main()
