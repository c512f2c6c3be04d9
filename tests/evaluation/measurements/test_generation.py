"""Videos from noise, judged where what is right is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evaluation.measurements.generation import Generation
from worldmodel import ActionSpec, Spec, make
from worldmodel.models.jumpy.cvg import Cvg, CvgConfig

ENV = "digits/StochasticMovingDigits-v0"
SPEC = Spec((3, 16, 16), ActionSpec("none"), 3)
TINY = CvgConfig(
    noise=4, first_generator=(4, 4), first_discriminator=(4, 4), second_generator=(4, 4),
    second_discriminator=(4, 4), scale=2, crop=2, statistics_passes=1, statistics_batch=2,
)  # fmt: skip


class Faithful(Cvg):
    """Its second level repeats the first one's outline, at twice the size, in its first half."""

    def unrolled(self, window: int) -> Faithful:
        return Faithful(replace(self.spec, window=window), self.config)

    def levels(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        frames = self.spec.window + 1
        low = torch.rand(n, frames // 2, 3, 8, 8, generator=generator)
        video = low.repeat_interleave(2, 1).repeat_interleave(2, 3).repeat_interleave(2, 4)
        video[:, frames // 2 :] = 1 - video[:, frames // 2 :]
        return low, video


def test_drift_of_longer_videos() -> None:
    measure = Generation(env=ENV, videos=140, draws=2, unroll=2)
    rows = measure.of_model(Faithful(SPEC, TINY))
    values = {row["metric"]: row["value"] for row in rows}
    assert {row["metric"]: row["n"] for row in rows} == {
        "distance, noise": 2, "distance, part 1": 2, "distance, part 2": 2, "distance, real": 2,
        "outline, part 1": 280, "outline, part 2": 280,
    }  # fmt: skip
    assert values["outline, part 1"] == pytest.approx(0.0, abs=1e-9)
    assert values["outline, part 2"] == pytest.approx(1 / 3, rel=0.05)  # E (1 - 2 u)^2
    assert values["distance, real"] < 0.2 * values["distance, part 1"]


def test_an_untrained_model_has_rows() -> None:
    model = make("cvg", SPEC, TINY)
    rows = Generation(env=ENV, videos=130, draws=2, unroll=1).of_model(model)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"draw videos from noise \(cvg\), got copy-last"):
        Generation(env=ENV).of_model(make("copy-last", SPEC))
    with pytest.raises(ValueError, match="videos"):
        Generation(env=ENV, videos=100).of_model(make("cvg", SPEC, TINY))
    with pytest.raises(ValueError, match="draws"):
        Generation(env=ENV, draws=1).of_model(make("cvg", SPEC, TINY))
