"""The inverse policy: behaviour cloning of the best recorded episodes, without a world model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bit_entropy

from agents import actions as action_border
from agents.policies import SmallCnn
from agents.saved_network import read_network, write_network
from worldmodel.common.config_checks import above_zero, at_least, check_seed, share
from worldmodel.common.progress import progress_bar
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec
from worldmodel.spec.parts import to_float

NAME = "inverse_policy"
"""Of the files."""


@dataclass(frozen=True)
class InversePolicyConfig:
    """Settings of ``InversePolicy``.

    Attributes:
        best: share of the episodes that are cloned, those of the highest return, above 0 and at
            most 1.
        hold: steps between decisions; the policy plays ``HoldAction(env, hold)``.
        frame_stack: observations (of decisions) that the policy sees, the newest last, zeros before
            the first, as ``VecFrameStack`` gives them.
        steps: of training.
        batch_size: decisions in each step.
        learning_rate: of Adam.
        width: of the hidden layers.
        seed: of weights, batches and sampled actions.
    """

    best: float = 0.1
    hold: int = 1
    frame_stack: int = 1
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    width: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        share(self, "best")
        at_least(1, self, "hold", "frame_stack", "steps", "batch_size", "width")
        check_seed(self.seed)
        above_zero(self, "learning_rate")


class InversePolicy:
    """A policy that imitates the best recorded episodes: observations to actions, no planning.

    The baseline that a planner must beat: it uses the same recordings, and costs one small network
    for each decision. It has SB3's ``predict`` and spaces, so ``evaluate(policy, env, episodes,
    hold=policy.hold, frame_stack=policy.frame_stack)`` and SB3's ``evaluate_policy`` (on
    ``VecFrameStack`` and ``HoldAction``) play it. ``fit`` trains one.

    Args:
        spec: of one observation, unstacked, and of the actions.
        config: see ``InversePolicyConfig``.

    Raises:
        ValueError: the spec has no actions, or is of Dicts.
    """

    def __init__(self, spec: Spec, config: InversePolicyConfig) -> None:
        if spec.passive:
            raise ValueError("spec: scenes without actions have no policy")
        self.spec, self.config = spec, config
        self.hold, self.frame_stack = config.hold, config.frame_stack
        self.action_space = spec.action.to_space()
        plain = spec.require_box("spec")
        low, high = (np.concatenate([b] * config.frame_stack, -1) for b in (plain.low, plain.high))
        self.observation_space = gym.spaces.Box(low, high, dtype=plain.dtype.type)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = _Net(spec, config)
        self.generator = torch.Generator().manual_seed(config.seed)

    @classmethod
    def fit(
        cls,
        episodes: Episodes,
        config: InversePolicyConfig | None = None,
        device: str | torch.device = "cpu",
        progress: bool = False,
    ) -> InversePolicy:
        """Clone the best of the episodes.

        Args:
            episodes: recorded with actions held for ``config.hold`` steps, or for a divisor of
                that: the first action of each decision is cloned.
            config: see ``InversePolicyConfig``; None takes its defaults.
            device: to train and play on.
            progress: show a progress bar on a terminal, else a line every 30 s.

        Raises:
            ValueError: the episodes have no actions, or are of Dicts.
        """
        config = InversePolicyConfig() if config is None else config
        policy = cls(episodes.spec(1), config)
        frames, stacks, actions = _decisions(episodes, config)
        device = torch.device(device)
        targets = policy.spec.action.encode(torch.from_numpy(actions)).to(device)
        net = policy.net.to(device).train()
        net.standardise(frames[1:])
        adam = torch.optim.Adam(net.parameters(), config.learning_rate)
        random = np.random.default_rng(config.seed)
        for _ in progress_bar("clone", "step", items=range(config.steps), show=progress):
            rows = random.integers(len(stacks), size=config.batch_size)
            loss = net.loss(policy._input(_stack(frames[stacks[rows]])), targets[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
        net.eval()
        if policy.spec.action.kind == "box":
            policy._measure_spread(frames, stacks, targets)
        return policy

    # -- SB3's predict ---------------------------------------------------------------------------

    def set_random_seed(self, seed: int) -> None:
        """Seed the random numbers."""
        self.generator.manual_seed(seed)

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], None]:
        """Choose actions.

        Args:
            observation: uint8 (n, H, W, C * frame_stack) or float (n, D * frame_stack); or one
                observation, without n.
            state, episode_start: without effect; the policy has no memory.
            deterministic: take the likeliest action instead of a random one.

        Returns:
            Actions (n, *action), or (*action) for one observation, and None.

        Raises:
            ValueError: observations of another shape, or images that are not uint8.
        """
        stacked, shape = np.asarray(observation), self.observation_space.shape
        single = stacked.shape == shape
        if stacked.shape[-len(shape) :] != shape or stacked.ndim > len(shape) + 1:
            raise ValueError(
                f"observation: expected shape {('n', *shape)}, {self.frame_stack} stacked along "
                f"the last axis, got {stacked.shape}"
            )
        if self.spec.is_image and stacked.dtype != np.uint8:
            raise ValueError(f"observation: expected uint8 images, got {stacked.dtype}")
        output = self.net(self._input(stacked[None] if single else stacked)).cpu()
        chosen = self._act(output, None if deterministic else self.generator)
        actions = action_border.to_numpy(self.spec.action, chosen)
        return (np.asarray(actions[0]) if single else actions), None

    def _input(self, stacked: NDArray[Any]) -> Tensor:
        """To float32 (n, C * k, H, W) in [0, 1], or (n, D * k), on the net's device."""
        tensor = torch.from_numpy(stacked).to(self.net.spread.device)
        return to_float(tensor) if self.spec.is_image else tensor.float()

    def _act(self, output: Tensor, generator: torch.Generator | None) -> Tensor:
        """Actions (n, *action) of the net's output (n, features); None takes the likeliest."""
        action = self.spec.action
        if action.categories:
            entries = []
            for logits in output.split(action.categories, 1):
                if generator is None:
                    entries.append(logits.argmax(1))
                else:
                    entries.append(logits.softmax(1).multinomial(1, generator=generator).squeeze(1))
            return (torch.stack(entries, 1) + action.first(output.device)).view(-1, *action.shape)
        if action.kind == "multi_binary":
            limit = 0.5 if generator is None else torch.rand(output.shape, generator=generator)
            return (output.sigmoid() > limit).float().view(-1, *action.shape)
        if generator is not None:
            noise = torch.randn(output.shape, generator=generator)
            output = output + self.net.spread.cpu() * noise
        low, high = torch.tensor(action.low), torch.tensor(action.high)
        return torch.lerp(low, high, (output.clamp(-1, 1) + 1) / 2).view(-1, *action.shape)

    @torch.no_grad()
    def _measure_spread(
        self, frames: NDArray[Any], stacks: NDArray[np.int64], targets: Tensor
    ) -> None:
        """Set the standard deviation of a box's numbers to the error of the cloned ones."""
        error = torch.zeros_like(self.net.spread)
        for first in range(0, len(stacks), 256):
            part = slice(first, first + 256)
            output = self.net(self._input(_stack(frames[stacks[part]])))
            error += (output - targets[part]).square().sum(0)
        self.net.spread.copy_((error / len(stacks)).sqrt())

    # -- files -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``inverse_policy.json`` and ``inverse_policy.safetensors``."""
        return write_network(folder, NAME, self.net, self.spec, self.config)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> InversePolicy:
        """Read what ``save`` wrote into ``folder``, onto ``device``.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: another format version, or tensors that do not fit.
        """
        saved = read_network(
            folder, NAME, InversePolicyConfig, _Net, cls.__name__, lambda config: config.frame_stack
        )
        policy = cls(saved.spec, saved.config)
        policy.net.load_state_dict(saved.weights)
        policy.net.to(device).eval()
        return policy


class _Net(nn.Module):
    """Stacked observations (n, ...) to what ``_act`` reads, (n, action features)."""

    mean: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, spec: Spec, config: InversePolicyConfig) -> None:
        super().__init__()
        self.action, wide = spec.action, config.width
        stacked = (spec.observation[0] * config.frame_stack, *spec.observation[1:])
        self.body: nn.Module
        if spec.is_image:
            self.body = SmallCnn(gym.spaces.Box(0, 255, stacked, np.uint8), wide)
        else:
            self.body = nn.Sequential(
                nn.Linear(stacked[0], wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU()
            )
        self.head = nn.Linear(wide, spec.action.features)
        numbers = () if spec.is_image else stacked
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("scale", torch.ones(numbers))
        self.register_buffer("spread", torch.zeros(spec.action.features))

    def standardise(self, frames: NDArray[Any]) -> None:
        """Set the mean and scale of vectors (n, D); images need none."""
        if self.mean.dim() == 0:
            return
        times, spread = len(self.mean) // frames.shape[1], frames.std(0)
        self.mean.copy_(torch.from_numpy(np.tile(frames.mean(0), times)))
        scale = np.where(spread > 1e-6, spread, 1.0)
        self.scale.copy_(torch.from_numpy(np.tile(scale, times)))

    def forward(self, stacked: Tensor) -> Tensor:
        """Logits of choices and bits; a box's numbers, scaled to [-1, 1]."""
        return torch.as_tensor(self.head(self.body((stacked - self.mean) / self.scale)))

    def loss(self, stacked: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy or squared error of encoded actions (n, features), summed over entries."""
        output: Tensor = self(stacked)
        if self.action.categories:
            parts = [logits.log_softmax(1) for logits in output.split(self.action.categories, 1)]
            return -(targets * torch.cat(parts, 1)).sum(1).mean()
        if self.action.kind == "multi_binary":
            return bit_entropy(output, targets, reduction="none").sum(1).mean()
        return (output - targets).square().sum(1).mean()


def _decisions(
    episodes: Episodes, config: InversePolicyConfig
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """The decisions of the best episodes.

    Returns:
        Frames (F, *observation) of which the first is all zeros; for each decision the indices of
        its stacked frames, int64 (n, frame_stack), the newest last; the actions (n, *action).
    """
    returns = np.array([float(episode.rewards.sum(dtype=np.float64)) for episode in episodes])
    count = max(1, round(config.best * len(episodes)))
    frames = [np.zeros_like(episodes[0].observations[:1])]
    stacks, actions, total = [], [], 1
    for number in np.sort(np.argsort(-returns, kind="stable")[:count]):
        episode = episodes[int(number)]
        decided = episode.actions[:: config.hold]
        frames.append(episode.observations[: -1 : config.hold])
        back = np.arange(len(decided))[:, None] - np.arange(config.frame_stack - 1, -1, -1)
        stacks.append(np.where(back >= 0, back + total, 0))
        actions.append(decided)
        total += len(decided)
    return np.concatenate(frames), np.concatenate(stacks), np.concatenate(actions)


def _stack(frames: NDArray[Any]) -> NDArray[Any]:
    """(n, k, ..., C) to (n, ..., k * C), as ``VecFrameStack`` does."""
    together = np.moveaxis(frames, 1, -2)
    return together.reshape(*together.shape[:-2], -1)
