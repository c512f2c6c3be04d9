"""A small SVG whose frames depend on everything, and scenes for frame-by-frame models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scenes import DISCRETE, WINDOW, context, generator, moving_square, random_actions
from torch import Tensor, nn

from worldmodel import Context, Queries, SceneBatch, Spec, Worlds
from worldmodel.data.windows import WindowBatch
from worldmodel.models.frame_by_frame import FrameByFrame
from worldmodel.models.frame_by_frame.svg import Svg, SvgConfig

TINY = SvgConfig(channels=(8, 16, 32), features=32, latent=4, hidden=32, past=3, frames=9)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass
class Scenes:
    """A batch that is all there."""

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    lengths: Tensor

    def observations(self, times: Tensor) -> Tensor:
        return self.frames[torch.arange(len(times))[:, None], times]

    def poses(self, times: Tensor) -> None:
        return None


def scenes(spec: Spec = DISCRETE, batch: int = 4) -> Scenes:
    """The moving square, two of the scenes shorter than the window."""
    episodes = moving_square(batch, WINDOW).episodes
    lengths = torch.tensor([WINDOW, 3] * (batch // 2))
    behind = torch.arange(WINDOW) >= lengths[:, None]
    rewards = torch.stack([torch.from_numpy(e.rewards) for e in episodes])
    actions = random_actions(spec, batch, WINDOW)
    return Scenes(
        torch.stack([torch.from_numpy(e.observations) for e in episodes]),
        torch.zeros(batch, WINDOW) if actions is None else actions,
        rewards.masked_fill(behind, 0),
        torch.arange(1, WINDOW + 1) == lengths[:, None],
        lengths,
    )


def sensitive_svg(spec: Spec, config: SvgConfig = TINY) -> Svg:
    """An untrained model whose frames depend on everything: its batch norms know their input."""
    torch.manual_seed(0)
    model = Svg(spec, config)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # a plain mean
    with torch.no_grad():
        model.decoder.get_parameter(f"stages.{len(config.channels) - 1}.0.weight").mul_(20)
        for part in (model.prior, model.posterior, model.predictor):
            part.enter.weight.mul_(20)
            part.out.weight.mul_(20)
        for _ in range(3):
            model.loss(scenes(spec, 8), 0.0, generator())
    return model.eval()


def plans(*lead: int) -> Tensor:
    actions = random_actions(DISCRETE, *lead, seed=3)
    assert actions is not None
    return actions


@torch.no_grad()
def imagine(model: FrameByFrame, given: Context | None = None, n: int = 3, seed: int = 0) -> Worlds:
    given = context(model.spec) if given is None else given
    return model.sample(model.observe(given), n, generator(seed))


@torch.no_grad()
def look(model: FrameByFrame, worlds: Worlds, times: list[int], actions: Tensor | None) -> Tensor:
    queries = Queries(torch.tensor(times).expand(worlds.shape[0], -1), actions)
    seen = model.predict(worlds, queries).observations
    assert seen is not None
    return seen[:, :, 0] if actions is None else seen


def squares(steps: int = WINDOW, lengths: tuple[int, ...] = (WINDOW, 3, WINDOW, 6)) -> WindowBatch:
    """Moving squares; every other one terminates."""
    windows = []
    for episode, length in zip(moving_square(len(lengths), steps), lengths, strict=True):
        part = replace(
            episode,
            observations=episode.observations[: length + 1],
            actions=episode.actions[:length],
            rewards=episode.rewards[:length],
        )
        windows.append((part, 0))
    return WindowBatch(windows, steps, torch.device("cpu"))


def learn(
    model: FrameByFrame, batch: SceneBatch, steps: int, rate: float
) -> list[dict[str, float]]:
    """The loss parts of each step of training on one batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    history = []
    for step in range(steps):
        losses = model.loss(batch, step / steps, generator(step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append({name: float(value) for name, value in losses.parts.items()})
    return history
