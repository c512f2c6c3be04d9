"""Lookahead: observations together with what a world model imagines for each candidate action.

venv = LookaheadVecWrapper(DummyVecEnv(makers), model, jumps=3, hold=5, depth=2)
PPO(LookaheadPolicy, venv)  # of discrete actions; or "MultiInputPolicy" with LookaheadExtractor
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch import Tensor

from agents import actions as action_border
from agents.history import Frames
from agents.imagination import Imagination, check_finite, check_model
from agents.vec_env import check_horizon
from agents.wrappers import HoldAction
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import check_seed, whole_numbers
from worldmodel.spec import ActionSpec, Spec

RANDOM_CANDIDATES = 8
"""Candidates of an action space that is not discrete, if none are given."""
MAX_PLANS = 4096
"""Of one scene, that a search scores."""

Parts = dict[str, NDArray[Any]]


class LookaheadVecWrapper(VecEnvWrapper):
    """A ``VecEnv`` whose observations include what each candidate action would lead to.

    Each of A candidate actions is held in imagination for K jumps of ``hold`` steps; all rows,
    candidates, jumps and worlds are predicted at once. The observation becomes a Dict:

    - ``observation``: the real one;
    - ``imagined`` (A, K, *observation): frames of a sampled world after each jump. Their five axes
      keep SB3 from taking them for an image, so it neither transposes nor scales them (as channels
      of one picture they would soon outnumber its rows, from which SB3 guesses the order of the
      axes); ``LookaheadExtractor`` scales them;
    - ``reward_alive`` float32 (A, K, 2): the expected reward since the jump before (given that the
      episode still ran then), and the probability that the episode has not terminated; means over
      the worlds;
    - ``returns`` float32 (A,), with a ``depth`` above 1: the highest return that any plan of that
      many candidates, which begins with this one, is expected to bring.

    ``terminal_observation`` in the infos has the same form, imagined from the terminal frame. All
    arrays are fresh at each step.

    Stack frames outside, ``VecFrameStack(LookaheadVecWrapper(venv, model), 4)``: each part grows
    along its last axis. The environment must hold its actions as long as imagination does: wrap
    each one in ``HoldAction(env, hold)``.

    Args:
        venv: environments of the model's spaces, channels last; real ones, or ``ImaginedVecEnv``.
        model: any world model; it is put into evaluation mode.
        jumps: K. So many times ``hold`` steps of the window are always left for them: where fewer
            are, the frames before the latest are forgotten. 1 remembers most.
        hold: steps of a jump, as many as of a decision.
        candidates: (A, *action); None takes all actions of a discrete space, and 8 random ones of
            another, drawn once.
        worlds: that ``reward_alive`` is averaged over. The frames are those of the first.
        frames: False omits ``imagined``: no frame is rendered.
        depth: decisions of the plans that ``returns`` searches, all A^depth of them, each decision
            held for ``hold`` steps; what reaches beyond the window is cut, so that near its end
            fewer count. 1 omits ``returns``.
        seed: of the worlds and the candidates; ``seed()``, which SB3's algorithms call with
            theirs, seeds the worlds again.

    Raises:
        TypeError: ``model`` is not a ``WorldModel``, or a number is not whole.
        ValueError: a number is below 1, or the seed below 0, the spaces are not the model's, the
            jumps or ``depth`` exceed its window, ``hold`` is no multiple of its stride,
            ``candidates`` are no actions, or there are more than 4,096 plans.
    """

    def __init__(
        self,
        venv: VecEnv,
        model: WorldModel,
        jumps: int = 2,
        hold: int = 1,
        candidates: Any = None,
        worlds: int = 1,
        frames: bool = True,
        seed: int = 0,
        depth: int = 1,
    ) -> None:
        check_model(model)
        whole_numbers(1, worlds=worlds)
        check_seed(seed)
        check_horizon(model, hold, jumps, "jumps")
        check_horizon(model, hold, depth, "depth")
        spec = model.spec
        spec.require_box("venv")
        spec.check_spaces(venv.observation_space, venv.action_space, "venv")
        self.candidates = choose_candidates(spec.action, candidates, seed)
        self.jumps, self.hold, self.worlds, self.frames = jumps, hold, worlds, frames
        self.imagination = Imagination(model, _spread(seed), ahead=jumps * hold)
        self._spec = spec
        chosen = torch.from_numpy(self.candidates).to(model.device).unsqueeze(1)
        self._plans = chosen.expand(-1, jumps * hold, *chosen.shape[2:])  # (A, L, *action)
        self._searched = _all_plans(chosen[:, 0], depth, hold) if depth > 1 else None
        self._ahead = hold * torch.arange(1, jumps + 1, device=model.device)
        self._counted = hold > 1 or any(venv.env_is_wrapped(HoldAction))
        self._actions: NDArray[Any] | None = None
        super().__init__(venv, _space(spec, len(self.candidates), jumps, frames, depth > 1))

    # -- the episode -----------------------------------------------------------------------------

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the environments, and the worlds."""
        if seed is not None:
            self.imagination.generator.manual_seed(_spread(seed))
        return super().seed(seed)

    def reset(self) -> Parts:
        """Begin an episode in every environment."""
        self._actions = None
        observations = np.asarray(self.venv.reset())
        self.imagination.reset(observations)
        return self._imagine(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take one action per environment, (num_envs, *action)."""
        self._actions = np.array(actions).reshape(self.num_envs, *self._spec.action.shape)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Observe the environments, and imagine what may follow from there.

        Raises:
            RuntimeError: ``step_async()`` was not called before.
            ValueError: the environments do not hold actions for ``hold`` steps.
            FloatingPointError: the model imagines NaN or infinity; ``reset`` raises it, too.
        """
        if self._actions is None:
            raise RuntimeError("LookaheadVecWrapper: call reset(), then step(actions)")
        actions, self._actions = self._actions, None
        current, rewards, dones, given = self.venv.step_wait()
        observations = np.asarray(current)
        infos: list[dict[str, Any]] = [dict(info) for info in given]
        ended = np.flatnonzero(dones)
        arrived = observations.copy()
        for i in ended:
            arrived[i] = infos[i]["terminal_observation"]
        self._observe(actions, arrived, self._steps(dones, infos))
        parts = self._imagine(arrived)
        if len(ended):
            for i in ended:
                infos[i]["terminal_observation"] = {key: parts[key][i].copy() for key in parts}
            self.imagination.reset(observations[ended], ended.tolist())
            for key, part in self._imagine(observations[ended], ended).items():
                parts[key][ended] = part
        return parts, rewards, dones, infos

    # -- helpers ---------------------------------------------------------------------------------

    def _steps(self, dones: NDArray[np.bool_], infos: list[dict[str, Any]]) -> NDArray[np.int64]:
        """int64 (num_envs,): steps that each decision took; fewer only at an episode's end."""
        if not self._counted:
            return np.ones(self.num_envs, np.int64)
        steps = np.array([info.get("steps", 1) for info in infos], np.int64)
        wrong = (steps > self.hold) | ((steps < self.hold) & ~dones)
        if wrong.any():
            raise ValueError(
                f"hold: a decision of the environments takes {int(steps[wrong][0])} steps, one of "
                f"imagination {self.hold}; wrap each environment in HoldAction(env, {self.hold})"
            )
        return steps

    def _observe(self, actions: NDArray[Any], arrived: Frames, steps: NDArray[np.int64]) -> None:
        for count in np.unique(steps):
            rows = np.flatnonzero(steps == count)
            held = np.repeat(actions[rows, None], count, axis=1)
            self.imagination.observe(held, arrived[rows], rows.tolist())

    @torch.no_grad()
    def _imagine(self, observations: Frames, rows: NDArray[np.int64] | None = None) -> Parts:
        """The parts for the scenes ``rows`` (all if None), whose frames are ``observations``."""
        worlds = self.imagination.worlds(self.worlds)
        if rows is not None:
            worlds = worlds.index(torch.from_numpy(rows).to(worlds.present.device))
        times = worlds.present[:, None] + self._ahead
        plans = self._plans.expand(worlds.shape[0], *self._plans.shape)
        parts: Parts = {"observation": observations.copy()}
        answers = []
        if self.frames:  # of one world: the others need not be rendered
            first = self.imagination.predict(worlds.some(slice(1)), times, plans)
            assert first.observations is not None
            check_finite(self.imagination.model, first.observations)
            parts["imagined"] = self._spec.to_numpy(first.observations[:, 0])
            answers.append(first)
        if len(answers) < self.worlds:
            others = worlds.some(slice(len(answers), None))
            answers.append(self.imagination.predict(others, times, plans, frames=False))
        rewards = torch.cat([answer.rewards for answer in answers], 1).mean(1)
        alive = torch.cat([answer.alive for answer in answers], 1).mean(1)
        check_finite(self.imagination.model, rewards, alive)
        parts["reward_alive"] = torch.stack([rewards, alive], -1).float().cpu().numpy()
        if self._searched is not None:
            plans = self._searched.expand(worlds.shape[0], *self._searched.shape)
            scores = self.imagination.score(worlds, plans)
            best = scores.unflatten(1, (len(self.candidates), -1)).amax(2)
            parts["returns"] = best.float().cpu().numpy()
        return parts


def choose_candidates(spec: ActionSpec, candidates: Any, seed: int) -> NDArray[Any]:
    """The candidate actions (A, *action), in the dtype of the space.

    Raises:
        ValueError: ``candidates`` have another shape, one is not in the space, or discrete ones are
            not different, or are all there are in another order.
    """
    space = spec.to_space()
    if candidates is None:
        if spec.kind in ("none", "discrete"):
            return np.arange(max(1, spec.features), dtype=np.int64) + sum(spec.start)
        generator = torch.Generator().manual_seed(_spread(seed))
        random = action_border.draw_actions(spec, (RANDOM_CANDIDATES,), generator)
        return action_border.to_numpy(spec, random)
    try:
        given = np.asarray(candidates)
        with np.errstate(invalid="ignore"):  # NaN and the like are refused below
            chosen = given.astype(space.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"candidates: expected actions of {space}, got no array of such ({error})"
        ) from error
    if given.ndim != 1 + len(spec.shape) or given.shape[1:] != spec.shape or len(given) < 1:
        expected = ", ".join(["A", *map(str, spec.shape)])
        raise ValueError(f"candidates: expected shape ({expected}), got {given.shape}")
    outside = [i for i, action in enumerate(chosen) if not space.contains(action)]
    if outside or not np.allclose(chosen, given):
        raise ValueError(f"candidates: expected actions of {space}, got {given.tolist()}")
    if isinstance(space, gym.spaces.Discrete):
        different = np.unique(chosen)
        if len(different) < len(chosen) or (
            len(different) == space.n and (chosen != different).any()
        ):
            raise ValueError(  # LookaheadPolicy takes the n-th of all for the n-th action
                "candidates: expected different actions, and all of them in ascending order (None "
                f"takes them so), got {given.tolist()}"
            )
    return chosen


def _all_plans(candidates: Tensor, depth: int, hold: int) -> Tensor:
    """All sequences of ``depth`` candidates (A, *action), each held: (A^depth, depth * hold,
    *action), those that begin with the same one side by side.
    """
    count = len(candidates)
    if count**depth > MAX_PLANS:
        raise ValueError(
            f"depth: {count} candidates make {count**depth} plans of {depth} decisions; expected "
            f"at most {MAX_PLANS} plans, with a smaller depth or fewer candidates"
        )
    sequences = action_border.all_sequences(count, depth, candidates.device)
    return candidates[sequences].repeat_interleave(hold, 1)


def _space(
    spec: Spec, candidates: int, jumps: int, frames: bool, searched: bool
) -> gym.spaces.Dict:
    real, lead = spec.require_box("venv"), (candidates, jumps)
    low = np.full((*lead, 2), -np.inf, np.float32)
    high = -low
    low[..., 1], high[..., 1] = 0, 1
    spaces: dict[str, gym.Space[Any]] = {
        "observation": real,
        "reward_alive": gym.spaces.Box(low, high, dtype=np.float32),
    }
    if searched:
        spaces["returns"] = gym.spaces.Box(-np.inf, np.inf, (candidates,), np.float32)
    if frames:
        bounds = [np.broadcast_to(bound, (*lead, *real.shape)) for bound in (real.low, real.high)]
        spaces["imagined"] = gym.spaces.Box(bounds[0], bounds[1], dtype=real.low.dtype.type)
    return gym.spaces.Dict(spaces)


def _spread(seed: int) -> int:
    """Another seed, so that the worlds are independent of SB3, which seeds torch with the first."""
    return int(np.random.default_rng(seed).integers(2**62))
