"""Episodes from and to Minari, the data sets of the Farama Foundation (extra ``minari``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodel.data.env_checks import check_rounding
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.spec import Spec

if TYPE_CHECKING:
    from minari import MinariDataset

INSTALL = "pip install 'jumpy-worldmodel[minari]'"


def from_minari(
    dataset: MinariDataset | str, *, observation: str | None = None, download: bool = False
) -> Episodes:
    """All episodes of a Minari data set, in memory.

    float64 observations and rewards become float32, as everywhere here. What ``Episode`` does not
    hold (seeds, infos) is dropped.

    Args:
        dataset: loaded (``filter_episodes`` and ``split`` of Minari choose among its episodes), or
            its id, such as "D4RL/pen/human-v2". uint8 images (H, W, C), float vectors (D,) or
            Dicts of such; any actions that an environment may have.
        observation: the entry to take where observations are Dicts; None takes all of them.
        download: fetch an id that is not on this machine; without it nothing goes to the network.

    Raises:
        ImportError: minari is not installed.
        FileNotFoundError: there is no data set of that id on this machine.
        ValueError: its spaces do not fit a world model, an episode does not hold what it should or
            goes on after a termination, or ``observation`` names no entry.
    """
    if isinstance(dataset, str):
        dataset = _minari().load_dataset(dataset, download=download)
    space = _entry(dataset.observation_space, observation)
    spec = Spec.from_spaces(space, dataset.action_space, window=1)
    _, dtype = spec.border
    episodes = []
    for each in dataset.iterate_episodes():
        frames = each.observations if observation is None else each.observations[observation]
        terminated = np.asarray(each.terminations, bool)
        if terminated[:-1].any():
            raise ValueError(
                f"dataset: episode {each.id} goes on after a termination at step "
                f"{int(terminated.argmax()) + 1} of {len(terminated)}; split it there"
            )
        try:
            check_rounding(_vectors(frames, spec), spec)
            episode = Episode(
                spec.pack(frames, "observations") if spec.parts else np.asarray(frames, dtype),
                np.asarray(each.actions),
                np.asarray(each.rewards, np.float32),
                bool(terminated[-1:].any()),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"dataset: episode {each.id}: {error}") from error
        episodes.append(episode)
    return Episodes(episodes, spec.action, spec.observation_space())


def to_minari(episodes: Episodes, dataset_id: str, **facts: Any) -> MinariDataset:
    """Write episodes as a Minari data set of this machine, without loss (no JPEG).

    It lies in MINARI_DATASETS_PATH (~/.minari/datasets). An episode that did not terminate counts
    as truncated. Action masks are not written: Minari has none.

    Args:
        episodes: what to write.
        dataset_id: "namespace/name-v0"; Minari wants a version.
        facts: more for ``minari.create_dataset_from_buffers``: env, author, author_email,
            algorithm_name, code_permalink, description, ...; Minari warns of those that lack.

    Raises:
        ImportError: minari is not installed.
        FileExistsError: there is a data set of that id; nothing is overwritten.
        ValueError: Minari does not take the id.
    """
    minari = _minari()
    from minari.data_collector import EpisodeBuffer
    from minari.storage.local import get_dataset_path

    if get_dataset_path(dataset_id).exists():
        raise FileExistsError(
            f"dataset_id: there is a data set {dataset_id} at {get_dataset_path(dataset_id)}; "
            "choose another name or version"
        )
    space, action_space = episodes.observation_space, episodes.action.to_space()
    spec = episodes.spec(1)
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=spec.unpack(episode.observations)
            if spec.parts
            else np.asarray(episode.observations, space.dtype),
            actions=np.asarray(episode.actions, action_space.dtype),
            rewards=episode.rewards,
            terminations=_at_the_end(episode, episode.terminated),
            truncations=_at_the_end(episode, not episode.terminated),
        )
        for number, episode in enumerate(episodes)
    ]
    facts = {"observation_space": space, "action_space": action_space, **facts}
    return minari.create_dataset_from_buffers(dataset_id, buffers, jpeg_encoding=False, **facts)


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError(f"minari is not installed; {INSTALL} (Python 3.11 or newer)") from error
    return minari


def _entry(space: gym.Space[Any], name: str | None) -> gym.Space[Any]:
    """The space of that entry of each observation, or of all of it."""
    entries = list(space.spaces) if isinstance(space, gym.spaces.Dict) else []
    if name is None:
        return space
    if name not in entries:
        raise ValueError(f"observation: expected one of the entries {entries}, got {name!r}")
    assert isinstance(space, gym.spaces.Dict)
    return space[name]


def _vectors(frames: Any, spec: Spec) -> list[NDArray[Any]]:
    """Each observation's numbers (D,) as they were recorded; none where there are only images."""
    if not spec.parts:
        return [] if spec.is_image else list(np.asarray(frames))
    vectors = [np.asarray(frames[part.name]) for part in spec.parts if not part.is_image]
    return list(np.concatenate(vectors, 1)) if vectors else []


def _at_the_end(episode: Episode, value: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    flags = np.zeros(len(episode.actions), bool)
    flags[-1] = value
    return flags
