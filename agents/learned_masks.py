"""Which actions are legal, learned from recorded masks where no function says so."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bit_entropy

from agents.legal_actions import by_entry
from agents.policies import SmallMultiInput
from agents.saved_network import read_network, write_network
from worldmodel.common.config_checks import above_zero, at_least, check_seed, share
from worldmodel.common.progress import progress_bar
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec

NAME = "legal_actions"
"""Of the files."""
STANDARDISED_BY = 4096
"""Observations whose mean and spread standardise vectors."""
MEASURED_BY = 256
"""Held-out observations in a batch."""

Rows = NDArray[np.int64]
"""(n, 2): the episode and the step of n observations."""


@dataclass(frozen=True)
class LegalActionsConfig:
    """Settings of ``LegalActions.fit``.

    Attributes:
        steps: of training.
        batch_size: observations in each step.
        learning_rate: of Adam.
        width: of the hidden layers.
        held_out: share of the episodes, above 0 and at most 1, that accuracy is measured on; at
            least one episode, and one is left to train on.
        warn_below: accuracy below which ``fit`` warns, above 0 and at most 1.
        seed: of weights, batches and held-out episodes.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    width: int = 128
    held_out: float = 0.1
    warn_below: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "batch_size", "width")
        above_zero(self, "learning_rate")
        share(self, "held_out", "warn_below")
        check_seed(self.seed)


class LegalActions:
    """A learned ``KnownFunctions.action_mask``: observations to the actions that are legal there.

    A small network with one logit for each choice, trained by binary cross entropy on the masks
    that ``collect`` recorded. It sees one observation, so masks must follow from that. Of each
    entry of an action it leaves at least the likeliest choice. ``fit`` trains one, ``save`` and
    ``load`` write and read it, into the folder of a model if you like.

    Args:
        spec: of observations and actions; its window does not matter.
        config: see ``LegalActionsConfig``.

    Attributes:
        accuracy: share of single choices that are judged rightly in episodes that were held out;
            NaN before ``fit``.
        exact: share of observations there of which all choices are; NaN before ``fit``.

    Raises:
        ValueError: the actions are no choices, but numbers of a Box, or there are none.

    Example::

        legal = LegalActions.fit(episodes)
        known = KnownFunctions(action_mask=legal)
        MaskablePPO("MlpPolicy", ImaginedVecEnv(model, episodes, known=known))
    """

    def __init__(self, spec: Spec, config: LegalActionsConfig) -> None:
        if not spec.action.choices:
            raise ValueError(
                "spec: masks are for Discrete, MultiDiscrete and MultiBinary actions; these are "
                f"{spec.action.to_space()}, of which all are legal"
            )
        self.spec, self.config = spec, config
        self.accuracy = self.exact = math.nan
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = _Net(spec, config.width)

    @classmethod
    def fit(
        cls,
        episodes: Episodes,
        config: LegalActionsConfig | None = None,
        device: str | torch.device = "cpu",
        progress: bool = False,
    ) -> LegalActions:
        """Learn the masks of recorded episodes.

        Warns if the accuracy in episodes that were held out is below ``config.warn_below``. The
        last observation of an episode that terminated teaches nothing, nor does one at which
        nothing is legal: no action is due there.

        Args:
            episodes: with masks (``Episode.masks``), at least two.
            config: see ``LegalActionsConfig``; None takes its defaults.
            device: to train on, and then of the network.
            progress: show a progress bar on a terminal, else a line every 30 s.

        Raises:
            ValueError: the episodes have no masks, or there is but one.
        """
        config = LegalActionsConfig() if config is None else config
        if episodes[0].masks is None:
            raise ValueError(
                "episodes: hold no action masks; collect records them from an environment with a "
                "method action_masks()"
            )
        if len(episodes) < 2:
            raise ValueError(
                "episodes: expected at least 2, one to train and one to measure, got 1"
            )
        legal, random = cls(episodes.spec(1), config), np.random.default_rng(config.seed)
        order = random.permutation(len(episodes))
        count = min(max(1, round(config.held_out * len(episodes))), len(episodes) - 1)
        rows, held_out = _rows(episodes, order[count:]), _rows(episodes, order[:count])
        net = legal.net.to(device).train()
        some = rows[random.integers(len(rows), size=min(STANDARDISED_BY, len(rows)))]
        net.standardise(_parts(legal.spec, legal._batch(episodes, some)[0]))
        adam = torch.optim.Adam(net.parameters(), config.learning_rate)
        for _ in progress_bar("masks", "step", items=range(config.steps), show=progress):
            chosen = rows[random.integers(len(rows), size=config.batch_size)]
            observations, masks = legal._batch(episodes, chosen)
            loss = bit_entropy(net(_parts(legal.spec, observations)), masks.float())
            adam.zero_grad()
            loss.backward()
            adam.step()
        net.eval()
        legal._measure(episodes, held_out)
        if legal.accuracy < config.warn_below:
            warnings.warn(
                f"LegalActions: {legal.accuracy:.2%} of choices are judged rightly in episodes "
                f"that were held out, below warn_below = {config.warn_below:.2%}; train longer "
                "(steps), record more episodes, or write a function if masks follow from more than "
                "one observation",
                stacklevel=2,
            )
        return legal

    @torch.no_grad()
    def __call__(self, observations: Any) -> Tensor:
        """Which choices are legal.

        Args:
            observations: P of them, as ``KnownFunctions`` gives them: float32 (P, D), images
                float32 (P, C, H, W) in [0, 1], or a dict of such by part.

        Returns:
            bool (P, n) on the network's device, n choices of all entries one after the other.

        Raises:
            TypeError, ValueError: other observations than those that it was made for.
        """
        logits: Tensor = self.net(_parts(self.spec, observations))
        masks = logits > 0
        pieces = zip(*(x.split(self.spec.action.choices, -1) for x in (logits, masks)), strict=True)
        for entry, legal in pieces:
            none = ~legal.any(-1)
            legal[none, entry[none].argmax(-1)] = True
        return masks

    def to(self, device: str | torch.device) -> LegalActions:
        """Move the network to a device, and return this object."""
        self.net.to(device)
        return self

    def _batch(self, episodes: Episodes, rows: Rows) -> tuple[Any, Tensor]:
        """Observations, as models take them, and masks bool (n, choices) of these rows."""
        frames, masks = [], []
        for number, step in rows:
            episode = episodes[int(number)]
            assert episode.masks is not None
            frames.append(episode.observations[step])
            masks.append(episode.masks[step])
        device = self.net.mean.device
        observations = self.spec.to_model(torch.from_numpy(np.stack(frames)).to(device))
        legal = torch.from_numpy(np.stack(masks)).to(device)
        return self.spec.split(observations), legal

    def _measure(self, episodes: Episodes, rows: Rows) -> None:
        """Set ``accuracy`` and ``exact``."""
        right, exact = 0, 0
        for first in range(0, len(rows), MEASURED_BY):
            observations, masks = self._batch(episodes, rows[first : first + MEASURED_BY])
            same = self(observations) == masks
            right += int(same.sum())
            exact += int(same.all(-1).sum())
        self.accuracy = right / len(rows) / sum(self.spec.action.choices)
        self.exact = exact / len(rows)

    # -- files -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``legal_actions.json`` and ``legal_actions.safetensors``."""
        measured = {"accuracy": self.accuracy, "exact": self.exact}
        if math.isnan(self.accuracy):
            measured = {}
        return write_network(folder, NAME, self.net, self.spec, self.config, **measured)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> LegalActions:
        """Read what ``save`` wrote into ``folder``, onto ``device``.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: another format version, or tensors that do not fit.
        """
        saved = read_network(
            folder, NAME, LegalActionsConfig, lambda spec, config: _Net(spec, config.width),
            cls.__name__, facts=("accuracy", "exact"),
        )  # fmt: skip
        legal = cls(saved.spec, saved.config)
        legal.accuracy, legal.exact = saved.facts["accuracy"], saved.facts["exact"]
        legal.net.load_state_dict(saved.weights)
        legal.net.to(device).eval()
        return legal


ONE = "observation"
"""The name of the one part of observations that are no Dicts."""


def _shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The shape of each part of an observation, as models take them."""
    if spec.parts:
        return {part.name: part.in_model for part in spec.parts}
    return {ONE: spec.observation}


def _parts(spec: Spec, observations: Any) -> dict[str, Tensor]:
    """The parts (P, ...) of observations as models take them, checked."""
    parts = observations if spec.parts else {ONE: observations}
    shapes = _shapes(spec)
    if not isinstance(parts, Mapping) or set(parts) != set(shapes):
        got = list(parts) if isinstance(parts, Mapping) else type(parts).__name__
        raise TypeError(f"observations: expected a dict of the parts {list(shapes)}, got {got}")
    for name, shape in shapes.items():
        part = parts[name]
        if not isinstance(part, Tensor):
            raise TypeError(f"observations: expected a torch tensor, got {type(part).__name__}")
        if part.shape[1:] != shape:
            raise ValueError(
                f"observations: LegalActions was made for {('P', *shape)}, got {tuple(part.shape)}"
            )
    return dict(parts)


def _rows(episodes: Episodes, numbers: Rows) -> Rows:
    """The observations of some episodes at which an action is due, or was when they were cut."""
    rows = []
    for number in numbers:
        episode = episodes[int(number)]
        assert episode.masks is not None
        masks = torch.from_numpy(episode.masks)
        due = by_entry(episodes.action, masks).any(-1).all(-1).numpy()
        due[-1] &= not episode.terminated
        steps = np.flatnonzero(due)
        rows.append(np.stack([np.full(len(steps), number), steps], 1))
    return np.concatenate(rows)


class _Net(nn.Module):
    """Parts of observations (P, ...) to logits of all choices (P, n)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        self.shapes = _shapes(spec)
        spaces: dict[str, gym.Space[Any]] = {
            f"part_{number}": gym.spaces.Box(-np.inf, np.inf, shape)
            for number, shape in enumerate(self.shapes.values())
        }
        self.body = SmallMultiInput(gym.spaces.Dict(spaces), width)
        numbers = sum(shape[0] for shape in self.shapes.values() if len(shape) == 1)
        self.head = nn.Sequential(
            nn.Linear(self.body.features_dim, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, sum(spec.action.choices)),
        )
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("scale", torch.ones(numbers))

    def standardise(self, parts: dict[str, Tensor]) -> None:
        """Set the mean and scale of all vectors' numbers; images need none."""
        vectors = [values for values, _ in self._vectors(parts)]
        if vectors:
            numbers = torch.cat(vectors, 1).double()
            spread = numbers.std(0, correction=0)
            self.mean.copy_(numbers.mean(0))
            self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def _vectors(self, parts: dict[str, Tensor]) -> Iterator[tuple[Tensor, slice]]:
        """The parts that are vectors, and which numbers of all vectors they are."""
        begin = 0
        for name, shape in self.shapes.items():
            if len(shape) == 1:
                yield parts[name], slice(begin, begin + shape[0])
                begin += shape[0]

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        """See the class."""
        scaled = iter(
            (values.float() - self.mean[own]) / self.scale[own]
            for values, own in self._vectors(parts)
        )
        inputs = {
            f"part_{number}": next(scaled) if len(shape) == 1 else parts[name].float()
            for number, (name, shape) in enumerate(self.shapes.items())
        }
        return torch.as_tensor(self.head(self.body(inputs)))
