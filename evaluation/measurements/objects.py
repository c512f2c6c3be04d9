"""Does a model tell objects apart, and the rules that move them?

INFERNO, on balls and stories: segmentation, by the masks of its objects. VIM, on random walks of
balls: segmentation, by the masks of the slots; which module moved which ball, against the true
moves; and compositional generalisation: steps of several moves, of which the model has learned
single ones, are explained by several selections of modules (seed 002, sections 8.5.1 and 8.5.2).
Other models have the errors of their sampled futures only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs import SceneBatch
from envs.balls import BALLS, RandomWalkState, moves_of, positions, segments
from envs.narratives import StoryState, shapes
from envs.narratives.intercept import InterceptState
from evaluation.metrics import statistics
from evaluation.metrics.segmentation import adjusted_rand_index, centres
from evaluation.runner.held_out_scenes import held_out
from evaluation.runner.measurement import OfEachModel, Row, environment
from worldmodel import Context, Queries, WorldModel, to_float
from worldmodel.common.config_checks import at_least, whole_numbers
from worldmodel.common.progress import progress
from worldmodel.models.frame_by_frame.vim import Track, Vim
from worldmodel.models.jumpy.inferno import Inferno

ATOMIC, COMPOSED = "balls/RandomWalk-v0", "balls/CompositionalRandomWalk-v0"
BACKGROUND = 0
_SCENES = 20
"""Followed or imagined at once."""
_FRAMES = 64
"""Decomposed at once."""


@dataclass(frozen=True)
class _Followed:
    """Scenes, and what a model makes of T frames of each.

    Attributes:
        scenes: B of them.
        times: int64 (B, T).
        frames: float32 (B, T, C, H, W).
        track: of these.
        owner: int64 (B, balls), the slot that explains a ball: the one whose mask has most of it in
            the first frame.
        balls, where: (B, T, balls, 2), where balls are, and what their slots paint. (The thesis
            takes the nearest mask, and where it lies. Masks hold background as well, which is
            black, and which slots may share.)
    """

    scenes: SceneBatch
    times: Tensor
    frames: Tensor
    track: Track
    owner: Tensor
    balls: Tensor
    where: Tensor

    def position_errors(self) -> dict[str, Tensor]:
        """Distances (B,) of slots from their balls, and had they stayed where they began."""
        away = {
            "position error": self.where[:, 1:] - self.balls[:, 1:],
            "position error, if nothing moved": self.where[:, :1] - self.balls[:, 1:],
        }
        return {name: each.norm(dim=-1).mean((1, 2)) for name, each in away.items()}

    def segmentation(self) -> dict[str, Tensor]:
        """How well masks (B,) and reconstructed frames agree with the scenes."""
        return segmentation(
            self.scenes, self.times, self.frames, self.track.frames, self.track.masks
        )

    def rules(self) -> dict[str, Tensor]:
        """How well the last selected modules (B,) tell which single moves were made."""
        cells = _moments(self.scenes, self.times).cells.unflatten(0, self.times.shape)
        moves = moves_of(cells)
        owner = self.owner[:, None].expand(-1, moves.shape[1], -1)
        chosen = self.track.modules[:, :, -1].gather(2, owner)
        accuracy, commonest = module_accuracy(chosen, moves)
        return {"module accuracy": accuracy, "commonest move": commonest}


@dataclass(frozen=True)
class Objects(OfEachModel):
    """Masks against balls or shapes, modules against moves, and moves that were not learned
    together.
    """

    name = "objects"
    columns = ("checkpoint", "model", "env", "metric", "value", "low", "high", "n")
    selections: tuple[int, ...] = (1, 2, 4, 8)
    """Of modules between two frames of four composed moves, for each of which there are rows; the
    published number is 8."""
    scenes: int = 200
    """Of the test split."""
    context: int = 5
    """Frames before those that are imagined."""
    ahead: int = 5
    """Frames that are imagined."""
    worlds: int = 30
    """Sampled of each scene, to find the one that comes closest."""

    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows ``model, env, metric, value, low, high, n``, with 95% intervals over scenes.

        - ``foreground ARI``, ``ARI``: the adjusted Rand index of the masks, of the balls' pixels
          and of all, mean over the frames of a scene.
        - ``position error``: of the slot that explains a ball, in canvas widths, frames 2 and on;
          of composed moves as well, for each number k of ``selections``, and of the same scenes
          ``if nothing moved``.
        - ``compositional gap``: how much higher it is with composed moves, for each k.
        - ``module accuracy``: the share of moves whose module moves balls like this in other
          scenes; ``commonest move``: what a single module would reach.
        - ``reconstruction, mse``: of the frames that are followed.
        - ``mse, min-of-n``, ``mse, mean-of-n``, ``mse, copy-last``: of frames that are imagined.

        INFERNO has those of the masks and of the reconstruction, each frame by itself.

        Raises:
            ValueError: the model is not of random walks (INFERNO: or of stories whose shapes are
                all that is in a frame); a number is out of range.
        """
        at_least(4, self, "scenes")
        at_least(1, self, "context", "ahead", "worlds")
        whole_numbers(1, **{f"selections[{i}]": each for i, each in enumerate(self.selections)})
        env = environment(self.env, model.env_id)
        if isinstance(model, Inferno):
            return statistics.rows(model.name, env, self._decomposed(model, env), self.seed)
        if env != ATOMIC:
            raise ValueError(f"env: expected {ATOMIC!r}, whose balls are known, got {env!r}")
        rows = []
        balls = held_out(model, ATOMIC, self.scenes, self.seed, self.device)
        values = self._imagined(model, balls)
        if isinstance(model, Vim):
            followed = self._follow(model, balls, None)
            near = followed.position_errors()
            values = followed.segmentation() | followed.rules() | near | values
            composed = held_out(model, COMPOSED, self.scenes, self.seed, self.device)
            far: dict[str, Tensor] = {}
            for count in self.selections:
                errors = self._follow(model, composed, count).position_errors()
                error = errors.pop("position error")
                far |= {f"position error, k = {count}": error, **errors}
                far[f"compositional gap, k = {count}"] = error - near["position error"]
            rows = statistics.rows(model.name, COMPOSED, far, self.seed)
        return statistics.rows(model.name, ATOMIC, values, self.seed) + rows

    def _decomposed(self, model: Inferno, env: str) -> dict[str, Tensor]:
        """Segmentation of all frames of scenes by a model of single frames."""
        scenes = held_out(model, env, self.scenes, self.seed, self.device)
        last = min(model.spec.window, int(scenes.lengths.min()))
        times = torch.arange(last + 1, device=self.device).expand(self.scenes, -1)
        true_segments(scenes, times[:, :1], model.spec.observation[-1])  # or there is no such truth
        frames = to_float(scenes.observations(times))
        views = []
        for part in progress(frames.flatten(0, 1).split(_FRAMES), "decompose", "batch"):
            with torch.inference_mode():
                views.append(model.render(model.infer(part)))
        painted, masks = (
            torch.cat(parts).unflatten(0, times.shape) for parts in zip(*views, strict=True)
        )
        return segmentation(scenes, times, frames, painted.clamp(0, 1), masks)

    def _follow(self, model: Vim, scenes: SceneBatch, selections: int | None) -> _Followed:
        """Explain all frames of scenes by the posterior."""
        last = min(model.spec.window, int(scenes.lengths.min()))
        times = torch.arange(last + 1, device=self.device).expand(self.scenes, -1)
        frames = to_float(scenes.observations(times))
        size = frames.shape[-1]
        tracks = [
            model.track(part, selections=selections)
            for part in progress(frames.split(_SCENES), "follow", "batch")
        ]
        track = Track(*(torch.cat(parts) for parts in zip(*tracks, strict=True)))
        balls = positions(_moments(scenes, times)).unflatten(0, times.shape)
        slots = centres(track.masks * track.colours.clamp(0, 1).mean(3))
        owner = _owners(track.masks[:, 0], segments(_moments(scenes, times[:, :1]), size))
        where = slots.gather(2, owner[:, None, :, None].expand(-1, last + 1, -1, 2))
        return _Followed(scenes, times, frames, track, owner, balls, where)

    def _imagined(self, model: WorldModel, scenes: SceneBatch) -> dict[str, Tensor]:
        """Errors (scenes,) of the frames after the context in sampled worlds."""
        last = min(model.spec.window, int(scenes.lengths.min()))
        if model.stride != 1 or self.context + self.ahead > last + 1:
            raise ValueError(
                f"context, ahead: expected at most {last + 1} frames in all, each of which the "
                f"model reaches, got {self.context} and {self.ahead}, and a stride of "
                f"{model.stride}"
            )
        times = torch.arange(self.context + self.ahead, device=self.device)
        frames = to_float(scenes.observations(times.expand(self.scenes, -1)))
        generator = torch.Generator(self.device).manual_seed(self.seed)
        errors = []
        for part in progress(frames.split(_SCENES), "closest future", "batch"):
            rows = times.expand(len(part), -1)
            known = Context(part[:, : self.context], rows[:, : self.context])
            with torch.inference_mode():
                worlds = model.sample(model.observe(known), self.worlds, generator)
                answer = model.predict(worlds, Queries(rows[:, self.context :])).observations
            assert answer is not None
            error = answer[:, :, 0] - part[:, None, self.context :]
            errors.append(error.square().flatten(2).mean(2))
        every = torch.cat(errors)
        copied = frames[:, self.context - 1 : self.context] - frames[:, self.context :]
        return {
            "mse, min-of-n": every.amin(1),
            "mse, mean-of-n": every.mean(1),
            "mse, copy-last": copied.square().flatten(1).mean(1),
        }


def segmentation(
    scenes: SceneBatch, times: Tensor, frames: Tensor, painted: Tensor, masks: Tensor
) -> dict[str, Tensor]:
    """How well masks and reconstructed frames agree with B scenes at T times, means over times.

    Args:
        scenes, times: of which shapes, (B, T).
        frames: float32 (B, T, C, H, W).
        painted: their reconstructions.
        masks: (B, T, K, H, W); a pixel belongs to the largest.

    Returns:
        float (B,) each: ``foreground ARI``, ``ARI`` and ``reconstruction, mse``.
    """
    truth = true_segments(scenes, times, frames.shape[-1]).flatten(0, 1).flatten(1)
    predicted = masks.argmax(2).flatten(0, 1).flatten(1)
    index = {
        "foreground ARI": adjusted_rand_index(truth, predicted, ignore=BACKGROUND),
        "ARI": adjusted_rand_index(truth, predicted),
    }
    index = {name: each.view(times.shape).nanmean(1) for name, each in index.items()}
    return {**index, "reconstruction, mse": (painted - frames).square().flatten(1).mean(1)}


def true_segments(scenes: SceneBatch, times: Tensor, size: int) -> Tensor:
    """Which ball or shape is visible at each pixel, int64 (B, T, size, size), 0 where none is.

    Raises:
        ValueError: the scenes hold something else.
    """
    moments = scenes.moments(times)
    if isinstance(moments, RandomWalkState):
        return segments(moments, size).reshape(*times.shape, size, size)
    if isinstance(moments, StoryState) and not isinstance(moments, InterceptState):
        cast = (moments.positions, moments.kinds, moments.sizes)
        return shapes.segments(*cast, size).reshape(*times.shape, size, size)
    raise ValueError(
        "env: expected balls, or a story that shows nothing but shapes, since their pixels are "
        f"known; got scenes of {type(scenes.simulator).__name__}"
    )


def _owners(masks: Tensor, segment: Tensor) -> Tensor:
    """The slots (B, balls) that have most of each ball, from masks (B, K, H, W) and ``segments``.

    A ball that is wholly covered has the first slot.
    """
    inside = segment[:, None] == torch.arange(1, BALLS + 1, device=segment.device)[:, None, None]
    return torch.einsum("bkhw,bnhw->bnk", masks, inside.to(masks.dtype)).argmax(-1)


def _moments(scenes: SceneBatch, times: Tensor) -> RandomWalkState:
    """Of all scenes at the times (B, T), as one batch."""
    moments = scenes.moments(times)
    assert isinstance(moments, RandomWalkState)
    return moments


def module_accuracy(modules: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """How well a module's number tells the move, and how well guessing does.

    A module stands for the move that it makes most often in the other half of the scenes: scenes of
    even and odd numbers judge each other.

    Args:
        modules: int64 (B, T, balls), from 0 on.
        moves: int64 of the same shape, from 0 on.

    Returns:
        the shares (B,) of moves that are right, and the shares of the move that is commonest in the
        other half.

    Raises:
        ValueError: the shapes differ, there is one scene only, or a number is below 0.
    """
    if modules.shape != moves.shape or modules.dim() != 3 or len(modules) < 2:
        raise ValueError(
            "modules, moves: expected the same (B, T, balls) of at least 2 scenes, got "
            f"{tuple(modules.shape)} and {tuple(moves.shape)}"
        )
    if min(int(modules.min()), int(moves.min())) < 0:
        raise ValueError("modules, moves: expected numbers from 0 on")
    kinds = int(moves.max()) + 1
    right = torch.zeros(modules.shape, dtype=torch.float64, device=modules.device)
    guessed = torch.zeros_like(right)
    for half in (0, 1):
        other = slice(1 - half, None, 2)
        pairs = (modules[other] * kinds + moves[other]).flatten()
        count = torch.bincount(pairs, minlength=(int(modules.max()) + 1) * kinds).view(-1, kinds)
        commonest = count.sum(0).argmax()
        stands_for = torch.where(count.sum(1) > 0, count.argmax(1), commonest)
        right[half::2] = (stands_for[modules[half::2]] == moves[half::2]).double()
        guessed[half::2] = (moves[half::2] == commonest).double()
    return right.mean((1, 2)), guessed.mean((1, 2))
