"""Dyna for off-policy algorithms: branches imagined with their policy, as MBPO has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecFrameStack, is_vecenv_wrapped

from agents.known_functions import KnownFunctions, check_known
from agents.starts import Starts
from agents.training.dyna.exploration import Exploration, WrappedObservations, pick
from agents.training.dyna.mixed_buffer import ImaginedTransitions, MixedReplayBuffer, check_buffer
from agents.training.dyna.recorder import RecordEpisodes, merge_episodes
from agents.training.dyna.refit import RefitConfig, model_error, refit
from agents.training.imagined_ppo import stackable_starts
from agents.vec_env import ImaginedVecEnv, check_horizon
from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least
from worldmodel.common.progress import progress
from worldmodel.common.safe_files import read_json
from worldmodel.data.episodes import Episodes

_COUNTS = ("fits", "imagined", "losses", "error", "_since_fit", "_since_imagined", "_fitted")


@dataclass(frozen=True)
class DynaConfig(RefitConfig):
    """When the model is refitted, and how much is imagined. See also ``RefitConfig``.

    Steps are those of the algorithm (its ``num_timesteps``): decisions of ``hold`` steps each. The
    defaults are those of MBPO (Janner et al. 2019, table 2) for vectors. Imagined images need
    fewer branches: 64x64 ones fill 25 KB for each transition.

    How often the algorithm updates for each real step is its own setting, such as
    ``SAC(..., train_freq=1, gradient_steps=20)``.

    Attributes:
        start: real steps before the first fit.
        every: real steps between later fits. Each empties the buffer of imagined transitions.
        imagine_every: real steps after which further branches are imagined, with the policy of
            then. None imagines only after fits, as MBPO does.
        branches: that are imagined for each real step.
        horizon: decisions of a branch.
        horizon_end: what ``horizon`` rises to; None leaves it.
        horizon_steps: the real steps at which it begins to rise, linearly, and at which it has.
        real_share: of each batch that the algorithm learns from, in [0, 1]; above 0 it is at least
            one transition.
        num_envs: the most branches that are imagined at once.
    """

    start: int = 1000
    every: int = 250
    imagine_every: int | None = None
    branches: int = 400
    horizon: int = 1
    horizon_end: int | None = None
    horizon_steps: tuple[int, int] = (20_000, 150_000)
    real_share: float = 0.05
    num_envs: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "start", "every", "branches", "horizon")
        if self.imagine_every is not None and not 1 <= self.imagine_every <= self.every:
            raise ValueError(
                f"imagine_every: expected between 1 and every={self.every} real steps, or None, "
                f"got {self.imagine_every}"
            )
        if self.horizon_end is not None and self.horizon_end < self.horizon:
            raise ValueError(
                f"horizon_end: expected at least horizon={self.horizon}, or None, got "
                f"{self.horizon_end}"
            )
        begin, end = self.horizon_steps
        if not 0 <= begin < end:
            raise ValueError(
                f"horizon_steps: expected two real steps, 0 <= first < second, got {begin}, {end}"
            )
        if not 0 <= self.real_share <= 1:
            raise ValueError(f"real_share: expected between 0 and 1, got {self.real_share}")
        if {"chunk", "stagger", "fps"} & set(self.imagination):
            raise ValueError(
                "imagination: chunk, stagger and fps are for environments, branches have none; "
                "leave them away"
            )

    def horizon_at(self, step: int) -> int:
        """Decisions of branches that are imagined after so many real steps."""
        if self.horizon_end is None:
            return self.horizon
        begin, end = self.horizon_steps
        share = min(max((step - begin) / (end - begin), 0.0), 1.0)
        return int(self.horizon + share * (self.horizon_end - self.horizon))


class DynaCallback(BaseCallback):
    """Lets SAC, TQC, TD3, DDPG, DQN or QR-DQN learn from a world model, which learns from their
    real episodes: model-based policy optimisation (MBPO, Janner et al. 2019, algorithm 2).

    Every ``every`` real steps the model is refitted to the recorded episodes. Then ``branches`` for
    each real step are imagined: they begin at random recorded steps, follow the algorithm's policy
    as it explores, and are dropped where they end. Their transitions fill a buffer of their own
    until the next fit, and ``1 - real_share`` of each batch that the algorithm draws. A branch that
    terminates counts as ended; the value after one that reaches its horizon is bootstrapped.

    While it learns, ``algorithm.replay_buffer`` is a ``MixedReplayBuffer`` around its own one, in
    which there are only real transitions. All this happens at the end of a rollout of the algorithm
    (``train_freq``), and nothing is imagined before its ``learning_starts``.

    The environment has a ``RecordEpisodes`` inside ``HoldAction``; wrappers that change
    observations or rewards belong inside the recorder. If frames are stacked by ``VecFrameStack``,
    branches begin at the first frames of recorded episodes (see ``stackable_starts``), so
    ``horizon`` should be long.

    It logs ``dyna/...``, the losses of the last fit as ``dyna_fit/...`` and the model's error on
    new episodes, measured before it is fitted to them, as ``dyna_error/...``.

    Args:
        world_model: of the spaces of the recorded environment.
        recorders: of all environments that the algorithm learns in.
        config: see ``DynaConfig``.
        known: functions in place of the model's heads, in all branches.
        progress: show the progress of fits and of imagination that take long.

    Attributes:
        fits: how often the model was fitted.
        imagined: transitions that were imagined, in all.
        transitions: those imagined since the last fit.
        losses, error: of the last fit, and of the model just before it.

    Raises:
        ValueError: the recorders' spaces are not the model's, ``hold`` times the longest horizon
            exceeds its window, or it cannot do with ``known``; when training starts also: the
            algorithm's buffer (HER's, or one of n steps), wrappers or number of environments do not
            allow it.
        TypeError: ``known`` is no ``KnownFunctions``; when training starts: the algorithm is not
            off-policy.

    Example::

        recorder = RecordEpisodes(gym.make("Pendulum-v1"))
        spec = Spec.from_spaces(recorder.observation_space, recorder.action_space, window=1)
        model = worldmodel.make("auto", spec)
        agent = SAC("MlpPolicy", recorder, learning_starts=500, gradient_steps=10)
        agent.learn(2_500, callback=DynaCallback(model, recorder, DynaConfig(start=500)))
    """

    def __init__(
        self,
        world_model: WorldModel,
        recorders: RecordEpisodes | Sequence[RecordEpisodes],
        config: DynaConfig | None = None,
        known: KnownFunctions | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.progress = progress
        self.known = check_known(known, world_model)
        self.world_model = world_model  # BaseCallback.model is the SB3 algorithm
        self.recorders = [recorders] if isinstance(recorders, RecordEpisodes) else list(recorders)
        self.config = DynaConfig() if config is None else config
        for number, recorder in enumerate(self.recorders):
            world_model.spec.check_spaces(
                recorder.observation_space, recorder.action_space, f"recorders[{number}]"
            )
        config, longest = self.config, self.config.horizon_end
        check_horizon(world_model, config.hold, config.horizon)
        check_horizon(world_model, config.hold, longest or config.horizon, "horizon_end")
        self.fits = self.imagined = 0
        self.losses: dict[str, float] = {}
        self.error: dict[str, float] = {}
        self._since_fit = self._since_imagined = 0
        self._fitted = [0] * len(self.recorders)  # totals at the last fit
        self._passed = 0
        self._rollout = 0
        self.transitions = ImaginedTransitions(config.seed)

    @property
    def algorithm(self) -> OffPolicyAlgorithm:
        """The algorithm that learns.

        Raises:
            TypeError: it has no replay buffer.
        """
        if not isinstance(self.model, OffPolicyAlgorithm):
            kind = type(self.model).__name__
            raise TypeError(f"DynaCallback: {kind} is not off-policy; train_dyna is for PPO")
        return self.model

    # -- called by SB3 ---------------------------------------------------------------------------

    def _init_callback(self) -> None:
        real = self.training_env.num_envs
        if len(self.recorders) != real:
            raise ValueError(
                f"recorders: expected one for each of the {real} environments, got "
                f"{len(self.recorders)}"
            )
        check_buffer(self.algorithm)
        self._wrappers = WrappedObservations(self.training_env)
        shape, dtype = self.world_model.spec.border
        self._check(self._imagined_env(np.zeros((1, *shape), dtype)))
        self._explore = Exploration(self.algorithm, self.config.num_envs, self.config.seed)

    def _on_training_start(self) -> None:
        self._passed = self._total()
        algorithm = self.algorithm
        real = algorithm.replay_buffer
        if isinstance(real, MixedReplayBuffer):  # of training that was interrupted
            real = real.real
        assert real is not None
        algorithm.replay_buffer = MixedReplayBuffer(real, self.transitions, self.config.real_share)

    def _on_training_end(self) -> None:
        mixed = self.algorithm.replay_buffer
        if isinstance(mixed, MixedReplayBuffer):
            self.algorithm.replay_buffer = mixed.real

    def _on_rollout_start(self) -> None:
        self._rollout = self.num_timesteps

    def _on_step(self) -> bool:
        before, self._passed = self._passed, self._total()
        passed, decisions = self._passed - before, self.training_env.num_envs
        most = decisions * self.config.hold
        if passed > most or (passed < most and not self.locals["dones"].any()):
            raise ValueError(
                f"hold: {decisions} decisions of {self.config.hold} steps are {most} steps, but "
                f"the recorders saw {passed}; give the steps that HoldAction holds, and put "
                "RecordEpisodes inside of it"
            )
        return True

    def _on_rollout_end(self) -> None:
        rows, config = self.num_timesteps - self._rollout, self.config
        self._since_fit += rows
        self._since_imagined += rows
        due = config.every if self.fits else config.start
        if self._since_fit >= due:
            self._since_fit %= due
            self._fit()
        if not self.fits or self.num_timesteps < self.algorithm.learning_starts:
            return
        every = config.every if config.imagine_every is None else config.imagine_every
        steps = min(self._since_imagined, config.every) if len(self.transitions) else every
        if steps >= every:
            self._since_imagined = 0
            self._imagine(config.branches * steps)

    # -- files -----------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the world model, the recorded episodes and the counts."""
        checkpoint.save(self.world_model, folder / "model")
        for number, recorder in enumerate(self.recorders):
            if recorder.steps:
                recorder.episodes().save(folder / f"recorder-{number}")
        facts = {name: getattr(self, name) for name in _COUNTS}
        facts["totals"] = [recorder.total for recorder in self.recorders]
        (folder / "dyna.json").write_text(json.dumps(facts, indent=1) + "\n")

    def restore(self, folder: Path) -> None:
        """Read what ``save`` wrote; to be called when training starts."""
        facts = read_json(folder / "dyna.json")
        checkpoint.load_weights(self.world_model, folder / "model" / "model.safetensors")
        for number, total in enumerate(facts.pop("totals")):
            if total:
                recorded = Episodes.load(folder / f"recorder-{number}")
                self.recorders[number].restore(recorded, total)
        for name in _COUNTS:
            setattr(self, name, facts[name])

    # -- the model learns ------------------------------------------------------------------------

    def _fit(self) -> None:
        fresh = zip(self.recorders, self._fitted, strict=True)
        if self.fits and any(recorder.recorded(begin) for recorder, begin in fresh):
            unseen = merge_episodes(self.recorders, self._fitted)
            self.error = model_error(self.world_model, unseen, self.config)
        recorded = merge_episodes(self.recorders)
        self.losses = refit(self.world_model, recorded, self.config, self.fits, self.progress)
        self.fits += 1
        self._fitted = [recorder.total for recorder in self.recorders]
        self.transitions.clear()
        for group, losses in (("dyna_fit", self.losses), ("dyna_error", self.error)):
            for name, value in losses.items():
                self.logger.record(f"{group}/{name}", value)
        self.logger.record("dyna/fits", self.fits)
        self.logger.record("dyna/recorded_steps", recorded.steps)

    def _total(self) -> int:
        return sum(recorder.total for recorder in self.recorders)

    # -- the algorithm imagines ------------------------------------------------------------------

    def _imagined_env(self, starts: Starts) -> ImaginedVecEnv:
        return self.config.imagined_env(self.world_model, starts, self.fits, self.known)

    def _check(self, imagined: ImaginedVecEnv) -> None:
        """Raise ValueError unless the spaces are those of the algorithm's environments."""
        for kind in ("observation_space", "action_space"):
            own, real = getattr(imagined, kind), getattr(self._wrappers.inner, kind)
            if own != real:
                raise ValueError(
                    f"world_model: its {kind} is {own}, that of the algorithm's environments {real}"
                )

    def _imagine(self, count: int) -> None:
        """Imagine that many branches."""
        stacked = is_vecenv_wrapped(self.training_env, VecFrameStack)
        recorded = merge_episodes(self.recorders)
        venv = self._imagined_env(stackable_starts(recorded, stacked))
        venv.branches.seed([self.config.seed, self.imagined])
        horizon, before = self.config.horizon_at(self.num_timesteps), self.imagined
        total = 0.0
        parts = range(0, count, self.config.num_envs)
        for first in progress(parts, "imagine branches", "batch", show=self.progress):
            total += self._branch(venv, min(self.config.num_envs, count - first), horizon)
        self.logger.record("dyna/reward", total / (self.imagined - before))
        self.logger.record("dyna/imagined", self.imagined)
        self.logger.record("dyna/horizon", horizon)

    def _branch(self, venv: ImaginedVecEnv, count: int, horizon: int) -> float:
        """Add the transitions of ``count`` branches, and return the sum of their rewards."""
        branches, rows = venv.branches, np.arange(count)
        branches.begin(count)
        self._explore.begin()
        before, total = self._wrappers.reset(branches.observations()), 0.0
        for left in range(horizon - 1, -1, -1):
            actions, scaled = self._explore.act(before, rows)
            rewards, alive, disagreement = branches.step(branches.chosen(actions))
            rewards = rewards - venv.penalty * disagreement
            after = self._wrappers.update(branches.observations())
            ended = alive < branches.rng.random(len(rows))
            self.transitions.add(before, scaled, after, ended, rewards)
            self.imagined += len(rows)
            total += float(rewards.sum())
            going = np.flatnonzero(~ended)
            if not left or not len(going):
                break
            if len(going) < len(rows):
                rows, after = rows[going], pick(after, going)
                branches.select(going)
                self._wrappers.select(going)
            before = after
        return total
