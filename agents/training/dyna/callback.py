"""Dyna for off-policy algorithms: imagined and real transitions in one replay buffer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
    VecVideoRecorder,
    is_vecenv_wrapped,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from agents.known_functions import KnownFunctions, check_known
from agents.starts import Starts
from agents.training.dyna.recorder import RecordEpisodes, merge_episodes
from agents.training.dyna.refit import RefitConfig, model_error, refit
from agents.training.imagined_ppo import stackable_starts
from agents.values import by_part
from agents.vec_env import check_horizon
from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least
from worldmodel.common.safe_files import read_json
from worldmodel.data.episodes import Episodes

_COUNTS = (
    "fits", "imagined", "losses", "error",
    "_real", "_since_fit", "_since_imagined", "_updates", "_fitted",
)  # fmt: skip


@dataclass(frozen=True)
class DynaConfig(RefitConfig):
    """When the model is refitted, and how much is imagined. See also ``RefitConfig``.

    Steps are those of the algorithm (its ``num_timesteps``): decisions of ``hold`` steps each.

    Attributes:
        start: real steps before the first fit.
        every: real steps between later fits, after which the imagined episodes begin anew from all
            recorded ones.
        imagine_every: real steps between two rounds of imagination.
        ratio: imagined transitions for each real one, counted from the first fit on.
        horizon: decisions of an imagined episode. Short ones keep the model's errors small.
    """

    start: int = 1000
    every: int = 1000
    imagine_every: int = 100
    ratio: float = 4.0
    horizon: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "start", "every", "imagine_every", "horizon")
        at_least(0, self, "ratio")


class DynaCallback(BaseCallback):
    """Lets DQN, SAC or TD3 learn from a world model, which learns from their real episodes.

    Every ``every`` real steps the model is refitted to the recorded episodes. Every
    ``imagine_every`` steps transitions are imagined and added to the replay buffer: short episodes
    that branch off from recorded states, in which the algorithm acts with its exploration. It then
    trains as often for an imagined transition as for a real one.

    Both happen at the end of a rollout of the algorithm (``train_freq``). Imagined transitions stay
    in the buffer until newer ones replace them: ``buffer_size`` should have room for ``1 + ratio``
    times as many transitions as without Dyna.

    The environment has a ``RecordEpisodes`` inside ``HoldAction``; wrappers that change
    observations or rewards belong inside the recorder. If frames are stacked by ``VecFrameStack``,
    imagined episodes begin at the first frames of recorded ones (see ``stackable_starts``), so
    ``horizon`` should be long.

    It logs ``dyna/...``, the losses of the last fit as ``dyna_fit/...`` and the model's error on
    new episodes, measured before it is fitted to them, as ``dyna_error/...``.

    Args:
        world_model: of the spaces of the recorded environment.
        recorders: of all environments that the algorithm learns in.
        config: see ``DynaConfig``.
        known: functions in place of the model's heads, in all imagined episodes.

    Attributes:
        fits: how often the model was fitted.
        imagined: transitions added to the replay buffer.
        losses, error: of the last fit, and of the model just before it.

    Raises:
        ValueError: the recorders' spaces are not the model's, ``hold * horizon`` exceeds its
            window, or it cannot do with ``known``; when training starts also: the algorithm's
            buffer, wrappers or number of environments do not allow it.
        TypeError: ``known`` is no ``KnownFunctions``; when training starts: the algorithm is not
            off-policy.

    Example::

        recorder = RecordEpisodes(gym.make("CartPole-v1"))
        model = worldmodel.make(
            "jump", Spec.from_spaces(recorder.observation_space, recorder.action_space, window=20)
        )
        agent = DQN("MlpPolicy", HoldAction(recorder, 2), buffer_size=100_000)
        agent.learn(10_000, callback=DynaCallback(model, recorder, DynaConfig(hold=2)))
    """

    def __init__(
        self,
        world_model: WorldModel,
        recorders: RecordEpisodes | Sequence[RecordEpisodes],
        config: DynaConfig | None = None,
        known: KnownFunctions | None = None,
    ) -> None:
        super().__init__()
        self.known = check_known(known, world_model)
        self.world_model = world_model  # BaseCallback.model is the SB3 algorithm
        self.recorders = [recorders] if isinstance(recorders, RecordEpisodes) else list(recorders)
        self.config = DynaConfig() if config is None else config
        for number, recorder in enumerate(self.recorders):
            world_model.spec.check_spaces(
                recorder.observation_space, recorder.action_space, f"recorders[{number}]"
            )
        check_horizon(world_model, self.config.hold, self.config.horizon)
        self.fits = self.imagined = 0
        self.losses: dict[str, float] = {}
        self.error: dict[str, float] = {}
        self._real = self._since_fit = self._since_imagined = 0
        self._updates = 0.0  # gradient steps that are due
        self._fitted = [0] * len(self.recorders)  # totals at the last fit
        self._passed = 0
        self._rollout = 0
        self._venv: VecEnv | None = None
        self._observations: Any = np.empty(0)
        self._noise: VectorizedActionNoise | None = None

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
        _check_buffer(self.algorithm)
        branches, real = self.config.num_envs, self.training_env.num_envs
        if branches % real:
            raise ValueError(
                f"num_envs: rows enter the replay buffer {real} at a time, as many as there are "
                f"real environments; expected a multiple of that, got {branches}"
            )
        if len(self.recorders) != real:
            raise ValueError(
                f"recorders: expected one for each of the {real} environments, got "
                f"{len(self.recorders)}"
            )
        shape, dtype = self.world_model.spec.border
        self._make(np.zeros((1, *shape), dtype))  # raises if wrappers or spaces do not fit
        if self.fits:
            self._branch(merge_episodes(self.recorders))

    def _on_training_start(self) -> None:
        self._passed = self._total()

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
        if self.fits:
            self._real += rows
            self._since_imagined += rows
        self._since_fit += rows
        due = config.every if self.fits else config.start
        if self._since_fit >= due:
            self._since_fit %= due
            self._fit()
        if self.fits and self._since_imagined >= config.imagine_every:
            self._since_imagined %= config.imagine_every
            self._learn(self._imagine(), rows)

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
        if self.fits:
            self._branch(merge_episodes(self.recorders))

    # -- the model learns ------------------------------------------------------------------------

    def _fit(self) -> None:
        fresh = zip(self.recorders, self._fitted, strict=True)
        if self.fits and any(recorder.recorded(begin) for recorder, begin in fresh):
            unseen = merge_episodes(self.recorders, self._fitted)
            self.error = model_error(self.world_model, unseen, self.config)
        recorded = merge_episodes(self.recorders)
        self.losses = refit(self.world_model, recorded, self.config, self.fits)
        self.fits += 1
        self._fitted = [recorder.total for recorder in self.recorders]
        self._branch(recorded)
        for group, losses in (("dyna_fit", self.losses), ("dyna_error", self.error)):
            for name, value in losses.items():
                self.logger.record(f"{group}/{name}", value)
        self.logger.record("dyna/fits", self.fits)
        self.logger.record("dyna/recorded_steps", recorded.steps)

    def _total(self) -> int:
        return sum(recorder.total for recorder in self.recorders)

    # -- the algorithm learns --------------------------------------------------------------------

    def _branch(self, recorded: Episodes) -> None:
        """Begin imagined episodes at recorded steps."""
        stacked = is_vecenv_wrapped(self.training_env, VecFrameStack)
        self._venv = self._make(stackable_starts(recorded, stacked))
        self._observations = self._venv.reset()
        noise = self.algorithm.action_noise
        if noise is not None:
            base = noise.base_noise if isinstance(noise, VectorizedActionNoise) else noise
            self._noise = VectorizedActionNoise(base, self.config.num_envs)
            self._noise.reset()

    def _make(self, starts: Starts) -> VecEnv:
        """The imagined environment, wrapped as the algorithm's own is."""
        imagined_env = self.config.imagined_env(self.world_model, starts, self.fits, self.known)
        venv = wrap_alike(imagined_env, self.training_env)
        for kind in ("observation_space", "action_space"):
            imagined, own = getattr(venv, kind), getattr(self.algorithm, kind)
            if imagined != own:
                raise ValueError(f"world_model: its {kind} is {imagined}, the algorithm's {own}")
        return venv

    def _imagine(self) -> int:
        """Add the imagined transitions that are due, and return their number."""
        branches, before = self.config.num_envs, self.imagined
        due = self.config.ratio * self._real - self.imagined
        rewards = [self._add() for _ in range(int((due + 1e-9) // branches))]
        if rewards:
            self.logger.record("dyna/reward", float(np.mean(rewards)))
            self.logger.record("dyna/imagined", self.imagined)
        return self.imagined - before

    def _add(self) -> float:
        """Imagine one decision in every branch, and return the mean reward."""
        venv, before, buffer = self._venv, self._observations, self.algorithm.replay_buffer
        assert venv is not None and buffer is not None
        actions, scaled = self._act()
        after, rewards, dones, infos = venv.step(actions)
        self._observations = after
        arrived = _arrived(after, dones, infos)
        real = self.training_env.num_envs
        for first in range(0, len(dones), real):
            part = slice(first, first + real)
            buffer.add(
                _rows(before, part),
                _rows(arrived, part),
                scaled[part],
                rewards[part],
                dones[part],
                infos[part],
            )
        if self._noise is not None:
            self._noise.reset(np.flatnonzero(dones))
        self.imagined += len(dones)
        return float(rewards.mean())

    def _act(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Actions with the algorithm's exploration, and the same scaled as in the buffer."""
        algorithm, count = self.algorithm, self.config.num_envs
        real, algorithm._last_obs = algorithm._last_obs, self._observations
        try:
            return algorithm._sample_action(algorithm.learning_starts, self._noise, count)
        finally:
            algorithm._last_obs = real

    def _learn(self, imagined: int, rows: int) -> None:
        """Train as often for each imagined transition as for each of the rollout's real ones."""
        algorithm = self.algorithm
        if algorithm.num_timesteps <= algorithm.learning_starts:
            return
        own = algorithm.gradient_steps
        self._updates += imagined * (own / rows if own >= 0 else 1.0)
        steps = int(self._updates + 1e-9)
        self._updates -= steps
        if steps:
            algorithm.train(steps, algorithm.batch_size)


def _arrived(after: VecEnvObs, dones: NDArray[Any], infos: Sequence[dict[str, Any]]) -> VecEnvObs:
    """Observations that steps led to: where an episode ended, the next one has begun already."""
    parts = {name: values.copy() for name, values in by_part(after).items()}
    for row in np.flatnonzero(dones).tolist():
        for name, value in by_part(infos[row]["terminal_observation"]).items():
            parts[name][row] = value
    return parts if isinstance(after, dict) else parts[""]


def _rows(observations: Any, rows: slice) -> Any:
    """Some rows of observations, or of each part of a Dict."""
    if isinstance(observations, dict):
        return {name: part[rows] for name, part in observations.items()}
    return observations[rows]


def wrap_alike(venv: VecEnv, other: VecEnv) -> VecEnv:
    """Wrap ``venv`` so that it shows what ``other`` shows: frames transposed and stacked alike.

    Raises:
        ValueError: ``other`` has a wrapper of another kind.
    """
    wrappers: list[VecEnvWrapper] = []
    while isinstance(other, VecEnvWrapper):
        wrappers.append(other)
        other = other.venv
    for wrapper in reversed(wrappers):
        if type(wrapper) is VecTransposeImage:
            venv = VecTransposeImage(venv, wrapper.skip)
        elif type(wrapper) is VecFrameStack:
            stack = wrapper.stacked_obs
            order = "first" if stack.channels_first else "last"
            venv = VecFrameStack(venv, stack.n_stack, order)
        elif type(wrapper) not in (VecMonitor, VecCheckNan, VecVideoRecorder):
            raise ValueError(
                f"env: cannot show imagined episodes as {type(wrapper).__name__} shows real ones; "
                "use VecTransposeImage and VecFrameStack only, and put other wrappers into the "
                "environments, inside RecordEpisodes"
            )
    return venv


def _check_buffer(algorithm: OffPolicyAlgorithm) -> None:
    """Raise ValueError if the replay buffer needs the rows of an episode to be consecutive."""
    buffer = algorithm.replay_buffer
    if algorithm.optimize_memory_usage or not getattr(buffer, "handle_timeout_termination", False):
        raise ValueError(
            "replay_buffer: imagined episodes are truncated, and stand between real ones; leave "
            "optimize_memory_usage off and handle_timeout_termination on"
        )
    if getattr(buffer, "n_steps", 1) > 1 or isinstance(buffer, HerReplayBuffer):
        raise ValueError(
            f"replay_buffer: {type(buffer).__name__} reads consecutive rows as one episode, which "
            "imagined ones would interrupt; use ReplayBuffer or DictReplayBuffer (n_steps=1)"
        )
