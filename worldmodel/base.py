"""The one interface of all world models: observe, sample, predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from worldmodel.rewards import RewardScale
from worldmodel.spec import Spec
from worldmodel.types import (
    Belief,
    Context,
    Prediction,
    Queries,
    SceneBatch,
    SceneSource,
    StepPrediction,
    Worlds,
)

Scenes = TypeVar("Scenes", Belief, Worlds)


class UnsupportedQuery(ValueError):
    """The model cannot reach a key, such as a time before its present."""


@dataclass(frozen=True)
class Losses:
    """The training loss of a batch.

    Attributes:
        total: is minimised.
        parts: detached scalars for the log.
        curves: detached, one number for each step of the training rollout (T,), also for the log;
            NaN where no scene has that step.
    """

    total: Tensor
    parts: dict[str, Tensor]
    curves: dict[str, Tensor] = field(default_factory=dict)


class WorldModel(nn.Module, ABC):
    """Given some (time, observation) pairs and actions of a scene, sample what else is there.

    Subclasses implement the underscored methods; the public ones check their input first.
    A sampled world is fixed: the same query gives the same answer, together with others or alone,
    in any order.

    Args:
        spec: observations, actions and window; an attribute.
        config: the model's own settings, a frozen dataclass; an attribute. ``fit`` reads
            ``learning_rate`` and ``learning_rate_end``, and ``ema`` if there is one.

    Attributes:
        name: in the registry, in checkpoints and in tables.
        jumpy: whether the cost of a query is independent of its distance.
        takes_images: whether observations may be images.
        takes_vectors: whether they may be vectors.
        takes_image_parts: whether they may be Dicts of an image and vectors.
        uses_camera: whether it reads ``Spec.camera``, and cannot do with poses alone.
        trains_in_parts: whether some steps of the training reach only some of the weights.
        training_window: steps of the windows that ``fit`` cuts recorded episodes into; None: the
            spec's window.
        training_batch: such windows in a batch, unless ``fit`` is given another number.
        holdout_share: of recorded episodes, which ``fit`` holds out to stop early by
            (``holdout_errors``); 0 trains on all.
        renamed_weights: prefixes of names in older checkpoints, and what they are now.
        removed_settings: names in older checkpoints' settings that mean nothing any more.
        stochastic: whether two sampled worlds of one context may differ.
        disagrees: whether it has members, whose ``disagreement`` shows what it has not learned.
        extends: whether ``update`` and ``forget`` change a belief without its earlier pairs.
        max_context: the largest context size M of the training; None if any, 0 if it draws worlds
            from nothing and takes only ``Context.empty``.
        horizon: 0 if it answers for the observed times alone, knows nothing of what follows, and
            refuses to ``advance``; None if it reaches the window's end.
        stride: environment steps of one step of the model: it reaches only times that are
            multiples of it after the present.
        gap: besides 1 the only number of steps between two frames of a context; None allows any.
        env_id: of the environment whose scenes it was trained on, as checkpoints record it; None
            if unknown.
        precision: "float32" or "bf16" of what ``optimise_for_inference`` returned, which can
            neither be trained nor saved; None of all other models.
    """

    name: ClassVar[str]
    jumpy: ClassVar[bool]
    takes_images: ClassVar[bool] = True
    takes_vectors: ClassVar[bool] = False
    takes_image_parts: ClassVar[bool] = False
    uses_camera: ClassVar[bool] = False
    trains_in_parts: ClassVar[bool] = False
    training_window: ClassVar[int | None] = None
    training_batch: ClassVar[int] = 32
    holdout_share: ClassVar[float] = 0.0
    renamed_weights: ClassVar[Mapping[str, str]] = {}
    removed_settings: ClassVar[frozenset[str]] = frozenset()
    stochastic: ClassVar[bool] = True
    disagrees: ClassVar[bool] = False
    extends: ClassVar[bool] = False
    max_context: int | None = None
    horizon: int | None = None
    stride: int = 1
    gap: int | None = None
    env_id: str | None = None
    precision: str | None = None

    def __init__(self, spec: Spec, config: Any) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def trainable(self) -> bool:
        """Whether there is anything to learn."""
        return any(weights.requires_grad for weights in self.parameters())

    def observe(self, context: Context) -> Belief:
        """Condition on a context.

        Raises:
            TypeError: observations are not floating point, or times are not integers.
            ValueError: the context is empty, too long, of wrong shape, out of the window or the
                value range, holds NaN, or its actions do not fit.
        """
        if not isinstance(context, Context):
            raise TypeError(f"context: expected a worldmodel.Context, got {type(context).__name__}")
        self._check_context(context)
        with self._inference():
            return self._widened(self._observe(context))

    def update(self, belief: Belief, context: Context) -> Belief:
        """The belief given these pairs as well, at the cost of encoding them alone.

        Args:
            belief: of the same scenes.
            context: the further pairs, and the actions since time 0.

        Raises:
            UnsupportedQuery: the model observes everything anew (``extends`` is False).
            TypeError, ValueError: as for ``observe``.
        """
        self._check_extends()
        self._check_context(context)
        with self._inference():
            return self._widened(self._update(belief, context))

    def forget(self, belief: Belief, context: Context) -> Belief:
        """The inverse of ``update``, up to rounding, for pairs that are not the latest.

        Args:
            belief: of the same scenes.
            context: the pairs to take away, and the actions since time 0.

        Raises:
            UnsupportedQuery, TypeError, ValueError: as for ``update``.
        """
        self._check_extends()
        self._check_context(context)
        with self._inference():
            return self._widened(self._forget(belief, context))

    def sample(self, belief: Belief, n: int, generator: torch.Generator | None = None) -> Worlds:
        """Draw whole worlds that agree with the belief.

        Args:
            belief: of B scenes.
            n: worlds of each scene, S.
            generator: on the model's device; all randomness of a world is drawn from it.

        Raises:
            ValueError: ``n`` is below 1.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 world, got {n}")
        with self._inference():
            return self._widened(self._sample(belief, n, generator))

    def advance(self, worlds: Worlds, actions: Tensor) -> Worlds:
        """Commit actions (B, L, \\*action): the present of each world moves on by L steps.

        The worlds stay the same scenes. For passive scenes only the length L counts.

        Raises:
            UnsupportedQuery: the model knows nothing of what follows (``horizon`` of 0).
            ValueError: the step count leaves the window or the actions have another shape.
        """
        self._check_advance(worlds, actions)
        with self._inference():
            return self._widened(self._advance(worlds, actions))

    def disagreement(self, worlds: Worlds, actions: Tensor) -> Tensor:
        """How far apart the members' predictions are along actions (B, L, \\*action), (B, S).

        The standard deviation over members of the mean observation after a step, in units of how
        much a step changes it, root mean square over the numbers that change, mean over steps. It
        is small where the model has learned from data, whatever is random there.

        Args:
            worlds: B x S sampled worlds.
            actions: of the next L steps.

        Raises:
            UnsupportedQuery: the model has no members (``disagrees`` is False).
            ValueError: the steps leave the window or the actions have another shape.
        """
        if not self.disagrees:
            raise UnsupportedQuery(f"model: {self.name} has no members that could disagree")
        ends = (worlds.present + actions.shape[1])[:, None]
        self._check_queries(worlds, Queries(ends, actions[:, None]))
        with self._inference():
            return self._disagreement(worlds, actions).float()

    def predict(self, worlds: Worlds, queries: Queries, frames: bool = True) -> Prediction:
        """Observations, rewards and survival at any times, along any plans.

        Args:
            worlds: B x S sampled worlds.
            queries: K times per scene and, where a query lies after the present, N plans.
            frames: False scores plans only: ``observations`` is None and no frame is rendered for
                the answer.

        Raises:
            UnsupportedQuery: the model cannot reach a time, such as the past in a frame-by-frame
                model, or any but the observed ones (``horizon`` of 0).
            ValueError: a time lies beyond the window or beyond the plans, or shapes do not fit.
        """
        steps = self.predict_steps(worlds, queries, frames)
        ahead = (queries.times - worlds.present.unsqueeze(1)).clamp_min(0)
        return steps.at(ahead // self.stride, queries.plans)

    def predict_steps(
        self, worlds: Worlds, queries: Queries, frames: bool = True
    ) -> StepPrediction:
        """What ``predict`` sums up: the reward and the end of each step of the plans.

        ``worlds``, ``queries``, ``frames`` and errors are as there.
        """
        self._check_queries(worlds, queries)
        with self._inference():
            return self._predict(worlds, queries, frames).float()

    def step(
        self, worlds: Worlds, queries: Queries, frames: bool = True
    ) -> tuple[StepPrediction, Worlds]:
        """``predict_steps`` along one plan for each scene, and ``advance`` by it, for who steps
        through a scene: models that roll do it once for both.

        Args:
            worlds: B x S sampled worlds.
            queries: K times per scene, up to the ends of the plans (B, 1, L, \\*action).
            frames: as for ``predict``.

        Raises:
            ValueError: there is not one plan, or it leaves the window; else as for ``predict``.
        """
        if queries.actions is None or queries.plans != 1:
            raise ValueError(
                "queries.actions: expected one plan for each scene, (B, 1, L, *action), got "
                f"{None if queries.actions is None else tuple(queries.actions.shape)}"
            )
        self._check_queries(worlds, queries)
        self._check_advance(worlds, queries.actions[:, 0])
        with self._inference():
            predicted, worlds = self._step_on(worlds, queries, frames)
            return predicted.float(), self._widened(worlds)

    def prepare(self, source: SceneSource) -> None:
        """Called by ``fit`` before its first step: learn constants, such as the rewards' scale.

        Here only once: they are part of the checkpoint, and further training uses them. A model
        that learns them anew lets its weights take up the change.
        """
        for module in self.modules():
            if isinstance(module, RewardScale):
                module.prepare(source, self.stride)

    def training_state(self) -> dict[str, Tensor]:
        """What training goes on from besides the weights, by name: a resumed ``fit`` has it again,
        checkpoints do without.
        """
        return {}

    def restore_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what ``training_state`` returned, on any device.

        Raises:
            ValueError: it is something else; nothing was changed.
        """

    def make_optimizer(self) -> torch.optim.Optimizer:
        """What ``fit`` trains with: Adam or AdamW over all parameters, in their order.

        A group with a ``factor`` has the learning rate times that.
        """
        return torch.optim.Adam(self.parameters(), lr=self.config.learning_rate)

    def learning_rate(self, done: int, steps: int) -> float:
        """The learning rate after ``done`` of ``steps`` steps: linear from ``learning_rate`` to
        ``learning_rate_end``.
        """
        first, last = self.config.learning_rate, self.config.learning_rate_end
        return float(first + done / steps * (last - first))

    def forward(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None = None
    ) -> Losses:
        """``loss`` of ``scenes`` at ``progress`` with ``generator``, as ``model(...)`` calls it.

        Raises:
            ValueError: it is of ``optimise_for_inference``.
        """
        self.check_not_optimised("be trained")
        return self.loss(scenes, progress, generator)

    @abstractmethod
    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        """Training loss on a batch.

        Args:
            scenes: B scenes; the model chooses the frames that it fetches.
            progress: in [0, 1], the share of the training that is done; drives the schedules.
            generator: of all random draws, on the model's device.
        """

    def holdout_errors(
        self, scenes: SceneBatch, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Errors (E,) on scenes that are not trained on, by which ``fit`` stops early.

        Each is named by how the names of those weights begin that it is the error of: ``fit`` takes
        the best of these for themselves. Here it is the loss, the error of all, "". In an ensemble
        E is the number of members, and all weights lead with that axis: each member has its own
        best.

        Args:
            scenes: B scenes.
            generator: of all random draws, on the model's device.
        """
        return {"": self.loss(scenes, 1.0, generator).total.reshape(1)}

    def calibrate(self, errors: Mapping[str, Tensor], scenes: Iterable[SceneBatch]) -> None:
        """Called by ``fit`` at the end, if something was held out: the best weights are in place.

        Args:
            errors: the lowest ``holdout_errors``.
            scenes: what was held out.
        """

    def check_not_optimised(self, what: str) -> None:
        """Raise ValueError if it is of ``optimise_for_inference``; ``what`` is what it cannot."""
        if self.precision is not None:
            raise ValueError(
                f"model: an optimised copy cannot {what}, its weights were converted to answer "
                "fast; take the model that was given to optimise_for_inference"
            )

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """In which the verbs compute: as everything around them, unless the model is optimised."""
        if self.precision is None:
            yield
            return
        bf16 = torch.autocast(self.device.type, torch.bfloat16)
        with torch.no_grad(), bf16 if self.precision == "bf16" else nullcontext():
            yield

    def _widened(self, scenes: Scenes) -> Scenes:
        """A belief or worlds in float32, whatever an optimised model computed in."""
        return scenes.float() if self.precision == "bf16" else scenes

    def _fuse(self, dtype: torch.dtype) -> None:
        """Called on the copy by ``optimise_for_inference``, before all other weights are converted
        to ``dtype``: replace parts by such as compute the same with less work. Here there are none.
        """

    @abstractmethod
    def _observe(self, context: Context) -> Belief: ...

    def _update(self, belief: Belief, context: Context) -> Belief:
        """Where ``extends``."""
        raise NotImplementedError

    def _forget(self, belief: Belief, context: Context) -> Belief:
        """Where ``extends``."""
        raise NotImplementedError

    @abstractmethod
    def _sample(self, belief: Belief, n: int, generator: torch.Generator | None) -> Worlds: ...

    @abstractmethod
    def _advance(self, worlds: Worlds, actions: Tensor) -> Worlds: ...

    def _disagreement(self, worlds: Worlds, actions: Tensor) -> Tensor:
        """Where ``disagrees``."""
        raise NotImplementedError

    @abstractmethod
    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction: ...

    def _step_on(
        self, worlds: Worlds, queries: Queries, frames: bool
    ) -> tuple[StepPrediction, Worlds]:
        assert queries.actions is not None
        predicted = self._predict(worlds, queries, frames)
        return predicted, self._advance(worlds, queries.actions[:, 0])

    def _check_advance(self, worlds: Worlds, actions: Tensor) -> None:
        self._check_actions(actions, "actions", (worlds.shape[0],))
        last = int(worlds.present.max()) + actions.shape[1]
        if last > self.spec.window:
            raise ValueError(
                f"actions: {actions.shape[1]} steps reach time {last}, beyond the window of "
                f"{self.spec.window} steps"
            )
        if self.horizon == 0:
            raise UnsupportedQuery(
                f"actions: {self.name} knows the frame that it observed, not what follows it"
            )

    def _check_extends(self) -> None:
        if not self.extends:
            raise UnsupportedQuery(
                f"belief: {self.name} cannot add to it or take away from it; observe all pairs anew"
            )

    def _check_shapes(self, context: Context, count: str, remedy: str) -> None:
        """Raise TypeError or ValueError unless dtypes and shapes of observations and times fit.

        Args:
            context: of which the mask is not looked at.
            count: of its observations, as the message says it.
            remedy: where observations are no float numbers.
        """
        frames, times = context.observations, context.times
        if not frames.is_floating_point():
            raise TypeError(
                f"context.observations: expected float observations, got {frames.dtype}; {remedy}"
            )
        if frames.dim() < 3 or tuple(frames.shape[2:]) != self.spec.observation:
            axes = "C, H, W" if self.spec.is_image else "D,"
            raise ValueError(
                f"context.observations: expected (B, {count}, {axes}) with ({axes}) = "
                f"{self.spec.observation}, got {tuple(frames.shape)}"
            )
        if times.is_floating_point() or times.shape != frames.shape[:2]:
            raise ValueError(
                f"context.times: expected integers of shape {tuple(frames.shape[:2])}, got "
                f"{times.dtype} {tuple(times.shape)}"
            )

    def _check_context(self, context: Context) -> None:
        frames, times = context.observations, context.times
        self._check_shapes(context, "M", "worldmodel.to_float converts uint8 (..., H, W, C)")
        mask = context.full_mask()
        if mask.dtype != torch.bool or mask.shape != times.shape:
            raise ValueError(
                f"context.mask: expected bool of shape {tuple(times.shape)}, got {mask.dtype} "
                f"{tuple(mask.shape)}"
            )
        counts = mask.sum(1)
        if frames.shape[0] == 0 or frames.shape[1] == 0 or bool((counts == 0).any()):
            raise ValueError("context: empty; every scene needs at least one observation")
        if self.max_context is not None and int(counts.max()) > self.max_context:
            raise ValueError(
                f"context: {int(counts.max())} observations are more than the {self.max_context} "
                "that the model was trained with; pass a subset"
            )
        valid = frames[mask]
        if not bool(torch.isfinite(valid).all()):
            raise ValueError("context.observations: holds NaN or infinity")
        image = self.spec.image_part
        pixels = valid if image is None else valid[..., : image.size]
        low, high = float(pixels.min()), float(pixels.max())
        if (self.spec.is_image or image is not None) and (low < -1e-3 or high > 1 + 1e-3):
            raise ValueError(
                f"context.observations: pixels lie in [{low:.3g}, {high:.3g}], expected [0, 1]"
            )
        self._check_times(times[mask], "context.times")
        self._check_poses(context.poses, times, "context.poses", mask)
        self._check_path(context)

    def _check_path(self, context: Context) -> None:
        present = context.present_times()
        self._check_times(present, "context.present")
        if bool((context.times.masked_fill(~context.full_mask(), 0).amax(1) > present).any()):
            raise ValueError("context.present: lies before an observation of the context")
        if self.spec.passive:
            return
        last = int(present.max())
        if context.actions is None:
            if last > 0:
                raise ValueError(
                    f"context.actions: the present is time {last}, so the actions taken since time "
                    "0 are needed, got None"
                )
            return
        self._check_actions(context.actions, "context.actions", (context.times.shape[0],))
        if context.actions.shape[1] < last:
            raise ValueError(
                f"context.actions: {context.actions.shape[1]} actions do not reach the present at "
                f"time {last}"
            )

    def _check_queries(self, worlds: Worlds, queries: Queries) -> None:
        times = queries.times
        if times.is_floating_point() or times.dim() != 2 or times.shape[0] != worlds.shape[0]:
            raise ValueError(
                f"queries.times: expected integers of shape ({worlds.shape[0]}, K), got "
                f"{times.dtype} {tuple(times.shape)}"
            )
        if times.shape[1] == 0:
            raise ValueError("queries.times: empty; ask for at least one time")
        self._check_times(times, "queries.times")
        self._check_poses(queries.poses, times, "queries.poses")
        ahead = queries.ahead(worlds.present)
        planned = 0
        if queries.actions is not None:
            if queries.actions.dim() < 3:
                raise ValueError(
                    "queries.actions: expected (B, N, L, *action), got "
                    f"{tuple(queries.actions.shape)}"
                )
            lead = (worlds.shape[0], queries.plans)
            self._check_actions(queries.actions, "queries.actions", lead)
            planned = queries.actions.shape[2]
        if not self.spec.passive and ahead > planned:
            raise ValueError(
                f"queries.times: {ahead} steps after the present, but the plans have {planned} "
                "actions; give queries.actions of that length"
            )

    def _check_times(self, times: Tensor, argument: str) -> None:
        if int(times.min()) < 0 or int(times.max()) > self.spec.window:
            raise ValueError(
                f"{argument}: times from {int(times.min())} to {int(times.max())} leave the window "
                f"[0, {self.spec.window}]"
            )

    def _check_poses(
        self, poses: Tensor | None, times: Tensor, argument: str, mask: Tensor | None = None
    ) -> None:
        if poses is None and not self.spec.pose:
            return
        expected = (*times.shape, self.spec.pose) if self.spec.pose else None
        got = None if poses is None else tuple(poses.shape)
        if got != expected:
            raise ValueError(f"{argument}: expected {expected}, got {got}")
        if poses is not None and not bool(torch.isfinite(poses).all()):
            raise ValueError(f"{argument}: holds NaN or infinity")
        if poses is not None and self.spec.camera is not None:
            self.spec.camera.check(poses if mask is None else poses[mask], argument)

    def _check_actions(self, actions: Tensor, argument: str, lead: tuple[int, ...]) -> None:
        expected = self.spec.action.shape
        head = tuple(actions.shape[: len(lead)])
        if head != lead or tuple(actions.shape[len(lead) + 1 :]) != expected:
            raise ValueError(
                f"{argument}: expected shape {(*lead, 'L', *expected)}, got {tuple(actions.shape)}"
            )
        if actions.is_floating_point() and not bool(torch.isfinite(actions).all()):
            raise ValueError(f"{argument}: holds NaN or infinity")
