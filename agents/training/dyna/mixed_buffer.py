"""Imagined transitions in a buffer of their own, and batches of both kinds for SB3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from agents.values import by_part

_FIELDS = ("observations", "actions", "next_observations", "dones", "rewards")


class ImaginedTransitions:
    """Transitions in memory, from which batches are samples, until ``clear``.

    Args:
        seed: of the draws.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._parts: dict[tuple[str, str], list[NDArray[Any]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Forget all transitions."""
        self._parts, self._count = {}, 0

    def add(
        self,
        observations: Any,
        actions: NDArray[Any],
        next_observations: Any,
        ended: NDArray[np.bool_],
        rewards: NDArray[Any],
    ) -> None:
        """Add n transitions.

        Args:
            observations, next_observations: (n, \\*observation) as the algorithm sees them, or
                dicts of such by part.
            actions: (n, \\*action), as the algorithm's own buffer holds them.
            ended: bool (n,), whether the episode terminated there. A branch that is merely cut
                short has not: its last value is bootstrapped.
            rewards: (n,).
        """
        count = len(rewards)
        outcomes = (values.astype(np.float32)[:, None] for values in (ended, rewards))
        values = (observations, actions.reshape(count, -1), next_observations, *outcomes)
        for field, value in zip(_FIELDS, values, strict=True):
            for name, part in by_part(value).items():
                self._parts.setdefault((field, name), []).append(part)
        self._count += count

    def whole(self) -> dict[str, dict[str, NDArray[Any]]]:
        """All transitions, the oldest first: arrays (len, ...) by field of SB3's samples, and by
        part, which is "" where observations are no Dicts.
        """
        fields: dict[str, dict[str, NDArray[Any]]] = {field: {} for field in _FIELDS}
        for (field, name), arrays in self._parts.items():
            if len(arrays) > 1:
                arrays[:] = [np.concatenate(arrays)]
            fields[field][name] = arrays[0]
        return fields

    def draw(self, count: int) -> dict[str, dict[str, NDArray[Any]]]:
        """As ``whole``, of ``count`` transitions, which are samples with replacement.

        Raises:
            ValueError: there is no transition.
        """
        rows = self._random.integers(self._count, size=count)
        return {
            field: {name: values[rows] for name, values in parts.items()}
            for field, parts in self.whole().items()
        }


class MixedReplayBuffer(ReplayBuffer):
    """An algorithm's replay buffer, whose batches hold imagined transitions, too.

    All but ``sample`` is the algorithm's own buffer, which alone is written to, counted and saved:
    a pickle or a copy is one of ``real``.

    Args:
        real: the algorithm's own buffer.
        imagined: the other transitions. While there are none, batches are real.
        share: of a batch that is real, in [0, 1]; above 0 it is at least one transition.
    """

    def __init__(self, real: ReplayBuffer, imagined: ImaginedTransitions, share: float) -> None:
        # not super().__init__, which allocates a buffer
        self.real, self.imagined, self.share = real, imagined, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.real,)

    def size(self) -> int:
        """The number of real rows."""
        return self.real.size()

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Add a real row; see SB3."""
        self.real.add(*args, **kwargs)

    def extend(self, *args: Any, **kwargs: Any) -> None:
        """Add real rows; see SB3."""
        self.real.extend(*args, **kwargs)

    def reset(self) -> None:
        """Forget the real rows."""
        self.real.reset()

    def sample(  # type: ignore[override]  # DictReplayBuffer returns its own kind as well
        self, batch_size: int, env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """Draw a batch, its real rows first."""
        if not len(self.imagined):
            return self.real.sample(batch_size, env)
        count = round(self.share * batch_size)
        if self.share > 0:
            count = max(count, 1)
        real = self.real.sample(max(count, 1), env)  # at least one, for its dtypes
        samples = self.imagined.draw(batch_size - count)
        batch: dict[str, Any] = {}
        for field, parts in samples.items():
            own = by_part(getattr(real, field))
            mixed = {
                name: torch.cat([own[name][:count], self.real.to_torch(part).to(own[name].dtype)])
                for name, part in parts.items()
            }
            batch[field] = mixed.get("", mixed)
        return type(real)(**batch)


def _itself(buffer: ReplayBuffer) -> ReplayBuffer:
    return buffer


def check_buffer(algorithm: OffPolicyAlgorithm) -> None:
    """Raise ValueError unless one-step transitions can be mixed with those of its buffer."""
    buffer = algorithm.replay_buffer
    kind = type(buffer).__name__
    if not getattr(buffer, "handle_timeout_termination", False):
        raise ValueError(
            "replay_buffer: without handle_timeout_termination (which optimize_memory_usage rules "
            "out) episodes that were cut count as ended, in real rows but not in imagined ones; "
            "leave optimize_memory_usage off and handle_timeout_termination on"
        )
    if isinstance(buffer, HerReplayBuffer):
        raise ValueError(
            f"replay_buffer: {kind} draws goals from later steps of an episode, which imagined "
            "branches do not have; use DictReplayBuffer, or HerReplayBuffer without Dyna"
        )
    steps = getattr(buffer, "n_steps", 1)
    if steps > 1:
        raise ValueError(
            f"replay_buffer: {kind} sums the rewards of {steps} steps, imagined "
            "transitions have one; make the algorithm with n_steps=1"
        )
