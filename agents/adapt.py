"""Make any Gymnasium environment fit a world model: small uint8 images, or flat float vectors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from numpy.typing import NDArray
from PIL import Image

from worldmodel.data.make_env import Env, EnvLike, make_env
from worldmodel.spec import Spec


def adapt(
    env: EnvLike,
    size: int = 64,
    pixels: bool = False,
    grayscale: bool = False,
    **make_kwargs: Any,
) -> Env:
    """An environment whose spaces ``worldmodel.Spec.from_spaces`` accepts.

    - Images (uint8, 0 to 255; RGB or grey, channels last, first or missing) are resized to ``size``
      x ``size`` by averaging areas; proportions are not preserved.
    - Dicts of float vectors are left as they are; of Dicts with one image this is resized and each
      other part becomes a float vector.
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
        make_kwargs: of ``gymnasium.make``.

    Raises:
        ImportError: an Atari game without ale-py.
        TypeError: ``env`` is none of these.
        ValueError: ``size`` is wrong, ``make_kwargs`` were given without an id, nothing can be
            rendered, or the spaces are of a kind that no world model takes.

    Example::

        make = functools.partial(adapt, "ALE/Pong-v5", size=64)  # may be pickled
        episodes = worldmodel.collect(make(), 100)
        venv = DummyVecEnv([make] * 8)
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 16 or size % 8:
        raise ValueError(f"size: expected a multiple of 8 from 16 on, got {size!r}")
    if isinstance(env, str):
        make_kwargs = _kwargs_of_id(env, size, pixels) | make_kwargs
    made = make_env(env, **make_kwargs)
    try:
        return _fit(made, size, pixels, grayscale)
    except Exception:
        if made is not env:
            made.close()
        raise


def _kwargs_of_id(name: str, size: int, pixels: bool) -> dict[str, Any]:
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
    return {**kwargs, "size": size} if "size" in gym.spec(plain).kwargs else kwargs


def _fit(env: Env, size: int, pixels: bool, grayscale: bool) -> Env:
    if pixels:
        if env.render_mode != "rgb_array":
            raise ValueError(
                f"pixels: expected an environment with render_mode='rgb_array', got "
                f"{env.render_mode!r}; give it to gymnasium.make"
            )
        env = wrappers.AddRenderObservation(env)
    if _is_picture(env.observation_space):
        env = _image(env, size, grayscale)
    elif grayscale:
        raise ValueError(
            f"grayscale: expected images, got {env.observation_space}; pixels=True renders them"
        )
    elif isinstance(env.observation_space, gym.spaces.Dict):
        env = _dict(env, env.observation_space, size)
    else:
        env = _vector(env)
    Spec.from_spaces(env.observation_space, env.action_space, window=1)  # says what else is wrong
    return env


def _is_picture(space: gym.Space[Any]) -> bool:
    """Whether a space is a box of all uint8, of two or three axes: nothing else is an image."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8:
        return False
    every = bool((space.low == 0).all() and (space.high == 255).all())
    return every and len(space.shape) in (2, 3)


def _channels(space: gym.Space[Any]) -> int:
    """Of images, whose channels may stand last, first or not at all."""
    shape = space.shape or ()
    last_or_first = (1,) if len(shape) == 2 else (shape[-1], shape[0])
    channels = next((count for count in last_or_first if count in (1, 3)), None)
    if channels is None:
        raise ValueError(
            f"observation space: expected images of 1 or 3 channels, got {shape}; wrap the "
            "environment in gymnasium.wrappers.TransformObservation to make such (RGB of RGBA, or "
            "one frame of a stack)"
        )
    return channels


def _image(env: Env, size: int, grayscale: bool) -> Env:
    shape, channels = env.observation_space.shape, _channels(env.observation_space)
    if shape != (size, size, channels):
        space = gym.spaces.Box(0, 255, (size, size, channels), np.uint8)
        resize = partial(_resize, size=size, channels=channels)
        env = wrappers.TransformObservation(env, resize, space)
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


def _dict(env: Env, space: gym.spaces.Dict, size: int) -> Env:
    """Dicts of float vectors, and of one image and other things; others as one vector."""
    parts = space.spaces
    pictures = [name for name, part in parts.items() if _is_picture(part)]
    others = {name: part for name, part in parts.items() if name not in pictures}
    if not pictures and all(_is_float_vector(part) for part in others.values()):
        return env
    large = any(_is_large(leaf) for part in others.values() for leaf in _leaves(part))
    flat = all(map(_is_flattenable, others.values()))
    if len(pictures) != 1 or large or not flat:
        return _vector(env)
    (picture,), adapted = pictures, dict[str, gym.Space[Any]]()
    shape = (size, size, _channels(parts[picture]))
    adapted[picture] = gym.spaces.Box(0, 255, shape, np.uint8)
    for name, part in others.items():
        if _is_float_vector(part):
            adapted[name] = part
            continue
        box = gym.spaces.flatten_space(part)
        assert isinstance(box, gym.spaces.Box)
        low, high = box.low.astype(np.float32), box.high.astype(np.float32)
        adapted[name] = gym.spaces.Box(low, high, dtype=np.float32)
    target = gym.spaces.Dict(adapted)
    return wrappers.TransformObservation(env, partial(_fit_parts, space, target, picture), target)


def _fit_parts(
    space: gym.spaces.Dict, target: gym.spaces.Dict, picture: str, observation: dict[str, Any]
) -> dict[str, NDArray[Any]]:
    """An observation of ``space`` as one of ``target``, of which one part is a picture."""
    fitted = {}
    for name, part in space.spaces.items():
        if name == picture:
            size, _, channels = target[name].shape or ()
            image = np.asarray(observation[name])
            same = image.shape == (size, size, channels)
            fitted[name] = image if same else _resize(image, size, channels)
        elif _is_float_vector(part):
            fitted[name] = np.asarray(observation[name])
        else:
            fitted[name] = np.asarray(gym.spaces.flatten(part, observation[name]), np.float32)
    return fitted


def _is_flattenable(space: gym.Space[Any]) -> bool:
    try:
        return space.is_np_flattenable
    except NotImplementedError:  # spaces of others, such as MiniGrid's missions
        return False


def _is_float_vector(space: gym.Space[Any]) -> bool:
    box = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
    return box and np.issubdtype(space.dtype, np.floating)


def _vector(env: Env) -> Env:
    space = env.observation_space
    if any(_is_large(leaf) for leaf in _leaves(space)):
        raise ValueError(
            f"observation space: {space} holds images beside other things, or such that are not "
            "uint8 from 0 to 255; pixels=True shows the rendered frames instead, "
            "gymnasium.wrappers.TransformObservation can pick or convert one, and "
            "FilterObservation leave parts of a Dict away"
        )
    if not (isinstance(space, gym.spaces.Box) and len(space.shape) == 1):
        if not _is_flattenable(space):
            raise ValueError(
                f"observation space: {space} cannot be flattened; pixels=True shows rendered "
                "frames instead, gymnasium.wrappers.TransformObservation can pick a part, and "
                "FilterObservation leave parts of a Dict away"
            )
        env = wrappers.FlattenObservation(env)
    if not np.issubdtype(env.observation_space.dtype, np.floating):
        exact = np.can_cast(np.dtype(env.observation_space.dtype), np.float32)
        # else integers that float32 may round: as float64, recording them says if it matters
        env = wrappers.DtypeObservation(env, np.float32 if exact else np.float64)
    return env


def _leaves(space: gym.Space[Any]) -> Iterator[gym.Space[Any]]:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        for part in space.values() if isinstance(space, gym.spaces.Dict) else space.spaces:
            yield from _leaves(part)
    else:
        yield space


def _is_large(space: gym.Space[Any]) -> bool:
    """Whether it can only be an image: flattened, it would be a vector of thousands of numbers."""
    shape = space.shape or ()
    return isinstance(space, gym.spaces.Box) and len(shape) == 3 and sorted(shape)[1] >= 16
