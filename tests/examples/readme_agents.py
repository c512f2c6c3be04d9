"""What the README says of agents."""

from __future__ import annotations

import inspect
import json
from typing import Any

from agents.recipes import IMAGINED, ImaginedPpo
from evaluation.report.load_results import Result
from evaluation.runner.manifest import INTERCEPT, find
from evaluation.runner.trained_agents import trained_agents
from tests.examples.readme_claims import (
    CONFIDENCE,
    ROOT,
    Claims,
    Data,
    Prose,
    Table,
    block,
    interval,
    scale_of_returns,
    settings,
)


@block("Does it help to act?", "control")
def acting(data: Data) -> Claims:
    result = data["control"]
    made = settings(result)
    shipped = ROOT / "worldmodel" / "checkpoints" / "traveling-salesman" / "config.json"
    card = json.loads(shipped.read_text())
    batch = 32  # of worldmodel train
    imagined = inspect.signature(trained_agents).parameters["imagined_steps"].default
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


@block("Where little has been learned?", "control-find")
def little_learned(data: Data) -> Claims:
    result = data["control-find"]
    steps = settings(result)["real_steps"]

    def row(*agents: str) -> list[float]:
        """Of agents that did the same, which is checked."""
        found = [interval(result.one(agent=agent), "normalised_return") for agent in agents]
        assert all(one == found[0] for one in found), agents
        return found[0]

    planners = ("random shooting", "CEM", "MPPI", "tree search", "PPO in imagination")
    free = ("PPO with lookahead", "PPO", "inverse policy")
    yield Table(
        [
            ("random play", [0, *row("random")]),
            (f"{', '.join(planners)}: each", [0, *row(*planners)]),
            ("PPO with lookahead, PPO without, inverse policy: each", [steps, *row(*free)]),
            ("DQN with Dyna", [steps, *row("DQN with Dyna")]),
            ("DQN, no world model", [steps, *row("DQN")]),
        ],
        [],
    )
    yield Prose(", {} minutes; the model", find("control-find").minutes)
    yield Prose("after {} steps, an hour, of", 7963)
    # who declares at once gets 1 where that is right, and nothing else
    same = result.one(agent="random shooting")
    right = same["return"] * same["episodes"]
    yield Prose("be right in {} of {} rooms", right, same["episodes"])


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


@block("Real steps on CartPole?", "sample-efficiency")
def cartpole(data: Data) -> Claims:
    result = data["sample-efficiency"]
    steps = {row["method"]: row for row in result.rows if row["kind"] == "steps"}
    one = steps["dyna-ppo"]
    yield Prose(
        "To a mean return of {} over {} real episodes, {} runs each, medians with {}% intervals",
        one["level"], settings(result)["episodes"], one["n"], CONFIDENCE,
    )  # fmt: skip
    recipe = IMAGINED["CartPole-v1"][0]
    assert isinstance(recipe, ImaginedPpo)
    yield Prose("refitted every {} real steps", recipe.rounds.collect_steps)
    yield Prose(", {} minutes):", find("sample-efficiency").minutes)
    labels = {"ppo": "PPO", "dqn": "DQN", "dyna-ppo": "PPO in imagination"}
    yield Table([(label, [*interval(steps[name]), steps[name]["seconds"]])
                 for name, label in labels.items()], [])  # fmt: skip
    ratios = [interval(result.one(kind="ratio", of=name)) for name in ("ppo", "dqn")]
    yield Prose("{} [{}, {}] times fewer real steps than PPO, and {} [{}, {}] times fewer than DQN",
                *ratios[0], *ratios[1])  # fmt: skip
    assert all(row["reached"] == row["n"] for row in steps.values())


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


def recipes(data: Data) -> Claims:
    """Of the paragraph below the recipes for CartPole and Pendulum."""
    result = data["vector-envs"]
    cart, pendulum = {"env": "CartPole-v1"}, {"env": "Pendulum-v1"}
    best = 500  # steps, by definition of the environment

    def returns(**wanted: Any) -> list[float]:
        return interval(result.one(**wanted), "return")

    one, two = (result.one(**cart, agent="PPO", seed=seed) for seed in (0, 1))
    yield Prose(
        "**CartPole** ({} at best; random play {} [{}, {}]): {} [{}, {}] and {} [{}, {}]; {} and "
        "{} real steps, all random.",
        best, *returns(**cart, agent="random play"), *interval(one, "return"),
        *interval(two, "return"), one["real_steps"], two["real_steps"],
    )  # fmt: skip
    runs = [returns(**pendulum, agent="SAC", seed=seed, imagined_steps=steps)
            for steps in (12_000, 24_000) for seed in (0, 1)]  # fmt: skip
    steps = result.one(**pendulum, agent="SAC", seed=0, imagined_steps=12_000)["real_steps"]
    yield Prose(
        "**Pendulum** (random play {} [{}, {}]): {} [{}, {}] and {} [{}, {}], after {} imagined "
        "steps {} [{}, {}] and {} [{}, {}], about as good as it gets; {} real steps, all random.",
        *returns(**pendulum, agent="random play"), *runs[0], *runs[1], 24_000, *runs[2], *runs[3],
        steps,
    )  # fmt: skip
    yield Prose("{}% intervals over the real", CONFIDENCE)


def scale(data: Data) -> Claims:
    """Of the paragraph below PPO in imagination."""
    ends = scale_of_returns(data["returns"], "narratives/TravelingSalesman-v0", 5)
    (ppo,) = (row for row in data["control"].rows if row["agent"] == "PPO in imagination")
    text = "Random play returns {}, the best tour {}, this PPO {} where we measured it"
    yield Prose(text, *ends, ppo["return"])


@block("What does a second worker bring?", "scaling")
def second_worker(data: Data) -> Claims:
    result = data["scaling"]
    made = settings(result)
    labels = {
        "random play, recorded through Ray: episodes": "collection",
        "planners that play, through Ray: episodes": "evaluation",
        "training with `--devices`: scenes": "training",
    }
    found = {
        label: {row["workers"]: row for row in result.rows if row["kind"] == kind}
        for label, kind in labels.items()
    }
    yield Table(
        [(label, [rows[1]["per_second"], rows[2]["per_second"], *interval(rows[2], "speedup")])
         for label, rows in found.items()],
        list(made["workers"]),
    )  # fmt: skip
    yield Prose(", {} minutes; {} rounds", find("scaling").minutes, made["repeats"])


@block("What has been survived?", "stress")
def survived(data: Data) -> Claims:
    found = {(row["area"], row["name"]): row["value"] for row in data["stress"].rows}

    def files(name: str) -> float:
        return sum(v for (area, what), v in found.items()
                   if area.startswith("files") and what == name)  # fmt: skip

    def load(name: str) -> float:
        return found["load", name]

    def times(name: str) -> float:
        return found["cluster", name]

    yield Prose("{} of {} kills", found["survival", "kills survived"],
                found["survival", "kills tried"])  # fmt: skip
    yield Prose(
        "{} spoiled files and command lines: {} were refused by name, {} read as they are, {} "
        "escaped", files("cases"), files("refused"), files("loaded") + files("taken"),
        files("escapes"),
    )  # fmt: skip
    yield Prose(
        "grows by {} bytes a step over {} imagined steps in {} environments, {} a decision over {} "
        "decisions of a planner and {} a film over {} films in TensorBoard",
        load("imagined environments: bytes per step"), load("imagined environments: steps"),
        load("imagined environments: at once"), load("planner: bytes per step"),
        load("planner: steps"), load("videos in TensorBoard: bytes per step"),
        load("videos in TensorBoard: steps"),
    )  # fmt: skip
    yield Prose(
        "{} episodes, {} GB, are streamed under a ceiling of {} MB",
        load("episodes on disk: episodes"), load("episodes on disk: bytes") / 1e9,
        load("episodes on disk: ceiling") / 2**20,
    )  # fmt: skip
    yield Prose(
        "{} workers and {} hosts were killed or cut off at work and {} processes and {} host in "
        "training", times("workers killed"), times("hosts lost at work"),
        times("ranks killed or stopped"), times("hosts lost in training, same bits after"),
    )  # fmt: skip
