"""The inverse policy: what was done where it went well, learned by heart. No model, no planning."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bit_entropy
from tqdm import tqdm

from agents import actions as action_border
from agents.policies import SmallCnn
from worldmodel.common.config_checks import above_zero, at_least, from_json, share
from worldmodel.common.files import atomic
from worldmodel.common.safe_files import Tensors, check_memory, layout, read_json
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec, to_float

FORMAT = 1
SPACE_BYTES = 10
"""That a Gymnasium box takes for each number, at most: two bounds, and whether they are finite."""


@dataclass(frozen=True)
class InversePolicyConfig:
    """What is cloned, and how.

    Attributes:
        best: share of the episodes, those of the highest return, above 0 and at most 1.
        hold: steps between decisions; the policy plays ``HoldAction(env, hold)``.
        frame_stack: observations of decisions that it sees, the newest last, zeros before the
            first, as ``VecFrameStack`` gives them.
        steps: of training.
        batch_size: decisions in each.
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
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected at least 0 and below 2**63, got {self.seed}")
        above_zero(self, "learning_rate")


class InversePolicy:
    """From what is seen straight to what was done there in the best recorded episodes.

    The baseline that a planner must beat: it uses the same recordings, and costs one small network
    per decision. It has SB3's ``predict`` and spaces, so ``evaluate(policy, env, episodes,
    hold=policy.hold, frame_stack=policy.frame_stack)`` and SB3's ``evaluate_policy`` (on
    ``VecFrameStack`` and ``HoldAction``) play it. ``fit`` makes one.

    Args:
        spec: of one observation, unstacked, and of the actions.
        config: see ``InversePolicyConfig``.

    Raises:
        ValueError: the spec knows no actions.
    """

    def __init__(self, spec: Spec, config: InversePolicyConfig) -> None:
        if spec.passive:
            raise ValueError("spec: scenes without actions have no policy")
        self.spec, self.config = spec, config
        self.hold, self.frame_stack = config.hold, config.frame_stack
        self.action_space = spec.action.to_space()
        plain = spec.observation_space()
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
            episodes: recorded with actions held for ``config.hold`` steps, or that many times as
                fine: what counts is the action that begins each decision.
            config: see ``InversePolicyConfig``; None takes its defaults.
            device: to train and play on.
            progress: show a progress bar on a terminal.

        Raises:
            ValueError: the episodes have no actions.
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
        bar = tqdm(range(config.steps), "clone", disable=None if progress else True)
        for _ in bar:
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
        """Begin the random numbers anew."""
        self.generator.manual_seed(seed)

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], None]:
        """Decide.

        Args:
            observation: uint8 (n, H, W, C * frame_stack) or float (n, D * frame_stack); or one of
                them, without n.
            state, episode_start: without effect; all that counts is seen.
            deterministic: the likeliest action; else one is drawn.

        Returns:
            Actions (n, *action), or (*action) for one observation, and None.

        Raises:
            ValueError: observations of another shape, or images that are not uint8.
        """
        seen, shape = np.asarray(observation), self.observation_space.shape
        single = seen.shape == shape
        if seen.shape[-len(shape) :] != shape or seen.ndim > len(shape) + 1:
            raise ValueError(
                f"observation: expected shape {('n', *shape)}, {self.frame_stack} stacked along "
                f"the last axis, got {seen.shape}"
            )
        if self.spec.is_image and seen.dtype != np.uint8:
            raise ValueError(f"observation: expected uint8 images, got {seen.dtype}")
        told = self.net(self._input(seen[None] if single else seen)).cpu()
        actions = self._act(told, None if deterministic else self.generator)
        done = action_border.to_numpy(self.spec.action, actions)
        return (np.asarray(done[0]) if single else done), None

    def _input(self, stacked: NDArray[Any]) -> Tensor:
        """To float32 (n, C * k, H, W) in [0, 1], or (n, D * k), on the net's device."""
        seen = torch.from_numpy(stacked).to(self.net.spread.device)
        return to_float(seen) if self.spec.is_image else seen.float()

    def _act(self, told: Tensor, generator: torch.Generator | None) -> Tensor:
        """Actions (n, *action) of the net's output (n, features); None takes the likeliest."""
        action = self.spec.action
        if action.categories:
            entries = []
            for logits in told.split(action.categories, 1):
                if generator is None:
                    entries.append(logits.argmax(1))
                else:
                    drawn = logits.softmax(1).multinomial(1, generator=generator)
                    entries.append(drawn.squeeze(1))
            return torch.stack(entries, 1).view(-1, *action.shape)
        if action.kind == "multi_binary":
            limit = 0.5 if generator is None else torch.rand(told.shape, generator=generator)
            return (told.sigmoid() > limit).float().view(-1, *action.shape)
        if generator is not None:
            told = told + self.net.spread.cpu() * torch.randn(told.shape, generator=generator)
        low, high = torch.tensor(action.low), torch.tensor(action.high)
        return torch.lerp(low, high, (told.clamp(-1, 1) + 1) / 2).view(-1, *action.shape)

    @torch.no_grad()
    def _measure_spread(
        self, frames: NDArray[Any], stacks: NDArray[np.int64], targets: Tensor
    ) -> None:
        """A box's numbers are drawn as far from the mean as those cloned were, on average."""
        wrong = torch.zeros_like(self.net.spread)
        for first in range(0, len(stacks), 256):
            part = slice(first, first + 256)
            told = self.net(self._input(_stack(frames[stacks[part]])))
            wrong += (told - targets[part]).square().sum(0)
        self.net.spread.copy_((wrong / len(stacks)).sqrt())

    # -- files -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``inverse_policy.json`` and ``inverse_policy.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.cpu().contiguous() for name, t in self.net.state_dict().items()}
        with atomic(folder / "inverse_policy.safetensors") as path:
            path.write_bytes(to_bytes(tensors))
        facts = {"format": FORMAT, "spec": self.spec.to_dict(), "config": asdict(self.config)}
        with atomic(folder / "inverse_policy.json") as path:
            path.write_text(json.dumps(facts, indent=1) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> InversePolicy:
        """Read what ``save`` wrote into ``folder``, onto ``device``.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: another format version, or tensors that do not fit.
        """
        path = Path(folder) / "inverse_policy.json"
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; InversePolicy.save makes it")
        facts = read_json(path)
        if facts.get("format") != FORMAT:
            raise ValueError(f"{path}: format {facts.get('format')!r}; this version reads {FORMAT}")
        weights = Tensors(path.with_suffix(".safetensors"))
        try:
            spec = Spec.from_dict(facts.get("spec", {}))
            config = from_json(InversePolicyConfig, facts.get("config"))
            check_memory(path, SPACE_BYTES * math.prod(spec.observation) * config.frame_stack)
            with torch.device("meta"):  # shapes without memory
                expected = layout(_Net(spec, config).state_dict())
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise ValueError(f"{path}: settings do not fit: {error}") from error
        weights.check(expected)
        policy = cls(spec, config)
        policy.net.load_state_dict(weights.read(expected))
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
        """Learn the scale of vectors (n, D); images have theirs."""
        if self.mean.dim() == 0:
            return
        times, spread = len(self.mean) // frames.shape[1], frames.std(0)
        self.mean.copy_(torch.from_numpy(np.tile(frames.mean(0), times)))
        scale = np.where(spread > 1e-6, spread, 1.0)
        self.scale.copy_(torch.from_numpy(np.tile(scale, times)))

    def forward(self, seen: Tensor) -> Tensor:
        """Logits of choices and bits; a box's numbers, scaled to [-1, 1]."""
        return torch.as_tensor(self.head(self.body((seen - self.mean) / self.scale)))

    def loss(self, seen: Tensor, targets: Tensor) -> Tensor:
        """Of encoded actions (n, features): cross entropy or squared error, summed over entries."""
        told: Tensor = self(seen)
        if self.action.categories:
            parts = [logits.log_softmax(1) for logits in told.split(self.action.categories, 1)]
            return -(targets * torch.cat(parts, 1)).sum(1).mean()
        if self.action.kind == "multi_binary":
            return bit_entropy(told, targets, reduction="none").sum(1).mean()
        return (told - targets).square().sum(1).mean()


def _decisions(
    episodes: Episodes, config: InversePolicyConfig
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """Every decision of the best episodes.

    Returns:
        Frames (F, *observation) of which the first is all zeros; for each decision the frames
        that it sees, int64 (n, frame_stack), the newest last; what was done there, (n, *action).
    """
    earned = np.array([float(episode.rewards.sum(dtype=np.float64)) for episode in episodes])
    count = max(1, round(config.best * len(episodes)))
    frames = [np.zeros_like(episodes[0].observations[:1])]
    stacks, actions, taken = [], [], 1
    for number in np.sort(np.argsort(-earned, kind="stable")[:count]):
        episode = episodes[int(number)]
        done = episode.actions[:: config.hold]
        frames.append(episode.observations[: -1 : config.hold])
        back = np.arange(len(done))[:, None] - np.arange(config.frame_stack - 1, -1, -1)
        stacks.append(np.where(back >= 0, back + taken, 0))
        actions.append(done)
        taken += len(done)
    return np.concatenate(frames), np.concatenate(stacks), np.concatenate(actions)


def _stack(frames: NDArray[Any]) -> NDArray[Any]:
    """(n, k, ..., C) to (n, ..., k * C), as ``VecFrameStack`` does."""
    together = np.moveaxis(frames, 1, -2)
    return together.reshape(*together.shape[:-2], -1)
