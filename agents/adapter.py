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
from worldmodel.data.make_env import Env, EnvLike, make_env, registered
from worldmodel.spec import Spec
from worldmodel.spec.parts import LARGEST_SIDE


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
    with registered(name):
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
    elif isinstance(env.observation_space, gym.spaces.Dict):
        env = _dict(env, env.observation_space, size)
    else:
        env = _vector(env)
    Spec.from_spaces(env.observation_space, env.action_space, window=1)  # says what else is wrong
    return env


class _RefuseCodes(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Checks that pictures hold brightness, until the first one that is not of one colour."""

    def __init__(self, env: Env, part: str | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, part=part)
        gym.ObservationWrapper.__init__(self, env)
        self.part, self.unknown = part, True

    def observation(self, observation: Any) -> Any:
        picture = np.asarray(observation if self.part is None else observation[self.part])
        values = np.unique(picture) if self.unknown else np.zeros(1)
        least, most = values[0], values[-1]
        self.unknown &= least == most
        if is_codes(least, most):
            raise ValueError(
                f"observations: an image of {picture.shape} holds whole numbers from "
                f"{least} to {most} only, of 255: codes of things, which cannot be resized. "
                "adapt(env, codes=N), N their number, makes one-hot vectors, pixels=True shows "
                "rendered frames instead; if they are dark pictures, gymnasium.wrappers."
                "TransformObservation can scale them"
            )
        return observation


def _one_hot(env: Env, codes: int) -> Env:
    """Whole numbers below ``codes``, of a Dict its picture's, as float32 (entries * codes,)."""
    if isinstance(codes, bool) or not isinstance(codes, int) or codes < 2:
        raise ValueError(f"codes: expected an int of at least 2, got {codes!r}")
    space, picture = env.observation_space, None
    grid: gym.Space[Any] = space
    if isinstance(space, gym.spaces.Dict):
        pictures = [name for name, part in space.items() if is_picture(part)]
        pictures = pictures or [name for name, part in space.items() if _is_grid(part)]
        if len(pictures) == 1:
            picture, grid = pictures[0], space[pictures[0]]
    if not isinstance(grid, gym.spaces.Box) or not np.issubdtype(grid.dtype, np.integer):
        raise ValueError(
            f"codes: expected observations of a Box of integers, or a Dict with one, got {space}; "
            "gymnasium.wrappers.TransformObservation can pick a part"
        )
    hot = gym.spaces.Box(0, 1, (int(np.prod(grid.shape)) * codes,), np.float32)
    target: gym.Space[Any] = hot
    if picture is not None and isinstance(space, gym.spaces.Dict):
        target = gym.spaces.Dict({**space.spaces, picture: hot})
    encode = partial(_encode, codes=codes, picture=picture)
    return wrappers.TransformObservation(env, encode, target)


def _is_grid(space: gym.Space[Any]) -> bool:
    box = isinstance(space, gym.spaces.Box) and len(space.shape) > 1
    return box and np.issubdtype(space.dtype, np.integer)


def _encode(observation: Any, codes: int, picture: str | None) -> Any:
    if picture is not None:
        return {**observation, picture: _encode(observation[picture], codes, None)}
    numbers = np.asarray(observation).flatten()
    if numbers.min() < 0 or numbers.max() >= codes:
        raise ValueError(
            f"codes: an observation holds {numbers.min()} to {numbers.max()}, expected 0 to "
            f"{codes - 1}; give codes={numbers.max() + 1} or more"
        )
    return np.eye(codes, dtype=np.float32)[numbers].flatten()


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


def _target(space: gym.Space[Any], size: int | None) -> tuple[int, ...]:
    """The shape that images of ``space`` shall have; without ``size`` their own, if it fits."""
    shape, channels = space.shape or (), _channels(space)
    if size is not None:
        return size, size, channels
    fits = len(shape) == 3 and shape[2] == channels
    fits &= all(16 <= side <= LARGEST_SIDE and side % 8 == 0 for side in shape[:2])
    return shape if fits else (64, 64, channels)


def _image(env: Env, size: int | None, grayscale: bool) -> Env:
    shape, target = env.observation_space.shape, _target(env.observation_space, size)
    channels = target[-1]
    if shape != target:
        space = gym.spaces.Box(0, 255, target, np.uint8)
        resize = partial(_resize, sides=target[:2], channels=channels)
        env = wrappers.TransformObservation(_RefuseCodes(env), resize, space)
    if grayscale and channels == 3:
        env = wrappers.GrayscaleObservation(env, keep_dim=True)
    return env


def _resize(
    observation: NDArray[np.uint8], sides: tuple[int, ...], channels: int
) -> NDArray[np.uint8]:
    """uint8 (H, W), (H, W, C) or (C, H, W) to (*sides, C).

    By Pillow: ``gymnasium.wrappers.ResizeObservation`` would need OpenCV for the same.
    """
    image = np.asarray(observation)
    if image.ndim == 3 and image.shape[-1] != channels:
        image = image.transpose(1, 2, 0)
    picture = Image.fromarray(image if channels == 3 else image.reshape(image.shape[:2]))
    small = picture.resize((sides[1], sides[0]), Image.Resampling.BOX)
    return np.array(small, np.uint8).reshape(*sides, channels)


def _dict(env: Env, space: gym.spaces.Dict, size: int | None) -> Env:
    """Dicts of float vectors, and of one image and other things; others as one vector."""
    parts = space.spaces
    pictures = [name for name, part in parts.items() if is_picture(part)]
    others = {name: part for name, part in parts.items() if name not in pictures}
    if not pictures and all(_is_float_vector(part) for part in others.values()):
        return env
    large = any(is_large(leaf) for part in others.values() for leaf in leaf_spaces(part))
    flat = all(map(is_flattenable, others.values()))
    if len(pictures) != 1 or large or not flat:
        return _vector(env)
    (picture,), adapted = pictures, dict[str, gym.Space[Any]]()
    shape = _target(parts[picture], size)
    if shape != parts[picture].shape:
        env = _RefuseCodes(env, picture)
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
            image, shape = np.asarray(observation[name]), target[name].shape or ()
            same = image.shape == shape
            fitted[name] = image if same else _resize(image, shape[:2], shape[2])
        elif _is_float_vector(part):
            fitted[name] = np.asarray(observation[name])
        else:
            fitted[name] = np.asarray(gym.spaces.flatten(part, observation[name]), np.float32)
    return fitted


def _is_float_vector(space: gym.Space[Any]) -> bool:
    box = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
    return box and np.issubdtype(space.dtype, np.floating)


def _vector(env: Env) -> Env:
    space = env.observation_space
    if any(is_large(leaf) for leaf in leaf_spaces(space)):
        raise ValueError(
            f"observation space: {space} holds images beside other things, or such that are not "
            "uint8 from 0 to 255; pixels=True shows the rendered frames instead, "
            "gymnasium.wrappers.TransformObservation can pick or convert one, and "
            "FilterObservation leave parts of a Dict away; of codes codes=N makes one-hot vectors"
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
