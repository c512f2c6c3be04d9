"""The networks of CDNA (Finn et al. 2016) and of SV2P (Babaeizadeh et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from worldmodel.models.frame_by_frame.base import State
from worldmodel.models.layers.conv_lstm import ConvLSTMCell

FLOOR = 1e-12  # a kernel whose every entry is cut off at 0 becomes a mean, not 0 / 0
SCALES = (2, 2, 4, 4, 8, 4, 2)  # of the ConvLSTMs' maps, in the order of their calls


class Tower(nn.Module):
    """Seven ConvLSTMs: down to an eighth of the frame's size and up again, with skips.

    Layer normalisation follows the first convolution and what each ConvLSTM puts out (its recurrent
    state stays as it is), ReLU each convolution.

    Args:
        image_channels: C of the frames.
        channels: of the ConvLSTMs at 1/2, 1/4 and 1/8 of the frame's size.
        extra: channels that join on the smallest grid.
    """

    def __init__(self, image_channels: int, channels: tuple[int, ...], extra: int) -> None:
        super().__init__()
        a, b, c = channels
        first = nn.Conv2d(image_channels, a, 5, 2, 2)
        self.enter = nn.Sequential(first, nn.GroupNorm(1, a), nn.ReLU())
        self.down1 = nn.Sequential(nn.Conv2d(a, a, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(b, b, 3, 2, 1), nn.ReLU())
        self.merge = nn.Sequential(nn.Conv2d(b + extra, b, 1), nn.ReLU())
        self.up1 = nn.Sequential(double(c), nn.ReLU())
        self.up2 = nn.Sequential(double(b + a), nn.ReLU())
        inputs, self.hidden = (a, a, a, b, b, c, b + a), (a, a, b, b, c, b, a)
        self.cells = nn.ModuleList(
            ConvLSTMCell(before, after, 5, forget_bias=1.0)
            for before, after in zip(inputs, self.hidden, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, after) for after in self.hidden)

    def start(self, frame: Tensor) -> State:
        """Zeros ``h0``, ``c0`` .. ``h6``, ``c6`` for frames (P, C, H, W)."""
        height, width = frame.shape[-2:]
        state: State = {}
        for i, (hidden, scale) in enumerate(zip(self.hidden, SCALES, strict=True)):
            zeros = frame.new_zeros(len(frame), hidden, height // scale, width // scale)
            state[f"h{i}"] = state[f"c{i}"] = zeros
        return state

    def forward(
        self, frame: Tensor, extra: list[Tensor], state: State
    ) -> tuple[State, Tensor, Tensor]:
        """One step.

        Args:
            frame: (P, C, H, W).
            extra: channels that join, each (P, n, H/8, W/8) or (P, n, 1, 1), which is tiled.
            state: as of ``start``; it may hold other entries too.

        Returns:
            the new state; ``bottom`` (P, channels[2], H/8, W/8), the smallest hidden map; and
            ``top`` (P, 2 * channels[0], H/2, W/2), the last one joined to the first convolution.
        """
        new: State = {}

        def recur(i: int, x: Tensor) -> Tensor:
            h, c = self.cells[i](x, (state[f"h{i}"], state[f"c{i}"]))
            new[f"h{i}"], new[f"c{i}"] = h, c
            normed: Tensor = self.norms[i](h)
            return normed

        half = self.enter(frame)
        quarter = self.down1(recur(1, recur(0, half)))
        eighth = self.down2(recur(3, recur(2, quarter)))
        tiled = [x.expand(-1, -1, *eighth.shape[-2:]) for x in extra]
        bottom = recur(4, self.merge(torch.cat([eighth, *tiled], 1)))
        x = recur(5, self.up1(bottom))
        x = recur(6, self.up2(torch.cat([x, quarter], 1)))
        return new, bottom, torch.cat([x, half], 1)


class Compositor(nn.Module):
    """The next frame: the one before, moved by kernels and masked, and one painted from scratch.

    Args:
        image_channels: C of the frames.
        channels: of the tower.
        grid: height and width of the tower's smallest map.
        kernels: how many.
        size: of a kernel, odd.
    """

    def __init__(
        self,
        image_channels: int,
        channels: tuple[int, ...],
        grid: tuple[int, int],
        kernels: int,
        size: int,
    ) -> None:
        super().__init__()
        width = 2 * channels[0]
        self.count, self.size = kernels, size
        self.up = nn.Sequential(double(width), nn.GroupNorm(1, width), nn.ReLU())
        self.paint = nn.Conv2d(width, image_channels, 1)
        self.mask = nn.Conv2d(width, 2 + kernels, 1)
        self.kernel = nn.Linear(channels[2] * grid[0] * grid[1], kernels * size**2)

    def kernels(self, bottom: Tensor) -> Tensor:
        """Kernels (P, kernels, size, size), not negative, each of sum 1."""
        raw: Tensor = self.kernel(bottom.flatten(1)).unflatten(1, (self.count, self.size**2))
        positive = (raw - FLOOR).relu() + FLOOR
        normal = positive / positive.sum(-1, keepdim=True)
        return normal.view(*normal.shape[:2], self.size, self.size)

    def masks(self, up: Tensor) -> Tensor:
        """Shares (P, 2 + kernels, H, W) of the previous frame, the painted and the moved ones."""
        return torch.softmax(self.mask(up), 1)

    def forward(self, frame: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        """The frame (P, C, H, W) in [0, 1] after ``frame``, from the tower's maps."""
        up = self.up(top)
        masks = self.masks(up)
        moved = (move(frame, self.kernels(bottom)) * masks[:, 2:].unsqueeze(1)).sum(2)
        painted = torch.sigmoid(self.paint(up))
        return masks[:, :1] * frame + masks[:, 1:2] * painted + moved


class Inference(nn.Module):
    """q(z | x_0 .. x_T): all frames at once, as channels, to a latent for the whole video.

    Args:
        image_channels: C of all frames together.
        width: channels of the first convolution; the two after it have twice as many.
    """

    def __init__(self, image_channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        shapes = ((image_channels, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        for before, after, stride in shapes:
            convolution = nn.Conv2d(before, after, 3, stride, 1)
            layers += [convolution, nn.ReLU(), nn.GroupNorm(1, after)]
        self.body = nn.Sequential(*layers)
        self.mean = nn.Conv2d(2 * width, 1, 3, 2, 1)
        self.logvar = nn.Conv2d(2 * width, 1, 3, 2, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, C, H, W) to mean and log-variance, (B, 1, H/8, W/8); that is >= -5."""
        x = self.body(frames.flatten(1, 2))
        return self.mean(x), self.logvar(x).relu() - 5.0


def double(channels: int) -> nn.ConvTranspose2d:
    """3x3, to a map of exactly twice the size and as many channels."""
    return nn.ConvTranspose2d(channels, channels, 3, 2, 1, output_padding=1)


def move(frames: Tensor, kernels: Tensor) -> Tensor:
    """Each frame (P, C, H, W) correlated with its own kernels (P, K, n, n): (P, C, K, H, W).

    Pixels outside of the frame are 0. All channels of a frame are moved alike.
    """
    moved = conv2d(
        frames.transpose(0, 1),  # the channels are the batch, the frames are the groups
        kernels.flatten(0, 1).unsqueeze(1),
        padding=kernels.shape[-1] // 2,
        groups=len(frames),
    )
    return moved.view(*moved.shape[:1], *kernels.shape[:2], *moved.shape[2:]).transpose(0, 1)
