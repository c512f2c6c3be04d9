"""A world model as a Stable-Baselines3 vectorised environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnv,
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)
from torch import Tensor

from agents import actions as action_border
from agents.history import Frames, to_context
from agents.imagination import check_finite, check_model
from agents.known_functions import KnownFunctions, as_observed, check_known
from agents.legal_actions import check_some_legal
from agents.starts import DictObservation, Starts, is_env_to_make, start_sampler
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.data.make_env import Env, EnvLike, make_env
from worldmodel.types import Queries, Worlds


class ImaginedVecEnv(VecEnv):
    """Episodes that a world model imagines, at one frame for each decision.

    An episode begins at a start, for which worlds are sampled; it takes place in the first of them.
    An action is held for ``hold`` steps, for which **one** frame is rendered; the rewards of these
    steps are summed. The episode is terminated with the probability 1 - ``alive`` that the model
    predicts, and truncated after ``horizon`` decisions, so that SB3 bootstraps the value. The
    spaces are those of the real environment: an agent that was trained here runs on
    ``HoldAction(env, hold)`` unchanged, with ``chunk`` on ``ChunkAction(env, hold)``.

    Each info holds ``steps`` (= hold), ``alive`` (the probability that the episode goes on, given
    that it did before), ``TimeLimit.truncated`` and, with more than one world or a penalty,
    ``disagreement``; at an episode's end also ``terminal_observation``.

    Args:
        model: any world model; it is put into evaluation mode.
        starts: where episodes begin:
            frames uint8 (n, H, W, C), float (n, D) or a dict of such by part;
            recorded ``worldmodel.Episodes``: any of their steps, with the frames before as context
            (``episodes.starts()`` are the first frames alone);
            an environment (``worldmodel.EnvLike``: an id, a function without arguments that makes
            it, or the environment itself): its resets, with the options of ``set_options``;
            or a function ``(num, numpy generator)`` that returns ``num`` frames.
        num_envs: how many episodes run side by side.
        hold: steps of one decision.
        horizon: decisions after which an episode is truncated; None takes what fits the window.
            Short ones that begin at recorded steps keep errors from piling up (Janner et al. 2019).
        chunk: whether a decision is ``hold`` different actions instead of one held action.
        penalty: factor of the disagreement, which is subtracted from the reward.
        worlds: sampled for each episode.

            The disagreement of an ensemble is that of its members about the first world's
            observations (``WorldModel.disagreement``), which grows where nothing was recorded; one
            world is enough. That of another model is the standard deviation over worlds of the
            reward that they predict for the decision: the scene's randomness as well as the model's
            ignorance; a deterministic model never disagrees.
        observation_space: of the real environment, if that is a Dict of which the model imagines
            exactly one part; the others stay as the start gives them, and starts are dicts. An
            environment is stepped once to check that they do. (A model that was made for the Dict
            imagines all of it, without this.)
        known: functions in place of the model's heads. With ``reward`` or ``terminated`` every one
            of the ``hold`` frames is rendered, in every world. With ``action_mask`` there is a
            method ``action_masks``, as MaskablePPO of sb3-contrib expects it.
        seed: of the starts and the worlds; ``seed()`` before ``reset()`` replaces it.
        stagger: for training: shorten the first episodes after ``reset()`` by different amounts, so
            that the environments do not all end in the same step. Their last infos hold
            ``staggered``, and ``monitor_and_stack`` leaves them out of its statistics.
        fps: frames (decisions) per second of recorded videos.

    Raises:
        TypeError: ``model`` is not a ``WorldModel``, the starts are not uint8, or ``known`` is no
            ``KnownFunctions``.
        ValueError: a number is out of range, ``horizon * hold`` exceeds the model's window,
            ``hold`` is no multiple of its stride, a penalty for less than two worlds, the model
            cannot do with ``known``, masks for chunks, or the starts or the space are not what it
            was made for.

    Example::

        venv = VecMonitor(ImaginedVecEnv(model, frames, num_envs=16, hold=5, horizon=8))
        PPO("CnnPolicy", venv, policy_kwargs={"features_extractor_class": SmallCnn}).learn(10_000)
    """

    def __init__(
        self,
        model: WorldModel,
        starts: Starts,
        num_envs: int = 16,
        hold: int = 1,
        horizon: int | None = None,
        *,
        chunk: bool = False,
        penalty: float = 0.0,
        worlds: int = 1,
        observation_space: gym.spaces.Dict | None = None,
        known: KnownFunctions | None = None,
        seed: int = 0,
        stagger: bool = False,
        fps: int = 4,
    ) -> None:
        check_model(model)
        self.horizon = check_horizon(model, hold, horizon)
        numbers_at_least(1, num_envs=num_envs, fps=fps, worlds=worlds)
        if not 0 <= penalty < np.inf or (penalty > 0 and worlds < 2 and not model.disagrees):
            raise ValueError(
                f"penalty: expected at least 0, and 2 worlds or more to disagree (of an ensemble "
                f"one), got {penalty} with worlds={worlds}"
            )
        self.model = model.eval()
        self.known = check_known(known, model)
        if chunk and self.known.action_mask is not None:
            raise ValueError(
                "chunk: known.action_mask is for one action, a chunk has later ones; leave chunk "
                "away, which holds one action, or action_mask"
            )
        self.parts: DictObservation | None = None
        if observation_space is not None:
            self.parts = DictObservation.of(observation_space, model)
        self.hold, self.chunk, self.stagger = hold, chunk, stagger
        self.penalty, self.worlds = penalty, worlds
        self._made: Env | None = None
        if is_env_to_make(starts):
            starts = self._made = make_env(cast(EnvLike, starts))
        self._start = start_sampler(starts, model, self.horizon * hold, hold, self.parts)
        self._live = isinstance(starts, gym.Env)
        pictures = model.spec.is_image or model.spec.image_part is not None
        self.render_mode = "rgb_array" if pictures else None  # VecEnv.__init__ asks for it
        shape, dtype = model.spec.border
        action = model.spec.action
        super().__init__(
            num_envs,
            model.spec.observation_space() if observation_space is None else observation_space,
            action_border.chunk_space(action, hold) if chunk else action.to_space(),
        )
        # only now: VecEnv.__init__ replaces the metadata
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": fps}

        self._generator = torch.Generator(model.device)
        self._seed_all(seed)
        self._worlds: Worlds | None = None
        self._chosen: Tensor | None = None
        self._frames: Frames = np.zeros((num_envs, *shape), dtype)
        self._constants: dict[str, NDArray[Any]] = {}
        self._latest: Tensor | None = None  # of all worlds, where outcomes are known functions
        self._decisions = np.zeros(num_envs, np.int64)
        self._limits = np.full(num_envs, self.horizon, np.int64)

    # -- the episode -----------------------------------------------------------------------------

    def reset(self) -> VecEnvObs:
        """Begin an episode in every environment: (num_envs, *observation), or a dict of that.

        Options that ``set_options`` was given go to the environment that gives the starts.

        Raises:
            ValueError: there are options, but no such environment.
        """
        seeds = [seed for seed in self._seeds if seed is not None]
        if seeds:
            self._seed_all(seeds)
        self._reset_seeds()
        options = [self._options] if any(self._options) else []
        self._reset_options()
        if options and not self._live:
            raise ValueError(
                "options: are for the resets of an environment as starts; leave set_options away"
            )
        self._frames, self._constants, self._worlds = self._begin(self.num_envs, *options)
        self._latest = self._begun(self._frames)
        self._decisions[:] = 0
        cut = np.arange(self.num_envs) * self.horizon // self.num_envs
        self._limits = self.horizon - cut * int(self.stagger)
        return self._observations()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take one decision in each environment: (num_envs, *action), or chunks of actions."""
        lead = (self.num_envs, self.hold) if self.chunk else (self.num_envs, 1)
        chosen = action_border.to_tensor(
            self.model.spec.action, actions, lead, self.model.device, "actions"
        )
        self._chosen = chosen.expand(-1, self.hold, *chosen.shape[2:])

    @torch.no_grad()
    def step_wait(self) -> VecEnvStepReturn:
        """Imagine the ``hold`` steps; episodes that end are followed by new ones.

        Raises:
            RuntimeError: ``reset()`` or ``step_async()`` was not called before.
            FloatingPointError: the model predicts NaN or infinity.
        """
        if self._worlds is None or self._chosen is None:
            raise RuntimeError("ImaginedVecEnv: call reset(), then step(actions)")
        worlds, chosen, self._chosen = self._worlds, self._chosen, None
        disagreement = self._members_disagreement(worlds, chosen)
        rewards, alive, spread = self._imagine(worlds, chosen)
        disagreement = spread if disagreement is None else disagreement

        self._decisions += 1
        terminated = alive < self._rng.random(self.num_envs)
        truncated = (self._decisions >= self._limits) & ~terminated
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{"steps": self.hold} for _ in range(self.num_envs)]
        for i, info in enumerate(infos):
            info |= {"alive": float(alive[i]), "TimeLimit.truncated": bool(truncated[i])}
            if self.worlds > 1 or self.penalty > 0:
                info["disagreement"] = float(disagreement[i])
        if dones.any():
            ended = self._observations()
            for row in np.flatnonzero(truncated & (self._limits < self.horizon)):
                infos[row]["staggered"] = True
            for row in np.flatnonzero(dones):
                infos[row]["terminal_observation"] = (
                    {name: part[row].copy() for name, part in ended.items()}
                    if isinstance(ended, dict)
                    else np.array(ended[row])
                )
            self._restart(np.flatnonzero(dones))
        return self._observations(), rewards - self.penalty * disagreement, dones, infos

    def close(self) -> None:
        """Close the environment that gives the starts, if it was made here."""
        if self._made is not None:
            self._made.close()

    def _seed_all(self, seed: int | list[int]) -> None:
        self._rng = np.random.default_rng(seed)
        self._generator.manual_seed(int(self._rng.integers(2**62)))

    def _imagine(
        self, worlds: Worlds, chosen: Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Reward, survival and spread of the worlds' rewards of one decision, float32 (num_envs,)
        each.

        Advances the worlds, and sets the current frames to those of the first one.
        """
        queries = Queries((worlds.present + self.hold)[:, None], chosen[:, None])
        every: Tensor | None = None
        if not (self.known.outcomes or self.model.jumpy):  # one roll for both
            self._worlds, first = self.model.step(worlds, chosen)
            every = first.rewards
        else:
            self._worlds = self.model.advance(worlds, chosen)
        if self.known.outcomes:
            first = self.known.predict(self.model, worlds, queries, self._latest)
            assert first.observations is not None
            self._latest = as_observed(self.model.spec, first.observations[:, :, 0, 0])
            every = first.rewards
        elif self.model.jumpy:
            first = self.model.predict(worlds.some(slice(1)), queries)
        assert first.observations is not None
        check_finite(self.model, first.observations, first.rewards, first.alive)
        self._frames = self.model.spec.to_numpy(first.observations[:, 0, 0, 0])
        rewards, alive = (
            value[:, 0, 0, 0].float().cpu().numpy() for value in (first.rewards, first.alive)
        )
        if self.worlds == 1:
            return rewards, alive, np.zeros_like(rewards)
        if every is None:
            others = self.model.predict(worlds.some(slice(1, None)), queries, frames=False)
            every = torch.cat([first.rewards, others.rewards], 1)
        return rewards, alive, every[:, :, 0, 0].float().std(1, correction=0).cpu().numpy()

    def _members_disagreement(self, worlds: Worlds, chosen: Tensor) -> NDArray[np.float32] | None:
        """Of the first world, float32 (num_envs,); None if the model has no members, or nobody
        looks at it.
        """
        if not self.model.disagrees or (self.worlds == 1 and self.penalty == 0):
            return None
        return self.model.disagreement(worlds.some(slice(1)), chosen)[:, 0].cpu().numpy()

    def _restart(self, rows: NDArray[np.int64]) -> None:
        frames, constants, fresh = self._begin(len(rows))
        self._frames = self._frames.copy()
        self._frames[rows] = frames
        begun = self._begun(frames)
        if self._latest is not None and begun is not None:
            self._latest[torch.from_numpy(rows).to(begun.device)] = begun
        for name, values in constants.items():
            self._constants[name][rows] = values
        self._decisions[rows] = 0
        self._limits[rows] = self.horizon
        if len(rows) == self.num_envs:
            self._worlds = fresh
        else:
            assert self._worlds is not None
            where = torch.from_numpy(rows).to(fresh.present.device)
            self._worlds = self._worlds.put(where, fresh)

    @torch.no_grad()
    def _begin(self, count: int, *options: Any) -> tuple[Frames, dict[str, NDArray[Any]], Worlds]:
        r"""The present's frames (count, \*observation), constant parts, and sampled worlds."""
        starts, spec = self._start(count, self._rng, *options), self.model.spec
        indices = [range(len(history.frames)) for history in starts.histories]
        context = to_context(spec, starts.histories, indices, self.model.device)
        worlds = self.model.sample(self.model.observe(context), self.worlds, self._generator)
        frames = np.stack([history.frames[-1] for history in starts.histories])
        if not spec.parts:
            frames = frames.astype(spec.observation_space().dtype, copy=False)
        return frames, starts.constants, worlds

    def _begun(self, frames: Frames) -> Tensor | None:
        r"""The first frames in all worlds, (n, S, \*observation), for known functions."""
        if not self.known.outcomes:
            return None
        spec = self.model.spec
        first = spec.to_model(torch.from_numpy(frames).to(self.model.device))[:, None]
        return first.repeat(1, self.worlds, *[1] * (first.dim() - 2))

    def _observations(self) -> VecEnvObs:
        """The current observations as fresh arrays, since SB3 holds on to what it is given."""
        frames = self._frames.copy()
        if self.parts is None:
            observations: VecEnvObs = self.model.spec.unpack(frames)
            return observations
        constants = {name: values.copy() for name, values in self._constants.items()}
        parts = {self.parts.imagined: frames, **constants}
        return {name: parts[name] for name in self.parts.space.spaces}

    # -- the rest of VecEnv's interface ----------------------------------------------------------

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """The current frames, RGB uint8 (H, W, 3) each; None for vectors."""
        spec, frames = self.model.spec, self._frames
        if spec.image_part is not None:
            frames = spec.unpack(frames)[spec.image_part.name]
        elif not spec.is_image:
            return [None] * self.num_envs
        colours = 3 // frames.shape[-1]
        return [frame.repeat(colours, -1) for frame in frames]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The batch's attribute, once for each environment."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole batch.

        Raises:
            ValueError: only some environments were named; they share their attributes.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"indices: all environments share {attr_name!r}; leave indices away")
        setattr(self, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Only ``render`` and ``action_masks``: the environments of a batch are no objects of
        their own.

        Raises:
            AttributeError: another method, or no masks are known.
        """
        if method_name == "action_masks":
            masks = self.action_masks()
            return [masks[i] for i in self._get_indices(indices)]
        if method_name != "render":
            raise AttributeError(
                f"env_method: imagined environments have no {method_name!r}, only 'render' and "
                "'action_masks'; call methods of the batch on venv.unwrapped"
            )
        images = self.get_images()
        return [images[i] for i in self._get_indices(indices)]

    @property  # so that it is missing where there are no masks, which is what sb3-contrib tests
    def action_masks(self) -> Callable[[], NDArray[np.bool_]]:
        """Call it for bool (num_envs, n): the legal actions of each current observation.

        Raises:
            AttributeError: no masks are known.
            TypeError, ValueError: when called: the function returns no such masks, or leaves no
                action.
        """
        if self.known.action_mask is None:
            raise AttributeError(
                "action_masks: models do not learn them; give ImaginedVecEnv a function, "
                "known=KnownFunctions(action_mask=...); LegalActions.fit(episodes) learns one"
            )
        return self._masks

    @torch.no_grad()
    def _masks(self) -> NDArray[np.bool_]:
        spec = self.model.spec
        frames = torch.from_numpy(self._frames).to(self.model.device)
        masks = self.known.masks(spec.to_model(frames), spec)
        check_some_legal(spec.action, masks, "known.action_mask")
        return np.asarray(masks.cpu().numpy())

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Never: there are no Gymnasium wrappers inside."""
        return [False for _ in self._get_indices(indices)]


def check_horizon(
    model: WorldModel, hold: int, horizon: int | None, argument: str = "horizon"
) -> int:
    """The number of decisions to imagine, of ``hold`` steps each; None means as many as fit.

    Raises:
        ValueError: a number is below 1, the steps exceed the model's window, or ``hold`` is not a
            multiple of its stride.
    """
    numbers_at_least(1, hold=hold, **{argument: 1 if horizon is None else horizon})
    window, fits = model.spec.window, model.spec.window // hold
    if fits == 0:
        raise ValueError(
            f"hold: {hold} steps exceed the model's window of {window}; hold at most that many"
        )
    horizon = fits if horizon is None else horizon
    if horizon > fits:
        raise ValueError(
            f"{argument}: {horizon} decisions of {hold} steps exceed the "
            f"model's window of {window}; at most {fits} fit"
        )
    if hold % model.stride:
        raise ValueError(
            f"hold: {model.name} takes {model.stride} steps at once; expected a multiple of that, "
            f"got {hold}"
        )
    return horizon
