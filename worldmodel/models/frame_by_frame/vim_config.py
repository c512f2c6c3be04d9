"""Settings of VIM: the thesis' (seed 002, tables 8.1 to 8.3, section 8.A), and ours for a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from worldmodel.common.config_checks import above_zero, at_least, below_one, odd
from worldmodel.models.frame_by_frame import teacher_forcing


@dataclass(frozen=True)
class VimConfig(teacher_forcing.TrainingConfig):
    """Sizes and training settings; the defaults are the thesis' (tables 8.1 to 8.3, 8.A).

    Attributes:
        slots: K, at least 2: one for each object, one for the background and, since objects are
            found sooner then, one to spare.
        modules: M; 1 is the monolithic ablation.
        size: numbers of a slot.
        channels, kernel: of the convolutions.
        coarse: pixels on a side of the places that are encoded and that slots are broadcast to: 1,
            2 or 4.
        focus: how far slots look and paint around where they are, in half sides of the frame; 0
            gives slots no places, as in the thesis.
        focus_first: how far they look in the first of ``attention_steps``; from there it narrows.
        focus_begin: how many times as far they look and paint as the training begins, at least 1;
            1 is reached, in even steps, when the pretraining ends.
        hidden, candidate: units of the modules' odd layers, and of the second.
        width: units of the perceptrons of keys, queries and z.
        attention_steps: of slot attention on the first frame.
        selections: k of VIM-k.
        temperature: of the Gumbel-softmax.
        pixel_variance: of a colour channel in [0, 1].
        pretraining: share of the training that learns single frames, at least 0 and below 1.
        first_frames, frames: of training rollouts, after the pretraining and at the end.
        warm_up: share of the training in which the learning rate rises from 0, below 1; from there
            it falls by a constant factor per step to ``learning_rate_end``.
        reward_variance, learning_rate, learning_rate_end: as in ``TrainingConfig``.
    """

    slots: int = 4
    modules: int = 5
    size: int = 64
    channels: int = 64
    kernel: int = 5
    coarse: int = 1
    focus: float = 0.0
    focus_first: float = 0.5
    focus_begin: float = 1.75
    hidden: int = 128
    candidate: int = 128
    width: int = 64
    attention_steps: int = 3
    selections: int = 1
    temperature: float = 1.0
    pixel_variance: float = 0.1
    pretraining: float = 0.24
    first_frames: int = 6
    frames: int = 20
    warm_up: float = 0.02
    learning_rate: float = 4e-4
    learning_rate_end: float = 1.25e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self, "slots", "first_frames", "frames")
        at_least(1, self, "modules", "size", "channels", "kernel", "hidden", "candidate", "width")
        at_least(1, self, "attention_steps", "selections", "focus_begin")
        at_least(0, self, "focus")
        above_zero(self, "focus_first")
        odd(self, "kernel")
        above_zero(self, "temperature", "pixel_variance")
        if self.coarse not in (1, 2, 4):
            raise ValueError(f"coarse: expected 1, 2 or 4 pixels, got {self.coarse}")
        below_one(self, "pretraining", "warm_up")

    def length(self, progress: float) -> int:
        """Frames of the training rollouts at ``progress`` in [0, 1]; 1 while single ones are
        learned. They grow by two, and every length lasts as long (8.A.2).
        """
        if progress < self.pretraining:
            return 1
        growth = max(0, self.frames - self.first_frames) // 2
        share = (progress - self.pretraining) / (1 - self.pretraining)
        longest = max(self.frames, self.first_frames)
        grown = self.first_frames + 2 * int(share * (growth + 1))
        return longest if share * (growth + 1) >= growth else grown


_SMALL = VimConfig(
    slots=5, channels=32, coarse=4, focus=0.2, attention_steps=5, pretraining=0.55, first_frames=4,
    frames=6, learning_rate=1.5e-3, learning_rate_end=1.5e-4,
)  # fmt: skip
PRESETS: dict[str, VimConfig] = {
    "paper": VimConfig(),
    "small": _SMALL,
    "monolithic": replace(_SMALL, modules=1, hidden=640),
    "stories": replace(_SMALL, slots=7),
}
"""``monolithic``: one module with as many units as the five of ``small`` together. ``small`` is for
three objects, ``stories`` for five."""
