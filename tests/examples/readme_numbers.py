"""Where each number of the README comes from: claims, block by block, computed from the JSON.

``{}`` in a prose claim is a number; what stands in the README there must be the value beside it,
rounded to as many digits. Tables are claimed row by row. Numbers in code and links do not count.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import peers
from evaluation.consistency import LEG_ENDS
from evaluation.fidelity import SEEN
from evaluation.learners import learners
from evaluation.measurements import INTERCEPT, find
from evaluation.report.reading import Result, read_one
from evaluation.speed import exponents

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "evaluation" / "results" / "cpu-2-cores"
CONFIDENCE = 95
ENDS = [time + 1 for time in LEG_ENDS[1:]]  # the paper counts frames from 1


class Prose:
    """A piece of text with ``{}`` for each of ``values``."""

    def __init__(self, text: str, *values: float) -> None:
        self.text, self.values = text, values


@dataclass
class Table:
    """The rows of a table, by label, with all numbers of the row from left to right."""

    rows: list[tuple[str, list[float]]]
    head: list[float]


Claims = Iterator[Prose | Table]
Data = dict[str, Result]


@dataclass(frozen=True)
class Block:
    """A bold title with all that follows it, the results it cites, and what it claims of them."""

    title: str
    sources: tuple[str, ...]
    claims: Callable[[Data], Claims]

    def read(self, folder: Path = FOLDER) -> Data:
        return {name: read_one(folder / f"{name}.json") for name in self.sources}


BLOCKS: list[Block] = []
Made = Callable[[Data], Claims]


def block(title: str, *sources: str) -> Callable[[Made], Made]:
    def add(claims: Made) -> Made:
        BLOCKS.append(Block(title, sources, claims))
        return claims

    return add


def settings(result: Result) -> Any:
    return result.envelope["settings"]


# What the README says without any JSON: this list must only shrink.
UNMEASURED = (
    # Environments: the ends of the scale of returns
    "measured (below: `envs.returns.random_return(id)` .. `best_return(id)`, 1,024 test scenes)",
    "random play gets -2.56",
    "one thread gets 68 to 95% of it",
    # Numbers
    "after two hours it was 3.7%",
    "at the same seed: 0.23 in `make demo`, 0.33 and 0.48 in earlier runs",
    # Train an agent in imagination
    "Random play returns about 1.0, the best tour 2.6.",
    # Plug in a custom environment
    "**CartPole** (500 at best; random play 23): 287 with the snippet, 237 with another seed of "
    "PPO; 11,469 real steps, all random.",
    "**Pendulum** (random play -1188): -174, and -152 after 24,000 imagined steps, about as good "
    "as it gets; 42,000 real steps, all random.",
    "(below -1500)",
)
UNMEASURED_RETURNS = {  # of the table of environments: random and best, by id
    "narratives/TravelingSalesman-v0": "1.12 .. 2.59*",
    "narratives/ColorReaction-v0": "0.04 .. 1",
    "narratives/DAGChase-v0": "0.23 .. below 1",
    "narratives/Intercept-v0": "0.17 .. 2.62",
    "dice/FindDigit-v0": "0.24 .. 0.94",
}
DEFINED = (  # what environments are, not what was measured
    "Frames are uint8, 64 px (balls 32) or any multiple of 8.",
    "Frames per second: 64 px,",
)


def frames_per_second(result: Result) -> dict[str, list[float]]:
    """Single and in a vector of 256, by environment."""
    return {
        env: [result.one(env=env, mode=mode, batch=n)["frames_per_second"]
              for mode, n in (("single", 1), ("vector", 256))]
        for env in dict.fromkeys(row["env"] for row in result.rows)
    }  # fmt: skip


def _speed_of(result: Result, model: str, preset: str, **where: Any) -> float:
    found = result.one(model=model, preset=preset, **where)["seconds"]
    return float(found)


@block("Time to the frame at distance T", "speed-all", "speed")
def time_to_a_frame(data: Data) -> Claims:
    every = data["speed-all"]
    distances = settings(every)["distances"]
    grown = {(row["model"], row["preset"]): row["exponent"] for row in exponents(every.rows)}
    labels = {
        "JUMP `narrative`": ("jump", "narrative"), "BADJ `narrative`": ("badj", "narrative"),
        "GQN": ("gqn", "paper"), "SVG-LP": ("svg-lp", "paper"), "SVG-FP": ("svg-fp", "paper"),
        "SVG, deterministic": ("svg-det", "paper"), "SV2P": ("sv2p", "paper"),
        "CDNA": ("cdna", "paper"), "hierarchical VRNN `small`": ("hierarchical-vrnn", "small"),
        "sSSM": ("sssm", "paper"), "dSSM-VAE": ("dssm-vae", "paper"),
        "dSSM-DET": ("dssm-det", "paper"), "sSSM, five steps at a time": ("sssm", "paper-jumpy"),
    }  # fmt: skip
    yield Table(
        [(label, [*(_speed_of(every, *key, distance=t) for t in distances), grown[key]])
         for label, key in labels.items()],
        distances,
    )  # fmt: skip
    yield Prose("distance T**, {} px, paper-size", settings(every)["size"])

    def times(*key: str, distance: int = 40) -> float:
        own = _speed_of(every, "jump", "narrative", distance=distance)
        return _speed_of(every, *key, distance=distance) / own

    svg = [times(model, "paper") for model in ("svg-lp", "svg-fp", "svg-det")]
    yield Prose(
        "At T = {} the jump is {} to {} times faster than SVG, {} and {} times than SV2P and CDNA, "
        "and {} times than sSSM",
        40, min(svg), max(svg), times("sv2p", "paper"), times("cdna", "paper"),
        times("sssm", "paper"),
    )  # fmt: skip
    state_space = [("sssm", "paper"), ("dssm-vae", "paper"), ("dssm-det", "paper")]
    faster = [t for t in distances if all(times(*key, distance=t) < 1 for key in state_space)]
    strided = [t for t in distances if times("sssm", "paper-jumpy", distance=t) < 1]
    yield Prose(
        "Up to T = {} the state-space models are the faster ones, and with five steps at a time up "
        "to T = {}:", max(faster), max(strided),
    )  # fmt: skip
    pair, batch = data["speed"], 16
    gains = [
        _speed_of(pair, "svg-lp", "paper", distance=t, batch=batch)
        / _speed_of(pair, "jump", "narrative", distance=t, batch=batch)
        for t in (40, 80)
    ]
    yield Prose(
        "At batch {} the jump is {} times faster than SVG-LP at T = {} and {} times at T = {}",
        batch, gains[0], 40, gains[1], 80,
    )  # fmt: skip


@block("Scoring plans renders nothing", "bench")
def scoring(data: Data) -> Claims:
    result = data["bench"]
    plans = [result.one(kind="plans", preset=preset) for preset in ("small", "jumpy", "narrative")]
    used = [row["utilisation"] for row in result.rows if row.get("utilisation")
            and row["model"] == "jump"]  # fmt: skip
    scored = [row["score_seconds"] for row in plans]
    small, jumpy, narrative = (row["render_seconds"] for row in plans)
    first = plans[0]
    yield Prose(
        "{} plans of {} steps in {} worlds take {} to {} s, rendering only the last frame of each "
        "takes {} s with `small`, {} s with `jumpy` and {} s with `narrative`: {}, {} and {} times "
        "as long ({} px, one thread;",
        first["plans"], first["steps"], first["worlds"], min(scored), max(scored), small, jumpy,
        narrative, *(row["ratio"] for row in plans), settings(result)["size"],
    )  # fmt: skip
    yield Prose("JUMP trains at {} to {}% of what", 100 * min(used), 100 * max(used))


@block("Does it imagine what would happen?", "consistency")
def imagines(data: Data) -> Claims:
    result = data["consistency"]
    row = result.one(metric="obedient stories")
    made = settings(result)["scenes"] * settings(result)["worlds"]
    yield Prose("in {}% [{}, {}] of {} sampled worlds", *percent(row), made)


def percent(row: dict[str, Any]) -> list[float]:
    return [100 * row[name] for name in ("value", "low", "high")]


def interval(row: dict[str, Any]) -> list[float]:
    return [row[name] for name in ("value", "low", "high")]


@block("And where nature draws the order?", "fidelity", "consistency-nature")
def nature(data: Data) -> Claims:
    errors, stories = data["fidelity"], data["consistency-nature"]
    yield Prose(
        "squared error of {} [{}, {}] in the closest of {} sampled futures, and of {} [{}, {}] in "
        "frames {}, {} and {}, where legs end; repeating the last frame has {} and {} (",
        *interval(errors.one(metric="mse, min-of-n")), settings(errors)["worlds"],
        *interval(errors.one(metric="mse, leg ends, min-of-n")), *ENDS,
        errors.one(metric="mse, copy-last")["value"],
        errors.one(metric="mse, leg ends, copy-last")["value"],
    )  # fmt: skip
    yield Prose(
        "{}% of the leg ends show it on a shape where it was not before, and {}% of the stories "
        "visit each shape once",
        100 * stories.one(metric="new visits")["value"],
        100 * stories.one(metric="coherent stories")["value"],
    )


@block("Does it help to act?", "control")
def acting(data: Data) -> Claims:
    result = data["control"]
    made = settings(result)
    shipped = ROOT / "worldmodel" / "checkpoints" / "traveling-salesman" / "config.json"
    card = json.loads(shipped.read_text())
    batch = 32  # of worldmodel train
    imagined = inspect.signature(learners).parameters["imagined_steps"].default
    quarter = made["plans"] // 4
    labels = {
        "random play": "random",
        f"random shooting, {made['plans']} plans x {made['worlds']} worlds": "random shooting",
        f"CEM, 4 rounds of {quarter} plans x {made['worlds']} worlds": "CEM",
        f"MPPI, 4 rounds of {quarter} plans x {made['worlds']} worlds": "MPPI",
        f"tree search, {made['plans']} plans x {made['worlds']} worlds": "tree search",
        f"PPO trained in imagination alone, {imagined:,} decisions": "PPO in imagination",
        "PPO with lookahead, 4 actions x 2 jumps": "PPO with lookahead",
        "DQN with Dyna, 3 imagined transitions for each real one": "DQN with Dyna",
        "PPO, no world model": "PPO", "DQN, no world model": "DQN",
        "inverse policy: the best tenth of random episodes, cloned": "inverse policy",
    }  # fmt: skip
    columns = ("real_steps", "normalised_return", "low", "high")
    yield Table(
        [(label, [result.one(agent=agent)[name] for name in columns])
         for label, agent in labels.items()],
        [],
    )  # fmt: skip
    yield Prose(
        "Real returns of {} test episodes of Traveling Salesman, {} is random play and {} the best "
        "tour", made["episodes"], 0, 1,
    )  # fmt: skip
    yield Prose(", {} minutes). World model", find("control").minutes)
    yield Prose(
        "`small` JUMP at {} px, trained for {} minutes on one CPU thread with {} generated scenes",
        card["spec"]["observation"][1], card["training"]["minutes"],
        batch * card["training"]["steps"],
    )  # fmt: skip
    steps = made["real_steps"]
    yield Prose("{} real steps, {} decisions, are too few", steps, steps // made["hold"])


def runs(result: Result, agent: str, size: int, column: str = "return") -> list[float]:
    """One number for each seed, at the point of a curve that is nearest to ``size`` steps."""
    found = []
    for seed in range(settings(result)["seeds"]):
        rows = [r for r in result.rows if r["agent"] == agent and r["seed"] == seed]
        found.append(min(rows, key=lambda row: abs(row["real_steps"] - size))[column])
    return found


@block("How many real steps does it save?", "efficiency-tsp")
def saving(data: Data) -> Claims:
    result = data["efficiency-tsp"]
    made = settings(result)
    few, many = made["sizes"]
    floor = result.one(agent="random play")["return"]
    yield Prose(
        "PPO that learns from {} real steps returns {} and {} (two seeds, {} test episodes; random "
        "play {})",
        made["budget"],
        *runs(result, "PPO", made["budget"]),
        made["episodes"],
        floor,
    )
    yield Prose(
        "A JUMP from scratch, trained for {} steps on random real episodes of {} steps in all, "
        "takes a planner to {} and {}; with {}, PPO in imagination to {} and {}.",
        made["fit_steps"],
        few,
        *runs(result, "planner", few),
        many,
        *runs(result, "PPO in imagination", many),
    )
    planner, learner = (
        result.one(agent="ratio", of=name) for name in ("planner", "PPO in imagination")
    )
    yield Prose(
        "To come {}% of the way from random play to where PPO ends, the planner needs {} [{}, {}] "
        "times fewer real steps (at least: {} is the smallest model), PPO in imagination {} [{}, "
        "{}] times fewer",
        100 * planner["level"],
        *interval(planner),
        few,
        *interval(learner),
    )


@block("And on CartPole?", "efficiency-cartpole")
def cartpole(data: Data) -> Claims:
    result = data["efficiency-cartpole"]
    made = settings(result)
    yield Prose("{} seeds, {} real episodes each", made["seeds"], made["episodes"])
    yield Prose("(RL Zoo's settings, {} steps)", made["budget"])
    yield Prose(", {} minutes). Returns", find("efficiency-cartpole").minutes)
    yield Prose("(random play: {}):", result.one(agent="random play")["return"])
    rows: list[tuple[str, list[float]]] = []
    for steps in (10_240, 30_720, 60_160):
        rows.append(("" if rows else "PPO", [steps, *runs(result, "PPO", steps)]))
    for agent, label in (
        ("PPO in imagination", "PPO in imagination"),
        ("planner", f"planner (random shooting, {made['plans']} plans)"),
    ):
        for size in made["sizes"]:
            named = label if size == made["sizes"][0] else ""
            real = runs(result, agent, size, "real_steps")
            rows.append((named, [*real, *runs(result, agent, size)]))
    yield Table(rows, [])
    ratio = result.one(agent="ratio", of="PPO in imagination")
    yield Prose(
        "To come {}% of the way from random play to where PPO ends, imagination needs {} [{}, {}] "
        "times fewer", 100 * ratio["level"], *interval(ratio),
    )  # fmt: skip
    yield Prose(
        "(it was at {} and ended at {})",
        runs(result, "PPO", 30_720)[1], runs(result, "PPO", made["budget"])[1],
    )  # fmt: skip


@block("What does a decision cost?", "planning")
def decision(data: Data) -> Claims:
    result = data["planning"]
    made = settings(result)
    jump, sssm, svg = result.rows
    yield Prose(
        "Random shooting with {} plans of {} steps in {} worlds, one agent, `small` models at {} "
        "px", made["budgets"][0], 40, made["worlds"], 32,
    )  # fmt: skip
    yield Prose(
        "JUMP {} s ({} plans a second), sSSM with five steps at a time {} s ({}), SVG-LP {} s ({}):"
        " {} and {} times as long.",
        *(row[name] for row in result.rows for name in ("seconds", "plans_per_second")),
        sssm["seconds"] / jump["seconds"], svg["seconds"] / jump["seconds"],
    )  # fmt: skip


@block("Common worlds", "common-worlds")
def common(data: Data) -> Claims:
    result = data["common-worlds"]
    ends = ("ratio", "low", "high")
    steps = INTERCEPT.command.partition("--steps ")[2].partition(" ")[0]
    yield Prose("varies {} [{}, {}] times less", *(result.one(plans="any")[name] for name in ends))
    yield Prose(
        "{} [{}, {}] times where the plans differ in one decision (Intercept, {} test scenes;",
        *(result.one(plans="one")[name] for name in ends), settings(result)["scenes"],
    )  # fmt: skip
    yield Prose("a `small` JUMP after {} steps of", int(steps))


@block("And beside its peers?", "peers")
def beside_peers(data: Data) -> Claims:
    result = data["peers"]
    made = settings(result)
    trained = [row["seconds"] for row in result.rows if row["steps"]]
    yield Prose(
        "at {} px, each model trained from scratch for {} seconds of one CPU core ({} to {}, for "
        "the steps are set beforehand)", peers.SIZE, made["seconds"], min(trained), max(trained),
    )  # fmt: skip
    yield Prose("one seed, {} test scenes;", made["scenes"])
    yield Prose("frame {}, shown, and {}, {} and {}, imagined)", SEEN, *ENDS)
    yield Prose(
        "Squared errors of frames {} to {} and of those where legs end, in the closest of {} "
        "futures; seconds to a frame {} steps ahead:",
        SEEN + 1, ENDS[-1], made["worlds"], 40,
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


@block("What is beyond the paper, and does it pay?", "options")
def beyond_the_paper(data: Data) -> Claims:
    result = data["options"]
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
    yield Prose(", {} minutes; the JSON also", find("options").minutes)
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
