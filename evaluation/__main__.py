"""Measure models by one protocol: verbs that write JSON, and the page that is made of it."""

from __future__ import annotations

from worldmodel.common import cli
from worldmodel.common.cli import LazyVerb

_MEASUREMENTS, _RUNNER = "evaluation.measurements", "evaluation.runner"
VERBS = {
    "speed": LazyVerb(
        f"{_MEASUREMENTS}.speed:Speed",
        "Seconds to the frame at distance T: jumpy or frame by frame.",
    ),
    "imagination": LazyVerb(
        f"{_MEASUREMENTS}.imagination:Imagination",
        "Frames, scored plan steps and decisions per second.",
    ),
    "cost": LazyVerb(
        f"{_MEASUREMENTS}.cost:Cost",
        "Seconds against horizon, plans, worlds, context, frame size and batch; memory of scoring.",
    ),
    "fidelity": LazyVerb(
        f"{_MEASUREMENTS}.fidelity:Fidelity",
        "The sampled future that comes closest: error (Traveling Salesman), SSIM and PSNR "
        "(digits).",
    ),
    "elbo": LazyVerb(
        f"{_MEASUREMENTS}.elbo:Elbo", "Negative ELBO, KL, reconstruction at one pixel variance."
    ),
    "perceptual": LazyVerb(
        f"{_MEASUREMENTS}.perceptual:Perceptual",
        "LPIPS and FVD of passive scenes; both need weights of yours (see --lpips and --i3d).",
    ),
    "consistency": LazyVerb(
        f"{_MEASUREMENTS}.consistency:Consistency", "Does a sampled world agree with itself?"
    ),
    "objects": LazyVerb(
        f"{_MEASUREMENTS}.objects:Objects",
        "Masks against balls or shapes, modules against moves, and moves that were not learned "
        "together.",
    ),
    "generation": LazyVerb(
        f"{_MEASUREMENTS}.generation:Generation",
        "Frechet distance of videos from noise to real ones, and the drift of longer ones.",
    ),
    "model-comparison": LazyVerb(
        f"{_MEASUREMENTS}.model_comparison:ModelComparison",
        "Every model on nature's Traveling Salesman, trained for the same time on the same scenes.",
    ),
    "ablation": LazyVerb(
        f"{_MEASUREMENTS}.ablation:Ablation",
        "JUMP's additions to the paper, at equal steps and at equal time.",
    ),
    "dynamics": LazyVerb(
        f"{_MEASUREMENTS}.dynamics:Dynamics",
        "Error of k steps on vectors, jumped and stepped, and coverage of 90% intervals.",
    ),
    "outcomes": LazyVerb(
        f"{_MEASUREMENTS}.outcomes:Outcomes",
        "Whether imagined rewards and ends are right on the average",
    ),
    "returns": LazyVerb(
        f"{_MEASUREMENTS}.returns:Returns",
        "The scale of returns: what random play gets, and the best possible.",
    ),
    "control": LazyVerb(
        f"{_MEASUREMENTS}.control:Control",
        "Real returns of planners and agents, normalised to random play 0 and the oracle 1.",
    ),
    "planning": LazyVerb(
        f"{_MEASUREMENTS}.planning:Planning",
        "What a decision costs and what it is worth: one planner, several world models.",
    ),
    "common-worlds": LazyVerb(
        f"{_MEASUREMENTS}.common_worlds:CommonWorlds",
        "Variance of the difference between two plans' scores, in the same worlds and in others.",
    ),
    "efficiency": LazyVerb(
        f"{_MEASUREMENTS}.efficiency:Efficiency",
        "Real steps that imagination saves: PPO with it and without, to 80% of the latter's "
        "return.",
    ),
    "sample-efficiency": LazyVerb(
        f"{_MEASUREMENTS}.sample_efficiency:SampleEfficiency",
        "Real steps to a level of return, with a world model and without.",
    ),
    "transitions": LazyVerb(
        f"{_MEASUREMENTS}.transitions:Transitions",
        "Imagined transitions per second of vector models, and SB3's training rates.",
    ),
    "scaling": LazyVerb(
        f"{_MEASUREMENTS}.scaling:Scaling",
        "Throughput of collection, evaluation and training with one worker and with two.",
    ),
    "bench": LazyVerb(
        f"{_RUNNER}.bench:Bench",
        "Make the JSON of all documented measurements again, one command after the other.",
    ),
    "report": LazyVerb(
        f"{_RUNNER}.bench:Report",
        "One page, with pictures, of all results of a folder; the same JSON makes the same page.",
    ),
    "gallery": LazyVerb(
        "evaluation.report.gallery:Gallery",
        "A page with a clip of each released model and of each environment.",
    ),
}


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("evaluation", VERBS, __doc__)


if __name__ == "__main__":
    main()
