"""What models are called on the page, and how each is drawn, the same in every picture."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """Name, colour, line and marker of a model."""

    label: str
    colour: str
    line: str = "-"
    marker: str = "o"


# Okabe and Ito's colours, which the colour-blind can tell apart; relatives share one, and their
# lines and markers tell them apart. JUMP alone is vermilion.
JUMP, BLUE, SKY, GREEN = "#D55E00", "#0072B2", "#56B4E9", "#009E73"
ORANGE, PURPLE, GREY, BLACK = "#E69F00", "#CC79A7", "#888888", "#222222"

LOOKS = {
    "jump": Look("JUMP", JUMP),
    "badj": Look("BADJ", PURPLE, "--", "s"),
    "gqn": Look("GQN", PURPLE, "-", "D"),
    "svg-lp": Look("SVG-LP", BLUE),
    "svg-fp": Look("SVG-FP", BLUE, "--", "s"),
    "svg-det": Look("SVG (deterministic)", BLUE, ":", "^"),
    "sv2p": Look("SV2P", GREEN),
    "cdna": Look("CDNA", GREEN, "--", "s"),
    "hierarchical-vrnn": Look("hierarchical VRNN", BLACK, "-", "v"),
    "sssm": Look("sSSM", SKY),
    "dssm-vae": Look("dSSM-VAE", SKY, "--", "s"),
    "dssm-det": Look("dSSM-DET", SKY, ":", "^"),
    "copy-last": Look("copy-last", GREY, ":", "x"),
}
STRIDE = "five steps at a time"
PLAIN = ("small", "paper", "narrative", "dice")  # presets that need no mention beside the others


def look(model: str, preset: str = "") -> Look:
    """Of a model of the registry; one that is not known is grey, under its own name."""
    found = LOOKS.get(model, Look(model, GREY, "-", "P"))
    if not preset or preset in PLAIN:
        return found
    if model == "sssm" and preset.endswith("jumpy"):
        return found._replace(label=f"{found.label} ({STRIDE})", line="-.", marker="D")
    return found._replace(label=f"{found.label} {preset}", line="--", marker="s")


def label(model: str, preset: str = "") -> str:
    """Its name on the page."""
    return look(model, preset).label


def number(value: float) -> str:
    """Three digits that count, without exponents: 0.0215, 38.5, 313, 1,870."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.7f}".rstrip("0")


def interval(value: float, low: float, high: float) -> str:
    """``0.951 [0.919, 0.973]``."""
    return f"{number(value)} [{number(low)}, {number(high)}]"


def listed(parts: list[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
