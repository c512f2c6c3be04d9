"""Does a sampled room have one digit on its hidden side? (Seed 001, section 4.2.)

The five context views see three sides of the cube, the three target views see the fourth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs import sample_scenes
from envs.dice import DiceState, HiddenFaceViews, hidden_face_views, look, poses
from envs.dice.hidden_face import facing_views, off_front, read_face
from envs.dice.scene import SIDES, pool
from evaluation.metrics import statistics
from evaluation.metrics.digit_reader import DigitReader, train_reader
from evaluation.metrics.similarity import contradictions
from evaluation.report.pictures import save_sheets
from evaluation.runner.held_out_scenes import VIEWS
from worldmodel import Context, Queries, WorldModel, Worlds, to_float, to_uint8
from worldmodel.common.progress import progress
from worldmodel.imagine import Imagined
from worldmodel.models.jumpy.base import JumpyModel
from worldmodel.types import Belief

CONTEXT_VIEWS, TARGET_VIEWS = 5, 3
PAIRS = tuple(combinations(range(TARGET_VIEWS), 2))
POSTERIOR_SAMPLES = 8
CHUNK = 20
"""Scenes at once: the frames of their worlds must fit into memory."""

Row = dict[str, Any]
Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class HiddenFaces:
    """B scenes, with views of three sides of the cube and views of the hidden one.

    Attributes:
        state: the scenes.
        views: cameras, the hidden side, its digit.
        context, targets: float32 frames (B, 5 and 3, 3, S, S) with their poses.
    """

    state: DiceState
    views: HiddenFaceViews
    context: Context
    targets: Context

    def on(self, device: torch.device, rows: slice) -> tuple[Context, Context]:
        """Context and targets of some scenes, on a device."""

        def part(views: Context) -> Context:
            assert views.poses is not None
            return Context.views(views.observations[rows].to(device), views.poses[rows].to(device))

        return part(self.context), part(self.targets)

    @classmethod
    def sample(cls, scenes: int, size: int, seed: int = 0) -> HiddenFaces:
        """Of the test split; another seed, other scenes and views."""
        state = sample_scenes(VIEWS, scenes, split="test", size=size, seed=seed).start()
        assert isinstance(state, DiceState)
        views = hidden_face_views(state, CONTEXT_VIEWS, TARGET_VIEWS, seed)

        def observed(camera: Tensor) -> Context:
            return Context.views(to_float(look(state, camera, size)), poses(camera))

        return cls(state, views, observed(views.context), observed(views.targets))


def dice_consistency(
    model: WorldModel, scenes: int = 200, worlds: int = 8, seed: int = 0
) -> list[Row]:
    """Rows ``model, env, metric, value, low, high, n``; intervals over scenes.

    - ``KL1``, ``KL3``: nats from the prior to the posterior given one or three views of the hidden
      side. One latent for the scene learns little from the second and third; a latent for each view
      pays three times (``KL3 / KL1``). The digit alone is worth ln 100 = 4.6 nats.
    - ``KL1, view given three times``: the posterior gets one view as often as views in training.
    - ``same digit, one world``: pairs of views of one sampled world in which the hidden side is
      read as the same class; ``same digit, two worlds``: the same pairs, each view of another world
      of the scene, which is what chance and blur give.
    - ``right digit``: views that show the true class, which nobody can know: .1 is chance.
    - ``seen digit, context view`` and ``seen digit, new view``: whether the digit of the side
      opposite, which the context shows, is read right (the pool's row, one of 100) in what is
      rendered of the context view that shows it best, and of a view that the context has not.
      ``squared error, new view``: of that one's pixels in [0, 1].
    - ``reader, right digit`` and ``reader, same digit``: the reader (``train_reader``) on truth.
    - ``contradictions``: see ``similarity.contradictions``.

    Raises:
        ValueError: the model is not of the dice's views: its keys are no poses of seven numbers, or
            it takes fewer than five views; ``worlds`` is below 2.
    """
    _check(model)
    if worlds < 2:
        raise ValueError(f"worlds: expected at least 2, to compare them, got {worlds}")
    size = model.spec.observation[1]
    faces = HiddenFaces.sample(scenes, size, seed)
    reader = train_reader(size, seed)
    parts = [
        _measured(model, faces, slice(first, first + CHUNK), worlds, reader, seed)
        for first in progress(range(0, scenes, CHUNK), "views", "batch")
    ]
    of_scenes = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    metrics: dict[str, Tensor | statistics.Interval] = {**of_scenes}
    if "KL1" in of_scenes:
        three, one = (of_scenes[name].double().numpy() for name in ("KL3", "KL1"))
        metrics["KL3 / KL1"] = statistics.ratio(three, one, seed)
    return statistics.rows(model.name, VIEWS, metrics, seed)


def draw(
    models: Mapping[str, WorldModel], out: Path, scene: int = 0, worlds: int = 3, scale: int = 2
) -> None:
    """Write a picture like the paper's figure 6: truth, then worlds as each model imagines them.

    The five context views have a yellow border; the three others show the hidden side.

    Args:
        models: of one frame size, by the names that are written on their left.
        out: a PNG file.
        scene: number of the scene in the test split.
        worlds: of each model.
        scale: times by which each pixel is repeated.

    Raises:
        ValueError: as for ``dice_consistency``; or the frames differ in size.
    """
    if len({model.spec.observation for model in models.values()}) != 1:
        raise ValueError("models: expected some of one frame size")
    for model in models.values():
        _check(model)
    imagined = {name: _imagined(model, scene, worlds) for name, model in models.items()}
    save_sheets(imagined, out, scale)


def _imagined(model: WorldModel, scene: int, worlds: int) -> Imagined:
    faces = HiddenFaces.sample(scene + 1, model.spec.observation[1])
    context, targets = faces.on(model.device, slice(scene, scene + 1))
    assert context.poses is not None and targets.poses is not None
    truth = torch.cat([context.observations, targets.observations], 1)
    generator = torch.Generator(model.device).manual_seed(0)
    with torch.inference_mode():
        sampled = model.sample(model.observe(context), worlds, generator)
        queries = Queries.views(torch.cat([context.poses, targets.poses], 1))
        frames = model.predict(sampled, queries).observations
    assert frames is not None
    in_context = torch.arange(CONTEXT_VIEWS + TARGET_VIEWS) < CONTEXT_VIEWS
    return Imagined(to_uint8(truth).cpu(), to_uint8(frames[:, :, 0]).cpu(), in_context)


def _check(model: WorldModel) -> None:
    pose = poses(torch.zeros(1)).shape[-1]
    if model.spec.pose != pose:
        raise ValueError(
            f"model: expected one of envs:{VIEWS} (keys are poses of {pose} numbers), got poses of "
            f"{model.spec.pose}"
        )
    if model.max_context is not None and model.max_context < CONTEXT_VIEWS:
        raise ValueError(
            f"model: expected one that takes {CONTEXT_VIEWS} views, got max_context="
            f"{model.max_context}"
        )


def _measured(
    model: WorldModel, faces: HiddenFaces, rows: slice, worlds: int, reader: DigitReader, seed: int
) -> Metrics:
    """Each metric of some scenes, (rows,)."""
    context, targets = faces.on(model.device, rows)
    generator = torch.Generator(model.device).manual_seed(seed + rows.start)
    with torch.inference_mode():
        belief = model.observe(context)
        metrics = _kls(model, belief, targets, generator) if isinstance(model, JumpyModel) else {}
        sampled = model.sample(belief, worlds, generator)
        assert targets.poses is not None
        queries = Queries.views(targets.poses)
        frames = model.predict(sampled, queries).observations
        assert frames is not None
        frames = frames[:, :, 0]
        metrics["contradictions"] = contradictions(model, sampled, queries, frames)
        metrics |= _visible_side(model, faces, rows, sampled.some(slice(1)), seed)
    label = pool().labels[faces.views.digit[rows]]
    return metrics | _digits(reader, frames.clamp(0, 1), targets.observations, label)


def _visible_side(
    model: WorldModel, faces: HiddenFaces, rows: slice, worlds: Worlds, seed: int
) -> Metrics:
    """Of the side opposite the hidden one, in one world of each scene."""
    state = faces.state.map(lambda value: value[rows])
    side = (faces.views.hidden[rows] + SIDES // 2) % SIDES
    context = faces.views.context[rows]
    best = off_front(state, context, side).argmin(1, keepdim=True)
    camera = torch.cat([context.gather(1, best), facing_views(state, side, 1, seed)], 1)
    queries = Queries.views(poses(camera).to(model.device))
    rendered = model.predict(worlds, queries).observations
    assert rendered is not None
    frames = rendered[:, 0, 0].clamp(0, 1).movedim(2, -1).cpu()
    right = read_face(frames, state, camera, side) == state.faces.gather(1, side[:, None])
    truth = look(state, camera, frames.shape[2]) / 255
    error = (frames - truth).square().mean((2, 3, 4))
    return {
        "seen digit, context view": right[:, 0].float(),
        "seen digit, new view": right[:, 1].float(),
        "squared error, new view": error[:, 1],
    }


def _kls(
    model: JumpyModel, belief: Belief, targets: Context, generator: torch.Generator
) -> Metrics:
    def nats(*views: int) -> Tensor:
        """Averaged over samples of the posterior."""
        assert targets.poses is not None
        given = Context.views(targets.observations[:, views], targets.poses[:, views])
        kls = [model.posterior_kl(belief, given, generator) for _ in range(POSTERIOR_SAMPLES)]
        return torch.stack(kls).mean(0).cpu()

    one = [nats(view) for view in range(TARGET_VIEWS)]
    repeated = [nats(*[view] * TARGET_VIEWS) for view in range(TARGET_VIEWS)]
    return {
        "KL1": torch.stack(one).mean(0),
        "KL1, view given three times": torch.stack(repeated).mean(0),
        "KL3": nats(*range(TARGET_VIEWS)),
    }


def _digits(reader: DigitReader, frames: Tensor, truth: Tensor, label: Tensor) -> Metrics:
    """Of frames (B, S, 3, C, H, W) and truth (B, 3, C, H, W), whose hidden side is ``label``."""
    read, known = reader.read(frames), reader.read(truth)  # (B, S, 3), (B, 3)
    other = read.roll(1, 1)
    same = [(read[..., a] == read[..., b]).float() for a, b in PAIRS]
    mixed = [(read[..., a] == other[..., b]).float() for a, b in PAIRS]
    sure = [(known[:, a] == known[:, b]).float() for a, b in PAIRS]
    return {
        "same digit, one world": torch.stack(same).mean((0, 2)),
        "same digit, two worlds": torch.stack(mixed).mean((0, 2)),
        "right digit": (read == label[:, None, None]).float().mean((1, 2)),
        "reader, right digit": (known == label[:, None]).float().mean(1),
        "reader, same digit": torch.stack(sure).mean(0),
    }
