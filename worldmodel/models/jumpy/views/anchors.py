"""Anchor views: what the context does not show is imagined as views, context for all others.

z has some numbers for each square of 8 x 8 pixels of a few views around the scene. It is decoded,
together with what the context alone shows from there, to features like those of a real view.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.views.config import ViewsConfig
from worldmodel.models.jumpy.views.geometry import Space
from worldmodel.models.jumpy.views.memory import STRIDE, ResidualBlock
from worldmodel.types import SceneSource

SQUARE = 8
"""Pixels, each way, that share the same numbers of z."""
KNOWN = 48
"""Numbers of what the context alone shows, for each square of 4 x 4 pixels."""
BATCHES = 32
"""Of the training source, whose poses the anchors are chosen from."""


class KnownFromContext(nn.Module):
    """What the context alone shows from the anchors, at a quarter of the images' resolution."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(numbers, KNOWN, 3, padding=1), ResidualBlock(KNOWN), nn.GELU()
        )

    def forward(self, rays: Tensor) -> Tensor:
        """What ``RayRenderer.rays`` returns to (B, A, KNOWN, H / 4, W / 4)."""
        known: Tensor = self.layers(rays.flatten(0, 1)).unflatten(0, rays.shape[:2])
        return known


class AnchorPosterior(nn.Module):
    """q(z | context, the anchors' true views), a Gaussian."""

    def __init__(self, config: ViewsConfig) -> None:
        super().__init__()
        self.down = nn.Conv2d(config.features, 64, 4, 2, 1)
        self.from_known = nn.Conv2d(KNOWN, 64, 1)
        self.block = ResidualBlock(64)
        self.out = nn.Sequential(
            nn.GELU(), nn.Conv2d(64, 96, 4, 2, 1), nn.GELU(),
            nn.Conv2d(96, 2 * config.latent, 3, padding=1),
        )  # fmt: skip

    def forward(self, features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each float32 (B, A, latent, H / 8, W / 8).

        Args:
            features: (B, A, features, H / 2, W / 2), of the true views.
            known: (B, A, KNOWN, H / 4, W / 4), of the context.
        """
        x = self.down(gelu(features.flatten(0, 1))) + self.from_known(known.flatten(0, 1))
        numbers = self.out(self.block(x)).float().unflatten(0, features.shape[:2])
        mean, logvar = numbers.chunk(2, 2)
        return mean, logvar.clamp(-8, 3)


class AnchorDecoder(nn.Module):
    """z, and what the context shows, to the anchors' features; and these to pixels.

    The pixels train the decoder: nothing is copied there, so nothing else could explain them.
    """

    def __init__(self, channels: int, config: ViewsConfig) -> None:
        super().__init__()
        self.enter = nn.Conv2d(config.latent, 96, 3, padding=1)
        self.from_known = nn.Conv2d(KNOWN, 96, 4, 2, 1)
        self.up = nn.Sequential(nn.GELU(), nn.Conv2d(96, 256, 3, padding=1), nn.PixelShuffle(2))
        self.known = nn.Conv2d(KNOWN, 64, 1)
        self.out = nn.Sequential(
            ResidualBlock(64), nn.GELU(),
            nn.Conv2d(64, 192, 3, padding=1), nn.PixelShuffle(2), ResidualBlock(48),
            nn.Conv2d(48, config.features, 3, padding=1),
        )  # fmt: skip
        self.pixels = nn.Sequential(
            nn.GELU(), nn.Conv2d(config.features, 48, 3, padding=1), nn.GELU(),
            nn.Conv2d(48, STRIDE * STRIDE * channels, 3, padding=1), nn.PixelShuffle(STRIDE),
        )  # fmt: skip

    def forward(self, z: Tensor, known: Tensor) -> Tensor:
        """Features (B, A, features, H / 2, W / 2) of z (B, A, latent, H / 8, W / 8), known."""
        context = known.flatten(0, 1)
        x = self.enter(z.flatten(0, 1)) + self.from_known(context)
        x = self.up(x) + self.known(context)
        features: Tensor = self.out(x).unflatten(0, z.shape[:2])
        return features

    def frames(self, features: Tensor) -> Tensor:
        """Pixels (B, A, C, H, W) that the features stand for."""
        frames: Tensor = self.pixels(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return frames.float()


class AnchorPoses(nn.Module):
    """Where the anchors stand: views of the training that are far from each other.

    Before ``prepare``, all around the region.
    """

    position: Tensor
    axes: Tensor
    prepared: Tensor

    def __init__(self, space: Space, count: int) -> None:
        super().__init__()
        self.space = space
        ring = space.ring(count)
        self.register_buffer("position", ring.position)
        self.register_buffer("axes", ring.axes)
        self.register_buffer("prepared", torch.tensor(False))

    def cameras(self, batch: int) -> Cameras:
        """The anchors of each of B scenes, (B, A)."""
        return Cameras(self.position.expand(batch, -1, -1), self.axes.expand(batch, -1, -1, -1))

    @torch.no_grad()
    def prepare(self, source: SceneSource) -> None:
        """Choose them from the poses of a source, once: each is the farthest from those before.

        Raises:
            ValueError: the source has no poses.
        """
        if bool(self.prepared):
            return
        recorded = []
        for index in range(BATCHES):
            scenes = source.batch(index)
            times = torch.arange(scenes.actions.shape[1] + 1, device=scenes.lengths.device)
            poses = scenes.poses(times.expand(len(scenes.lengths), -1))
            if poses is None:
                raise ValueError("source: expected scenes with camera poses, got none")
            recorded.append(poses[times <= scenes.lengths[:, None]])
        every = self.space.camera.read(torch.cat(recorded).to(self.position.device))
        chosen = [0]
        for _ in range(1, len(self.position)):
            some = Cameras(every.position[chosen], every.axes[chosen])
            chosen.append(int(self.space.distance(every, some).amin(1).argmax()))
        self.position.copy_(every.position[chosen])
        self.axes.copy_(every.axes[chosen])
        self.prepared.fill_(True)
