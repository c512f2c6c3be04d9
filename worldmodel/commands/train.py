"""Verbs that record and copy episodes, train models, and time their training."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
import tyro

from worldmodel import checkpoint
from worldmodel.base import WorldModel
from worldmodel.common import results
from worldmodel.common.config_checks import check_seed
from worldmodel.common.files import check_writable
from worldmodel.common.packages import advice
from worldmodel.data.collect import collect
from worldmodel.data.episodes import Episodes, unpack
from worldmodel.imagine import ImaginedVideo
from worldmodel.registry import AUTO, entry, make, preset, recommended, suggested
from worldmodel.spec import Spec
from worldmodel.training import fit
from worldmodel.training.bench import bench
from worldmodel.training.precision import Precision
from worldmodel.types import SceneBatch, SceneSource

VIDEO_SCENES = 4
"""Scenes in a video of TensorBoard."""
MAX_GIB = 2**30


@dataclass(frozen=True)
class Collect:
    """Record random play of any Gymnasium environment."""

    env: str
    """Gymnasium id, such as envs:narratives/TravelingSalesman-v0."""
    out: Path
    """Folder for the episodes."""
    episodes: int = 100
    hold: int = 1
    """Steps for which each random action is held."""
    size: int | None = None
    """Frame size, for environments that take one."""
    seed: int = 0
    resume: bool = False
    """Go on after the last shard in OUT."""
    workers: int = 0
    """Processes that play, through Ray; 0 plays in this one. The episodes are the same."""
    ray: str | None = None
    """Address of a Ray cluster whose machines play, as HOST:6379 or auto; None: this one does."""
    num_threads: int = 1
    """CPU threads of each process."""

    def run(self) -> Iterator[str]:
        """Record, and say how to train on the episodes."""
        check_seed(self.seed)
        torch.set_num_threads(self.num_threads)
        episodes = collect(
            partial(sized_env, self.env, self.size), self.episodes, hold=self.hold, seed=self.seed,
            folder=self.out, resume=self.resume, workers=self.workers, address=self.ray,
        )  # fmt: skip
        yield f"{len(episodes)} episodes, {episodes.steps} steps: {self.out}"
        words = ("train", "--episodes", str(self.out), "--window", "20", "--out", "runs/model")
        yield f"train on them: python -m worldmodel {shlex.join(words)}"


@dataclass(frozen=True)
class Unpack:
    """Copy recorded episodes so that ``train --memory`` can leave them on disk."""

    episodes: tyro.conf.Positional[Path]
    """Folder of recorded episodes."""
    out: Path
    """Folder for the copy, which is not compressed: frames alone take H x W x C bytes each."""

    def run(self) -> Iterator[str]:
        """Copy, and say how to train on the copy."""
        out = shlex.quote(str(unpack(self.episodes, self.out)))
        yield f"train on them: python -m worldmodel train --episodes {out} --memory 1 --window 20"


@dataclass(frozen=True)
class Data:
    """Scenes to train on, to validate on and for videos."""

    spec: Spec
    training: SceneSource | Episodes
    validation: SceneSource
    video: SceneBatch


@dataclass(frozen=True)
class Train:
    """Train a model on recorded episodes, or on an env's endless scenes."""

    out: Path
    """Folder for checkpoint, training state and TensorBoard scalars."""
    env: str | None = None
    """Id of an environment that generates scenes by itself (ours do)."""
    episodes: Path | None = None
    """Folder of recorded episodes."""
    memory: float | None = None
    """GiB of memory for the episodes, at least one shard; the rest is read from disk when needed.
    For folders that ``unpack`` wrote. None reads all of them into memory."""
    model: str = "auto"
    """Its name; see ``list``. auto is ensemble for vectors, jump for images."""
    preset: str | None = None
    """Its size and schedules; see ``list``. None: small, or vector."""
    start: str | None = None
    """Checkpoint (folder, shipped name or hub id) whose settings and weights to begin with. The
    optimizer is new: lower the learning rate, as by --set learning_rate=3e-4."""
    steps: int = 10_000
    """Of the whole run, also of a resumed one."""
    batch_size: int | None = None
    """Windows in a batch; None for what the model suggests."""
    size: int | None = 32
    """Frame size, with --env; None where the environment takes none."""
    hold: int | None = None
    """Steps for which random actions are held, with --env; None for what the env suggests."""
    poses: bool = False
    """Keys are camera poses, with --env; else times and actions."""
    window: int | None = None
    """Steps that the model looks across; needed with --episodes."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    devices: int | None = None
    """Processes to start; None for one, or for as many as torchrun started."""
    precision: Precision = "auto"
    """In which the networks compute; auto takes bf16 where it is clearly faster, else float32. A
    resumed run goes on as it began."""
    ema: float | None = None
    """Decay of a running average of the weights, which then are the checkpoint; 0 for none, None
    for the preset's."""
    compile: bool = False
    """Run the model's blocks through torch.compile."""
    validate_every: int = 0
    """Steps between validations on scenes of the test split (or a tenth of the episodes); OUT/best
    holds the best weights by them. 0 for none."""
    video_every: int = 1000
    """Steps between imagined videos in TensorBoard; 0 for none."""
    num_threads: int = 1
    """CPU threads; more than the free cores can be many times slower."""
    resume: bool = False
    set: tuple[str, ...] = ()
    """Changes to the preset, as name=value; see ``info``."""

    def run(self) -> Iterator[str]:
        """Train, and say what to do with the model."""
        check_seed(self.seed)
        torch.set_num_threads(self.num_threads)
        device = _device(self.device)
        data = self._data(device)
        model = self._model(data.spec).to(device)
        model.env_id = self.env  # else, ``fit`` takes that of the episodes
        facts = {"command": "python -m worldmodel " + " ".join(sys.argv[1:])}
        videos = self.video_every > 0 and data.spec.is_image and not data.spec.pose
        fit(
            model,
            data.training,
            self.steps,
            batch_size=self.batch_size if isinstance(data.training, Episodes) else None,
            folder=self.out,
            resume=self.resume,
            seed=self.seed,
            devices=self.devices,
            precision=self.precision,
            ema=self.ema,
            compile=self.compile,
            validation=data.validation if self.validate_every else None,
            validate_every=max(self.validate_every, 1),
            callbacks=[ImaginedVideo(data.video, self.video_every)] if videos else [],
            training=facts,
        )
        from lightning.fabric.utilities.rank_zero import rank_zero_only  # fit imported it by now

        yield from rank_zero_only(self._next_steps)(data.spec) or ()

    def _next_steps(self, spec: Spec) -> Iterator[str]:
        yield f"checkpoint: {self.out}"
        yield f"curves and videos: tensorboard --logdir {shlex.quote(str(self.out))}"
        source = ("--env", self.env) if self.env else ("--episodes", str(self.episodes))
        module, colon, _ = self.model.rpartition(":")  # a model of one's own is imported by it
        name = f"{module}{colon}{self.out}"
        if spec.is_image:
            words = ("imagine", name, *source, "--out", str(self.out / "imagined.png"))
            yield f"what it imagines: python -m worldmodel {shlex.join(words)}"
        if not spec.passive:
            env = shlex.quote(self.env or "ID")
            yield f"plan with it: python -m agents plan {shlex.quote(name)} --env {env}"

    def _model(self, spec: Spec) -> WorldModel:
        name = recommended(spec) if self.model == AUTO else self.model
        if self.start is None:
            config = _override(preset(name, self.preset or suggested(name, spec)), self.set)
            return make(name, _with_camera(spec, entry(name).of(config)), config, self.seed)
        start = checkpoint.load(self.start)
        spec = _with_camera(spec, type(start))
        same = start.name == entry(name).model.name and start.spec == spec
        if not same or self.preset is not None:
            raise ValueError(
                f"start: {self.start} is a {start.name} of {start.spec}; give the same --model and "
                f"no --preset, got {name} and {self.preset} for {spec}"
            )
        model = make(name, spec, _override(start.config, self.set), self.seed)
        try:
            model.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise ValueError(f"set: {self.set} changes what the weights are: {error}") from error
        return model

    def _data(self, device: str) -> Data:
        checkpoint.check_device(device)
        check_source_options(self.env, self.episodes)
        return self._of_env(device) if self.env is not None else self._of_episodes(device)

    def _of_env(self, device: str) -> Data:
        if self.window is not None:
            raise ValueError("window: only with --episodes; an env's scenes have their own length")
        if self.memory is not None:
            raise ValueError("memory: only with --episodes; an env's scenes are made when needed")
        assert self.env is not None
        env = sized_env(self.env, self.size)
        settings = {"device": device, "seed": self.seed, "hold": self.hold}
        batch_size = WorldModel.training_batch if self.batch_size is None else self.batch_size
        training = scene_stream(env, self.env)(batch_size, **settings)
        test = scene_stream(sized_env(self.env, self.size, split="test"), self.env)
        scenes = training.batch(0)
        pose, camera = 0, None
        if self.poses:
            poses = scenes.poses(torch.zeros_like(scenes.lengths).unsqueeze(1))
            if poses is None:
                raise ValueError("poses: this environment has no camera; its keys are times")
            pose, camera = int(poses.shape[-1]), getattr(training, "camera", None)
        steps = int(scenes.actions.shape[1])
        spec = Spec.from_spaces(env.observation_space, env.action_space, steps, pose, camera)
        validation, video = (test(count, **settings) for count in (batch_size, VIDEO_SCENES))
        return Data(spec, training, validation, video.batch(0))

    def _of_episodes(self, device: str) -> Data:
        if self.window is None:
            raise ValueError("window: needed with --episodes; how many steps to look across")
        assert self.episodes is not None
        training = Episodes.load(self.episodes, self._bytes())
        spec, validation = training.spec(self.window), training
        if self.validate_every:
            if len(training) < 10:
                raise ValueError(
                    "validate_every: a tenth of the episodes is held back, of at least 10; there "
                    f"are {len(training)}"
                )
            training, validation = training.split(0.1)
        cut = partial(Episodes.windows, window=self.window, seed=self.seed, device=device)
        video = cut(validation, batch_size=VIDEO_SCENES, whole=True).batch(0)
        batch_size = WorldModel.training_batch if self.batch_size is None else self.batch_size
        return Data(spec, training, cut(validation, batch_size=batch_size), video)

    def _bytes(self) -> int | None:
        """``memory`` in bytes."""
        if self.memory is None:
            return None
        if not 0 < self.memory < MAX_GIB:  # nor NaN
            raise ValueError(
                f"memory: expected GiB above 0 and below {MAX_GIB:,}, got {self.memory}; without "
                "--memory all episodes are read into memory"
            )
        return int(self.memory * 2**30)


@dataclass(frozen=True)
class Bench:
    """Time training steps, and compare them with what the machine can do."""

    models: tuple[str, ...] = ("jump:small", "jump:narrative", "svg-lp:small")
    """As model:preset."""
    size: int = 64
    batch_size: int | None = None
    """None: each model's own, as in ``train``."""
    repeats: int = 5
    precisions: tuple[Literal["float32", "bf16"], ...] = ("float32", "bf16")
    """What ``train --precision`` may be, all in one run."""
    device: str = "cpu"
    num_threads: tuple[int, ...] = (1,)
    """CPU threads; with several numbers, such as 1 2, each model has a row for each."""
    json: Path | None = None

    def run(self) -> Iterator[str]:
        """Time, and print tables."""
        if self.json is not None:
            check_writable(self.json)
        pairs = [results.name_and_preset(model) for model in self.models]
        rows = bench(
            pairs, self.size, self.batch_size, self.repeats, self.device, self.precisions,
            self.num_threads,
        )  # fmt: skip
        for kind in dict.fromkeys(row["kind"] for row in rows):
            part = [row for row in rows if row["kind"] == kind]
            columns = [name for name in part[0] if name not in ("kind", "device")]
            yield f"{kind}\n{results.table(part, columns)}\n"
        if self.json is not None:
            result = results.envelope("bench", asdict(self), rows)
            yield f"result: {results.write(self.json, result)}"


def check_source_options(env: str | None, episodes: Path | None) -> None:
    """Raise ValueError unless exactly one of the two options is given."""
    if (env is None) == (episodes is None):
        raise ValueError("env, episodes: give exactly one of them")


def sized_env(env_id: str, size: int | None, **settings: Any) -> gym.Env[Any, Any]:
    """The environment, its frame ``size`` set unless None.

    Raises:
        ValueError: there is no such id, or the environment does not take the settings.
    """
    if size is not None:
        settings["size"] = size
    try:
        return gym.make(env_id, **settings)
    except gym.error.UnregisteredEnv as error:
        module = env_id.partition(":")[0]
        raise ValueError(
            f"env: {error} An id may name the module that registers it, as in "
            f"envs:narratives/TravelingSalesman-v0{advice([module])}"
        ) from error
    except TypeError as error:
        raise ValueError(
            f"env: {env_id} does not take {list(settings)} ({error}). To record it: `python -m "
            f"worldmodel collect --env {env_id}`; then pass --episodes, for only ours "
            "generate scenes by themselves"
        ) from error


def scene_stream(env: gym.Env[Any, Any], env_id: str) -> Callable[..., SceneSource]:
    """The method ``scenes`` of an environment, which makes its scene stream.

    Raises:
        ValueError: it has none.
    """
    scenes: Callable[..., SceneSource] | None = getattr(env.unwrapped, "scenes", None)
    if scenes is None:
        raise ValueError(
            f"env: {env_id} has no scene stream of its own; record it with "
            "`python -m worldmodel collect` and pass --episodes"
        )
    return scenes


def _device(device: str) -> str:
    """Where scenes are made: of several processes each takes the GPU that it will train on.

    The first batch is made before Fabric chooses that GPU, and would else stay on the first one.
    """
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        rank = os.environ.get("LOCAL_RANK")  # set by torchrun, and by Fabric where it starts them
        return "cuda" if rank is None else f"cuda:{rank}"
    return "cpu"


def _with_camera(spec: Spec, model: type[WorldModel]) -> Spec:
    """The spec without its camera unless the model uses it: runs and checkpoints from before specs
    had one go on as they began.
    """
    return spec if model.uses_camera else replace(spec, camera=None)


def _override(config: Any, changes: tuple[str, ...]) -> Any:
    """A config with ``name=value`` changes; tuples look like 16,32,64 or [0.5,2],[1,1]."""
    known = {field.name: getattr(config, field.name) for field in fields(config)}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in known:
            raise ValueError(f"set: {type(config).__name__} has no {name!r}; it has {list(known)}")
        old = known[name]
        try:
            value: Any
            if isinstance(old, tuple):
                value = tuple(json.loads(f"[{text}]"))
            else:
                value = type(old)(text)
        except ValueError as error:
            raise ValueError(f"set: {name} is like {old!r}, got {text!r}") from error
        config = replace(config, **{name: value})
    return config
