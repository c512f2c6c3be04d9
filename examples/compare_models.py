"""Compare any world models, each named by one word: time to a far frame, and samples.

All have the same three verbs, so nothing here knows which model it holds: any name will do that
stands in the table of docs/choosing_a_model.md. Each is trained for the same short CPU time on
nature's Traveling Salesman; a second run takes the trained ones as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from evaluation.measurements.model_comparison import SIZE, ModelComparison
from evaluation.measurements.speed import Speed, wide
from worldmodel.common import results


@dataclass(frozen=True)
class Settings:
    """How much of everything; the default takes about four minutes on one CPU thread."""

    models: tyro.conf.Positional[tuple[str, ...]] = ("jump", "svg-lp", "sssm", "copy-last")
    """Names, each with its preset ``small``, or as name:preset."""
    seconds: float = 60
    """CPU time to train each."""
    distances: tuple[int, ...] = (5, 20, 80)
    repeats: int = 6
    """Timed rounds."""
    out: Path = Path("outputs/compare_models")


def main() -> None:
    args = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    models = tuple(name if ":" in name else f"{name}:small" for name in args.models)

    rows = Speed(models, args.distances, size=SIZE, repeats=args.repeats).measure()
    columns = ["model", "preset", *(f"T={distance}" for distance in args.distances)]
    print("Seconds to the frame at distance T (medians):")
    print(results.table(wide(rows), columns))

    homes = args.out / f"{args.seconds:g}-seconds"
    comparison = ModelComparison(models, args.seconds, homes)
    for model in models:  # a progress bar each
        comparison.train(model)
    picture = args.out / "samples.png"
    comparison.draw(picture)
    print(f"{picture}: given six frames of a test story, the ends of three legs are imagined,")
    print("two futures of each model. Look which are whole: one actor, all shapes in their places.")
    print("Longer training: --seconds, or `python -m evaluation model-comparison`. Checkpoints:")
    print(homes)


if __name__ == "__main__":
    main()
