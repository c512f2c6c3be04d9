"""Verbs that list, describe and upload models, and show what they imagine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from worldmodel import checkpoint, hub, imagine, resolve
from worldmodel.commands.train import check_source_options, scene_stream, sized_env
from worldmodel.common.config_checks import check_seed
from worldmodel.common.files import check_writable
from worldmodel.data.episodes import Episodes
from worldmodel.models.jumpy.rectified_flow import set_flow_steps
from worldmodel.registry import MODELS, entry, make, preset
from worldmodel.spec import ActionSpec, Camera, Spec
from worldmodel.training.source import check_source
from worldmodel.types import SceneBatch

LOOKING = Camera(1.0, 1.0, 6.0, ((-1.0,) * 3, (1.0,) * 3))
"""For presets that need a camera: how large they are depends on the region's proportions alone."""


@dataclass(frozen=True)
class List:
    """Show models, their presets, and the checkpoints that came with the package."""

    def run(self) -> Iterator[str]:
        """What to print."""
        yield "models (--model): presets (--preset)"
        for name, known in MODELS.items():
            kind = "jumpy" if known.model.jumpy else "frame by frame"
            yield f"  {name:18} {kind:15} {', '.join(known.presets) or '-'}"
        yield "\nshipped checkpoints"
        for name in resolve.shipped():
            title, *_ = (resolve.SHIPPED / name / "README.md").read_text().splitlines()
            yield f"  {name:26} {title.partition(': ')[2]}"
        yield "\nmore about one: python -m worldmodel info NAME, as in jump:small"


@dataclass(frozen=True)
class Info:
    """Describe a preset or a checkpoint: settings, parameters."""

    name: tyro.conf.Positional[str]
    """A preset (narrative), model:preset (svg-lp:paper), or a checkpoint."""
    size: int = 64
    """Frame size, for a preset."""
    pose: int = 0
    """Numbers of a camera pose, for a preset whose keys are poses (dice: 7); those that need a
    known camera get one."""

    def run(self) -> Iterator[str]:
        """What to print."""
        model = self._model()
        yield f"{model.name}: {'jumpy' if model.jumpy else 'frame by frame'}, {model.spec}"
        yield f"{model.config}\n"
        ours, total = 0, 0
        for name, part in model.named_children():
            count = sum(p.numel() for p in part.parameters())
            total += count
            added = model.name == "jump" and name in ("scene", "heads", "path")
            ours += count if added else 0
            yield f"{name:>12} {count:>12,}{'  (beyond the paper)' if added else ''}"
        if ours:
            yield f"{'paper parts':>12} {total - ours:>12,}  ({(total - ours) / 1e6:.2f} M)"
        yield f"{'total':>12} {total:>12,}  ({total / 1e6:.2f} M)"

    def _model(self) -> Any:
        name, colon, chosen = self.name.rpartition(":")  # of module:model:preset, the last
        if not colon:
            name, chosen = self.name, ""
        if chosen and Path(chosen).is_dir():  # module:folder
            return checkpoint.load(self.name)
        spec = Spec((3, self.size, self.size), ActionSpec("none"), 20, self.pose)
        if not (chosen or name in MODELS):  # a preset alone
            owners = (model for model, known in MODELS.items() if name in known.presets)
            owner = next(owners, None)
            name, chosen = (name, "") if owner is None else (owner, name)
        known = entry(name) if chosen or name in MODELS else None
        if known is not None and (chosen == "vector" or not known.model.takes_images):
            spec = Spec(  # as of CartPole
                (4,), ActionSpec("discrete", (), (2,)), 20, low=(-1.0,) * 4, high=(1.0,) * 4
            )
        with torch.device("meta"):  # sizes alone: to initialise some takes minutes
            if known is not None:
                config = preset(name, chosen or next(iter(known.presets), "small"))
                if known.of(config).uses_camera:
                    spec = replace(spec, pose=LOOKING.pose, camera=LOOKING)
                return make(name, spec, config)
        try:
            return checkpoint.load(self.name)
        except FileNotFoundError as error:
            presets = [f"{model}:{one}" for model, known in MODELS.items() for one in known.presets]
            raise FileNotFoundError(f"{error}; presets are {presets}") from error


@dataclass(frozen=True)
class Push:
    """Upload a checkpoint to the Hugging Face hub."""

    checkpoint: tyro.conf.Positional[str]
    """Folder or shipped name."""
    name: tyro.conf.Positional[str]
    """Where it goes: owner/name."""
    private: bool = False
    """Of a repository that is made."""
    message: str | None = None
    """Of the commit."""

    def run(self) -> Iterator[str]:
        """Upload, and say how to get it."""
        yield hub.push(self.checkpoint, self.name, private=self.private, message=self.message)
        yield f'load it: worldmodel.load("{self.name}")'


@dataclass(frozen=True)
class Imagine:
    """Give a model some frames as context, and draw what it imagines at other times."""

    checkpoint: tyro.conf.Positional[str]
    """Folder, shipped name or hub id."""
    out: Path
    """A contact sheet (.png) or a video (.gif)."""
    env: str | None = None
    """Id of an environment that generates scenes by itself (ours do): its test scenes."""
    episodes: Path | None = None
    """Folder of recorded episodes: windows of them."""
    context: tuple[int, ...] = (0,)
    """Times of the context's frames: the first, the last, both ends, ...; with poses, numbers of
    views."""
    queries: tuple[int, ...] = ()
    """Times to imagine; by default all that the model reaches."""
    scenes: int = 3
    worlds: int = 4
    flow_steps: int | None = None
    """Steps in which a flow prior (jump:jumpy, jump:small) is integrated; None: as the checkpoint
    says."""
    seed: int = 0
    scale: int = 2
    """Times by which each pixel is repeated."""
    num_threads: int = 1

    def run(self) -> Iterator[str]:
        """Imagine, and write the picture."""
        check_seed(self.seed)
        check_writable(self.out)
        torch.set_num_threads(self.num_threads)
        model = checkpoint.load(self.checkpoint)
        set_flow_steps(model, self.flow_steps)
        batch = self._scenes(model.spec)
        last = int(batch.lengths.min())
        queries = self.queries or imagine.times_in_reach(model, self.context, last)
        imagined = imagine.imagine(model, batch, self.context, queries, self.worlds, self.seed)
        imagine.write(imagined, self.out, scale=self.scale)
        yield f"{self.scenes} scenes, truth above {self.worlds} sampled worlds: {self.out}"

    def _scenes(self, spec: Spec) -> SceneBatch:
        check_source_options(self.env, self.episodes)
        if self.env is not None:
            env = sized_env(self.env, spec.observation[-1], split="test")
            return scene_stream(env, self.env)(self.scenes, seed=self.seed).batch(0)
        assert self.episodes is not None
        source = Episodes.load(self.episodes).windows(
            spec.window, self.scenes, self.seed, whole=True
        )
        scenes = source.batch(0)
        check_source(spec, source, scenes)
        return scenes
