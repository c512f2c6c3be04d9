"""Make any Gymnasium environment fit a world model: small uint8 images, or flat float vectors."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from numpy.typing import NDArray
from PIL import Image

from worldmodel.common.space_advice import (
    is_codes,
    is_flattenable,
    is_large,
    is_picture,
    leaf_spaces,
    observation_advice,
)
from worldmodel.data.make_env import Env, EnvLike, make_env
from worldmodel.spec import LARGEST_SIDE, Spec


def adapt(
    env: EnvLike,
    size: int | None = None,
    pixels: bool = False,
    grayscale: bool = False,
    codes: int | None = None,
    **make_kwargs: Any,
) -> Env:
    """An environment whose spaces ``worldmodel.Spec.from_spaces`` accepts.

    - Images (uint8, 0 to 255; RGB or grey, channels last, first or missing) are resized to ``size``
      x ``size`` by averaging areas; proportions are not preserved. Without ``size`` those that fit
      stay as they are, others become 64 x 64.
    - Grids of codes (MiniGrid's kinds of objects, say), which look like images to Gymnasium, become
      one-hot vectors if ``codes`` says how many there are; else the first frame that would have to
      be resized is refused.
    - Anything else becomes a float vector: Dicts, Tuples and tables are flattened, discrete values
      become one-hot, integers float32. With ``pixels``, the rendered picture takes its place.

    Observations that fit already, actions and rewards are unchanged. Environments registered with
    a ``size`` (ours are) are made in this size instead of resized. Atari games ("ALE/Pong-v5",
    which need the extra ``atari``) keep Gymnasium's v5 rules: 4 frames a step, sticky actions with
    probability 1/4.

    Args:
        env: Gymnasium id, function that makes an environment, or an environment; with ``pixels``,
            what is not an id needs ``render_mode="rgb_array"``.
        size: height and width of images, a multiple of 8 and at least 16.
        pixels: observe rendered frames instead of the environment's own observations.
        grayscale: convert images to one channel.
        codes: how many codes the observation's numbers are, which count from 0.
        make_kwargs: of ``gymnasium.make``.

    Raises:
        ImportError: an Atari game without ale-py.
        TypeError: ``env`` is none of these.
        ValueError: ``size`` or ``codes`` is wrong, ``make_kwargs`` were given without an id,
            nothing can be rendered, or the spaces are of a kind that no world model takes. At a
            reset or step: images hold nothing but few small numbers, or a code is none.

    Example::

        make = functools.partial(adapt, "ALE/Pong-v5", size=64)  # may be pickled
        episodes = worldmodel.collect(make(), 100)
        venv = DummyVecEnv([make] * 8)
    """
    whole = isinstance(size, int) and not isinstance(size, bool)
    if size is not None and (not whole or size < 16 or size % 8):
        raise ValueError(f"size: expected a multiple of 8 from 16 on, or None, got {size!r}")
    if isinstance(env, str):
        make_kwargs = _kwargs_of_id(env, size, pixels) | make_kwargs
    made = make_env(env, **make_kwargs)
    try:
        return _fit(made, size, pixels, grayscale, codes)
    except Exception:
        if made is not env:
            made.close()
        raise


def _kwargs_of_id(name: str, size: int | None, pixels: bool) -> dict[str, Any]:
    """What ``gymnasium.make`` is given for this id; the module that registers it is imported."""
    if name.startswith("ALE/"):
        try:
            gym.register_envs(importlib.import_module("ale_py"))
        except ImportError as error:
            raise ImportError(
                f"env: {name} needs ale-py; pip install 'jumpy-worldmodel[atari]'"
            ) from error
    module, _, plain = name.rpartition(":")
    if module:
        importlib.import_module(module)
    kwargs: dict[str, Any] = {"render_mode": "rgb_array"} if pixels else {}
    sized = size is not None and "size" in gym.spec(plain).kwargs
    return {**kwargs, "size": size} if sized else kwargs


def _fit(env: Env, size: int | None, pixels: bool, grayscale: bool, codes: int | None) -> Env:
    if pixels:
        if codes is not None:
            raise ValueError("codes, pixels: give one of them; rendered frames hold no codes")
        if env.render_mode != "rgb_array":
            raise ValueError(
                f"pixels: expected an environment with render_mode='rgb_array', got "
                f"{env.render_mode!r}; give it to gymnasium.make"
            )
        env, size = wrappers.AddRenderObservation(env), size or 64
    if codes is not None:
        env = _one_hot(env, codes)
    if is_picture(env.observation_space):
        env = _image(env, size, grayscale)
    elif grayscale:
        raise ValueError(
            f"grayscale: expected images, got {env.observation_space}; pixels=True renders them"
        )
    else:
        env = _vector(env)
    Spec.from_spaces(env.observation_space, env.action_space, window=1)  # says what else is wrong
    return env


class _RefuseCodes(gym.ObservationWrapper[Any, Any, Any]):
    """Checks that pictures hold brightness, until the first one that is not of one colour."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.unknown = True

    def observation(self, observation: Any) -> Any:
        values = np.unique(observation) if self.unknown else np.zeros(1)
        least, most = values[0], values[-1]
        self.unknown &= least == most
        if is_codes(least, most):
            raise ValueError(
                f"observations: an image of {np.shape(observation)} holds whole numbers from "
                f"{least} to {most} only, of 255: codes of things, which cannot be resized. "
                "adapt(env, codes=N), N their number, makes one-hot vectors, pixels=True shows "
                "rendered frames instead; if they are dark pictures, gymnasium.wrappers."
                "TransformObservation can scale them"
            )
        return observation


def _one_hot(env: Env, codes: int) -> Env:
    """Whole numbers below ``codes`` as float32 (entries * codes,)."""
    if isinstance(codes, bool) or not isinstance(codes, int) or codes < 2:
        raise ValueError(f"codes: expected an int of at least 2, got {codes!r}")
    space = env.observation_space
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.integer):
        raise ValueError(
            f"codes: expected observations of a Box of integers, got {space}; "
            "gymnasium.wrappers.TransformObservation can pick a part"
        )
    target = gym.spaces.Box(0, 1, (int(np.prod(space.shape)) * codes,), np.float32)
    return wrappers.TransformObservation(env, partial(_encode, codes=codes), target)


def _encode(observation: Any, codes: int) -> NDArray[np.float32]:
    numbers = np.asarray(observation).flatten()
    if numbers.min() < 0 or numbers.max() >= codes:
        raise ValueError(
            f"codes: an observation holds {numbers.min()} to {numbers.max()}, expected 0 to "
            f"{codes - 1}; give codes={numbers.max() + 1} or more"
        )
    return np.asarray(np.eye(codes, dtype=np.float32)[numbers].flatten())


def _image(env: Env, size: int | None, grayscale: bool) -> Env:
    shape = env.observation_space.shape or ()
    last_or_first = (1,) if len(shape) == 2 else (shape[-1], shape[0])
    channels = next((count for count in last_or_first if count in (1, 3)), None)
    if channels is None:
        raise ValueError(
            f"observation space: expected images of 1 or 3 channels, got {shape}; wrap the "
            "environment in gymnasium.wrappers.TransformObservation to make such (RGB of RGBA, or "
            "one frame of a stack)"
        )
    if size is None:
        fits = len(shape) == 3 and shape[2] == channels
        fits &= all(16 <= side <= LARGEST_SIDE and side % 8 == 0 for side in shape[:2])
        size = 64
    else:
        fits = shape == (size, size, channels)
    if not fits:
        space = gym.spaces.Box(0, 255, (size, size, channels), np.uint8)
        resize = partial(_resize, size=size, channels=channels)
        env = wrappers.TransformObservation(_RefuseCodes(env), resize, space)
    if grayscale and channels == 3:
        env = wrappers.GrayscaleObservation(env, keep_dim=True)
    return env


def _resize(observation: NDArray[np.uint8], size: int, channels: int) -> NDArray[np.uint8]:
    """uint8 (H, W), (H, W, C) or (C, H, W) to (size, size, C).

    By Pillow: ``gymnasium.wrappers.ResizeObservation`` would need OpenCV for the same.
    """
    image = np.asarray(observation)
    if image.ndim == 3 and image.shape[-1] != channels:
        image = image.transpose(1, 2, 0)
    picture = Image.fromarray(image if channels == 3 else image.reshape(image.shape[:2]))
    small = picture.resize((size, size), Image.Resampling.BOX)
    return np.array(small, np.uint8).reshape(size, size, channels)


def _vector(env: Env) -> Env:
    space = env.observation_space
    if any(is_large(leaf) for leaf in leaf_spaces(space)):
        raise ValueError(
            f"observation space: {space} holds images beside other things, or such that are not "
            "uint8 from 0 to 255; pixels=True shows the rendered frames instead, "
            "gymnasium.wrappers.TransformObservation can pick or convert one"
        )
    if not (isinstance(space, gym.spaces.Box) and len(space.shape) == 1):
        if not all(map(is_flattenable, leaf_spaces(space))):
            raise ValueError(
                f"observation space: {space} cannot be flattened; {observation_advice(space)}"
            )
        env = wrappers.FlattenObservation(env)
    if not np.issubdtype(env.observation_space.dtype, np.floating):
        exact = np.can_cast(np.dtype(env.observation_space.dtype), np.float32)
        # else integers that float32 may round: as float64, recording them says if it matters
        env = wrappers.DtypeObservation(env, np.float32 if exact else np.float64)
    return env
