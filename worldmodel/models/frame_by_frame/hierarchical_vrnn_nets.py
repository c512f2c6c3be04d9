"""The networks of the hierarchical VRNN (seed 002, section 4.4.2 and appendix 4.B).

All are normalised within one frame (GroupNorm), so that no scene depends on its neighbours. Maps
are square; lists of maps run from 1x1 to the full frame. A map of 1x1 meets kernels of 1x1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from worldmodel.models.frame_by_frame.base import State
from worldmodel.models.layers.conv_lstm import ConvLSTMCell

Gaussian = tuple[Tensor, Tensor]  # mean and log-variance
Pick = Callable[[int, Tensor, Tensor], Tensor]  # level, mean, log-variance -> z of that level


class ResidualBlock(nn.Module):
    """x + two times (ReLU, convolution, GroupNorm), as seed 002 orders them.

    Args:
        before, after: channels; where they differ, a 1x1 convolution is the shortcut.
        kernel: 3, which keeps the map; or 1; or 4, which takes a 4x4 map to 1x1 (the shortcut too)
            and is followed by a 1x1 convolution.
        groups: of GroupNorm.
    """

    def __init__(self, before: int, after: int, kernel: int, groups: int) -> None:
        super().__init__()
        padding, second = (1, 3) if kernel == 3 else (0, 1)
        one = normed(before, after, groups, kernel, padding)
        two = normed(after, after, groups, second, padding)
        self.body = nn.Sequential(nn.ReLU(), *one, nn.ReLU(), *two)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or kernel == 4:
            self.shortcut = nn.Conv2d(before, after, 4 if kernel == 4 else 1)

    def forward(self, x: Tensor) -> Tensor:
        """(P, before, h, w) to (P, after, h, w), or to (P, after, 1, 1) for kernel 4."""
        return torch.add(self.shortcut(x), self.body(x))


class Encoder(nn.Module):
    """Residual blocks and max-pooling down to 4x4, then a block over all of that (table 4.4).

    Args:
        image: channels of a frame.
        channels: of the maps from the full frame down to 8x8; 4x4 and 1x1 have the last again.
        groups: of GroupNorm.
    """

    def __init__(self, image: int, channels: Sequence[int], groups: int) -> None:
        super().__init__()
        first, last = channels[0], channels[-1]
        self.enter = nn.Conv2d(image, first, 3, padding=1)
        self.stages = nn.ModuleList([ResidualBlock(first, first, 3, groups)])
        for before, after in pairwise(channels):
            one, two = (ResidualBlock(each, after, 3, groups) for each in (before, after))
            self.stages.append(nn.Sequential(one, two))
        self.top = nn.Sequential(*(ResidualBlock(last, last, kernel, groups) for kernel in (4, 1)))
        self.pool = nn.MaxPool2d(2)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Frames (P, C, H, H) to the maps of the sides 1, 4, 8, .. H."""
        x = self.enter(frames)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
            x = self.pool(x)
        return [self.top(x), x, *reversed(maps)]


class Memory(nn.Module):
    """A ConvLSTM whose first state is a small CNN's, from a map of the first frame (table 4.7).

    Its state is ``name_h`` and ``name_c``, (P, hidden, side, side).

    Args:
        name: of its state.
        inputs: channels of its input.
        hidden: of its state.
        first: channels of the first frame's map.
        side: of all its maps.
        groups: of GroupNorm.
    """

    def __init__(
        self, name: str, inputs: int, hidden: int, first: int, side: int, groups: int
    ) -> None:
        super().__init__()
        self.names = (f"{name}_h", f"{name}_c")
        self.cell = ConvLSTMCell(inputs, hidden, 1 if side == 1 else 3, groups)
        one, two = normed(first, first, groups), normed(first, 2 * hidden, groups)
        self.begin = nn.Sequential(*one, nn.ReLU(), *two)

    def start(self, first: Tensor) -> State:
        """The state at the first frame, from its map (P, first, side, side)."""
        return dict(zip(self.names, self.begin(first).chunk(2, 1), strict=True))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: x (P, inputs, side, side) to h; ``state`` may hold other entries too."""
        h, c = self.cell(x, (state[self.names[0]], state[self.names[1]]))
        return h, dict(zip(self.names, (h, c), strict=True))


class Memories(nn.Module):
    """A ``Memory`` for each of several maps."""

    memories: nn.ModuleList

    def start(self, first: Sequence[Tensor]) -> State:
        """The state at the first frame, from its maps."""
        state: State = {}
        for memory, frame_map in zip(self.memories, first, strict=True):
            assert isinstance(memory, Memory)
            state |= memory.start(frame_map)
        return state


class Hierarchy(Memories):
    """The prior or the posterior of all levels, each a diagonal Gaussian (table 4.6).

    Level l reads its input map, the actions and, densely, the latents of all levels above (figures
    4.2 and 4.8), which are enlarged by repetition.

    Args:
        name: of its state: ``name0_h``, ``name0_c``, ``name1_h`` ..
        frames: whose maps each level reads: 1, the last frame, or 2, the next one as well.
        maps: channels of a frame's map at each level.
        latents: channels of each level's z, and of its ConvLSTM.
        sides: of each level's maps.
        actions: features of an action.
        groups: of GroupNorm.
    """

    def __init__(
        self,
        name: str,
        frames: int,
        maps: Sequence[int],
        latents: Sequence[int],
        sides: Sequence[int],
        actions: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.enter, self.memories, self.out = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (side, width) in enumerate(zip(sides, latents, strict=True)):
            joined = frames * maps[level] + actions + sum(latents[:level])
            self.enter.append(normed(joined, width, groups))
            self.memories.append(Memory(f"{name}{level}", width, width, maps[level], side, groups))
            self.out.append(normed(width, 2 * width, groups))
            nn.init.constant_(self.out[-1].get_parameter("1.weight"), 0.1)  # near N(0, 1)

    def forward(
        self, inputs: Sequence[Tensor], actions: Tensor, state: State, pick: Pick
    ) -> tuple[list[Gaussian], list[Tensor], State]:
        """One step, from the top down.

        Args:
            inputs: of each level, (P, channels, side, side).
            actions: (P, features).
            state: of ``start`` or of the step before; it may hold other entries too.
            pick: chooses the z of a level by its Gaussian; the levels below read it.

        Returns:
            the Gaussians and the z of all levels, each (P, latents, side, side), and the state.
        """
        gaussians: list[Gaussian] = []
        z: list[Tensor] = []
        after: State = {}
        for level, side in enumerate(self.sides):
            above = [interpolate(value, (side, side)) for value in z]
            x = torch.cat([inputs[level], tiled(actions, side), *above], 1)
            h, moved = self.memories[level](self.enter[level](x), state)
            mean, logvar = self.out[level](h).chunk(2, 1)
            after |= moved
            gaussians.append((mean, logvar))
            z.append(pick(level, mean, logvar))
        return gaussians, z, after


class Decoder(Memories):
    """A ConvLSTM at every resolution, transposed convolutions between (table 4.5).

    Its state is ``decoder1_h``, ``decoder1_c``, ``decoder4_h`` .., named after the sides; pixels
    are made from the last ``_h``. z joins at the resolution of its level.

    Args:
        widths: channels at each side; the encoder's maps have the same.
        sides: from 1 to the full frame.
        latents: channels of z by side.
        actions: features of an action, which joins at 1x1.
        groups: of GroupNorm.
    """

    def __init__(
        self,
        widths: Sequence[int],
        sides: Sequence[int],
        latents: dict[int, int],
        actions: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.latents = [sides.index(side) for side in latents]
        self.enter, self.memories, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, (side, width) in enumerate(zip(sides, widths, strict=True)):
            if index:
                before = widths[index - 1]
                size = (4, 2, 1) if sides[index - 1] > 1 else (4, 4, 0)
                larger = nn.ConvTranspose2d(before, width, *size)
                self.up.append(nn.Sequential(larger, nn.GroupNorm(groups, width), nn.ReLU()))
            more = latents.get(side, 0) + (0 if index else actions)
            self.enter.append(normed(width + more, width, groups) if more else nn.Identity())
            self.memories.append(Memory(f"decoder{side}", width, width, width, side, groups))

    def forward(self, top: Tensor, actions: Tensor, z: Sequence[Tensor], state: State) -> State:
        """One step: the last frame's 1x1 map (P, width, 1, 1), actions (P, features) and z."""
        joining = dict(zip(self.latents, z, strict=True))
        x = torch.cat([top, tiled(actions, 1)], 1)
        after: State = {}
        for index, memory in enumerate(self.memories):
            if index:
                x = self.up[index - 1](x)
            if index in joining:
                x = torch.cat([x, joining[index]], 1)
            x, moved = memory(self.enter[index](x), state)
            after |= moved
        return after


def normed(
    inputs: int, outputs: int, groups: int, kernel: int = 1, padding: int = 0
) -> nn.Sequential:
    """A convolution and GroupNorm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding)
    return nn.Sequential(convolution, nn.GroupNorm(groups, outputs))


def tiled(actions: Tensor, side: int) -> Tensor:
    """Actions (P, features) at every position of a map: (P, features, side, side)."""
    return actions[..., None, None].expand(-1, -1, side, side)
