"""Settings of CVG: the thesis' (seed 002, appendix 6.A), and ours for a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from worldmodel.common.config_checks import above_zero, at_least, to_tuples

WIDTHS = ("first_generator", "first_discriminator", "second_generator", "second_discriminator")


@dataclass(frozen=True)
class CvgConfig:
    """Sizes and training settings; the defaults are the thesis' for Kinetics-600 at 128x128.

    Attributes:
        noise: numbers of z, of each level its own.
        first_generator, second_generator: channels of the units of a level's generator.
        first_discriminator, second_discriminator: channels of the blocks of its discriminators.
        scale: pixels of a frame to one of the first level's, on a side.
        time_scale: frames to one of the first level's.
        crop: frames of the first level in the windows that the second is trained on.
        matching: whether the second level has the matching discriminator.
        frames: how many of a video the spatial discriminator judges.
        discriminator_steps: of the discriminators, to one of the generator.
        first_share: of the training, for the first level; in (0, 1).
        statistics_passes: that the statistics of normalisation are recomputed in.
        statistics_batch: videos of each of them.
        learning_rate, learning_rate_end: of the generator's Adam.
        discriminator_rate: learning rate of the discriminators, in the generator's.
    """

    noise: int = 128
    first_generator: tuple[int, ...] = (1024, 1024, 512, 256)
    first_discriminator: tuple[int, ...] = (256, 512, 1024, 2048, 2048)
    second_generator: tuple[int, ...] = (1024, 1024, 512, 256, 128)
    second_discriminator: tuple[int, ...] = (96, 192, 384, 768, 1536, 1536)
    scale: int = 4
    time_scale: int = 2
    crop: int = 6
    matching: bool = True
    frames: int = 8
    discriminator_steps: int = 2
    first_share: float = 0.5
    statistics_passes: int = 200
    statistics_batch: int = 32
    learning_rate: float = 1e-4
    learning_rate_end: float = 1e-4
    discriminator_rate: float = 5.0

    def __post_init__(self) -> None:
        to_tuples(self, *WIDTHS)
        for name in WIDTHS:
            widths = getattr(self, name)
            if not widths or min(widths) < 1:
                raise ValueError(f"{name}: expected channels of at least 1, got {widths}")
        at_least(1, self, "noise", "time_scale", "crop", "frames", "discriminator_steps")
        at_least(1, self, "statistics_passes", "statistics_batch")
        if self.scale < 2 or self.scale & (self.scale - 1):
            raise ValueError(f"scale: expected a power of two of at least 2, got {self.scale}")
        if not 0 < self.first_share < 1:
            raise ValueError(
                f"first_share: expected above 0 and below 1, got {self.first_share}: both levels "
                "need a part of the training"
            )
        above_zero(self, "learning_rate", "learning_rate_end", "discriminator_rate")


PRESETS: dict[str, CvgConfig] = {
    "paper": CvgConfig(),
    "small": CvgConfig(
        noise=32,
        first_generator=(64, 32, 16),
        first_discriminator=(16, 32, 64),
        second_generator=(64, 32, 16, 16),
        second_discriminator=(16, 32, 64, 64),
        scale=2,
        crop=4,
        statistics_passes=20,
        learning_rate=2e-4,
        learning_rate_end=1e-4,
        discriminator_rate=2.0,
    ),
}
