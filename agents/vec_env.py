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
from agents.branches import Branches
from agents.imagination import check_model
from agents.known_functions import KnownFunctions, check_known
from agents.legal_actions import check_some_legal
from agents.starts import DictObservation, Starts, is_env_to_make, start_sampler
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import numbers_at_least, whole_numbers
from worldmodel.data.make_env import Env, EnvLike, make_env


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
        start = start_sampler(starts, model, self.horizon * hold, hold, self.parts)
        self._live = isinstance(starts, gym.Env)
        self.branches = Branches(
            self.model, start, hold, worlds, self.parts, self.known, seed, penalty > 0
        )
        pictures = model.spec.is_image or model.spec.image_part is not None
        self.render_mode = "rgb_array" if pictures else None  # VecEnv.__init__ asks for it
        action = model.spec.action
        super().__init__(
            num_envs,
            model.spec.observation_space() if observation_space is None else observation_space,
            action_border.chunk_space(action, hold) if chunk else action.to_space(),
        )
        # only now: VecEnv.__init__ replaces the metadata
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": fps}

        self._chosen: Tensor | None = None
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
            self.branches.seed(seeds)
        self._reset_seeds()
        options = [self._options] if any(self._options) else []
        self._reset_options()
        if options and not self._live:
            raise ValueError(
                "options: are for the resets of an environment as starts; leave set_options away"
            )
        self.branches.begin(self.num_envs, *options)
        self._chosen = None
        self._decisions[:] = 0
        cut = np.arange(self.num_envs) * self.horizon // self.num_envs
        self._limits = self.horizon - cut * int(self.stagger)
        return self.branches.observations()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take one decision in each environment: (num_envs, *action), or chunks of actions.

        Raises:
            RuntimeError: ``reset()`` was not called before.
            ValueError: the actions are none of the space.
        """
        if not len(self.branches.frames):
            raise RuntimeError("ImaginedVecEnv: call reset(), then step(actions)")
        self._chosen = self.branches.chosen(actions, self.chunk)

    def step_wait(self) -> VecEnvStepReturn:
        """Imagine the ``hold`` steps; episodes that end are followed by new ones.

        Raises:
            RuntimeError: ``step_async()`` was not called before.
            FloatingPointError: the model predicts NaN or infinity.
        """
        if self._chosen is None:
            raise RuntimeError("ImaginedVecEnv: call reset(), then step(actions)")
        branches, chosen, self._chosen = self.branches, self._chosen, None
        rewards, alive, disagreement = branches.step(chosen)
        self._decisions += 1
        terminated = alive < branches.rng.random(self.num_envs)
        truncated = (self._decisions >= self._limits) & ~terminated
        infos: list[dict[str, Any]] = [
            {"steps": self.hold, "alive": survival, "TimeLimit.truncated": cut}
            for survival, cut in zip(alive.tolist(), truncated.tolist(), strict=True)
        ]
        if self.worlds > 1 or self.penalty > 0:
            for info, value in zip(infos, disagreement.tolist(), strict=True):
                info["disagreement"] = value
        dones = terminated | truncated
        if dones.any():
            self._restart(np.flatnonzero(dones), truncated, infos)
        return branches.observations(), rewards - self.penalty * disagreement, dones, infos

    def _restart(
        self, rows: NDArray[np.int64], truncated: NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> None:
        """Write how these episodes ended into their infos, and begin new ones."""
        ended = self.branches.observations()
        for row in rows.tolist():
            if truncated[row] and self._limits[row] < self.horizon:
                infos[row]["staggered"] = True
            infos[row]["terminal_observation"] = (
                {name: part[row].copy() for name, part in ended.items()}
                if isinstance(ended, dict)
                else np.array(ended[row])
            )
        self.branches.restart(rows)
        self._decisions[rows] = 0
        self._limits[rows] = self.horizon

    def close(self) -> None:
        """Close the environment that gives the starts, if it was made here."""
        if self._made is not None:
            self._made.close()

    # -- the rest of VecEnv's interface ----------------------------------------------------------

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """The current frames, RGB uint8 (H, W, 3) each; None for vectors."""
        spec, frames = self.model.spec, self.branches.frames
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
        frames = torch.from_numpy(self.branches.frames).to(self.model.device)
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
        TypeError: a number is not whole.
        ValueError: a number is below 1, the steps exceed the model's window, or ``hold`` is not a
            multiple of its stride.
    """
    whole_numbers(1, hold=hold, **{argument: 1 if horizon is None else horizon})
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
