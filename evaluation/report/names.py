"""Names and styles of models on the page, the same in every picture; numbers as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Style(NamedTuple):
    """Name, colour, line and marker of a model."""

    label: str
    colour: str
    line: str = "-"
    marker: str = "o"


# Okabe and Ito's colours, which the colour-blind can distinguish; related models share a colour and
# differ in line and marker. JUMP alone is vermilion.
JUMP, BLUE, SKY, GREEN = "#D55E00", "#0072B2", "#56B4E9", "#009E73"
ORANGE, PURPLE, GREY, BLACK = "#E69F00", "#CC79A7", "#888888", "#222222"

STYLES = {
    "jump": Style("JUMP", JUMP),
    "badj": Style("BADJ", PURPLE, "--", "s"),
    "gqn": Style("GQN", PURPLE, "-", "D"),
    "svg-lp": Style("SVG-LP", BLUE),
    "svg-fp": Style("SVG-FP", BLUE, "--", "s"),
    "svg-det": Style("SVG (deterministic)", BLUE, ":", "^"),
    "sv2p": Style("SV2P", GREEN),
    "cdna": Style("CDNA", GREEN, "--", "s"),
    "hierarchical-vrnn": Style("hierarchical VRNN", BLACK, "-", "v"),
    "sssm": Style("sSSM", SKY),
    "dssm-vae": Style("dSSM-VAE", SKY, "--", "s"),
    "dssm-det": Style("dSSM-DET", SKY, ":", "^"),
    "vim": Style("VIM", ORANGE),
    "copy-last": Style("copy-last", GREY, ":", "x"),
}
PLAIN = ("small", "paper", "narrative", "dice")  # presets that are not mentioned


def style(model: str, preset: str = "") -> Style:
    """Of a model of the registry; one that is not known is grey, under its own name."""
    plain = STYLES.get(model, Style(model, GREY, "-", "P"))
    if not preset or preset in PLAIN:
        return plain
    if model == "sssm" and preset.endswith("jumpy"):
        return plain._replace(label=f"{plain.label} (five steps at a time)", line="-.", marker="D")
    return plain._replace(label=f"{plain.label} {preset}", line="--", marker="s")


def label(model: str, preset: str = "") -> str:
    """Its name on the page."""
    return style(model, preset).label


def number(value: float) -> str:
    """Three significant digits, without exponents: 0.0215, 38.5, 313, 1,870."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.7f}".rstrip("0")


def interval(value: float, low: float, high: float) -> str:
    """``0.951 [0.919, 0.973]``."""
    return f"{number(value)} [{number(low)}, {number(high)}]"


def interval_of(row: Mapping[str, Any], column: str = "value") -> str:
    """Of a row's number in that column."""
    return interval(row[column], row["low"], row["high"])


def in_words(parts: list[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
