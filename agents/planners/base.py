"""What every planner shares: scoring, memory for each environment, and SB3's ``predict``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import actions as action_border
from agents.history import check_frames
from agents.imagination import Imagination, ImaginationState, check_model
from agents.known_functions import KnownFunctions
from agents.legal_actions import check_some_legal, legal_plans, legal_rows
from agents.planners.coarse import coarse_to_fine
from agents.values import Value
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least, share
from worldmodel.types import Worlds


class Agent(Protocol):
    """Anything that chooses actions: SB3's algorithms, the planners, ``RandomAgent``."""

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
    """Settings of a planner.

    Attributes:
        plans: plans drawn for each scene (N).
        worlds: sampled worlds that every plan is scored in (S).
        horizon: decisions of a plan; what reaches beyond the model's window is cut.
        hold: steps that the action of a decision is held.
        hold_later: steps that the later decisions of a plan are held, to look farther with as few
            decisions; None takes ``hold``. Only the first decision is ever carried out.
        ahead: decisions for which the model's window always keeps room. When fewer steps are left,
            the frames before the latest are dropped: take ``horizon`` if one frame shows all that
            matters, and few decisions if memory matters.
        discount: per step, in (0, 1].
        risk: share of the worlds, the worst for a plan, that its score is the mean over (CVaR); 1
            takes all of them.
        noise_exponent: of the colour of random plans' noise along the decisions: 0 is white, with
            1 or 2 neighbouring decisions are alike, so that a plan pushes one way for a while; see
            ``agents.actions.coloured_noise``.
        warm_start: whether the rest of the previous decision's plan is among the drawn ones. Not
            with another ``hold_later``: that rest would begin between two decisions.
        coarse: worlds in which all plans are scored first, without the planner's ``value``; only
            the ``finalists`` are scored again in all worlds and with it. None scores all in full.
        finalists: share of the plans, the best by their first score, that are scored in full.
        curiosity: what a plan's score gains where its worlds differ as much as all plans do about
            what will be observed, in proportion, in units of the return; see ``agents.curiosity``.
            Above 0 it looks for what the model has not learned yet, with 2 worlds or more of a
            model that samples; ``train_planner`` explores with it.
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
    noise_exponent: float = 0.0
    warm_start: bool = False
    coarse: int | None = None
    finalists: float = 0.1
    curiosity: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "plans", "worlds", "horizon", "hold", "ahead")
        at_least(0, self, "seed", "noise_exponent", "curiosity")
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
        if self.curiosity and (self.worlds < 2 or self.coarse is not None):
            raise ValueError(
                "curiosity: compares worlds of every plan; expected worlds of at least 2 and "
                f"coarse=None, or 0, got worlds={self.worlds}, coarse={self.coarse}"
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
        """The number of steps that so many decisions take."""
        return self.hold + (decisions - 1) * self.later

    def decisions(self, steps: int) -> int:
        """The number of decisions of a plan, at most ``horizon``, if so many steps are left."""
        return min(self.horizon, 1 + max(0, -(-(steps - self.hold) // self.later)))


@dataclass(frozen=True)
class Plan:
    """The plans that a planner scored for each of B scenes, and the best of them.

    Attributes:
        actions: (B, N, D, *action), D decisions; the first is held for the planner's ``hold``
            steps, the later ones for ``hold_later``.
        scores: float32 (B, N), expected discounted return. Plans that were scored in the ``coarse``
            worlds only are in order, below all plans that were scored in full.
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
    """A planner's ``state`` between two calls: the scenes, and the plan chosen for each row."""

    scenes: ImaginationState
    plans: NDArray[Any]

    def observed_anew(self) -> Memory:
        """The same scenes, of which the model's belief is yet to be computed: what it was before
        the model was trained any further would not fit it.
        """
        return replace(self, scenes=replace(self.scenes, belief=None))


Before = Sequence[NDArray[Any] | None]
"""For each scene the rest of its previous plan, (D, *action); None if there was none."""


class Planner(ABC):
    """Model-predictive control: plan at every decision, do the first action of the best plan.

    A plan's first decision is legal by ``predict(..., action_masks=...)``, or else by the function
    ``known.action_mask``; with that function so are the later ones.

    Each ``predict`` is one decision of ``hold`` steps: the environment is ``HoldAction(env, hold)``
    (or plain if ``hold`` is 1). It works in SB3's ``evaluate_policy`` and wherever an SB3 model's
    ``predict`` does. ``last`` holds the latest ``Plan``.

    Args:
        model: any world model that takes actions.
        config: of the planner's ``config_type``; None takes its defaults.
        value: function of observations (n, *observation) as the environment shows them, uint8
            images (H, W, C), float vectors or a dict of them, that estimates the return after a
            plan's end, n numbers (``agents.critic`` makes one of an SB3 algorithm). The last frame
            of each plan is rendered for it; ``coarse`` avoids most of that. None takes 0.
        known: functions in place of the model's heads; with ``reward`` or ``terminated`` every
            frame of every plan is rendered.

    Raises:
        TypeError: ``model`` is not a ``WorldModel``, ``config`` of another planner, or ``known``
            no ``KnownFunctions``.
        ValueError: the model has no actions or cannot do with ``known``, ``hold`` does not fit
            its window, plans are shorter than its stride, or ``curiosity`` about a model that is
            not stochastic.
    """

    config_type: ClassVar[type[PlannerConfig]] = PlannerConfig

    def __init__(
        self,
        model: WorldModel,
        config: PlannerConfig | None = None,
        value: Value | None = None,
        known: KnownFunctions | None = None,
    ) -> None:
        config = self.config_type() if config is None else config
        if not isinstance(config, self.config_type):
            raise TypeError(
                f"config: expected a {self.config_type.__name__}, got {type(config).__name__}"
            )
        check_model(model)
        self.config, hold = config, config.hold
        spec = model.spec
        if spec.passive:
            raise ValueError("model: was made for scenes without actions; nothing can be planned")
        if config.curiosity and not model.stochastic:
            raise ValueError(
                f"curiosity: the worlds of this {model.name} are all alike; expected 0, or a model "
                'that samples, such as make("ensemble", spec)'
            )
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
        self.imagination = Imagination(model, config.seed, max(room, model.stride), known=known)
        masked = self.imagination.known.action_mask is not None and config.horizon > 1
        if masked and (hold % model.stride or config.later % model.stride):
            raise ValueError(
                f"hold: {model.name} takes {model.stride} steps at once, and known.action_mask "
                "judges what it predicts before each decision; expected a multiple of that, got "
                f"{hold} and later {config.later}"
            )
        self.model = model
        self.value = value
        self.hold = hold
        self.observation_space = spec.observation_space()
        self.action_space = spec.action.to_space()
        self.last: Plan | None = None

    def set_random_seed(self, seed: int) -> None:
        """Seed the random numbers."""
        self.imagination.generator.manual_seed(seed)

    @abstractmethod
    def plan(
        self, imagination: Imagination, before: Before = (), masks: Tensor | None = None
    ) -> Plan:
        """Choose a plan of at least one decision for each scene of ``imagination``.

        Args:
            imagination: B scenes with their observations.
            before: the rest of each scene's previous plan, for ``warm_start``.
            masks: bool (B, n), the legal choices of the first decision; None takes those of
                ``known.action_mask``, if there is that.
        """

    # -- what planners are made of ---------------------------------------------------------------

    def initial_plans(
        self,
        imagination: Imagination,
        worlds: Worlds,
        before: Before = (),
        masks: Tensor | None = None,
    ) -> Tensor:
        """Uniformly random legal plans (B, N, D, \\*action); D as far as the window reaches.

        Args:
            imagination: B scenes, and the generator.
            worlds: sampled worlds of these scenes.
            before: the rest of each scene's previous plan, the first here with ``warm_start``.
            masks: of the first decision; see ``plan``.
        """
        config = self.config
        decisions = config.decisions(int(imagination.left.max()))
        spec, lead = self.model.spec.action, (worlds.shape[0], config.plans, decisions)
        plans = action_border.draw_actions(spec, lead, imagination.generator, config.noise_exponent)
        if config.warm_start:
            for row, left in enumerate(before):
                if left is not None:
                    rest = torch.as_tensor(left[:decisions], device=plans.device).to(plans)
                    plans[row, 0, : len(rest)] = rest
        return self.legal(imagination, worlds, plans, masks)[0]

    def legal(
        self,
        imagination: Imagination,
        worlds: Worlds,
        plans: Tensor,
        masks: Tensor | None = None,
        fixed: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Replace illegal decisions of plans by random legal ones.

        Args:
            imagination: B scenes, and the generator.
            worlds: sampled worlds of these scenes; the first ones say what is legal later.
            plans: (B, N, D, \\*action).
            masks: of the first decision; see ``plan``.
            fixed: this many first decisions are not replaced.

        Returns:
            the plans, and bool (B, N): in which of them the fixed decisions are legal.

        Raises:
            TypeError, ValueError: ``known.action_mask`` returns no masks, or leaves no action.
        """
        known, action = imagination.known, self.model.spec.action
        if masks is None and known.action_mask is not None:
            masks = known.masks(imagination.latest(), self.model.spec)
        if masks is not None:
            check_some_legal(action, masks, "action_masks")
        starts = [0, *(self.config.steps(n + 1) for n in range(plans.shape[2]))]
        return legal_plans(imagination, worlds, plans, starts, masks, fixed)

    def score(self, imagination: Imagination, worlds: Worlds, plans: Tensor) -> Tensor:
        """Scores (B, N) of plans (B, N, D, \\*action) of held actions; see ``Plan.scores``.

        All are scored in the same ``worlds``, by ``imagination.score``.
        """
        config = self.config
        holds = torch.full((plans.shape[2],), config.later, device=plans.device)
        holds[0] = config.hold
        steps = plans.repeat_interleave(holds, 2)

        def full(chosen: Tensor) -> Tensor:
            return imagination.score(
                worlds, chosen, config.discount, config.risk, self.value, config.curiosity
            )

        if config.coarse is None:
            return full(steps)
        few = worlds.some(slice(config.coarse))
        cheap = imagination.score(few, steps, config.discount, config.risk)
        return coarse_to_fine(steps, cheap, config.finalists, full)

    def make_plan(
        self, plans: Tensor, scores: Tensor, worlds: Worlds, best: Tensor | None = None
    ) -> Plan:
        """A ``Plan`` of the ``plans`` and their ``scores`` in the ``worlds``.

        ``best`` (B,) are the indices of the chosen plans; None takes those of the highest scores.
        """
        chosen = scores.argmax(1) if best is None else best
        return Plan(
            action_border.to_numpy(self.model.spec.action, plans),
            np.asarray(scores.cpu().numpy(), np.float32),
            np.asarray(chosen.cpu().numpy(), np.int64),
            worlds,
        )

    # -- SB3's predict ---------------------------------------------------------------------------

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], Memory]:
        """Choose actions.

        Args:
            observation: uint8 (n, H, W, C), float (n, D) or a dict of such by part; or one
                observation, without n.
            state: what the previous call returned; None begins new episodes in all rows.
            episode_start: bool (n,), rows that begin a new episode.
            deterministic: without effect; the best plan is always carried out.
            action_masks: bool (n, choices), which actions are legal now, by sb3-contrib's
                convention; None takes ``known.action_mask``, or all.

        Returns:
            Actions (n, *action), or (*action) for one observation, and the state for the next call.

        Raises:
            TypeError: images that are not uint8, or a state that ``predict`` did not return.
            ValueError: observations or masks of another shape, no legal action, or another number
                of rows than in the state.
        """
        images = self.model.spec.pack(observation)
        single = images.ndim == len(self.model.spec.border[0])
        images = check_frames(self.model.spec, images[None] if single else images, "observation")
        masks = None
        if action_masks is not None:
            checked = legal_rows(self.model.spec.action, action_masks, len(images))
            masks = torch.from_numpy(checked).to(self.model.device)
        before = self._update(images, state, episode_start)
        with torch.no_grad():
            self.last = self.plan(self.imagination, before, masks)
        chosen = self.last.chosen
        actions = np.array(chosen[:, 0])
        memory = Memory(self.imagination.state, chosen)
        return (np.asarray(actions[0]) if single else actions), memory

    def _update(self, images: NDArray[Any], state: Any, start: Any) -> Before:
        """Add the new observations to the imagination; return the rests of the plans before."""
        if state is None:
            self.imagination.reset(images)
            return ()
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
        self.imagination.state = state.scenes
        fresh, others = np.flatnonzero(begins), np.flatnonzero(~begins.astype(np.bool_))
        if len(fresh):
            self.imagination.reset(images[fresh], fresh.tolist())
        if len(others):
            held = np.repeat(state.plans[others, :1], self.hold, 1)
            self.imagination.observe(held, images[others], others.tolist())
        return [None if new else plan[1:] for plan, new in zip(state.plans, begins, strict=True)]
