"""Measure models by one protocol: verbs that write JSON, and the page that is made of it."""

from __future__ import annotations

from typing import Any

from evaluation.measurements.ablation import Ablation
from evaluation.measurements.common_worlds import CommonWorlds
from evaluation.measurements.consistency import Consistency
from evaluation.measurements.control import Control
from evaluation.measurements.dynamics import Dynamics
from evaluation.measurements.efficiency import Efficiency
from evaluation.measurements.elbo import Elbo
from evaluation.measurements.fidelity import Fidelity
from evaluation.measurements.imagination import Imagination
from evaluation.measurements.model_comparison import ModelComparison
from evaluation.measurements.objects import Objects
from evaluation.measurements.outcomes import Outcomes
from evaluation.measurements.perceptual import Perceptual
from evaluation.measurements.planning import Planning
from evaluation.measurements.returns import Returns
from evaluation.measurements.sample_efficiency import SampleEfficiency
from evaluation.measurements.scaling import Scaling
from evaluation.measurements.speed import Speed
from evaluation.measurements.transitions import Transitions
from evaluation.runner.bench import Bench, Report
from worldmodel.common import cli

VERBS: dict[str, Any] = {
    verb.name: verb
    for verb in (
        Speed, Imagination, Fidelity, Elbo, Perceptual, Consistency, Objects, ModelComparison,
        Ablation, Dynamics, Outcomes, Returns, Control, Planning, CommonWorlds, Efficiency,
        SampleEfficiency, Transitions, Scaling, Bench, Report,
    )
}  # fmt: skip


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("evaluation", VERBS, __doc__)


if __name__ == "__main__":
    main()
