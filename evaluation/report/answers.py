"""Four questions about the models, answered in words from the results alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from evaluation.report import real_steps
from evaluation.report.load_results import Result, Row, by_seed, mean_curve, of
from evaluation.report.names import in_words, interval_of, label, number

Results = Mapping[str, Result]
HORIZONS = (10, 40, 160)
NOT_MEASURED = "not measured"


def faster(results: Results) -> list[str]:
    """How much faster a jump is than each other model, at three distances; a paragraph each."""
    if "speed-all" not in results:
        return [f"{NOT_MEASURED.capitalize()} (no speed-all.json)."]
    result = results["speed-all"]
    rounds = result.envelope["settings"].get("repeats")
    return [
        *(_at(result.rows, distance) for distance in HORIZONS),
        f"Medians of {rounds} rounds in which all models took turns; ratios are made round by "
        "round.",
    ]


def _at(rows: Sequence[Row], distance: int) -> str:
    here = [row for row in rows if row.get("distance") == distance and row["batch"] == 1]
    own = [row for row in here if row["kind"] == "seconds" and row["model"] == "jump"]
    if not own:
        return f"T = {distance}: {NOT_MEASURED}."
    text = f"T = {distance}: JUMP takes {number(own[0]['seconds'])} s."
    times = sorted((row for row in here if row["kind"] == "ratio"), key=lambda row: -row["ratio"])
    for what, wanted in (
        ("Slower, by this factor", 1), ("No significant difference", 0), ("Faster", -1),
    ):  # fmt: skip
        some = [
            f"{label(row['model'], row['preset'])} {interval_of(row, 'ratio')}"
            for row in times
            if (row["low"] > 1) - (row["high"] < 1) == wanted
        ]
        if some:
            text += f" {what}: {', '.join(some)}."
    return text


def fidelity(results: Results) -> list[str]:
    """Whether jumping costs quality: models after equal training, then the released model."""
    equal = f"After equal training: {NOT_MEASURED} (no model-comparison.json)."
    if "model-comparison" in results:
        equal = _after_equal_training(results["model-comparison"])
    longer = [
        f"Trained for longer, {_samples(row)} has {interval_of(row)}, where repeating the last "
        f"frame has {interval_of(copied)}."
        for result in of(results, "fidelity")
        for row in result.rows
        for copied in result.rows
        if row["metric"] == "mse, min-of-n" and copied["metric"] == "mse, copy-last"
        and _samples(row) == _samples(copied)
    ]  # fmt: skip
    return [equal, *(longer or [f"After longer training: {NOT_MEASURED}."])]


def _after_equal_training(result: Result) -> str:
    compared = [row for row in result.rows if row.get("min-of-n") is not None]
    compared.sort(key=lambda row: float(row["min-of-n"]))
    own = next((row for row in compared if row["model"] == "jump"), None)
    others = [row for row in compared if row["model"] != "jump"]
    if own is None or not others:
        return (
            f"After equal training: {NOT_MEASURED} (no JUMP and others in model-comparison.json)."
        )
    worse = [_name(row) for row in others if row["low"] > own["high"]]
    better = [_name(row) for row in others if row["high"] < own["low"]]
    same = [_name(row) for row in others if _name(row) not in [*worse, *better]]
    seconds = result.envelope["settings"].get("seconds")
    verdict = "Yes" if better else "No" if not same else "Not significantly"
    text = (
        f"{verdict}, after {seconds:g} s of training each: the closest of 30 futures has a squared "
        f"error of {interval_of(own, 'min-of-n')} with {_name(own)} and "
        f"{interval_of(others[0], 'min-of-n')} with the best of the others, {_name(others[0])}."
    )
    for what, models in (
        ("Better than", better), ("Not significantly different from", same), ("Worse than", worse),
    ):  # fmt: skip
        if models:
            text += f" {what} JUMP: {in_words(models)}."
    return text


def _name(row: Row) -> str:
    return label(row["model"], row.get("preset", ""))


def _samples(row: Row) -> str:
    """The model, the steps of its flow prior, and its checkpoint."""
    return f"{_with_flow(row)} ({row.get('checkpoint')})"


def _with_flow(row: Row) -> str:
    count = row.get("flow_steps")
    return label(row["model"]) + (f", flow steps: {count}" if count else "")


def named(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Rows with names: the model, the steps of its flow prior, and the checkpoint where one model
    has several.
    """
    checkpoints: dict[str, set[str]] = {}
    for row in rows:
        checkpoints.setdefault(row["model"], set()).add(str(row.get("checkpoint")))
    with_names = []
    for row in rows:
        name = _with_flow(row)
        if len(checkpoints[row["model"]]) > 1:
            name += f", {str(row.get('checkpoint')).rstrip('/').rpartition('/')[2]}"
        with_names.append((name, row))
    return with_names


def consistent(results: Results) -> list[str]:
    """Whether JUMP's samples are of one scene each, and BADJ's and GQN's are not."""
    rows = [row for result in of(results, "consistency") for row in result.rows]
    stories = [row for row in rows if row["metric"] == "coherent stories"]
    parts = [
        f"Stories: {_percent(row)} of those that {_samples(row)} samples are coherent, each shape "
        "visited exactly once."
        for row in stories
    ]
    dice = [row for row in rows if str(row.get("env", "")).startswith("dice/")]
    for metric, other, sentence in (
        ("KL3 / KL1", "KL1", _pays),
        ("same digit, one world", "same digit, two worlds", _agrees),
    ):
        for name, row in named([row for row in dice if row["metric"] == metric]):
            parts.append(f"Dice, {name}: {sentence(row, _same_checkpoint(row, other, dice))}")
    for model in ("jump", "badj", "gqn"):
        if not any(row["model"] == model for row in [*stories, *dice]):
            parts.append(f"{label(model)}: {NOT_MEASURED}.")
    return parts


def _percent(row: Row) -> str:
    return f"{100 * row['value']:.1f}% [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _same_checkpoint(row: Row, metric: str, rows: Sequence[Row]) -> Row | None:
    """The row of another metric of the same checkpoint."""
    wanted = (row["model"], row.get("checkpoint"), metric)
    for other in rows:
        if (other["model"], other.get("checkpoint"), other["metric"]) == wanted:
            return other
    return None


def _pays(row: Row, one: Row | None) -> str:
    nats = "" if one is None else f" ({number(one['value'])})"
    text = f"three views of the hidden side cost {interval_of(row)} times the nats of one{nats}"
    if row["high"] < 2:
        return f"{text}, nearer to 1 (one scene) than to 3 (each view anew): consistent."
    if row["low"] > 2:
        return f"{text}, nearer to 3 (each view anew) than to 1 (one scene): not consistent."
    return f"{text}: between 1 (one scene) and 3 (each view anew), undecided."


def _agrees(row: Row, chance: Row | None) -> str:
    text = f"two views of one sampled world show the same digit in {_percent(row)} of the pairs"
    if chance is None:
        return f"{text}; what chance gives is {NOT_MEASURED}."
    more = bool(row["low"] > chance["high"])
    verdict = "more than chance" if more else "not significantly more than chance"
    return f"{text}, views of two worlds in {_percent(chance)}: {verdict}."


def saved(results: Results) -> list[str]:
    """How many times fewer real steps agents need that imagine, for each environment."""
    parts = [
        part for result in of(results, "sample-efficiency")
        for part in real_steps.answers(result.rows)
    ]  # fmt: skip
    for result in of(results, "efficiency"):
        env = str(result.envelope["settings"].get("env", result.name)).removeprefix("envs:")
        for row in result.rows:
            if row["agent"] == "ratio":
                level = row.get("level", 0.8)
                notes = cautions(result.rows, row["of"], level) if row["value"] > 0 else []
                text = "; ".join([_fewer(row), *notes])
                parts.append(f"{env}, {row['of']}: {text}.")
    return parts or [f"{NOT_MEASURED.capitalize()} (no efficiency-*.json)."]


def _fewer(row: Row) -> str:
    if math.isnan(row["value"]):
        return "nothing is learned without imagination, so there is no level to reach"
    level = f"{100 * row.get('level', 0.8):.0f}% of the way from random play to where PPO ends"
    if row["value"] == 0:
        return f"never comes {level} with its real steps"
    fewer = f"{interval_of(row)} times fewer real steps to come {level}"
    if row["low"] <= 1:
        fewer += "; the interval includes 1, so this may be no saving at all"
    return f"{fewer} (n = {row['n']} seeds)"


def cautions(rows: Sequence[Row], of: str, level: float) -> list[str]:
    """What weakens a ratio of real steps: the agent ``of`` starts above the level, so that the
    ratio is only a lower bound, or PPO ends far below its own best, so that the level says little.
    """
    curves = {agent: mean_curve(seeds) for agent, seeds in by_seed(rows).items()}
    floor = next((row["return"] for row in rows if row["agent"] == "random play"), None)
    if floor is None or not {of, "PPO"} <= set(curves):
        return []
    notes = []
    last, best = curves["PPO"][-1][1], max(value for _, value in curves["PPO"])
    steps, first = curves[of][0]
    if first >= floor + level * (last - floor):
        notes.append(
            f"at least, because it reaches it with the fewest steps tried, {number(steps)}"
        )
    if last - floor < level * (best - floor):
        notes.append(f"PPO ends at {number(last)}, far below its own best of {number(best)}")
    return notes
