"""Help texts in TensorBoard: what its curves mean, and charts that group them.

The texts stand in the *Text* tab under ``how_to_read``, the charts in the *Custom Scalars* tab.
Training and Stable-Baselines3 callbacks explain what they write themselves, once per run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Charts: TypeAlias = Mapping[str, Sequence[str]]
"""Titles of charts, each with the tags of its curves."""

_LAYOUTS: WeakKeyDictionary[SummaryWriter, dict[str, dict[str, list[object]]]] = WeakKeyDictionary()

TRAINING = """
How a world model learns. Lower is better in every curve of `world_model` and `validation`, except
`learning_rate` (a setting), `gradient` and `kl`.

| curve | what it says |
|---|---|
| `world_model/loss` | what training makes smaller; its scale depends on the settings |
| `world_model/mse` | squared error of frames (pixels 0 to 1), with the posterior's latent |
| `world_model/kl` | nats of information in the latent: near 0, all sampled worlds look alike |
| `world_model/negative_elbo` | nats to describe the target frames |
| `world_model/reward`, `continue` | nats for the rewards, and for whether the scene goes on |
| `world_model/gradient` | length of the gradient: single peaks are harmless, steady growth is not |
| `validation/...` | the same of scenes that are not trained on; where it rises, stop |
| `validation/free_mse` | the same with the prior's latent: the error in use |
| `validation/spread` | how much worlds differ, relative to their error: ideally 1 |
| `validation/..._step/08` | the same, eight steps after the last frame of the context |

**Images** (tick *Show actual image size*): `videos/real_imagined` has a column for each scene: what
really happens in the top row, sampled worlds below. Their context is the first frame. A trained
model's worlds differ from each other where the future is open, and nowhere else.
"""
TRAINING_CHARTS: dict[str, list[str]] = {
    "loss: training and validation": ["world_model/loss", "validation/loss"],
    "squared error: training, validation, imagined freely": [
        "world_model/mse", "validation/mse", "validation/free_mse",
    ],
    "nats of information in the latent (near 0: unused)": ["world_model/kl", "validation/kl"],
}  # fmt: skip


def explain(
    writer: SummaryWriter, name: str, text: str, category: str, charts: Charts | None = None
) -> None:
    """Write a text, and add a group of charts to those that this writer has.

    Args:
        writer: an open `SummaryWriter`.
        name: the text's tag is ``how_to_read/name``.
        text: Markdown.
        category: heading of the charts; several calls may share one.
        charts: further charts under that heading.
    """
    writer.add_text(f"how_to_read/{name}", text.strip(), 0)
    if charts:
        layout = _LAYOUTS.setdefault(writer, {})  # TensorBoard takes a run's latest layout alone
        group = layout.setdefault(category, {})
        for title, tags in charts.items():
            group[title] = ["Multiline", list(tags)]
        writer.add_custom_scalars(layout)
