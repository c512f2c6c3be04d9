"""What every planner shares: memory per environment, and SB3's ``predict``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import actions as action_border
from agents.history import check_frames
from agents.imagination import Imagination, Seen
from agents.planners.coarse import coarse_to_fine
from agents.values import Value
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least, share
from worldmodel.spec import ActionSpec
from worldmodel.types import Worlds


class Agent(Protocol):
    """Whatever acts: SB3's algorithms, the planners, ``RandomAgent``."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions (n, *action) for observations (n, H, W, C), and the next state."""
        ...


@dataclass(frozen=True)
class PlannerConfig:
    """How much is imagined at each decision, and what counts.

    Attributes:
        plans: plans drawn per scene (N).
        worlds: sampled worlds that every plan is scored in (S).
        horizon: decisions that a plan looks ahead; what reaches beyond the model's window is cut.
        hold: steps that each decision's action is held.
        hold_later: steps that the later decisions of a plan are held, so that as few decisions look
            farther; None takes ``hold``. Only the first is ever done before a new plan is made.
        ahead: decisions that the model's window shall always have room for. When fewer are left,
            what was seen before the latest frame is forgotten: where a frame shows all that
            counts, let it be ``horizon``; where memory counts, few.
        discount: per step, in (0, 1].
        risk: a plan's score is its mean over this share of the worlds, the worst for it (CVaR); 1
            is the mean over all of them.
        warm_start: whether what is left of the plan of the decision before is among the drawn. Not
            with another ``hold_later``: what is left would begin between two decisions.
        coarse: plans are scored in that many of the worlds first, without the planner's ``value``,
            and only the ``finalists`` again in all of them and with it. None scores all in full.
        finalists: share of the plans, the best by the first score, that are scored in full.
        seed: of plans and worlds.
    """

    plans: int = 256
    worlds: int = 4
    horizon: int = 4
    hold: int = 1
    hold_later: int | None = None
    ahead: int = 1
    discount: float = 1.0
    risk: float = 1.0
    warm_start: bool = False
    coarse: int | None = None
    finalists: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "plans", "worlds", "horizon", "hold", "ahead")
        at_least(0, self, "seed")
        share(self, "discount", "risk", "finalists")
        if self.hold_later is not None:
            at_least(1, self, "hold_later")
        if self.warm_start and self.later != self.hold:
            raise ValueError(
                f"warm_start: expected False, since decisions of a plan are held for {self.hold} "
                f"steps first and {self.later} later: what is left of one is no plan of that kind"
            )
        if self.coarse is not None and not 1 <= self.coarse <= self.worlds:
            raise ValueError(
                f"coarse: expected between 1 and the {self.worlds} worlds, got {self.coarse}"
            )

        if self.ahead > self.horizon:
            raise ValueError(
                f"ahead: plans have {self.horizon} decisions; expected at most that, got "
                f"{self.ahead}"
            )

    @property
    def later(self) -> int:
        """Steps that the later decisions of a plan are held."""
        return self.hold if self.hold_later is None else self.hold_later

    def steps(self, decisions: int) -> int:
        """How many steps so many decisions take."""
        return self.hold + (decisions - 1) * self.later

    def decisions(self, steps: int) -> int:
        """How many decisions a plan has, of at most ``horizon``, where so many steps are left."""
        return min(self.horizon, 1 + max(0, -(-(steps - self.hold) // self.later)))


@dataclass(frozen=True)
class Plan:
    """What a planner considered for each of B scenes.

    Attributes:
        actions: (B, N, D, *action), D decisions; the first is held for the planner's ``hold``
            steps, the later ones for ``hold_later``.
        scores: float32 (B, N), expected discounted return. Of plans that had only a ``coarse``
            look it says their order; it is below that of all plans scored in full beside them.
        best: int64 (B,), index of the plan that was chosen.
        worlds: the B x S worlds that all plans were scored in.
    """

    actions: NDArray[Any]
    scores: NDArray[np.float32]
    best: NDArray[np.int64]
    worlds: Worlds = field(repr=False)

    @property
    def chosen(self) -> NDArray[Any]:
        """(B, D, *action): the best plans."""
        return np.asarray(self.actions[np.arange(len(self.best)), self.best])


@dataclass(frozen=True)
class Memory:
    """A planner's ``state`` between two calls: what each row saw, and what it planned last."""

    seen: Seen
    plans: NDArray[Any]

    @property
    def actions(self) -> NDArray[Any]:
        """(B, \\*action): what each row did last."""
        return np.asarray(self.plans[:, 0])


Before = Sequence[NDArray[Any] | None]
"""Of each scene what is left of its plan before, (D, *action); None where there was none."""


class Planner(ABC):
    """Model-predictive control: plan anew at every decision, do the first action of the best plan.

    Each ``predict`` is one decision of ``hold`` steps: the environment is ``HoldAction(env, hold)``
    (or plain where ``hold`` is 1). It works in SB3's ``evaluate_policy`` and wherever an SB3
    model's ``predict`` does. ``last`` holds the latest ``Plan``.

    Args:
        model: any world model that is given actions.
        config: see ``PlannerConfig``.
        value: of observations (n, *observation) as the environment shows them, uint8 images
            (H, W, C) or float vectors, to n numbers: what the future is worth beyond a plan's end
            (``agents.values.critic`` makes one of an SB3 algorithm). The last frame of each plan
            is rendered for it; ``coarse`` spares most of them. None counts nothing there.

    Raises:
        TypeError: ``model`` is not a ``WorldModel``.
        ValueError: the model knows no actions, ``hold`` does not fit its window, or plans are
            shorter than its stride.
    """

    def __init__(
        self, model: WorldModel, config: PlannerConfig, value: Value | None = None
    ) -> None:
        self.config, hold = config, config.hold
        if not isinstance(model, WorldModel):
            raise TypeError(f"model: expected a WorldModel, got {type(model).__name__}")
        spec = model.spec
        if spec.passive:
            raise ValueError("model: was made for scenes without actions; nothing can be planned")
        if not 1 <= hold <= spec.window:
            raise ValueError(
                f"hold: expected between 1 and the model's window of {spec.window} steps, got "
                f"{hold}"
            )
        reach = min(spec.window, config.steps(config.horizon))
        if reach < model.stride:
            raise ValueError(
                f"horizon, hold: plans of {reach} steps, but the model takes {model.stride} steps "
                "at once"
            )
        room = config.steps(config.ahead)
        if room > spec.window:
            raise ValueError(
                f"ahead: {config.ahead} decisions take {room} steps, the model's window is "
                f"{spec.window}"
            )
        self.imagination = Imagination(model, config.seed, max(room, model.stride))
        self.model = model
        self.value = value
        self.hold = hold
        self.observation_space = spec.observation_space()
        self.action_space = spec.action.to_space()
        self.last: Plan | None = None

    def set_random_seed(self, seed: int) -> None:
        """Begin the random numbers anew."""
        self.imagination.generator.manual_seed(seed)

    @abstractmethod
    def plan(self, imagination: Imagination, before: Before = ()) -> Plan:
        """Choose plans for all scenes of ``imagination``, at least one decision long.

        Args:
            imagination: what was seen of B scenes.
            before: what is left of each scene's plan before, for ``warm_start``.
        """

    # -- what planners are made of ---------------------------------------------------------------

    def first(self, imagination: Imagination, worlds: Worlds, before: Before = ()) -> Tensor:
        """Plans (B, N, D, \\*action), uniformly random; D as far as the window reaches.

        Args:
            imagination: what was seen, and the generator.
            worlds: of B scenes.
            before: what is left of each scene's last plan, the first here with ``warm_start``.
        """
        config = self.config
        decisions = config.decisions(int(imagination.left.max()))
        spec, lead = self.model.spec.action, (worlds.shape[0], config.plans, decisions)
        plans = action_border.draw_actions(spec, lead, imagination.generator)
        if config.warm_start:
            for row, left in enumerate(before):
                if left is not None:
                    kept = torch.as_tensor(left[:decisions], device=plans.device).to(plans)
                    plans[row, 0, : len(kept)] = kept
        return plans

    def score(self, imagination: Imagination, worlds: Worlds, plans: Tensor) -> Tensor:
        """(B, N) of plans (B, N, D, \\*action), whose actions are held; see ``Plan.scores``.

        All are scored in the same ``worlds``, by ``imagination.score``.
        """
        config = self.config
        holds = torch.full((plans.shape[2],), config.later, device=plans.device)
        holds[0] = config.hold
        steps = plans.repeat_interleave(holds, 2)

        def full(chosen: Tensor) -> Tensor:
            return imagination.score(worlds, chosen, config.discount, config.risk, self.value)

        if config.coarse is None:
            return full(steps)
        few = worlds.some(slice(config.coarse))
        cheap = imagination.score(few, steps, config.discount, config.risk)
        return coarse_to_fine(steps, cheap, config.finalists, full)

    def told(self, plans: Tensor, scores: Tensor, worlds: Worlds) -> Plan:
        """The ``plans`` that were considered, their ``scores`` in the ``worlds``, and the best."""
        return Plan(
            action_border.to_numpy(self.model.spec.action, plans),
            np.asarray(scores.cpu().numpy(), np.float32),
            np.asarray(scores.argmax(1).cpu().numpy(), np.int64),
            worlds,
        )

    # -- SB3's predict ---------------------------------------------------------------------------

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Memory]:
        """Decide.

        Args:
            observation: uint8 (n, H, W, C) or float (n, D); or one of them, without n.
            state: what the call before returned; None begins new episodes everywhere.
            episode_start: bool (n,), rows that begin a new episode.
            deterministic: without effect; the best plan found is always the one done.

        Returns:
            Actions (n, *action), or (*action) for one observation, and the state for the next call.

        Raises:
            TypeError: images that are not uint8, or a foreign state.
            ValueError: observations of another shape, or another number of rows than in the state.
        """
        images = np.asarray(observation)
        single = images.ndim == len(self.model.spec.observation)
        images = check_frames(self.model.spec, images[None] if single else images, "observation")
        self._remember(images, state, episode_start)
        with torch.no_grad():
            plan = self.plan(self.imagination, _left_over(state, episode_start))
        self.last = plan
        chosen = plan.chosen
        actions = np.array(chosen[:, 0])
        memory = Memory(self.imagination.seen, chosen)
        return (np.asarray(actions[0]) if single else actions), memory

    def _remember(self, images: NDArray[Any], state: Any, start: Any) -> None:
        """Bring the imagination up to date."""
        if state is None:
            self.imagination.reset(images)
            return
        if not isinstance(state, Memory):
            raise TypeError(
                f"state: expected what predict returned, or None, got {type(state).__name__}"
            )
        count = len(state.plans)
        begins = np.zeros(count, np.bool_) if start is None else np.atleast_1d(np.asarray(start))
        if len(images) != count or begins.shape != (count,):
            raise ValueError(
                f"observation, episode_start: the state has {count} rows, got {len(images)} images "
                f"and episode_start of shape {begins.shape}; pass state=None to begin anew"
            )
        self.imagination.seen = state.seen
        fresh, others = np.flatnonzero(begins), np.flatnonzero(~begins.astype(np.bool_))
        if len(fresh):
            self.imagination.reset(images[fresh], fresh.tolist())
        if len(others):
            held = np.repeat(state.actions[others, None], self.hold, 1)
            self.imagination.observe(held, images[others], others.tolist())


def _left_over(state: Memory | None, start: Any) -> Before:
    """What is left of each row's plan, after the decision that was done."""
    if state is None:
        return ()
    begins = np.zeros(len(state.plans)) if start is None else np.atleast_1d(np.asarray(start))
    return [None if begin else plan[1:] for plan, begin in zip(state.plans, begins, strict=True)]


class RandomAgent:
    """Uniformly random actions; the floor that every agent is compared with.

    Args:
        action_space: of the environment.
        seed: of the draws.

    Raises:
        ValueError: the action space is not supported.
    """

    def __init__(self, action_space: gym.Space[Any], seed: int = 0) -> None:
        self.spec = ActionSpec.from_space(action_space)
        self.generator = torch.Generator().manual_seed(seed)

    def set_random_seed(self, seed: int) -> None:
        """Begin the random numbers anew."""
        self.generator.manual_seed(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], None]:
        """One random action per observation, (n, H, W, C) or (n, D), or one for a single one.

        SB3's ``state``, ``episode_start`` and ``deterministic`` are not looked at.
        """
        images = np.asarray(observation)
        lead = () if images.ndim in (1, 3) else (len(images),)
        drawn = action_border.draw_actions(self.spec, lead, self.generator)
        return action_border.to_numpy(self.spec, drawn), None
