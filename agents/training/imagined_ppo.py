"""PPO that learns in imagination, and what it shares with Dyna."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from agents.lookahead_policy import lookahead_policy
from agents.monitoring.progress import ProgressBar, one_callback
from agents.policies import SmallCnn, SmallMultiInput
from agents.starts import Starts
from agents.vec_env import ImaginedVecEnv
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec

VECTOR_SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 10,
    "learning_rate": 1e-3,
    "ent_coef": 0.0,
    "gamma": 0.99,
    "gae_lambda": 0.9,
}
IMAGE_SETTINGS: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 128,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "ent_coef": 0.01,
    "gamma": 0.98,
}


LOOKAHEAD_RATE = 3e-3
"""Learning rate where numbers say what each action brings: there is little to learn."""


def train_in_imagination(
    model: WorldModel,
    starts: Starts,
    steps: int,
    num_envs: int = 32,
    hold: int = 1,
    horizon: int | None = None,
    frame_stack: int = 1,
    seed: int = 0,
    callback: MaybeCallback = None,
    tensorboard_log: str | None = None,
    threads: int = 1,
    progress_bar: bool = False,
    imagination: Mapping[str, Any] | None = None,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
    **settings: Any,
) -> PPO:
    """Train SB3's PPO in ``ImaginedVecEnv``; no real step is taken.

    The result plays ``HoldAction(env, hold)`` with ``frame_stack`` stacked frames, for example in
    ``evaluate(agent, env, episodes, hold=hold, frame_stack=frame_stack)``.

    Args:
        model, starts, num_envs, hold, horizon: as in ``ImaginedVecEnv``; of recorded
            episodes only the first frames are used if frames are stacked or with ``wrap``, which
            have not seen what came before.
        steps: imagined decisions to train for.
        frame_stack: frames that the policy sees.
        seed: of imagination and PPO.
        callback: SB3 callbacks.
        tensorboard_log: folder of the TensorBoard log.
        threads: of torch, on the CPU, while training; more than 1 seldom helps images this small.
        progress_bar: show a progress bar on a terminal, else a line every 30 s.
        imagination: further arguments of ``ImaginedVecEnv``, such as ``penalty`` and ``known``.
        wrap: put around the imagined environments, before frames are stacked, such as
            ``partial(LookaheadVecWrapper, model=model, hold=hold)``, with which the agent looks
            ahead; ``evaluate`` takes the same one.
        settings: further arguments of PPO; they replace those of ``ppo_settings``.

    Raises:
        ValueError: a number is below 1, or more channels would be stacked than a row has pixels
            (SB3 would mistake them for rows).
    """
    numbers_at_least(1, steps=steps, threads=threads)
    check_frame_stack(model.spec, frame_stack)
    starts = stackable_starts(starts, frame_stack > 1 or wrap is not None)
    more = {"stagger": True, **(imagination or {})}
    imagined = ImaginedVecEnv(model, starts, num_envs, hold, horizon, seed=seed, **more)
    venv = monitor_and_stack(imagined if wrap is None else wrap(imagined), frame_stack)
    with torch_threads(threads):
        agent = make_ppo(model.spec, venv, seed, tensorboard_log, **settings)
        bar = ProgressBar("imagine", progress_bar)
        agent.learn(steps, callback=[one_callback(callback), bar])
    return agent


def check_frame_stack(spec: Spec, frame_stack: int) -> None:
    """Raise ValueError for a stack below 1, or one whose channels SB3 would mistake for rows."""
    numbers_at_least(1, frame_stack=frame_stack)
    shape = spec.observation if spec.image_part is None else spec.image_part.in_model
    if len(shape) == 3 and shape[0] * frame_stack >= min(shape[1:]):
        raise ValueError(
            f"frame_stack: {frame_stack} frames of {shape[0]} channels must be fewer than the "
            f"{min(shape[1:])} pixels of a side"
        )


def stackable_starts(starts: Starts, stacked: bool) -> Starts:
    """The starts; of recorded episodes only the first frames if frames are ``stacked`` or a wrapper
    remembers them, because those before another step would be missing there.
    """
    return starts.starts() if stacked and isinstance(starts, Episodes) else starts


def monitor_and_stack(venv: VecEnv, frame_stack: int) -> VecEnv:
    """Add SB3's episode statistics, without staggered episodes, and stack frames."""
    monitored = _WithoutStaggered(VecMonitor(venv))
    return VecFrameStack(monitored, frame_stack) if frame_stack > 1 else monitored


class _WithoutStaggered(VecEnvWrapper):
    """Takes the episodes that ``stagger`` has shortened from ``VecMonitor``'s statistics."""

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if info.get("staggered"):
                info.pop("episode")
        return observations, rewards, dones, infos


def make_ppo(
    spec: Spec, venv: VecEnv, seed: int, tensorboard_log: str | None, **settings: Any
) -> PPO:
    """SB3's PPO with small networks for images and for lookahead, and for vectors with SB3's own
    (with one hidden layer less, CartPole's agent balances the pole but drifts off the track).
    """
    kwargs: dict[str, Any] = small_extractor(spec)
    chosen: dict[str, Any] = {"policy": policy_name(spec), **ppo_settings(spec)}
    if "reward_alive" in getattr(venv.observation_space, "spaces", {}):
        policy, kwargs = lookahead_policy(venv)
        chosen["policy"] = policy
        if not kwargs:
            chosen["learning_rate"] = LOOKAHEAD_RATE
    if kwargs:
        kwargs["net_arch"] = {"pi": [64], "vf": [64]}
    chosen |= {"policy_kwargs": kwargs, **settings}
    return PPO(env=venv, seed=seed, tensorboard_log=tensorboard_log, **chosen)


def ppo_settings(spec: Spec) -> dict[str, Any]:
    """Settings of PPO in imagination where no others are given: one for vectors, one for images."""
    image = spec.is_image or spec.image_part is not None
    return dict(IMAGE_SETTINGS if image else VECTOR_SETTINGS)


def small_extractor(spec: Spec) -> dict[str, Any]:
    """Settings of a policy for small images; none where there is no image."""
    if spec.image_part is not None:
        return {"features_extractor_class": SmallMultiInput}
    return {"features_extractor_class": SmallCnn} if spec.is_image else {}


def policy_name(spec: Spec) -> str:
    """SB3's name of the policy for such observations."""
    if spec.parts:
        return "MultiInputPolicy"
    return "CnnPolicy" if spec.is_image else "MlpPolicy"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run with that many threads of torch, then as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
