"""What the README says of models."""

from __future__ import annotations

import math
from typing import Any

from evaluation.measurements.fidelity import CONTEXT_FRAMES
from evaluation.measurements.model_comparison import SIZE
from evaluation.report.load_results import Result
from evaluation.runner.manifest import find
from tests.examples.readme_claims import (
    CONFIDENCE,
    ENDS,
    Claims,
    Data,
    Prose,
    Table,
    block,
    interval,
    percent,
    settings,
)


def _of(result: Result, kind: str, model: str, preset: str, **where: Any) -> float:
    return float(result.one(kind=kind, model=model, preset=preset, **where)[kind])


@block("Time to the frame at distance T", "speed-all", "speed")
def time_to_a_frame(data: Data) -> Claims:
    every = data["speed-all"]
    distances = settings(every)["distances"]
    labels = {
        "JUMP `narrative`": ("jump", "narrative"), "BADJ `narrative`": ("badj", "narrative"),
        "GQN": ("gqn", "paper"), "SVG-LP": ("svg-lp", "paper"), "SVG-FP": ("svg-fp", "paper"),
        "SVG, deterministic": ("svg-det", "paper"), "SV2P": ("sv2p", "paper"),
        "CDNA": ("cdna", "paper"), "hierarchical VRNN `small`": ("hierarchical-vrnn", "small"),
        "sSSM": ("sssm", "paper"), "dSSM-VAE": ("dssm-vae", "paper"),
        "dSSM-DET": ("dssm-det", "paper"), "sSSM, five steps at a time": ("sssm", "paper-jumpy"),
    }  # fmt: skip
    yield Table(
        [(label, [*(_of(every, "seconds", *key, distance=t) for t in distances),
                  _of(every, "exponent", *key)])
         for label, key in labels.items()],
        distances,
    )  # fmt: skip
    made = settings(every)
    yield Prose(
        "distance T**, {} px, paper-size models, six context frames, one scene, medians of {} "
        "rounds", made["size"], made["repeats"],
    )  # fmt: skip

    def times(model: str, distance: int, result: Result = every) -> list[float]:
        where = {"kind": "ratio", "model": model, "preset": "paper", "distance": distance}
        return interval(result.one(**where), "ratio")

    yield Prose(
        "at T = {} the jump is {} [{}, {}] times faster than SVG-LP, {} [{}, {}] times than SV2P "
        "and {} [{}, {}] times than sSSM, which decodes nothing on its way; at T = {} {} [{}, {}], "
        "{} [{}, {}] and {} [{}, {}] times.",
        40, *times("svg-lp", 40), *times("sv2p", 40), *times("sssm", 40),
        160, *times("svg-lp", 160), *times("sv2p", 160), *times("sssm", 160),
    )  # fmt: skip
    state_space = ("sssm", "dssm-vae", "dssm-det")
    faster = [t for t in distances if all(times(model, t)[0] < 1 for model in state_space)]
    strided = [t for t in distances if _of(every, "ratio", "sssm", "paper-jumpy", distance=t) < 1]
    yield Prose(
        "Up to T = {} the state-space models are the faster ones, and with five steps at a time up "
        "to T = {}:", max(faster), max(strided),
    )  # fmt: skip
    pair = data["speed"]
    yield Prose(
        "At batch {} the jump is {} [{}, {}] times faster than SVG-LP at T = {} and {} [{}, {}] "
        "times at T = {} (",
        *settings(pair)["batches"], *times("svg-lp", 40, pair), 40, *times("svg-lp", 80, pair), 80,
    )  # fmt: skip


@block("Scoring plans renders nothing", "imagination-plans")
def scoring(data: Data) -> Claims:
    result = data["imagination-plans"]
    small, jumpy, narrative = (
        result.one(kind="ratio", model="jump", preset=preset)
        for preset in ("small", "jumpy", "narrative")
    )
    yield Prose(
        "the last frame of each of {} plans of {} steps in {} worlds takes {} [{}, {}] times as "
        "long as scoring all their steps with `small`, {} [{}, {}] with `jumpy` and {} [{}, {}] "
        "with `narrative` ({} px,",
        small["plans"], small["horizon"], small["worlds"], *interval(small, "ratio"),
        *interval(jumpy, "ratio"), *interval(narrative, "ratio"), small["size"],
    )  # fmt: skip


@block("Training", "bench")
def training(data: Data) -> Claims:
    rows = [row for row in data["bench"].rows if row.get("precision", "float32") == "float32"]
    rows = [row for row in rows if row["kind"] == "training" and row["model"] == "jump"]
    used = [row["utilisation"] for row in rows]
    yield Prose("JUMP reaches {} to {}% of the FLOPs", 100 * min(used), 100 * max(used))


@block("Does it imagine what would happen?", "consistency")
def imagines(data: Data) -> Claims:
    result = data["consistency"]
    row = result.one(metric="obedient stories")
    made = settings(result)["scenes"] * settings(result)["worlds"]
    yield Prose("in {}% [{}, {}] of {} sampled worlds", *percent(row), made)


@block("And where nature draws the order?", "fidelity", "consistency-nature")
def nature(data: Data) -> Claims:
    errors, stories = data["fidelity"], data["consistency-nature"]
    counts = settings(stories)["flow_steps"]
    best = errors.one(metric="mse, min-of-n")
    yield Prose(
        "squared error of {} [{}, {}] in the closest of {} sampled futures, and of {} [{}, {}] in "
        "frames {}, {} and {}, where legs end; repeating the last frame has {} and {} (",
        *interval(best), best["worlds"], *interval(errors.one(metric="mse, leg ends, min-of-n")),
        *ENDS, errors.one(metric="mse, copy-last")["value"],
        errors.one(metric="mse, leg ends, copy-last")["value"],
    )  # fmt: skip
    yield Table(
        [
            (
                name,
                [
                    number
                    for count in counts
                    for number in interval(stories.one(metric=metric, flow_steps=count))[:3]
                ],
            )
            for name, metric in (
                ("stories that visit each shape once", "coherent stories"),
                ("leg ends on a shape where it was not before", "new visits"),
                ("entropy of the orders, nats", "order entropy"),
            )
        ],
        list(counts),
    )
    yield Prose("at most {} nats", math.log(6))


@block("Is a sampled room one room?", "consistency-dice", "consistency-dice-views")
def one_room(data: Data) -> Claims:
    result = data["consistency-dice"]
    both = ("runs/dice", "runs/dice-badj")

    def row(metric: str) -> list[float]:
        return [n for name in both for n in interval(result.one(checkpoint=name, metric=metric))]

    yield Table(
        [
            ("KL1: the posterior is given one view of the hidden side, nats", row("KL1")),
            ("KL3: three views of it, nats", row("KL3")),
            ("KL3 / KL1", row("KL3 / KL1")),
            ("two views of one world show the same digit", row("same digit, one world")),
            ("two views of two worlds do", row("same digit, two worlds")),
            ("views that show the true digit (chance: 0.1)", row("right digit")),
        ],
        [],
    )
    made = settings(result)
    yield Prose("{} test scenes, {} worlds each", made["scenes"], made["worlds"])
    read = result.one(checkpoint="runs/dice", metric="reader, right digit")["value"]
    yield Prose("right on {}% of the true views", 100 * read)
    # said by the trainings, which were stopped there; their folders are not in the repository
    yield Prose("(section {})", 4.2)
    yield Prose("at {} px after {} steps of {} (", 32, 8700, 16_000)
    yield Prose("and `--model badj`; {} minutes of one core each)", 25)
    yield Prose("which is worth {} nats", math.log(100))
    shipped = data["consistency-dice-views"]
    yield Prose("KL3 / KL1 is {} [{}, {}]", *interval(shipped.one(metric="KL3 / KL1")))
    yield Prose(
        "show the same digit in {} [{}, {}] of the pairs of one world, in {} [{}, {}] of two (",
        *interval(shipped.one(metric="same digit, one world")),
        *interval(shipped.one(metric="same digit, two worlds")),
    )


@block("What does one latent for the room cost?", "elbo")
def one_latent(data: Data) -> Claims:
    result = data["elbo"]

    def row(metric: str) -> list[float]:
        both = ("runs/dice", "runs/dice-badj")
        return [n for name in both for n in interval(result.one(checkpoint=name, metric=metric))]

    yield Table(
        [
            ("negative ELBO", row("negative ELBO, nats")),
            ("KL of the posterior to the prior", row("kl, nats")),
            ("reconstruction", row("reconstruction, nats")),
        ],
        [],
    )
    yield Prose("{} test scenes, nats)", settings(result)["scenes"])


@block("And GQN itself on the dice?", "consistency-gqn")
def gqn(data: Data) -> Claims:
    result = data["consistency-gqn"]
    # said by the training, whose folder is not in the repository
    yield Prose("Its {} channels are slow here: after {} steps ({} minutes)", 256, 771, 12)
    yield Prose("KL3 / KL1 is {} [{}, {}]", *interval(result.one(metric="KL3 / KL1")))
    yield Prose("KL1 is {} nats", result.one(metric="KL1")["value"])


@block("Compared with other models?", "model-comparison")
def other_models(data: Data) -> Claims:
    result = data["model-comparison"]
    made = settings(result)
    trained = [row["seconds"] for row in result.rows if row["steps"]]
    yield Prose(
        "at {} px, each model trained from scratch for {} seconds of one CPU core ({} to {}, for "
        "the steps are set beforehand)", SIZE, made["seconds"], min(trained), max(trained),
    )  # fmt: skip
    yield Prose("one seed, {} test scenes;", made["scenes"])
    yield Prose("frame {}, shown, and {}, {} and {}, imagined)", CONTEXT_FRAMES, *ENDS)
    yield Prose(
        "Squared errors of frames {} to {} and of those where legs end, in the closest of {} "
        "futures; seconds to a frame {} steps ahead:",
        CONTEXT_FRAMES + 1, ENDS[-1], made["worlds"], 40,
    )  # fmt: skip
    labels = {
        "JUMP": ("jump", "small"), "JUMP `jumpy`": ("jump", "jumpy"), "SV2P": ("sv2p", "small"),
        "CDNA": ("cdna", "small"), "SVG-LP": ("svg-lp", "small"), "SVG-FP": ("svg-fp", "small"),
        "SVG, deterministic": ("svg-det", "small"), "copy-last": ("copy-last", "small"),
        "BADJ": ("badj", "small"), "dSSM-DET": ("dssm-det", "small"),
        "hierarchical VRNN": ("hierarchical-vrnn", "small"), "dSSM-VAE": ("dssm-vae", "small"),
        "sSSM": ("sssm", "small"), "sSSM `jumpy` (five steps at a time)": ("sssm", "jumpy"),
    }  # fmt: skip
    columns = ("parameters", "steps", "min-of-n", "low", "high", "ends", "T=40")
    found = {
        label: result.one(model=model, preset=preset) for label, (model, preset) in labels.items()
    }
    yield Table(
        [(label, [row[name] for name in columns if name in row]) for label, row in found.items()],
        [made["worlds"], CONFIDENCE, 40],
    )
    coherent = [100 * row["coherent"] for row in result.rows]
    yield Prose("(coherent ones: {} to {}%)", min(coherent), max(coherent))


@block("And after half an hour?", "model-comparison-half-hour")
def after_half_an_hour(data: Data) -> Claims:
    result = data["model-comparison-half-hour"]
    made = settings(result)
    yield Prose("on {} test scenes", made["scenes"])
    yield Prose("{} seconds of one CPU core each", made["seconds"])
    jump, svg, sssm = (result.one(model=name) for name in ("jump", "svg-lp", "sssm"))
    best = ("steps", "min-of-n", "low", "high", "ends")
    yield Table(
        [
            ("JUMP `jumpy`", [jump[name] for name in best]),
            ("SVG-LP `small`", [svg[name] for name in best]),
            ("sSSM `jumpy` (five steps at a time)", [sssm["steps"], sssm["ends"]]),
            ("copy-last", [jump["copy-last"], jump["ends-copied"]]),
        ],
        [made["worlds"], CONFIDENCE],
    )
    yield Prose("at most {}%", 100 * max(row["coherent"] for row in result.rows))


@block("What is beyond the paper, and does it pay?", "ablation")
def beyond_the_paper(data: Data) -> Claims:
    result = data["ablation"]
    labels = {
        "the paper's blocks": "paper", "+ Fourier time": "+ Fourier time",
        "+ Fourier time, film renderer": "+ Fourier, film",
        "+ Fourier time, film, product keys (`small`)": "+ Fourier, product keys, film",
        "+ all of these, glances (`jumpy`)": "+ Fourier, product keys, film, glances",
        "all but Fourier time": "all but Fourier time",
        "all but product keys": "all but product keys",
    }  # fmt: skip
    columns = ("step", "seen", "min-of-n", "negative_elbo")
    found = {label: result.one(variant=name, equal="time") for label, name in labels.items()}
    yield Table([(label, [row[name] for name in columns]) for label, row in found.items()], [10])
    yield Prose("Options of JUMP at {} px", 32)
    yield Prose("{} seconds of one CPU core each", settings(result)["seconds"])
    yield Prose(", {} minutes; the JSON also", find("ablation").minutes)
    yield Prose("(repeating the last frame: {})", result.rows[0]["copy-last"])


@block("How far off is one jump?", "dynamics")
def one_jump(data: Data) -> Claims:
    result = data["dynamics"]
    made = settings(result)
    yield Prose(
        "{} random episodes, {} training steps for each model", made["episodes"], made["steps"]
    )
    models = ("copy-last", "jump, one jump", "per-step MLP, rolled")
    rows = [
        (
            env if k == made["distances"][0] else "",
            [k, *(result.one(env=env, k=k, model=model)["mse"] for model in models)],
        )
        for env in made["envs"]
        for k in made["distances"]
    ]
    yield Table(rows, [])
