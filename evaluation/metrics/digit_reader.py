"""A small classifier of the digit on one side of a cube, trained on true frames in the run."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from envs import SceneStream
from envs.dice import DiceState, hidden_face_views, look
from envs.dice.scene import pool
from evaluation.runner.held_out_scenes import VIEWS
from worldmodel import to_float

CLASSES = 10
STEPS, SCENES, PER_SCENE = 400, 32, 4
WIDTH = 16
BLURRED = 0.5
"""Share of the training frames that are blurred, because models' frames are."""


class DigitReader(nn.Module):
    """Logits of the classes 0-9 for the side of the cube that is turned to the camera."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        last = 3
        for channels in (WIDTH, WIDTH, 2 * WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH):
            norm = nn.BatchNorm2d(channels)
            blocks += [nn.Conv2d(last, channels, 3, padding=1, bias=False), norm, nn.ReLU()]
            if channels == last:
                blocks.append(nn.MaxPool2d(2))
            last = channels
        self.blocks = nn.Sequential(*blocks)
        self.leave = nn.Linear(last, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (P, 10) of frames float32 (P, 3, S, S) in [0, 1]; S from 8."""
        logits: Tensor = self.leave(self.blocks(frames).amax((2, 3)))
        return logits

    @torch.inference_mode()
    def read(self, frames: Tensor) -> Tensor:
        """Classes int64 (...) of frames float32 (..., 3, S, S) in [0, 1]."""
        device = self.leave.weight.device
        parts = frames.flatten(0, -4).split(256)
        classes = torch.cat([self(part.to(device)).argmax(1).cpu() for part in parts])
        return classes.view(frames.shape[:-3])


@cache
def train_reader(size: int, seed: int = 0, steps: int = STEPS) -> DigitReader:
    """Learn to read sides as ``hidden_face_views`` shows them, sharp or blurred 3 pixels wide.

    The same arguments give the same reader, which is trained once in a process.

    Args:
        size: of the frames, pixels.
        seed: of weights, scenes and views; the scenes are those of the train split.
        steps: of 128 frames.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        reader = DigitReader()
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(reader.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    scenes = SceneStream(VIEWS, SCENES, size=size, seed=seed)
    for step in range(steps):
        state = scenes.batch(step).start()
        assert isinstance(state, DiceState)
        views = hidden_face_views(state, 1, PER_SCENE, seed + step)
        frames = to_float(look(state, views.targets, size)).flatten(0, 1)
        blurred = torch.rand(len(frames), 1, 1, 1, generator=random) < BLURRED
        frames = torch.where(blurred, avg_pool2d(frames, 3, 1, 1, count_include_pad=False), frames)
        labels = pool().labels[views.digit].repeat_interleave(PER_SCENE)
        loss = cross_entropy(reader(frames), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()
