"""The four questions of a sceptic, answered in words from the results alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from evaluation.report.curves import cautions
from evaluation.report.load_results import Result, Row, of
from evaluation.report.names import interval, label, listed, number

Results = Mapping[str, Result]
HORIZONS = (10, 40, 160)
NOT_MEASURED = "not measured"
RATIOS = "ratios are made round by round"


def faster(results: Results) -> list[str]:
    """How much faster a jump is than each peer, at three distances; one paragraph for each."""
    if "speed-all" not in results:
        return [f"{NOT_MEASURED.capitalize()} (no speed-all.json)."]
    rows = results["speed-all"].rows
    rounds = results["speed-all"].envelope["settings"].get("repeats")
    parts = [_at(rows, distance) for distance in HORIZONS]
    return [*parts, f"Medians of {rounds} rounds in which all models took turns; {RATIOS}."]


def _at(rows: Sequence[Row], distance: int) -> str:
    here = [row for row in rows if row.get("distance") == distance and row["batch"] == 1]
    own = [row for row in here if row["kind"] == "seconds" and row["model"] == "jump"]
    if not own:
        return f"T = {distance}: {NOT_MEASURED}."
    text = f"T = {distance}: JUMP takes {number(own[0]['seconds'])} s."
    times = sorted((row for row in here if row["kind"] == "ratio"), key=lambda row: -row["ratio"])
    for what, wanted in (
        ("Times as long take", 1), ("Not told apart from the jump", 0), ("Faster than it", -1),
    ):  # fmt: skip
        some = [
            f"{label(row['model'], row['preset'])} {ratio_text(row)}"
            for row in times
            if sign(row) == wanted
        ]
        if some:
            text += f" {what}: {', '.join(some)}."
    return text


def sign(row: Row) -> int:
    """Of a ratio: 1 where it takes longer, -1 where it takes less, 0 where the interval holds 1."""
    if row["low"] > 1:
        return 1
    return -1 if row["high"] < 1 else 0


def ratio_text(row: Row) -> str:
    """``41.7 [40.2, 43.1]``."""
    return interval(row["ratio"], row["low"], row["high"])


def fidelity(results: Results) -> list[str]:
    """Whether jumping costs quality: peers after equal training, then the released model."""
    parts = []
    if "peers" in results:
        parts.append(_against_peers(results["peers"]))
    else:
        parts.append(f"Against peers: {NOT_MEASURED} (no peers.json).")
    errors = [
        (row, copied)
        for result in of(results, "fidelity")
        for row in result.rows
        for copied in result.rows
        if row["metric"] == "mse, min-of-n" and copied["metric"] == "mse, copy-last"
        and _samples(row) == _samples(copied)
    ]  # fmt: skip
    for row, copied in errors:
        parts.append(
            f"Trained for longer, {_samples(row)} comes to {_interval(row)}, where repeating the "
            f"last frame has {_interval(copied)}."
        )
    if not errors:
        parts.append(f"After longer training: {NOT_MEASURED}.")
    return parts


def _against_peers(result: Result) -> str:
    judged = [row for row in result.rows if row.get("min-of-n") is not None]
    own = min((row for row in judged if row["model"] == "jump"), key=_error, default=None)
    others = sorted((row for row in judged if row["model"] != "jump"), key=_error)
    if own is None or not others:
        return f"Against peers: {NOT_MEASURED} (peers.json has no JUMP, or nothing beside it)."
    worse = [_name(row) for row in others if row["low"] > own["high"]]
    better = [_name(row) for row in others if row["high"] < own["low"]]
    same = [_name(row) for row in others if _name(row) not in [*worse, *better]]
    seconds = result.envelope["settings"].get("seconds")
    verdict = "Yes" if better else "No" if not same else "Nothing that these intervals can show"
    text = (
        f"{verdict}, after {seconds:g} s of training each: the closest of 30 futures has a squared "
        f"error of {_peer(own)} with {_name(own)} and {_peer(others[0])} with the best of the "
        f"others, {_name(others[0])}."
    )
    for what, found in (
        ("Better than", better), ("Not told apart from", same), ("Worse than", worse),
    ):  # fmt: skip
        if found:
            text += f" {what} JUMP: {listed(found)}."
    return text


def _error(row: Row) -> float:
    return float(row["min-of-n"])


def _name(row: Row) -> str:
    return label(row["model"], row.get("preset", ""))


def _peer(row: Row) -> str:
    return interval(row["min-of-n"], row["low"], row["high"])


def _interval(row: Row) -> str:
    return interval(row["value"], row["low"], row["high"])


def _samples(row: Row) -> str:
    """The model, its checkpoint, and how often its worlds were drawn again."""
    return f"{_refined(row)} ({row.get('checkpoint')})"


def _refined(row: Row) -> str:
    count = row.get("refinements")
    return label(row["model"]) + (f", refined {count} times" if count else "")


def named(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Rows with what they are of: the model, the checkpoint where one model has several, and how
    often worlds were refined.
    """
    checkpoints: dict[str, set[str]] = {}
    for row in rows:
        checkpoints.setdefault(row["model"], set()).add(str(row.get("checkpoint")))
    found = []
    for row in rows:
        name = _refined(row)
        if len(checkpoints[row["model"]]) > 1:
            name += f", {str(row.get('checkpoint')).rstrip('/').rpartition('/')[2]}"
        found.append((name, row))
    return found


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
    for name, row in named([row for row in dice if row["metric"] == "KL3 / KL1"]):
        parts.append(f"Dice, {name}: {_pays(row, _beside(row, 'KL1', dice))}")
    for name, row in named([row for row in dice if row["metric"] == "same digit, one world"]):
        chance = _beside(row, "same digit, two worlds", dice)
        parts.append(f"Dice, {name}: {_agrees(row, chance)}")
    for model in ("jump", "badj", "gqn"):
        if not any(row["model"] == model for row in [*stories, *dice]):
            parts.append(f"{label(model)}: {NOT_MEASURED}.")
    return parts


def _percent(row: Row) -> str:
    return f"{100 * row['value']:.1f}% [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _beside(row: Row, metric: str, rows: Sequence[Row]) -> Row | None:
    """What was measured of the same checkpoint."""
    same = ("model", "checkpoint")
    found = [other for other in rows if all(other.get(k) == row.get(k) for k in same)]
    return next((other for other in found if other["metric"] == metric), None)


def _pays(row: Row, one: Row | None) -> str:
    nats = "" if one is None else f" ({number(one['value'])})"
    text = f"three views of the hidden side cost {_interval(row)} times the nats of one{nats}"
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
    verdict = "more than chance" if more else "not told apart from chance"
    return f"{text}, views of two worlds in {_percent(chance)}: {verdict}."


def saved(results: Results) -> list[str]:
    """How many times fewer real steps agents need that imagine, for each environment."""
    parts = []
    for result in of(results, "efficiency"):
        env = str(result.envelope["settings"].get("env", result.name)).removeprefix("envs:")
        for row in result.rows:
            if row["agent"] == "ratio":
                level = row.get("level", 0.8)
                careful = cautions(result.rows, row["of"], level) if row["value"] > 0 else []
                text = "; ".join([_fewer(row), *careful])
                parts.append(f"{env}, {row['of']}: {text}.")
    return parts or [f"{NOT_MEASURED.capitalize()} (no efficiency-*.json)."]


def _fewer(row: Row) -> str:
    if math.isnan(row["value"]):
        return "nothing is learned without imagination, so there is no level to come to"
    level = f"{100 * row.get('level', 0.8):.0f}% of the way from random play to where PPO ends"
    if row["value"] == 0:
        return f"never comes {level} with the real steps it was given"
    fewer = f"{_interval(row)} times fewer real steps to come {level}"
    if row["low"] <= 1:
        fewer += "; the interval holds 1, so this may be no saving at all"
    return f"{fewer} (n = {row['n']} seeds)"
