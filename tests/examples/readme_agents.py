"""What the README says of agents."""

from __future__ import annotations

import inspect
import json

from agents import DynaConfig
from agents.recipes import IMAGINED, ImaginedPpo
from evaluation.measurements.dynamics import OUTSIDE, TESTED, WORLDS
from evaluation.measurements.sample_efficiency import TASKS, methods_of
from evaluation.report.load_results import Result, Row
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


@block("And with a model that copies?", "control-jumpy")
def acting_by_copies(data: Data) -> Claims:
    result = data["control-jumpy"]
    made = settings(result)
    yield Prose("same {} test episodes, plans of {} decisions in one world, of which {} are all",
                made["episodes"], made["horizon"], made["plans"])  # fmt: skip
    assert made["worlds"] == 1
    yield Prose(", {} minutes): tree search", find("control-jumpy").minutes)
    yield Prose(
        "tree search comes to {} [{}, {}] of the best tour, MPPI to {} [{}, {}], CEM to {} "
        "[{}, {}], random shooting to {} [{}, {}]",
        *(number for agent in ("tree search", "MPPI", "CEM", "random shooting")
          for number in interval(result.one(agent=agent), "normalised_return")),
    )  # fmt: skip


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


def _needed(result: Result) -> Claims:
    """The table of a ``sample-efficiency``, and its levels."""
    labels = {"ppo": "PPO", "dqn": "DQN", "sac": "SAC", "dyna-ppo": "PPO in imagination",
              "planner": "planning online"}  # fmt: skip
    steps = [row for row in result.rows if row["kind"] == "steps"]
    rows = []
    for row in steps:
        numbers = [*interval(row), row["reached"], row["n"], row["seconds"]]
        ratios = [each for each in result.rows if each["kind"] == "ratio"
                  and (each["env"], each["method"]) == (row["env"], row["method"])
                  and each["of"] == methods_of(row["env"])[0]]  # fmt: skip
        for ratio in ratios:
            numbers += interval(ratio)
            assert not ratio["bound"]  # it would be said
        rows.append((f"{row['env']}, {labels[row['method']]}", numbers))
    yield Table(rows, [])
    yield Prose(", {} minutes)", find(result.name).minutes)
    for env in dict.fromkeys(row["env"] for row in steps):
        yield Prose(f"{env} {{}}", TASKS[env].level)


@block("Real steps?", "sample-efficiency")
def real_steps(data: Data) -> Claims:
    result = data["sample-efficiency"]
    (runs,) = {row["n"] for row in result.rows if row["kind"] == "steps"}
    recipe = IMAGINED["CartPole-v1"][0]
    assert isinstance(recipe, ImaginedPpo)
    yield Prose("refitted every {} real steps", recipe.rounds.collect_steps)
    yield Prose("{} real episodes, {} runs each, medians with {}% intervals",
                settings(result)["episodes"], runs, CONFIDENCE)  # fmt: skip
    yield from _needed(result)


@block("And where rewards are rare?", "sample-efficiency-rare")
def rare_rewards(data: Data) -> Claims:
    result = data["sample-efficiency-rare"]
    (runs,) = {row["n"] for row in result.rows if row["kind"] == "steps"}
    yield Prose("{} runs each", runs)
    yield from _needed(result)


@block("How often do 90% intervals hold?", "calibration")
def calibration(data: Data) -> Claims:
    rows = [row for row in data["calibration"].rows if row["model"] == "ensemble, rolled"]
    share = ("coverage", "coverage_low", "coverage_high")
    yield Table([
        (env, [100 * row[name] for row in rows if row["env"] == env for name in share])
        for env in dict.fromkeys(str(row["env"]) for row in rows)
    ], list(dict.fromkeys(row["k"] for row in rows)))  # fmt: skip
    yield Prose("do {}% intervals hold?", 100 * (1 - 2 * OUTSIDE / (WORLDS + 1)))
    yield Prose("of {} worlds on {} random test episodes", WORLDS, TESTED)
    yield Prose("with {}% intervals over episodes", CONFIDENCE)
    yield Prose(", {} minutes)", find("calibration").minutes)
    yield Prose("too short for {} steps", max(row["k"] for row in rows))


@block("What does imagination cost beside learning?", "transitions")
def transitions(data: Data) -> Claims:
    result = data["transitions"]
    made = settings(result)
    kinds = {"the ensemble imagines": ("imagined",), "the real environment steps": ("real",),
             "DQN or SAC learns from": ("trained", "DQN", "SAC"),
             "PPO learns from": ("trained", "PPO")}  # fmt: skip

    def row(env: str, what: str, *models: str) -> Row:
        (found,) = (row for row in result.rows if row["env"] == env and row["what"] == what
                    and (not models or row["model"] in models))  # fmt: skip
        return found

    yield Table([
        (label, [n / 1000 for env in made["envs"]
                 for n in interval(row(env, *kind), "per_second")])
        for label, kind in kinds.items()
    ], [])  # fmt: skip
    yield Prose("busy machine, medians with {}% intervals", CONFIDENCE)
    yield Prose("the ensemble steps {} episodes at once, gradient steps are of {} transitions",
                *made["batches"], made["train_batch"])  # fmt: skip
    imagined, sac = row("Pendulum-v1", "imagined"), row("Pendulum-v1", "trained", "SAC")
    yield Prose(
        "MBPO's {} branches for each real step of Pendulum take {} ms, a gradient step of SAC "
        "{} ms",
        DynaConfig().branches, 1000 * DynaConfig().branches / imagined["per_second"],
        1000 * made["train_batch"] / sac["per_second"],
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
