"""Rays through objects and background, composed by their densities; and the upscaler.

Shapes: P pictures, K objects, R rays, S points on each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.models.jumpy.inferno.cameras import Rays
from worldmodel.models.jumpy.inferno.config import InfernoConfig
from worldmodel.models.jumpy.inferno.fields import Field
from worldmodel.models.jumpy.inferno.slots import Scene, to_object

NO_DENSITY = 1e-9
OBJECT_LOGIT, BACKGROUND_LOGIT = -2.0, -5.0
"""Of densities, as training begins: what is in front of the background's end is clear."""


class Rendered(NamedTuple):
    """What rays meet.

    Attributes:
        features: float32 (P, R, F), the first of which are colours.
        masks: float32 (P, 1 + K, R), how much of each ray ends in the background, and in each
            object; sum 1.
    """

    features: Tensor
    masks: Tensor


class Points(NamedTuple):
    """The N points of rays that lie in objects.

    Attributes:
        owner: int64 (N,), the object among P * K.
        number: int64 (N,), the point among P * R * S.
        where: (N,), of the densities among P * K * R * S.
    """

    owner: Tensor
    number: Tensor
    where: Tensor


class Renderer(nn.Module):
    """One field for all objects, another for the background.

    An object fills the ball of radius 1 in its own space: its density is that of the field times
    1 - |x|^2. So it ends, and it tells its pose by a gradient where it ends.

    Args:
        far: depth that the camera sees to.
        near: depth that it sees from.
        config: sizes.
    """

    def __init__(self, near: float, far: float, config: InfernoConfig) -> None:
        super().__init__()
        self.near, self.far, self.samples = near, far, config.samples
        common = (config.features, config.point_waves, config.direction_waves)
        self.objects = Field(
            config.latent, config.object_layers, config.object_width, config.skip, *common,
            OBJECT_LOGIT,
        )  # fmt: skip
        self.background = Field(
            config.latent, config.background_layers, config.background_width, 0, *common,
            BACKGROUND_LOGIT,
        )  # fmt: skip

    def forward(self, scene: Scene, rays: Rays, chance: Tensor | None = None) -> Rendered:
        """Render P scenes.

        Args:
            scene: P of them.
            rays: of P pictures.
            chance: (P, R, S) in [0, 1), where in its share of the ray each point lies; None for
                the middle.
        """
        pictures, count = rays.origins.shape[:2]
        step = (self.far - self.near) / self.samples
        share = torch.arange(self.samples, device=rays.origins.device).expand(
            pictures, count, self.samples
        )
        depths = self.near + step * (share + (0.5 if chance is None else chance))
        points = rays.origins.unsqueeze(2) + depths.unsqueeze(-1) * rays.directions.unsqueeze(2)
        lengths = step * rays.directions.norm(dim=-1)

        inside = points_inside(points, scene.pose)
        density, hidden = self._in_objects(scene, points, rays, inside)
        shape = (pictures, scene.pose.shape[1], count, self.samples)
        dense = density.new_zeros(points[..., 0].numel() * shape[1])
        dense = dense.scatter(0, inside.where, density).view(shape)
        ground, ground_hidden = self._in_background(scene, points, rays)

        shares = compose(torch.cat([ground.unsqueeze(1), dense], 1), lengths)
        masks = shares.sum(-1)
        weight = shares[:, 1:].flatten().index_select(0, inside.where)
        ray = inside.number // self.samples
        summed = hidden.new_zeros(pictures * count, hidden.shape[-1])
        summed = summed.index_add(0, ray, hidden * weight.unsqueeze(-1)).view(pictures, count, -1)
        ground_summed = (ground_hidden * shares[:, 0].unsqueeze(-1)).sum(2)
        features = self.objects.to_features(summed, masks[:, 1:].sum(1))
        features = features + self.background.to_features(ground_summed, masks[:, 0])
        return Rendered(features, masks)

    def _in_objects(
        self, scene: Scene, points: Tensor, rays: Rays, inside: Points
    ) -> tuple[Tensor, Tensor]:
        """Densities (N,) and hidden features (N, width) of the points that lie in objects."""
        code = self.objects.code(scene.shape, scene.appearance)
        flat = type(code)(*(part.flatten(0, 1) for part in code))
        pose = scene.pose.flatten(0, 1).index_select(0, inside.owner)
        x = to_object(points.flatten(0, 2).index_select(0, inside.number), pose)
        ray = inside.number // self.samples
        directions = rays.directions.flatten(0, 1).index_select(0, ray)
        density, hidden = self.objects(x, directions, flat.select(inside.owner))
        return density * (1 - x.square().sum(-1)).clamp_min(0), hidden

    def _in_background(self, scene: Scene, points: Tensor, rays: Rays) -> tuple[Tensor, Tensor]:
        """Densities (P, R, S) and hidden features (P, R, S, width) of the background."""
        code = self.background.code(scene.background_shape, scene.background_appearance)
        lead = type(code)(*(part[:, None, None] for part in code))
        density, hidden = self.background(
            points / (2 * self.far), rays.directions.unsqueeze(2).expand_as(points), lead
        )
        return density, hidden


def points_inside(points: Tensor, pose: Tensor) -> Points:
    """Which points (P, R, S, 3) lie in the balls of objects with poses (P, K, 7)."""
    with torch.no_grad():
        local = to_object(points[:, None], pose[:, :, None, None])
        where = (local.square().sum(-1) < 1).flatten().nonzero().squeeze(1)
    each = points[0, ..., 0].numel()
    owner = where // each
    return Points(owner, owner // pose.shape[1] * each + where % each, where)


def compose(densities: Tensor, lengths: Tensor) -> Tensor:
    """How much each field gives to each ray, at each of its points.

    Densities are summed, and a point's light is divided in proportion (equation 10.4); with

        alpha_s = 1 - exp(-density_s * length),    weight_s = alpha_s prod_{t < s} (1 - alpha_t)

    the points of a ray have weights (Mildenhall et al. 2020). What passes all of them meets the
    first field, the background, at the last point.

    Args:
        densities: (P, fields, R, S), at least 0.
        lengths: (P, R), of the ray between two points.

    Returns:
        shares (P, fields, R, S); over fields and points they sum to 1.
    """
    total = densities.sum(1)
    depth = total * lengths.unsqueeze(-1)
    passed = depth.cumsum(-1)
    weights = (depth - passed).exp() - (-passed).exp()
    shares = densities * (weights / (total + NO_DENSITY)).unsqueeze(1)
    left = torch.zeros_like(shares)
    left[:, 0, :, -1] = (-passed[..., -1]).exp()
    return shares + left


class Upscaler(nn.Module):
    """A picture of features, enlarged by convolutions (table 10.9).

    Its colours, enlarged by nearest neighbours, are added, as in GIRAFFE: they are what is left
    when the upscaler is taken away.

    Args:
        image: colour channels.
        features: F.
        channels: of the inner layers.
        doublings: of the resolution.
    """

    def __init__(self, image: int, features: int, channels: int, doublings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(doublings):
            inputs = channels if index else features
            layers += [
                nn.Conv2d(inputs, channels, 3, 1, 1),
                nn.InstanceNorm2d(channels),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="nearest"),
            ]
        last = nn.Conv2d(channels if doublings else features, image, 3, 1, 1)
        for weights in last.parameters():  # as training begins, the enlarged colours are the frame
            nn.init.zeros_(weights)
        layers.append(last)
        self.image, self.layers = image, nn.Sequential(*layers)
        self.enlarge = nn.Upsample(scale_factor=2**doublings, mode="nearest")

    def forward(self, features: Tensor) -> Tensor:
        """Features (P, F, h, w) to frames (P, C, H, W)."""
        frames: Tensor = self.enlarge(features[:, : self.image]) + self.layers(features).float()
        return frames


def doublings(height: int, width: int, least: int) -> int:
    """How often a resolution can be halved and still have at least ``least`` pixels on a side."""
    count = 0
    while not (height | width) % 2 and min(height, width) // 2 >= least:
        height, width, count = height // 2, width // 2, count + 1
    return count
